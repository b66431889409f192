//! The control thread: takes what waits, commits it at once, shows the new image, then answers.

use std::sync::Arc;

use millstream_protocol::TopicId;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Shared,
    batch::{Batch, ProducerIds},
    committer::Committer,
    metadata_log::MetadataLogError,
    request::{ControlError, ControlReply, ControlRequest},
};
use crate::controller::{
    Command, Controller, ControllerError, Outcome,
    format::{Entry, encode_snapshot},
};

/// Requests committed together at most.
const MAX_BATCH_REQUESTS: usize = 256;
/// Entries after which a snapshot takes their place, so that the log stays small.
pub(super) const SNAPSHOT_EVERY_ENTRIES: u64 = 1000;

pub(super) type Reply = Box<dyn FnOnce(ControlReply) + Send>;

pub(super) enum Message {
    Request(ControlRequest, Reply),
    Stop,
}

pub(super) struct Worker {
    pub(super) controller: Controller,
    /// The term that this broker leads.
    pub(super) term: u64,
    pub(super) committer: Committer,
    pub(super) shared: Arc<Shared>,
    pub(super) producer_ids: ProducerIds,
    /// Index of the newest snapshot.
    pub(super) snapshot_index: u64,
    /// What broke the log, once something did: nothing is written after that.
    pub(super) failed: Option<String>,
}

impl Worker {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut messages = Vec::new();
        let mut stopping = false;
        while !stopping && inbox.recv_many(&mut messages, MAX_BATCH_REQUESTS).await > 0 {
            let mut requests = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Request(request, reply) => requests.push((request, reply)),
                    Message::Stop => stopping = true,
                }
            }
            self.serve(requests).await;
            self.snapshot_if_due().await;
        }
        inbox.close();
        while let Some(message) = inbox.recv().await {
            if let Message::Request(_, reply) = message {
                reply(Err(ControlError::ShuttingDown));
            }
        }
    }

    async fn serve(&mut self, requests: Vec<(ControlRequest, Reply)>) {
        let mut batch = Batch::default();
        let mut replies = Vec::with_capacity(requests.len());
        for (request, reply) in requests {
            batch.plan(&self.controller, request, &mut || TopicId(Uuid::new_v4()));
            replies.push(reply);
        }
        let commands = batch.take_commands(&self.controller, &self.producer_ids);
        let outcomes = match self.commit(commands).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                for reply in replies {
                    reply(Err(error.clone()));
                }
                return;
            }
        };
        let answers = batch.answers(&outcomes, &mut self.producer_ids);
        for (reply, answer) in replies.into_iter().zip(answers) {
            reply(answer);
        }
    }

    /// Makes the commands durable, applies them and shows the image, in this order.
    async fn commit(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Outcome, ControllerError>>, ControlError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(reason) = &self.failed {
            return Err(ControlError::LogFailed(reason.clone()));
        }
        let first = self.controller.index() + 1;
        let entries: Vec<Entry> = (first..)
            .zip(commands)
            .map(|(index, command)| Entry {
                term: self.term,
                index,
                command,
            })
            .collect();
        match self.committer.append(entries.clone()).await {
            Ok(()) => {}
            Err(error @ MetadataLogError::Full { .. }) => {
                return Err(ControlError::DiskFull(error.to_string()));
            }
            Err(error) => return Err(self.fail(&error)),
        }
        let apply = |entry: &Entry| {
            self.controller
                .apply(entry.index, entry.term, &entry.command)
        };
        let outcomes = entries.iter().map(apply).collect();
        self.shared.publish(self.controller.image());
        Ok(outcomes)
    }

    async fn snapshot_if_due(&mut self) {
        let index = self.controller.index();
        if self.failed.is_some() || index - self.snapshot_index < SNAPSHOT_EVERY_ENTRIES {
            return;
        }
        match self
            .committer
            .snapshot(index, encode_snapshot(&self.controller))
            .await
        {
            Ok(()) => self.snapshot_index = index,
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    /// A failed write latches: what of it reached the disk is unknown until the log is read again.
    fn fail(&mut self, error: &MetadataLogError) -> ControlError {
        let reason = error.to_string();
        tracing::error!(%reason, "the metadata log failed: no change is taken until a restart");
        self.shared.set_failed();
        self.failed = Some(reason.clone());
        ControlError::LogFailed(reason)
    }
}
