//! Every valid frame of each API, cut at every byte and changed at random, before and after the
//! handshake, on several connections at once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use millstream_protocol::{batch::crc32c, messages::Api};

use crate::{
    broker::Broker,
    bystander::Bystander,
    frames::{Sample, asks_for_much, samples},
    memory::Watch,
    peer::{Outcome, Peer},
    topics,
};

/// Changed copies of each sample, before and again after the handshake.
const CHANGES: usize = 300;

/// Connections that misbehave at once.
const LANES: usize = 4;

/// A small generator whose sequence is the seed's (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }
}

/// One case: bytes to send, and whether a handshake comes first.
struct Case {
    api: Api,
    bytes: Vec<u8>,
    greeted: bool,
    what: String,
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Changes one to four places: a bit, a byte, or a 32-bit number at the edge of its range.
fn change(sample: &Sample, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sample.bytes.clone();
    let from = sample.repair_from.unwrap_or(0);
    for _ in 0..=dice.below(4) {
        let at = from + dice.below(bytes.len() - from);
        match dice.below(4) {
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = dice.next().to_le_bytes()[0],
            _ => {
                let edges = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffe_u32];
                let edge = edges[dice.below(edges.len())].to_be_bytes();
                for (place, byte) in bytes[at..].iter_mut().zip(edge) {
                    *place = byte;
                }
            }
        }
    }
    if let Some(from) = sample.repair_from {
        // Kafka's batch: the checksum at 17 covers everything from the attributes at 21.
        let crc = crc32c(&bytes[from + 21..]).to_be_bytes();
        bytes[from + 17..from + 21].copy_from_slice(&crc);
    }
    bytes
}

fn cases(samples: &[Sample], seed: u64, changes: usize) -> Vec<Case> {
    let mut all = Vec::new();
    for greeted in [false, true] {
        for (number, sample) in samples.iter().enumerate() {
            for cut in 0..sample.bytes.len() {
                all.push(Case {
                    api: sample.api,
                    bytes: sample.bytes[..cut].to_vec(),
                    greeted,
                    what: format!("cut at {cut}"),
                });
            }
            for change_number in 0..changes {
                let case_seed = seed ^ (number as u64) << 40 ^ (change_number as u64);
                let mut dice = Dice(case_seed);
                let mut bytes = change(sample, &mut dice);
                while asks_for_much(&bytes) {
                    bytes = change(sample, &mut dice);
                }
                all.push(Case {
                    api: sample.api,
                    bytes,
                    greeted,
                    what: format!("change {change_number} of sample {number}, seed {seed}"),
                });
            }
        }
    }
    all
}

/// Sends a case and nothing more; how many answers came before the end.
fn run(address: SocketAddr, case: &Case) -> usize {
    let mut peer = if case.greeted {
        Peer::ready(address)
    } else {
        Peer::silent(address)
    };
    peer.send(&case.bytes);
    peer.finish();
    let (answers, end) = peer.drain();
    let Case {
        api, greeted, what, ..
    } = case;
    assert!(
        matches!(end, Outcome::Closed),
        "{api}, greeted {greeted}, {what}: {end:?} after {} answers\n{:02x?}",
        answers.len(),
        case.bytes
    );
    answers.len()
}

#[test]
fn every_frame_cut_and_changed_is_answered_or_closed() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "target", 2);
    let records = topics::batch(&[b"something to fetch"]);
    topics::produce(&mut Peer::ready(address), info.id, 0, &records);
    let seed = setting("MILLSTREAM_HOSTILE_SEED", 20_261_122);
    let rounds = usize::try_from(setting("MILLSTREAM_HOSTILE_ROUNDS", 1)).expect("a few");
    let cases = cases(&samples(info.id, "target"), seed, CHANGES * rounds);

    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let begun = Instant::now();
    let counts: Mutex<BTreeMap<(String, bool), [usize; 2]>> = Mutex::default();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answers = run(address, case);
                    let mut counts = counts.lock().expect("no lane failed");
                    let count = counts
                        .entry((case.api.to_string(), case.greeted))
                        .or_default();
                    count[0] += 1;
                    count[1] += usize::from(answers > 0);
                }
            });
        }
    });
    let took = begun.elapsed();
    bystander.finish("cut and changed frames");
    assert!(broker.is_alive(), "the broker lives\n{}", broker.log());
    let counts = counts.into_inner().expect("no lane failed");
    report(&counts);
    println!(
        "{} cases in {took:.1?}, memory at most {} MiB",
        cases.len(),
        memory.check() >> 20
    );
}

fn report(counts: &BTreeMap<(String, bool), [usize; 2]>) {
    println!(
        "{:<20} {:>22} {:>22}",
        "cases (answered)", "before handshake", "after handshake"
    );
    for api in Api::ALL {
        let row = [false, true].map(|greeted| {
            let count = counts.get(&(api.to_string(), greeted)).copied();
            let [cases, answered] = count.unwrap_or_default();
            assert!(cases > 0, "{api}: no case, greeted {greeted}");
            format!("{cases} ({answered})")
        });
        println!("{:<20} {:>22} {:>22}", api.to_string(), row[0], row[1]);
    }
}
