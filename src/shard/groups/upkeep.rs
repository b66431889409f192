//! What groups need though nothing happens: sessions that end, heartbeats that have waited long enough,
//! offsets that are too old, and an end.

use std::{collections::BTreeSet, pin::pin, rc::Rc, time::Duration};

use futures_util::future::select;
use millstream_protocol::TopicPartition;

use super::coordinator::{Coordinator, Must, Phase, Record};
use crate::{
    group::{Event, Refusal, format::Key, offsets::Offsets},
    io::Io,
    shard::Shard,
};

/// Between two looks at what is due: how late it may be.
const LOOK: Duration = Duration::from_millis(100);

impl<I: Io> Shard<I> {
    /// Looks after groups until the broker stops; sleeps while there is nothing to look after.
    pub(in crate::shard) async fn tend_groups(self: Rc<Self>) {
        loop {
            let ticket = self.groups.alive.ticket();
            if self.is_stopping_now() {
                break;
            }
            let mut alive = false;
            for coordinator in self.groups.all() {
                alive |= self.tend(&coordinator);
                self.io().yield_if_needed().await;
            }
            let stop = pin!(self.stopping_signal().wait_until(|| self.is_stopping_now()));
            if alive {
                select(pin!(self.io().sleep(LOOK)), stop).await;
            } else {
                select(pin!(self.groups.alive.raised_since(ticket)), stop).await;
            }
        }
        for coordinator in self.groups.all() {
            coordinator.clear(Phase::Stopped);
        }
    }

    /// Does what is due. True if anything will be.
    fn tend(self: &Rc<Self>, coordinator: &Rc<Coordinator>) -> bool {
        if coordinator.refusal().is_none() {
            for name in coordinator.due_by(self.io().now()) {
                self.apply_to_group(coordinator, &name, Event::Ticked);
            }
        }
        coordinator.is_alive()
    }

    /// Forgets groups that have long been empty, and their offsets.
    pub(in crate::shard) fn expire_groups(self: &Rc<Self>) {
        let now_ms = self.io().wall_ms();
        let ready = self.groups.all().into_iter();
        for coordinator in ready.filter(|it| it.refusal().is_none()) {
            let expired: Vec<Rc<str>> = {
                let groups = coordinator.groups.borrow();
                let expired = groups.iter().filter(|(_, entry)| {
                    let since = entry.group.record().empty_since_ms;
                    let retention_ms = self.groups.retention_ms;
                    entry.group.member_count() == 0
                        && entry.offsets.have_expired(since, retention_ms, now_ms)
                });
                expired.map(|(name, _)| Rc::clone(name)).collect()
            };
            for name in expired {
                tracing::info!(group = %name, "forgotten: it has been empty for long");
                self.forget_group(&coordinator, &name, |_| ());
            }
        }
    }

    /// Drops a group without members with all that is kept of it.
    pub(super) fn forget_group(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        name: &Rc<str>,
        when_done: impl FnOnce(Result<(), Refusal>) + 'static,
    ) {
        let records = {
            let groups = coordinator.groups.borrow();
            let Some(entry) = groups.get(name) else {
                return when_done(Ok(()));
            };
            // Those under way too: they come before these records, which undo them.
            let recorded = entry.offsets.recorded().into_iter();
            let recorded = recorded.map(|at| (Key::Offset(name.to_string(), at), None));
            let mut records: Vec<Record> = recorded.collect();
            records.push((Key::Group(name.to_string()), None));
            records
        };
        coordinator.drop_group(name);
        self.append_in_batches(coordinator, &records, when_done);
    }

    /// Appends what may be too much for one batch; `when_done` hears when all of it is durable.
    fn append_in_batches(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        records: &[Record],
        when_done: impl FnOnce(Result<(), Refusal>) + 'static,
    ) {
        const RECORDS_PER_BATCH: usize = 1000;
        let mut chunks = records.chunks(RECORDS_PER_BATCH).peekable();
        let place = Rc::clone(coordinator);
        // Those before the last may have failed.
        let mut when_done = Some(move |result: Result<(), Refusal>| {
            when_done(result.and_then(|()| place.refusal().map_or(Ok(()), Err)));
        });
        while let Some(chunk) = chunks.next() {
            match when_done.take_if(|_| chunks.peek().is_none()) {
                Some(done) => self.append_for_groups(coordinator, chunk, Must::Be, done),
                None => self.append_for_groups(coordinator, chunk, Must::Be, |_| ()),
            }
        }
    }

    /// A topic that is created again under its name is another: what was read of the old one says
    /// nothing of it.
    pub(super) fn forget_offsets_of(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        is_gone: impl Fn(&Offsets) -> BTreeSet<TopicPartition>,
    ) {
        let mut records: Vec<Record> = Vec::new();
        for (name, entry) in coordinator.groups.borrow_mut().iter_mut() {
            for at in is_gone(&entry.offsets) {
                entry.offsets.forget(at);
                records.push((Key::Offset(name.to_string(), at), None));
            }
            entry.recharge();
        }
        self.append_in_batches(coordinator, &records, |_| ());
    }
}
