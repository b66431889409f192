//! Produces of delayed records: at once where that is quick; else in a line, one after the other, while the
//! delay log opens or a large request takes its turns.

use std::rc::Rc;

use millstream_protocol::{ErrorCode, LeaderEpoch};

use super::{Delay, INDEX_LOST};
use crate::{
    delay::{Accepting, Terms},
    io::{Io, TaskClass},
    shard::{partition::log_error_code, produce::Produced},
};

/// Bytes of requests that wait in the line of one partition, unless one alone is larger.
const MAX_EARLY_SIZE: usize = 16 << 20;

/// A produce in the line.
pub(super) struct Early {
    records: Vec<u8>,
    /// What is done of it.
    begun: Option<Accepting>,
    leader_epoch: LeaderEpoch,
    produced: Produced,
}

impl<I: Io> Delay<I> {
    /// Accepts batches of delayed records; `produced` is told their delay ids once they are durable, or why
    /// they are not accepted.
    pub fn accept(self: &Rc<Self>, records: &[u8], leader_epoch: LeaderEpoch, produced: Produced) {
        let at_once = !self.draining.get() && self.log.get().is_some();
        let (begun, produced) = if at_once {
            match self.turn(records, None, leader_epoch, produced) {
                Some((accepting, produced)) => (Some(accepting), produced),
                None => return,
            }
        } else {
            (None, produced)
        };
        let waiting = self.early_size.get();
        if waiting > 0 && waiting + records.len() > MAX_EARLY_SIZE {
            let message = "too many delayed records wait to be taken in".to_owned();
            return produced.refuse(ErrorCode::Overloaded, message);
        }
        self.early_size.set(waiting + records.len());
        self.early.borrow_mut().push_back(Early {
            records: records.to_vec(),
            begun,
            leader_epoch,
            produced,
        });
        if !self.draining.replace(true) {
            let this = Rc::clone(self);
            let drain = async move { this.drain().await };
            self.io.spawn(TaskClass::Foreground, drain);
        }
    }

    /// Opens the delay log if it is not, and takes in what is in the line.
    async fn drain(self: &Rc<Self>) {
        let opened = match self.log.get() {
            Some(_) => Ok(None),
            None => self.open().await,
        };
        loop {
            let first = self.early.borrow_mut().pop_front();
            let Some(early) = first else { break };
            let size = early.records.len();
            match &opened {
                Ok(_) => self.take_in(early).await,
                Err(error) => {
                    let code = log_error_code(error);
                    early.produced.refuse(code, error.to_string());
                }
            }
            self.early_size.set(self.early_size.get() - size);
            self.io.yield_if_needed().await;
        }
        self.draining.set(false);
        self.changed.raise();
    }

    async fn take_in(&self, early: Early) {
        let Early {
            records,
            mut begun,
            leader_epoch,
            mut produced,
        } = early;
        while let Some(unfinished) = self.turn(&records, begun.take(), leader_epoch, produced) {
            (begun, produced) = (Some(unfinished.0), unfinished.1);
            self.io.yield_if_needed().await;
        }
    }

    /// Takes in a request, or as much of it as a turn allows: then what was begun is given back.
    fn turn(
        &self,
        records: &[u8],
        begun: Option<Accepting>,
        leader_epoch: LeaderEpoch,
        produced: Produced,
    ) -> Option<(Accepting, Produced)> {
        let (Some(log), Some(partition)) = (self.log.get(), self.partition.upgrade()) else {
            produced.refuse(ErrorCode::UnknownPartition, "it is being closed".to_owned());
            return None;
        };
        if self.stopped.get() {
            produced.refuse(ErrorCode::UnknownPartition, "it is being closed".to_owned());
            return None;
        }
        if !self.schedule.borrow().ids_known() {
            produced.refuse(ErrorCode::PartitionLoading, INDEX_LOST.to_owned());
            return None;
        }
        // What could not be delivered is not accepted either.
        let trouble = partition.with_machine(crate::partition::Partition::trouble);
        if trouble != ErrorCode::None {
            let sentence = partition.sentence_for(trouble).unwrap_or_default();
            produced.refuse(trouble, sentence);
            return None;
        }
        if let Some(trouble) = &*self.trouble.borrow() {
            produced.refuse(ErrorCode::StorageError, trouble.clone());
            return None;
        }
        let mut accepting = begun.unwrap_or_else(|| Accepting::by(self.terms()));
        match accepting.turn(records) {
            Ok(Some(mut batches)) => log.produce(&mut batches, leader_epoch, produced),
            Ok(None) => return Some((accepting, produced)),
            Err(error) => produced.refuse(error.error_code(), error.to_string()),
        }
        None
    }

    fn terms(&self) -> Terms {
        let now_ms = self.now_ms();
        let config = self.config.borrow();
        Terms {
            now_ms,
            horizon_ms: i64::try_from(config.delay_horizon_ms).unwrap_or(i64::MAX),
            max_batch_size: config.max_batch_bytes,
            keys_required: config.cleanup_policy.compacts(),
        }
    }
}
