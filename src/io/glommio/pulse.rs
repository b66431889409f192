//! A pulse that keeps a shard from sleeping over work.
//!
//! glommio's executor may go to sleep with tasks ready to run: if its preemption timer fires after the
//! rings were polled and before the first task starts, it runs nothing, takes that for idleness and
//! parks. The timer fires so early only when the thread lost its processor just there for a
//! millisecond, which on a busy host happens. The next event then wakes it; but the client that would
//! send it may be waiting for this very answer. (glommio/glommio#53 repairs it, after 0.12.0.)
//!
//! So there is always a next event: timers, a few of them staggered, because the task that one of them
//! wakes can be slept over as well. What is lost is at most one period, and rarely.

use std::{convert::Infallible, future::poll_fn, sync::Arc, task::Poll, thread, time::Duration};

use futures_util::task::AtomicWaker;

use glommio::{Task, TaskQueueHandle, spawn_local_into, timer::sleep};

/// Time from one beat to the next.
const PERIOD: Duration = Duration::from_millis(10);
/// Timers that are armed at any time.
const TIMER_COUNT: u32 = 4;

/// A beat that ends only when it is dropped.
pub(super) async fn beat() -> Infallible {
    loop {
        sleep(PERIOD).await;
    }
}

/// Starts the pulse of the executor that runs this; it ends when the tasks are dropped.
#[must_use]
pub(super) fn start(queue: TaskQueueHandle) -> Vec<Task<()>> {
    let beat = |phase| {
        let beats = async move {
            sleep(PERIOD * phase).await;
            loop {
                sleep(PERIOD * TIMER_COUNT).await;
            }
        };
        spawn_local_into(beats, queue).expect("the queue was just made")
    };
    (0..TIMER_COUNT)
        .map(beat)
        .chain([from_outside(queue)])
        .collect()
}

/// The executor's own timers can be slept over too, so a thread wakes a task of it now and then.
fn from_outside(queue: TaskQueueHandle) -> Task<()> {
    let waker = Arc::new(AtomicWaker::new());
    let theirs = Arc::downgrade(&waker);
    let beats = move || {
        while let Some(waker) = theirs.upgrade() {
            waker.wake();
            drop(waker);
            thread::park_timeout(PERIOD * 2);
        }
    };
    let spawned = thread::Builder::new().name("pulse".to_owned()).spawn(beats);
    spawned.expect("a process that runs shards can start a thread");
    let woken = poll_fn(move |context| {
        waker.register(context.waker());
        Poll::Pending
    });
    spawn_local_into(woken, queue).expect("the queue was just made")
}
