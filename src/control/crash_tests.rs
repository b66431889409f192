//! Power cuts at every moment: a disk that forgets, tears and reorders what was not flushed.
//!
//! What was acknowledged must be there after the cut; nothing may look damaged.

use std::{
    io,
    sync::{Arc, Mutex},
};

use proptest::{
    prelude::Rng as _,
    test_runner::{RngAlgorithm, TestRng},
};
use redb::{Database, StorageBackend};

use super::{tests::ask, tests::create_request, *};

/// A small number from proptest's generator.
fn draw(rng: &mut TestRng, below: usize) -> usize {
    usize::try_from(rng.next_u64() % (below as u64)).unwrap()
}

#[derive(Debug, Default)]
struct DiskState {
    /// What a power cut cannot take.
    durable: Vec<u8>,
    /// What the process sees.
    current: Vec<u8>,
    /// Writes since the last flush, in order. A change of size counts as one.
    pending: Vec<Pending>,
    /// Writes, changes of size and flushes so far.
    operations: usize,
    /// The operation that never happens, nor any after it.
    cut_at: Option<usize>,
    /// The mistake that the test must be able to see: flushes that do nothing.
    flushes_lie: bool,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Pending {
    fn perform(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Resize(size) => bytes.resize(*size, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        let state = DiskState {
            durable: bytes.clone(),
            current: bytes,
            ..DiskState::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, DiskState>> {
        let mut state = self.0.lock().unwrap();
        if state
            .cut_at
            .is_some_and(|cut_at| state.operations >= cut_at)
        {
            return Err(io::Error::other("the power is off"));
        }
        state.operations += 1;
        Ok(state)
    }

    /// What is found after a power cut: of the writes not flushed, any subset, the last one torn.
    fn after_the_cut(&self, rng: &mut TestRng) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut bytes = state.durable.clone();
        for pending in &state.pending {
            match (draw(rng, 3), pending) {
                (0, _) => {}
                (1, Pending::Write(at, data)) => {
                    let sectors = draw(rng, data.len() / 512 + 1);
                    Pending::Write(*at, data[..sectors * 512].to_vec()).perform(&mut bytes);
                }
                _ => pending.perform(&mut bytes),
            }
        }
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = state.current.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        let resize = Pending::Resize(usize::try_from(len).unwrap());
        resize.perform(&mut state.current);
        state.pending.push(resize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.step()?;
        if !state.flushes_lie {
            state.durable = state.current.clone();
            state.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let write = Pending::Write(usize::try_from(offset).unwrap(), data.to_vec());
        write.perform(&mut state.current);
        state.pending.push(write);
        Ok(())
    }
}

fn open(disk: &Disk) -> Result<RedbLog, String> {
    let mut builder = Database::builder();
    builder
        .set_cache_size(1 << 20)
        .set_check_integrity_on_open(true);
    builder
        .create_with_backend(disk.clone())
        .map(RedbLog::over)
        .map_err(|error| error.to_string())
}

/// A disk with a log that was made and closed properly.
fn prepared() -> Vec<u8> {
    let disk = Disk::default();
    let mut log = open(&disk).unwrap();
    log.write_identity(fresh_identity()).unwrap();
    drop(log);
    let state = disk.0.lock().unwrap();
    state.durable.clone()
}

/// Creates topics until the power goes; returns the names that were acknowledged.
fn run_until_the_cut(disk: &Disk, first: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(log) = open(disk) else {
        return acknowledged;
    };
    let Ok((control, threads)) = start_over(log, TopicConfig::default()) else {
        return acknowledged;
    };
    for number in first..first + 4 {
        let name = format!("t{number}");
        match ask(&control, create_request(&name, 1)) {
            Ok(_) => acknowledged.push(name),
            Err(_) => break,
        }
    }
    threads.stop();
    acknowledged
}

/// Cuts at operation `cut_at`, again during the start after it, then looks. An error says what was
/// lost.
fn cut_twice(
    bytes: &[u8],
    cut_at: usize,
    flushes_lie: bool,
    rng: &mut TestRng,
) -> Result<(), String> {
    let disk = Disk::holding(bytes.to_vec());
    {
        let mut state = disk.0.lock().unwrap();
        state.cut_at = Some(cut_at);
        state.flushes_lie = flushes_lie;
    }
    let mut acknowledged = run_until_the_cut(&disk, 0);
    let second = Disk::holding(disk.after_the_cut(rng));
    second.0.lock().unwrap().cut_at = Some(draw(rng, 40));
    acknowledged.extend(run_until_the_cut(&second, 10));

    let last = Disk::holding(second.after_the_cut(rng));
    let log = open(&last)?;
    let (control, threads) =
        start_over(log, TopicConfig::default()).map_err(|error| error.to_string())?;
    let image = control.image();
    threads.stop();
    match acknowledged
        .iter()
        .find(|name| image.topic_named(name).is_none())
    {
        Some(lost) => Err(format!("topic {lost} was acknowledged and is gone")),
        None => Ok(()),
    }
}

fn operations_of_a_whole_run(bytes: &[u8]) -> usize {
    let disk = Disk::holding(bytes.to_vec());
    assert_eq!(run_until_the_cut(&disk, 0).len(), 4);
    let state = disk.0.lock().unwrap();
    state.operations
}

#[test]
fn acknowledged_topics_survive_a_power_cut_at_every_write() {
    let bytes = prepared();
    let operations = operations_of_a_whole_run(&bytes);
    assert!(
        operations > 20,
        "only {operations} operations: the disk is not used"
    );
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for cut_at in 0..=operations {
        for round in 0..3 {
            if let Err(loss) = cut_twice(&bytes, cut_at, false, &mut rng) {
                panic!("cut at operation {cut_at} of {operations}, round {round}: {loss}");
            }
        }
    }
}

/// The test above must be able to fail: with flushes that do nothing it does.
#[test]
fn without_flushes_acknowledged_topics_are_lost() {
    let bytes = prepared();
    let operations = operations_of_a_whole_run(&bytes);
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    // A log in pieces may be refused in any way, a panic in redb's own checks included.
    let lost = (0..=operations).filter(|cut_at| {
        let cut = || cut_twice(&bytes, *cut_at, true, &mut rng);
        !matches!(
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)),
            Ok(Ok(()))
        )
    });
    assert!(
        lost.count() > 0,
        "a disk that loses everything was not noticed"
    );
}
