//! `linger = "auto"`: event by event, and against fixed settings on a simulated broker whose requests
//! cost time.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    ErrorCode, PartitionIndex, ProducerEpoch, ProducerId, messages::ProducePartitionResult,
};

use super::{
    Action, Config, Event, Identity, Machine, RequestId,
    bench::{Bench, answer, config, topic},
};
use crate::producer::{linger::Linger, record::ProducerRecord};

fn auto() -> Config {
    let mut settings = config();
    settings.linger = Linger::Auto;
    settings.max_in_flight = 10;
    settings
}

/// With a round trip of 8 ms behind it: a quarter is 2 ms.
fn ready() -> Bench {
    let mut bench = Bench::ready(auto());
    assert_eq!(bench.append(0, "a"), Ok(true));
    assert_eq!(bench.tick(0), ["send 1 to 0: p0 e1 7@0 [a]"]);
    bench.now += Duration::from_millis(8);
    let answered = bench.replied(1, &[answer(0, ErrorCode::None, 0)]);
    assert_eq!(answered, ["settle #0 at 0"]);
    bench
}

#[test]
fn a_record_alone_leaves_at_once_and_others_wait_a_quarter_of_a_round_trip() {
    let mut bench = ready();
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0), ["send 2 to 0: p0 e1 7@1 [b]"]);
    assert_eq!(bench.append(0, "c"), Ok(true));
    assert_eq!(bench.append(0, "d"), Ok(false));
    assert_eq!(bench.tick(1), [""; 0]);
    let due = bench.now + Duration::from_millis(1);
    assert_eq!(bench.machine.deadline(bench.now), Some(due));
    bench.now = due;
    // It is time, and this record tells so before any timer.
    assert_eq!(bench.append(0, "e"), Ok(true));
    assert_eq!(bench.tick(0), ["send 3 to 0: p0 e1 7@2 [c d e]"]);
}

#[test]
fn with_nothing_in_flight_any_more_what_waited_leaves() {
    let mut bench = ready();
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0).len(), 1);
    assert_eq!(bench.append(0, "c"), Ok(true));
    assert_eq!(
        bench.replied(2, &[answer(0, ErrorCode::None, 1)]),
        ["settle #1 at 1", "send 3 to 0: p0 e1 7@2 [c]"]
    );
}

#[test]
fn full_batches_and_flushes_do_not_wait() {
    let mut bench = ready();
    assert_eq!(bench.append(0, "b"), Ok(true));
    assert_eq!(bench.tick(0).len(), 1);
    assert_eq!(bench.append(0, &"c".repeat(950)), Ok(true));
    let sent = bench.tick(0);
    assert_eq!(sent.len(), 1, "it is full: {sent:?}");
    assert_eq!(bench.append(0, "d"), Ok(true));
    assert_eq!(bench.tick(0), [""; 0]);
    let flushed = bench.apply(Event::FlushWanted);
    assert_eq!(flushed, ["send 4 to 0: p0 e1 7@3 [d]"]);
}

/// A broker that takes its time for each request, one after another, then flushes.
const REQUEST_COST: Duration = Duration::from_micros(40);
const RECORD_COST: Duration = Duration::from_nanos(400);
const FLUSH_AND_NETWORK: Duration = Duration::from_micros(350);
const RECORD_SIZE: usize = 100;
const RECORDS: u32 = 5000;

type Handle = Rc<RefCell<Vec<Duration>>>;

struct World {
    machine: Machine<Handle>,
    now: Duration,
    free_at: Duration,
    replies: VecDeque<(Duration, RequestId, Vec<ProducePartitionResult>)>,
    timer: Option<Duration>,
    requests: u32,
    latencies: Vec<Duration>,
}

impl World {
    fn new(linger: Linger) -> Self {
        let mut settings = config();
        settings.linger = linger;
        settings.batch_size = 64 << 10;
        settings.buffer_memory = 32 << 20;
        settings.max_request_size = 4 << 20;
        settings.max_in_flight = 16;
        let mut world = Self {
            machine: Machine::new(settings),
            now: Duration::ZERO,
            free_at: Duration::ZERO,
            replies: VecDeque::new(),
            timer: None,
            requests: 0,
            latencies: Vec::new(),
        };
        world.apply(Event::TopicLearned(topic(&[0; 4], 1)));
        world.apply(Event::IdentityAllocated(Identity {
            id: ProducerId(7),
            epoch: ProducerEpoch(0),
        }));
        world
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Send(send) => {
                    self.requests += 1;
                    let mut cost = REQUEST_COST;
                    let mut results = Vec::new();
                    for parcel in send.parcels {
                        let super::Contents::Records(records, _) = &parcel.contents else {
                            panic!("nothing is sent again");
                        };
                        let count = u32::try_from(records.size() / RECORD_SIZE).expect("few");
                        cost += RECORD_COST * count;
                        results.push(answer(parcel.partition.partition.0, ErrorCode::None, 0));
                        let none = Bytes::new();
                        self.machine.encoded(parcel.partition, parcel.batch, none);
                    }
                    self.free_at = self.free_at.max(self.now) + cost;
                    let replied_at = self.free_at + FLUSH_AND_NETWORK;
                    self.replies.push_back((replied_at, send.request, results));
                }
                Action::Settle { handle, .. } => {
                    let sent = handle.borrow();
                    self.latencies.extend(sent.iter().map(|at| self.now - *at));
                }
                other => panic!("nothing fails here: {other:?}"),
            }
        }
        // As coarse as tokio's.
        self.timer = self.machine.deadline(self.now).map(|due| {
            let ms = due.as_nanos().div_ceil(1_000_000);
            Duration::from_millis(u64::try_from(ms).expect("soon"))
        });
    }

    /// Everything before `until`.
    fn pass(&mut self, until: Duration) {
        loop {
            let reply = self.replies.front().map(|(at, ..)| *at);
            let next = [self.timer, reply].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            if reply == Some(next) {
                let (_, request, results) = self.replies.pop_front().expect("just seen");
                self.apply(Event::Replied(request, results));
            } else {
                self.apply(Event::Ticked);
            }
        }
        self.now = self.now.max(until);
    }

    /// The mean latency in µs of records that come at this rate, and the requests that they took.
    fn run(linger: Linger, rate: u32) -> (u128, u32) {
        let mut world = Self::new(linger);
        let count = RECORDS.min(rate);
        for number in 0..count {
            world.pass(Duration::from_secs(1) * number / rate);
            let record = ProducerRecord::to("t")
                .partition(PartitionIndex(number % 4))
                .value(vec![0; RECORD_SIZE - 10]);
            let appended = world.machine.append(|| world.now, &record, 5);
            let appended = appended.expect("there is room");
            appended.handle.borrow_mut().push(world.now);
            if appended.wake {
                world.apply(Event::Ticked);
            }
        }
        world.apply(Event::FlushWanted);
        world.pass(world.now + Duration::from_secs(1));
        assert_eq!(world.latencies.len(), count as usize);
        let sum: Duration = world.latencies.iter().sum();
        (sum.as_micros() / u128::from(count), world.requests)
    }
}

#[test]
fn whatever_the_traffic_auto_is_as_good_as_the_best_fixed_setting() {
    let fixed = [0, 1, 5].map(|ms| Linger::Fixed(Duration::from_millis(ms)));
    for rate in [500, 2000, 10_000, 50_000, 200_000, 500_000, 1_000_000] {
        let others = fixed.map(|linger| World::run(linger, rate));
        let auto = World::run(Linger::Auto, rate);
        let best = others.iter().map(|(latency, _)| latency).min();
        let best = best.expect("three");
        assert!(
            auto.0 * 10 <= best * 11,
            "{rate}/s: {auto:?}, fixed {others:?}"
        );
        // Where requests begin to queue, fewer of them arrive sooner.
        let at_once = others[0];
        let helps = auto.0 < at_once.0 && auto.1 < at_once.1;
        assert!(
            helps || rate <= 10_000,
            "{rate}/s: {auto:?}, fixed {others:?}"
        );
    }
}
