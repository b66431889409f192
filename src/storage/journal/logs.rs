//! What a log does for the journal, and the journal for it.

use std::rc::Rc;

use super::Part;
use crate::{
    io::{Disk, Io},
    storage::{
        Log, LogError,
        format::chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
        run::Run,
    },
};

impl<I: Io> Log<I> {
    /// Bytes for the next frame.
    pub(super) fn pending_size(&self) -> usize {
        self.state.borrow().appender.pending_size()
    }

    /// Copies what waits for the journal to `out`; gives its chunk, how much of that is in the journal
    /// then, and the entry's header. `None` if there is nothing, or more than belongs into a journal.
    pub(super) fn hand_over(
        &self,
        frame: u64,
        out: &mut [u8],
    ) -> Option<(u64, usize, ChunkHeader)> {
        let state = &mut *self.state.borrow_mut();
        state.in_journal_queue = false;
        if state.failed.is_some() || !state.appender.wants_journal() {
            return None;
        }
        let entry = state.appender.hand_over(frame)?;
        let end = CHUNK_HEADER_SIZE + entry.payload.len();
        out[CHUNK_HEADER_SIZE..end].copy_from_slice(entry.payload);
        entry.header.seal(&mut out[..end]);
        let part = (entry.chunk, entry.through_size, entry.header);
        state.appender.seal_for_write_behind();
        Some(part)
    }

    /// What was on the list did not get into a frame: it goes another way.
    pub(super) fn left_journal(&self) {
        self.state.borrow_mut().in_journal_queue = false;
        self.schedule();
    }

    /// A frame is durable that holds part of the log; the cache is charged so many bytes for it.
    pub(super) fn journaled(
        &self,
        part: &Part<I>,
        frame: u64,
        buffer: &Rc<<I as Disk>::Buffer>,
        charge: usize,
    ) {
        if self.state.borrow().failed.is_some() {
            return;
        }
        let freed = {
            let appender = &mut self.state.borrow_mut().appender;
            appender.journaled(frame, part.chunk, part.through_size, part.next)
        };
        self.storage.free_room(freed);
        if freed > 0 {
            let run = Run::shared(Rc::clone(buffer), part.view.clone());
            let mut cache = self.storage.cache.borrow_mut();
            cache.insert(self.key, Rc::new(run), charge);
        }
        self.pump();
    }

    /// The first frame that the log still needs; `None` if it needs none.
    pub(super) fn first_frame(&self) -> Option<u64> {
        let state = self.state.borrow();
        match state.failed {
            Some(LogError::Closed) => None,
            _ => state.appender.first_frame(),
        }
    }

    /// Has the log need no frame that there is now: it puts what little there is into the journal again,
    /// or flushes its segment.
    pub(super) fn leave_journal(&self) {
        let again =
            self.storage.journal.has_room() && self.state.borrow_mut().appender.journal_again();
        if again {
            self.schedule();
        } else {
            self.flush_to_segment();
        }
    }

    pub(in crate::storage) fn flush_to_segment(&self) {
        {
            let state = &mut *self.state.borrow_mut();
            state.flush_through = state.flush_through.max(state.appender.log_end());
            state.appender.seal_open();
        }
        self.schedule();
    }
}
