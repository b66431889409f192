//! Users of a partition's delayed records, and what they know of each.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use futures_channel::oneshot;
use millstream::{
    delay::Target,
    io::{Clock, Random, sim::SimIo},
    shard::{PartitionShell, Produced},
    storage::ShardStorage,
    types::TopicConfig,
};
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    TopicPartition,
    batch::{BatchBuilder, Batches, Compression, DecodedBatch, NO_HEADERS},
    headers,
    messages::{CancelOutcome, ProducePartitionResult},
};

use crate::oracle::storage_with_journal;

/// A delayed record, as its producer knows it.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The id it was given.
    pub id: Option<String>,
    /// Accepted, durably, under this delay id.
    pub accepted: Option<Offset>,
    /// It was asked to be cancelled, or another was sent under its id.
    pub leaving: bool,
    /// That was answered.
    pub cancelled: bool,
    /// It was told to be delivered.
    pub delivered: bool,
}

/// All that was asked and answered.
#[derive(Debug, Default)]
pub struct World {
    pub sent: Vec<Sent>,
}

pub type Shared = Rc<RefCell<World>>;

/// A partition, and what it lies on.
pub struct Place {
    pub shell: Rc<PartitionShell<SimIo>>,
    pub storage: Rc<ShardStorage<SimIo>>,
}

/// A delivered record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub number: usize,
    pub offset: Offset,
    pub due_ms: i64,
    pub timestamp_ms: i64,
}

fn config() -> TopicConfig {
    let mut config = TopicConfig::default();
    config.set("segment.bytes", "65536").expect("a setting");
    config
}

/// Opens the partition, with a journal or without.
pub async fn open(io: &SimIo, epoch: i32, journal: bool) -> Result<Place, String> {
    let storage = storage_with_journal(io, journal).await;
    let storage = storage.map_err(|error| error.to_string())?;
    let id = TopicPartition {
        topic: TopicId::default(),
        partition: PartitionIndex(0),
    };
    let config = config();
    let opened = PartitionShell::open(io.clone(), &storage, id, LeaderEpoch(epoch), &config);
    let (shell, _) = opened.await.map_err(|error| error.to_string())?;
    if let Some(damage) = shell.damage() {
        return Err(format!("damage where there is none: {damage}"));
    }
    let finished = storage.finish_replay().await;
    finished.map_err(|error| error.to_string())?;
    if journal {
        // The index on disk has work.
        shell.delay().spill_beyond(3);
    }
    Ok(Place { shell, storage })
}

impl Place {
    /// Where the delay log lies.
    pub fn delay_dir(&self) -> std::path::PathBuf {
        self.storage.dir_of(self.shell.log().id()).join("delay")
    }

    pub fn told(&self) -> (Produced, oneshot::Receiver<ProducePartitionResult>) {
        let (told, answer) = oneshot::channel();
        let produced = Produced::told(&self.storage, move |result| {
            let _ = told.send(result);
        });
        (produced, answer)
    }

    /// Sends some delayed records as one batch and waits.
    pub async fn send(&self, shared: &Shared, random: &mut Random, sequence: &mut i32) {
        let mut builder = BatchBuilder::new();
        let first = shared.borrow().sent.len();
        let count = 1 + usize::try_from(random.below(4)).expect("few");
        for number in first..first + count {
            let id = (random.below(3) == 0).then(|| format!("id-{}", random.below(4)));
            let delay_ms = match random.below(4) {
                0 => 0,
                1 => 400 + random.below(100_000),
                _ => random.below(120),
            };
            push(&mut builder, number, id.as_deref(), delay_ms, random);
            let sent = &mut shared.borrow_mut().sent;
            let same = sent.iter_mut().filter(|it| id.is_some() && it.id == id);
            same.for_each(|it| it.leaving = true);
            sent.push(Sent {
                id,
                ..Sent::default()
            });
        }
        let producer = (ProducerId(3), ProducerEpoch(0), *sequence);
        *sequence += i32::try_from(count).expect("few");
        let codec = Compression::ALL[usize::try_from(random.below(5)).expect("small")];
        let batch = builder.finish(Some(producer), codec);
        // A lost answer is asked for again: that changes nothing.
        for _ in 0..=random.below(2) {
            let (produced, answer) = self.told();
            self.shell
                .delay()
                .accept(&batch, LeaderEpoch::UNKNOWN, produced);
            let Ok(result) = answer.await else { return };
            if result.error != ErrorCode::None {
                continue;
            }
            let sent = &mut shared.borrow_mut().sent;
            for (index, it) in sent[first..].iter_mut().take(count).enumerate() {
                let index = u32::try_from(index).expect("few");
                let delay_id = result.base_offset.plus(index);
                assert!(it.accepted.is_none_or(|before| before == delay_id));
                it.accepted = Some(delay_id);
            }
        }
    }

    /// Sends one record under an id, and waits; its number.
    pub async fn send_one(&self, shared: &Shared, id: &str, delay_ms: u64) -> usize {
        let number = shared.borrow().sent.len();
        let mut builder = BatchBuilder::new();
        push(
            &mut builder,
            number,
            Some(id),
            delay_ms,
            &mut Random::new(7),
        );
        let (produced, answer) = self.told();
        let batch = builder.finish(None, Compression::None);
        let delay = self.shell.delay();
        delay.accept(&batch, LeaderEpoch::UNKNOWN, produced);
        let result = answer.await.expect("an answer");
        let sent = &mut shared.borrow_mut().sent;
        let same = sent.iter_mut().filter(|it| it.id.as_deref() == Some(id));
        same.for_each(|it| (it.leaving, it.cancelled) = (true, result.error == ErrorCode::None));
        sent.push(Sent {
            id: Some(id.to_owned()),
            accepted: (result.error == ErrorCode::None).then_some(result.base_offset),
            ..Sent::default()
        });
        number
    }

    /// Cancels one of the last records, by either name.
    pub async fn cancel(&self, shared: &Shared, random: &mut Random) {
        let (number, it) = {
            let sent = &shared.borrow().sent;
            let from = sent.len().saturating_sub(12);
            let accepted = (from..sent.len()).filter(|at| sent[*at].accepted.is_some());
            let accepted: Vec<usize> = accepted.collect();
            if accepted.is_empty() {
                return;
            }
            let at = usize::try_from(random.below(accepted.len() as u64)).expect("few");
            (accepted[at], sent[accepted[at]].clone())
        };
        let by_id = it.id.as_deref().filter(|_| random.below(2) == 0);
        let offset = it.accepted.expect("chosen so");
        let target = by_id.map_or(Target::Offset(offset), Target::Id);
        if let Some(id) = by_id {
            let sent = &mut shared.borrow_mut().sent;
            let same = sent.iter_mut().filter(|it| it.id.as_deref() == Some(id));
            same.for_each(|it| it.leaving = true);
        }
        shared.borrow_mut().sent[number].leaving = true;
        let Ok((outcome, found)) = self.shell.delay().cancel(target).await else {
            return;
        };
        let sent = &mut shared.borrow_mut().sent;
        let meant = sent.iter_mut().find(|it| it.accepted == Some(found));
        match (outcome, meant) {
            (CancelOutcome::Cancelled, Some(it)) => it.cancelled = true,
            (CancelOutcome::Delivered, Some(it)) => it.delivered = true,
            (CancelOutcome::Unknown, _) if by_id.is_some() => {}
            (_, meant) => panic!("{target:?} is {outcome:?}: {found}, {meant:?}"),
        }
    }

    /// Appends something ordinary and does not wait.
    pub fn produce(&self, random: &mut Random) {
        let mut builder = BatchBuilder::new();
        let value = vec![7; usize::try_from(random.below(9_000)).expect("small")];
        let pushed = builder.push(1, Some(b"ordinary"), Some(&value), NO_HEADERS);
        pushed.expect("a small record");
        let mut batch = builder.finish(None, Compression::None);
        let (produced, _) = self.told();
        self.shell
            .produce(&mut batch, LeaderEpoch::UNKNOWN, produced);
    }

    /// Every delayed record that can be read from the partition, in order.
    pub async fn delivered(&self) -> Result<Vec<Delivered>, String> {
        let log = self.shell.log();
        let (mut from, end) = self
            .shell
            .with_machine(|it| (it.log_start(), it.high_watermark()));
        let mut delivered = Vec::new();
        while from < end {
            let slices = log.read(from, end, 1 << 20).await;
            for slice in slices.map_err(|error| error.to_string())? {
                for batch in Batches::checked(slice.bytes()) {
                    let (header, bytes) = batch.map_err(|error| error.to_string())?;
                    from = header.next_offset();
                    delivered_of(bytes, &mut delivered)?;
                }
            }
        }
        Ok(delivered)
    }

    /// Waits until nothing is pending.
    pub async fn delivered_all(&self, io: &SimIo) -> Result<Vec<Delivered>, String> {
        let delay = self.shell.delay();
        for _ in 0..400 {
            if delay.status().0 == 0 {
                return self.delivered().await;
            }
            io.sleep(Duration::from_secs(1)).await;
        }
        Err(format!("{} still wait", delay.status().0))
    }
}

fn push(
    builder: &mut BatchBuilder,
    number: usize,
    id: Option<&str>,
    delay_ms: u64,
    random: &mut Random,
) {
    let (delay, value) = (delay_ms.to_string(), number.to_string());
    let value = format!(
        "{value}:{}",
        "x".repeat(usize::try_from(random.below(900)).expect("small"))
    );
    let mut all = vec![(headers::DELIVER_AFTER, Some(delay.as_bytes()))];
    all.extend(id.map(|id| (headers::DELAY_ID, Some(id.as_bytes()))));
    let pushed = builder.push(77, Some(b"key"), Some(value.as_bytes()), &all);
    pushed.expect("a small record");
}

fn delivered_of(bytes: &[u8], delivered: &mut Vec<Delivered>) -> Result<(), String> {
    let batch = DecodedBatch::open(bytes).map_err(|error| error.to_string())?;
    for record in batch.records() {
        let record = record.map_err(|error| error.to_string())?;
        if record.key == Some(b"ordinary") {
            continue;
        }
        let found: BTreeMap<&[u8], Option<&[u8]>> = record.headers.collect();
        let number = |name: &str| {
            let value = found.get(name.as_bytes()).copied().flatten();
            headers::number(value).ok_or_else(|| format!("no header {name}"))
        };
        if number(headers::ORIGINAL_TIMESTAMP)? != 77 {
            return Err("the original timestamp is another".to_owned());
        }
        let value = record.value.unwrap_or_default();
        let value = value.split(|byte| *byte == b':').next();
        let value = headers::number(value).ok_or("a value that nobody sent")?;
        delivered.push(Delivered {
            number: usize::try_from(value).expect("a small number"),
            offset: record.offset,
            due_ms: number(headers::DELIVER_AT)?,
            timestamp_ms: record.timestamp_ms,
        });
    }
    Ok(())
}

impl World {
    /// What is wrong with what was delivered in the end, if anything.
    pub fn verdict(&self, delivered: &[Delivered]) -> Result<(), String> {
        let mut times: BTreeMap<usize, u32> = BTreeMap::new();
        for it in delivered {
            *times.entry(it.number).or_default() += 1;
            if it.timestamp_ms < it.due_ms {
                return Err(format!("early: {it:?}"));
            }
        }
        for (number, it) in self.sent.iter().enumerate() {
            let times = times.remove(&number).unwrap_or(0);
            let wrong = match times {
                0 => it.delivered || it.accepted.is_some() && !it.leaving,
                1 => it.cancelled,
                _ => true,
            };
            if wrong {
                return Err(format!("record {number} came {times} times: {it:?}"));
            }
        }
        match times.first_key_value() {
            Some((number, _)) => Err(format!("record {number} was never sent")),
            None => Ok(()),
        }
    }
}
