//! A user of a log: appends, waits, checkpoints, trims, truncates, and closes, all from one seed.

use std::rc::Rc;

use millstream::{
    io::{Clock, Monotonic, Random, sim::SimIo},
    storage::{Durability, Log, LogError, LogOptions, ShardStorage},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::oracle::{Shared, append, batch, options, snapshot, storage_with_journal, try_open};

/// What the user does.
#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    /// How many things it does.
    pub steps: u32,
    pub durability: Durability,
    /// Epoch of this leader; rises with each start.
    pub epoch: LeaderEpoch,
}

impl Workload {
    /// Two of three lives have a journal; what it holds is there for the others too.
    async fn storage(&self, io: &SimIo) -> Result<Rc<ShardStorage<SimIo>>, LogError> {
        storage_with_journal(io, self.seed % 3 != 2).await
    }

    /// Does it all on `io`, telling the oracle.
    pub async fn run(self, io: SimIo, shared: Shared) {
        let options = LogOptions {
            durability: self.durability,
            ..options()
        };
        let Ok(storage) = self.storage(&io).await else {
            return;
        };
        let Ok((mut log, recovered, _)) = try_open(&storage, options, &shared).await else {
            return;
        };
        {
            // What was recovered is what the log is from now on.
            let oracle = &mut *shared.0.borrow_mut();
            oracle
                .batches
                .retain(|batch| batch.next <= recovered.log_end);
            oracle.acknowledged = recovered.log_end;
            oracle.log_start = recovered.log_start;
            oracle.cutting = None;
            oracle.failed = false;
            oracle.log_start_asked = recovered.log_start;
        }
        let mut random = Random::new(self.seed);
        for step in 0..self.steps {
            let done = self.step(&io, &shared, &mut log, &mut random, step).await;
            if done.is_err() {
                return;
            }
        }
        let end = log.log_end();
        let _ = log.close(snapshot(end)).await;
    }

    async fn step(
        &self,
        io: &SimIo,
        shared: &Shared,
        log: &mut Rc<Log<SimIo>>,
        random: &mut Random,
        step: u32,
    ) -> Result<(), LogError> {
        match random.below(21) {
            0..=9 => {
                for _ in 0..=random.below(4) {
                    self.append(shared, log, random)?;
                }
            }
            10..=13 => wait(io, shared, log).await,
            14 => io.sleep(std::time::Duration::from_millis(150)).await,
            15 => {
                let end = log.log_end();
                log.checkpoint(snapshot(end)).await?;
            }
            16 => trim(shared, log, random).await?,
            17 => cut(shared, log, random).await?,
            18 if step > 5 => {
                let end = log.log_end();
                log.close(snapshot(end)).await?;
                let options = LogOptions {
                    durability: self.durability,
                    ..options()
                };
                let storage = self.storage(io).await?;
                let (again, recovered, _) = try_open(&storage, options, shared).await?;
                assert_eq!(recovered.log_end, end, "a clean stop keeps all");
                assert_eq!(recovered.report, None, "and needs nothing done");
                *log = again;
            }
            19 => {
                io.sleep(std::time::Duration::from_secs(25 * 60 * 60)).await;
                log.roll_old();
            }
            _ => {
                let end = log.log_end();
                let _ = log.read(log.log_start(), end, 10_000).await;
            }
        }
        Ok(())
    }

    fn append(
        &self,
        shared: &Shared,
        log: &Log<SimIo>,
        random: &mut Random,
    ) -> Result<(), LogError> {
        let base = log.log_end();
        let record_count = 1 + u32::try_from(random.below(3)).unwrap();
        let size = match random.below(6) {
            0 => 40_000,
            1 => 9_000,
            2 => 4_096,
            _ => 300,
        };
        let batch = batch(base, self.epoch, record_count, size, random.next_u64());
        append(shared, log, batch)
    }
}

/// Until all that was appended is acknowledged, or never will be.
async fn wait(io: &SimIo, shared: &Shared, log: &Log<SimIo>) {
    let end = log.log_end();
    let start = io.now();
    let settled = || {
        let oracle = shared.0.borrow();
        oracle.acknowledged >= end || oracle.failed
    };
    while !settled() && !waited_long(start, io) {
        io.sleep(std::time::Duration::from_micros(200)).await;
    }
}

fn waited_long(start: Monotonic, io: &SimIo) -> bool {
    io.now().since(start) > std::time::Duration::from_secs(5)
}

async fn trim(shared: &Shared, log: &Log<SimIo>, random: &mut Random) -> Result<(), LogError> {
    let (start, end) = (log.log_start(), log.log_end());
    let length = u64::try_from(end.0 - start.0).unwrap();
    let up = i64::try_from(random.below(length / 2 + 1)).unwrap();
    let to = Offset(start.0 + up);
    shared.0.borrow_mut().log_start_asked = to;
    log.set_log_start(to).await?;
    shared.0.borrow_mut().log_start = to;
    Ok(())
}

async fn cut(shared: &Shared, log: &Log<SimIo>, random: &mut Random) -> Result<(), LogError> {
    let (start, end) = (log.log_start(), log.log_end());
    let length = u64::try_from(end.0 - start.0).unwrap();
    let down = i64::try_from(random.below((length / 4).clamp(1, 30))).unwrap();
    let asked = Offset(end.0 - down);
    let to = {
        let oracle = &mut *shared.0.borrow_mut();
        let kept = oracle
            .batches
            .iter()
            .rev()
            .find(|batch| batch.next <= asked);
        let to = kept.map_or(Offset::ZERO, |batch| batch.next);
        if to < start {
            return Ok(());
        }
        oracle.cutting = Some(to);
        to
    };
    let done = log.truncate(asked).await?;
    assert_eq!(done, to, "a cut inside a batch takes the whole batch");
    let oracle = &mut *shared.0.borrow_mut();
    oracle.batches.retain(|batch| batch.next <= to);
    oracle.acknowledged = to;
    oracle.cutting = None;
    Ok(())
}
