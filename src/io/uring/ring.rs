//! The ring: requests to the kernel, and what they hold until they are answered.
//!
//! This file is the unsafe core. Memory and descriptors that the kernel works on are owned by the
//! request's slot, not by the future that waits for it, so a future may be dropped at any time: the
//! slot lives on until the kernel's answer. A slot is told from its predecessors by a generation, so
//! an answer can never be taken for another's.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use super::{buffer::UringBuffer, now_ns};

/// Requests handed over in one call at most; what does not fit goes with the next one.
const SUBMISSION_COUNT: u32 = 256;
/// Answers that wait to be read; beyond that the kernel keeps them elsewhere, and loses none.
const COMPLETION_COUNT: u32 = 2048;
/// Number of requests whose answer nobody waits for.
const NOBODY: u64 = u64::MAX;
/// How long the ring waits, when it ends, for the kernel to let go of its memory.
const DRAIN_TIME_NS: u64 = 5_000_000_000;

/// `RWF_DSYNC` of pwritev2(2).
const RWF_DSYNC: i32 = 2;

/// When what is written is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// When the write is answered.
    Now,
    /// After a flush.
    Later,
}

/// What the kernel works with until it answers.
#[expect(dead_code, reason = "held for the kernel's sake")]
pub(super) enum Held {
    /// Only a descriptor.
    Descriptor(Arc<OwnedFd>),
    /// Memory that it reads from.
    Source(Arc<OwnedFd>, Rc<UringBuffer>),
    /// Memory that it fills.
    Target(Arc<OwnedFd>, UringBuffer),
}

/// A request and what it needs. Made only here, so that what it points to is what it holds.
pub(super) struct Request {
    entry: squeue::Entry,
    held: Held,
    /// Nobody misses it if it is cancelled.
    cancel: bool,
}

impl Request {
    /// Waits for readiness, once; `flags` are those of poll(2).
    pub(super) fn poll(descriptor: &Arc<OwnedFd>, flags: u32) -> Self {
        Self {
            entry: opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), flags).build(),
            held: Held::Descriptor(Arc::clone(descriptor)),
            cancel: true,
        }
    }

    /// Writes `buffer` from `start` on at `position` of a file.
    pub(super) fn write(
        file: &Arc<OwnedFd>,
        buffer: &Rc<UringBuffer>,
        start: usize,
        position: u64,
        durability: Durability,
    ) -> Self {
        let bytes = &buffer.as_slice()[start..];
        let size = u32::try_from(bytes.len()).expect("a write is below 4 GiB");
        let file_number = types::Fd(file.as_raw_fd());
        Self {
            entry: opcode::Write::new(file_number, bytes.as_ptr(), size)
                .offset(position)
                .rw_flags(match durability {
                    Durability::Now => RWF_DSYNC,
                    Durability::Later => 0,
                })
                .build(),
            held: Held::Source(Arc::clone(file), Rc::clone(buffer)),
            cancel: false,
        }
    }

    /// Fills `buffer` from `start` on with what lies at `position` of a file.
    pub(super) fn read(
        file: &Arc<OwnedFd>,
        mut buffer: UringBuffer,
        start: usize,
        position: u64,
    ) -> Self {
        let bytes = &mut buffer.as_mut_slice()[start..];
        let size = u32::try_from(bytes.len()).expect("a read is below 4 GiB");
        let file_number = types::Fd(file.as_raw_fd());
        Self {
            entry: opcode::Read::new(file_number, bytes.as_mut_ptr(), size)
                .offset(position)
                .build(),
            held: Held::Target(Arc::clone(file), buffer),
            cancel: false,
        }
    }

    /// Makes the data of a file durable.
    pub(super) fn sync_data(file: &Arc<OwnedFd>) -> Self {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()));
        Self {
            entry: entry.flags(types::FsyncFlags::DATASYNC).build(),
            held: Held::Descriptor(Arc::clone(file)),
            cancel: false,
        }
    }

    /// Sets space aside up to `size` bytes, and grows the file to it.
    pub(super) fn allocate(file: &Arc<OwnedFd>, size: u64) -> Self {
        let entry = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), size);
        Self {
            entry: entry.offset(0).mode(0).build(),
            held: Held::Descriptor(Arc::clone(file)),
            cancel: false,
        }
    }
}

enum State {
    /// Free, with the number of the next free slot.
    Free(Option<u32>),
    /// With the kernel; the waker is whose who waits.
    Waiting(Held, Option<Waker>),
    /// With the kernel, and nobody waits.
    #[expect(dead_code, reason = "held for the kernel's sake")]
    Abandoned(Held),
    /// Answered.
    Done(Held, i32),
}

struct Slot {
    generation: u32,
    state: State,
}

struct Inner {
    ring: IoUring,
    slots: Vec<Slot>,
    free: Option<u32>,
    /// Requests that found no room yet.
    backlog: VecDeque<squeue::Entry>,
    /// Slots that the kernel has.
    in_flight: usize,
}

/// See the module.
pub(super) struct Ring {
    inner: RefCell<Inner>,
}

/// Which slot, and which of its lives.
#[derive(Clone, Copy)]
struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    #[expect(clippy::cast_possible_truncation, reason = "two halves of a number")]
    fn of(number: u64) -> Self {
        Self {
            slot: number as u32,
            generation: (number >> 32) as u32,
        }
    }
}

impl Inner {
    fn take_slot(&mut self, held: Held) -> Key {
        let state = State::Waiting(held, None);
        self.in_flight += 1;
        if let Some(slot) = self.free {
            let free = &mut self.slots[slot as usize];
            let State::Free(next) = std::mem::replace(&mut free.state, state) else {
                unreachable!("the list of free slots holds free slots");
            };
            self.free = next;
            let generation = free.generation;
            return Key { slot, generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer requests than memory");
        self.slots.push(Slot {
            generation: 0,
            state,
        });
        Key {
            slot,
            generation: 0,
        }
    }

    fn free_slot(&mut self, slot: u32) -> State {
        let freed = &mut self.slots[slot as usize];
        // One generation is left out: together with the last slot it would be NOBODY.
        freed.generation = (freed.generation + 1) % u32::MAX;
        let state = std::mem::replace(&mut freed.state, State::Free(self.free));
        self.free = Some(slot);
        state
    }

    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && self.push_now(&entry) {
            return;
        }
        self.backlog.push_back(entry);
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: entries come from `Request`, whose memory and descriptors its slot holds until the
        // kernel answers, or are cancellations, which point to nothing.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.push_now(&entry) {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Takes over the kernel's answers; `wake` gets who waited, `freed` what was held for nobody.
    fn reap(&mut self, wake: &mut Vec<Waker>, freed: &mut Vec<State>) -> usize {
        let mut count = 0;
        loop {
            let Some(completion) = self.ring.completion().next() else {
                return count;
            };
            count += 1;
            self.complete(&completion, wake, freed);
        }
    }

    fn complete(
        &mut self,
        completion: &cqueue::Entry,
        wake: &mut Vec<Waker>,
        freed: &mut Vec<State>,
    ) {
        if completion.user_data() == NOBODY {
            return;
        }
        let key = Key::of(completion.user_data());
        let slot = &mut self.slots[key.slot as usize];
        assert_eq!(slot.generation, key.generation, "answered twice");
        self.in_flight -= 1;
        match std::mem::replace(&mut slot.state, State::Free(None)) {
            State::Waiting(held, waker) => {
                slot.state = State::Done(held, completion.result());
                wake.extend(waker);
            }
            abandoned @ State::Abandoned(_) => {
                slot.state = abandoned;
                freed.push(self.free_slot(key.slot));
            }
            State::Free(_) | State::Done(..) => unreachable!("answered without being asked"),
        }
    }
}

impl Ring {
    /// A ring for the thread that calls this, and for no other.
    pub(super) fn new() -> io::Result<Self> {
        match Self::build(true) {
            // Linux before 6.1 does not know these ways of running completions.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Self::before_6_1()
            }
            built => Ok(Self::of(built?)),
        }
    }

    /// A ring as Linux before 6.1 has it.
    pub(super) fn before_6_1() -> io::Result<Self> {
        Self::build(false).map(Self::of)
    }

    fn of(ring: IoUring) -> Self {
        Self {
            inner: RefCell::new(Inner {
                ring,
                slots: Vec::new(),
                free: None,
                backlog: VecDeque::new(),
                in_flight: 0,
            }),
        }
    }

    fn build(deferred: bool) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETION_COUNT).setup_clamp();
        if deferred {
            // Completions run when the shard asks for them, not in the middle of its work.
            builder
                .setup_single_issuer()
                .setup_coop_taskrun()
                .setup_defer_taskrun()
                .setup_taskrun_flag();
        }
        builder.build(SUBMISSION_COUNT)
    }

    /// Hands a request to the kernel, at the latest with the next [`Ring::enter`].
    pub(super) fn submit(self: &Rc<Self>, request: Request) -> Operation {
        let inner = &mut *self.inner.borrow_mut();
        let key = inner.take_slot(request.held);
        inner.push(request.entry.user_data(key.number()));
        Operation {
            ring: Rc::clone(self),
            key,
            cancel: request.cancel,
            taken: false,
        }
    }

    /// Requests that the kernel has.
    pub(super) fn in_flight(&self) -> usize {
        self.inner.borrow().in_flight
    }

    /// Hands over what is queued and takes what is answered, waking who waits for it. With a `wait`
    /// it sleeps until something is answered, or so long at most.
    pub(super) fn enter(&self, wait: Option<Duration>) -> io::Result<()> {
        let mut wake = Vec::new();
        let mut freed = Vec::new();
        let result = {
            let inner = &mut *self.inner.borrow_mut();
            inner.push_backlog();
            let ready = inner.reap(&mut wake, &mut freed) > 0;
            // Nor does it sleep on requests that this call has no room for: nothing would wake it
            // when what they wait for comes.
            let wait = wait.filter(|_| !ready && inner.backlog.is_empty());
            let result = Self::call(&mut inner.ring, wait);
            inner.reap(&mut wake, &mut freed);
            result
        };
        // Outside the borrow: the last waker of a task may take the task with it.
        drop(freed);
        wake.into_iter().for_each(Waker::wake);
        result
    }

    fn call(ring: &mut IoUring, wait: Option<Duration>) -> io::Result<()> {
        let result = match wait {
            None => {
                let queue = ring.submission();
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(());
                }
                drop(queue);
                ring.submitter().submit()
            }
            Some(wait) => {
                let timeout = types::Timespec::from(wait);
                let arguments = types::SubmitArgs::new().timespec(&timeout);
                ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // Nothing came in time; a signal came; answers must be read before more is taken.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn cancel(inner: &mut Inner, key: Key) {
        let entry = opcode::AsyncCancel::new(key.number()).build();
        inner.push(entry.user_data(NOBODY));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let until = now_ns() + DRAIN_TIME_NS;
        // Operations own the ring, so none is left that could be answered: all are abandoned.
        while self.in_flight() > 0 && now_ns() < until {
            if self.enter(Some(Duration::from_millis(10))).is_err() {
                break;
            }
        }
        if self.in_flight() > 0 {
            tracing::error!("the kernel keeps memory of a ring that ends; it is not used again");
            std::mem::forget(std::mem::take(&mut self.inner.get_mut().slots));
        }
    }
}

/// A request on its way: gives the kernel's answer and what was held. Dropped, it is abandoned.
pub(super) struct Operation {
    ring: Rc<Ring>,
    key: Key,
    cancel: bool,
    taken: bool,
}

impl Operation {
    /// The kernel's answer, if it is there.
    pub(super) fn poll_answer(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<(rustix::io::Result<u32>, Held)> {
        assert!(!self.taken, "the answer was taken");
        let inner = &mut *self.ring.inner.borrow_mut();
        let slot = &mut inner.slots[self.key.slot as usize];
        assert_eq!(
            slot.generation, self.key.generation,
            "a slot is its operation's"
        );
        match &mut slot.state {
            State::Waiting(_, waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Done(..) => {
                self.taken = true;
                let State::Done(held, result) = inner.free_slot(self.key.slot) else {
                    unreachable!("it was done")
                };
                let answer = u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
                Poll::Ready((answer, held))
            }
            State::Free(_) | State::Abandoned(_) => unreachable!("an operation owns its slot"),
        }
    }
}

impl Future for Operation {
    type Output = (rustix::io::Result<u32>, Held);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_answer(context)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let freed = {
            let inner = &mut *self.ring.inner.borrow_mut();
            let slot = &mut inner.slots[self.key.slot as usize];
            match std::mem::replace(&mut slot.state, State::Free(None)) {
                State::Waiting(held, waker) => {
                    slot.state = State::Abandoned(held);
                    if self.cancel {
                        Ring::cancel(inner, self.key);
                    }
                    (None, waker)
                }
                done => {
                    slot.state = done;
                    (Some(inner.free_slot(self.key.slot)), None)
                }
            }
        };
        // Outside the borrow, for what is held may close, and a waker may take its task with it.
        drop(freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{
        BLOCK_SIZE,
        uring::{buffer::Pool, tests::can_run},
    };

    /// A read that nobody waits for any more still fills its memory when bytes come.
    #[test]
    fn memory_of_an_abandoned_read_stays_with_the_kernel() {
        if !can_run() {
            return;
        }
        let ring = Rc::new(Ring::new().unwrap());
        let pool = Rc::new(Pool::default());
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = OwnedFd::from(reader);
        let buffer = pool.buffer(BLOCK_SIZE);
        let place = buffer.as_slice().as_ptr();
        let reading = ring.submit(Request::read(&Arc::new(reader), buffer, 0, 0));
        ring.enter(None).unwrap();
        drop(reading);
        let mut other = pool.buffer(BLOCK_SIZE);
        assert_ne!(other.as_slice().as_ptr(), place);
        other.as_mut_slice().fill(1);
        rustix::io::write(&writer, &[7; BLOCK_SIZE]).unwrap();
        while ring.in_flight() > 0 {
            ring.enter(Some(Duration::from_millis(10))).unwrap();
        }
        assert!(other.as_slice().iter().all(|byte| *byte == 1));
        let again = pool.buffer(BLOCK_SIZE);
        assert_eq!(again.as_slice().as_ptr(), place);
        assert_eq!(again.as_slice()[0], 7);
    }

    /// Numbers of slots are used again: a cancellation that comes late must not meet another's request.
    #[test]
    fn a_late_cancellation_meets_nobody() {
        if !can_run() {
            return;
        }
        let ring = Rc::new(Ring::new().unwrap());
        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer) = (Arc::new(reader.into()), Arc::new(writer.into()));
        let in_flags = u32::from(rustix::event::PollFlags::IN.bits());
        let out_flags = u32::from(rustix::event::PollFlags::OUT.bits());
        for _ in 0..100 {
            // Ready at once: its cancellation goes to the kernel with it, and comes after its answer.
            drop(ring.submit(Request::poll(&writer, out_flags)));
            ring.enter(None).unwrap();
            let waiting = ring.submit(Request::poll(&reader, in_flags));
            ring.enter(None).unwrap();
            assert_eq!(ring.in_flight(), 1, "only the one that waits");
            drop(waiting);
            while ring.in_flight() > 0 {
                ring.enter(Some(Duration::from_millis(10))).unwrap();
            }
        }
        // Each life of a slot has a number of its own.
        assert!(ring.inner.borrow().slots.len() <= 2);
    }
}
