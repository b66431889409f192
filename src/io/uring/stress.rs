//! Wake-ups in great numbers: from other threads while the shard falls asleep, from the kernel while
//! more is asked of it than one call can hand over, and from anywhere while the shard ends.
//!
//! A wake-up that is lost shows as a task that never goes on, so these tests wait for every single
//! one. The watchdog only turns a hang into a failure; no time is asserted.
#![expect(
    clippy::disallowed_methods,
    reason = "threads beside the shard, and how long to keep at it"
)]

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io::Write as _,
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::{future::join_all, task::AtomicWaker};

use super::{ShardOptions, UringIo, spawn_shard, tests::can_run};
use crate::io::{Listener, Net, Random, Stream, TaskClass, Tasks};

/// A wake-up that has not arrived by then never will.
const WATCHDOG: Duration = Duration::from_secs(60);
/// How long the threads keep at it.
const DURATION: Duration = Duration::from_millis(1000);
const TASK_COUNT: usize = 2_000;

/// Runs a shard to its end, or fails with `what` if that does not come.
fn run_watched<F, Fut>(what: &str, program: F)
where
    F: FnOnce(UringIo) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (ended, end) = mpsc::channel();
    let shard = spawn_shard(0, None, &ShardOptions::default(), |io| async move {
        program(io).await;
        let _ = ended.send(());
    });
    match end.recv_timeout(WATCHDOG) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}"),
        // A panic of the shard comes out of the join.
        _ => shard.unwrap().join(),
    }
}

/// What one task is told, and how much of it the task has seen.
#[derive(Default)]
struct Inbox {
    sent: AtomicU64,
    seen: AtomicU64,
    waker: AtomicWaker,
}

impl Inbox {
    /// Tells the task once more; the number that it must come to see.
    fn tell(&self) -> u64 {
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        self.waker.wake();
        number
    }

    async fn told(&self, seen: u64) -> u64 {
        poll_fn(|_| match self.sent.load(Ordering::SeqCst) {
            sent if sent > seen => Poll::Ready(sent),
            _ => Poll::Pending,
        })
        .await
    }
}

/// Polls `future` with its waker registered in `inbox` before every look.
async fn registered<T>(inbox: &Inbox, future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        inbox.waker.register(context.waker());
        future.as_mut().poll(context)
    })
    .await
}

/// Threads that tell tasks in rounds. Each round ends when every task has seen what it was told, so the
/// shard has nothing to do then and sleeps, and no later wake-up makes good for one that was lost.
struct Rounds {
    inboxes: Arc<Vec<Inbox>>,
    together: Barrier,
    over: AtomicBool,
}

impl Rounds {
    fn tell(&self, seed: u64) -> u64 {
        let begun = Instant::now();
        let mut random = Random::new(seed);
        let mut total = 0;
        while !self.over.load(Ordering::SeqCst) {
            // The wake-up meets the shard at any point of its way into sleep.
            let most = 1 << random.index(12);
            for _ in 0..random.index(most) {
                std::hint::spin_loop();
            }
            let told: Vec<(usize, u64)> = (0..=random.index(3))
                .map(|_| random.index(self.inboxes.len()))
                .map(|at| (at, self.inboxes[at].tell()))
                .collect();
            total += told.len() as u64;
            for (at, number) in told {
                self.await_seen(at, number);
            }
            if self.together.wait().is_leader() && begun.elapsed() > DURATION {
                self.over.store(true, Ordering::SeqCst);
            }
            self.together.wait();
        }
        total
    }

    fn await_seen(&self, at: usize, number: u64) {
        let begun = Instant::now();
        while self.inboxes[at].seen.load(Ordering::SeqCst) < number {
            if begun.elapsed() > WATCHDOG {
                // The others wait at the barrier: they would never hear of a panic.
                eprintln!("task {at} was not woken");
                std::process::abort();
            }
            std::hint::spin_loop();
        }
    }
}

#[test]
fn every_wake_from_other_threads_arrives_while_the_shard_falls_asleep() {
    if !can_run() {
        return;
    }
    let inboxes: Arc<Vec<Inbox>> = Arc::new((0..TASK_COUNT).map(|_| Inbox::default()).collect());
    let stop = Arc::new(Inbox::default());
    let (of_shard, stopped) = (Arc::clone(&inboxes), Arc::clone(&stop));
    let shard = spawn_shard(0, None, &ShardOptions::default(), |io| async move {
        for number in 0..of_shard.len() {
            let inboxes = Arc::clone(&of_shard);
            let class = [
                TaskClass::Foreground,
                TaskClass::CatchUp,
                TaskClass::Background,
            ][number % 3];
            io.spawn(class, async move {
                let inbox = &inboxes[number];
                let mut seen = 0;
                loop {
                    seen = registered(inbox, inbox.told(seen)).await;
                    inbox.seen.store(seen, Ordering::SeqCst);
                }
            });
        }
        registered(&stopped, stopped.told(0)).await;
    });
    for thread_count in [1, 3] {
        let rounds = Arc::new(Rounds {
            inboxes: Arc::clone(&inboxes),
            together: Barrier::new(thread_count),
            over: AtomicBool::new(false),
        });
        let threads: Vec<_> = (0..thread_count)
            .map(|seed| {
                let rounds = Arc::clone(&rounds);
                thread::spawn(move || rounds.tell(seed as u64))
            })
            .collect();
        let told: u64 = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        eprintln!("{told} wake-ups from {thread_count} threads");
        assert!(told > 0);
    }
    stop.tell();
    shard.unwrap().join();
}

/// More requests than one call hands over, from one task: those that found no room must follow
/// before the shard sleeps, or what they wait for goes unnoticed.
#[test]
fn no_request_is_left_behind_when_the_shard_sleeps() {
    const COUNT: usize = 1_000;
    if !can_run() {
        return;
    }
    run_watched("a socket with bytes was not noticed", |io| async move {
        let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let mut peers = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..COUNT {
            peers.push(TcpStream::connect(address).unwrap());
            streams.push(listener.accept().await.unwrap().0);
        }
        let polled = Arc::new(AtomicBool::new(false));
        let noticed = Arc::new(AtomicUsize::new(0));
        let (all_wait, seen) = (Arc::clone(&polled), Arc::clone(&noticed));
        let writer = thread::spawn(move || {
            while !all_wait.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // Those that were asked for last go first, one at a time: nothing else wakes the shard.
            for (count, peer) in peers.iter_mut().rev().enumerate() {
                peer.write_all(b"x").unwrap();
                while seen.load(Ordering::SeqCst) <= count {
                    thread::yield_now();
                }
            }
            peers
        });
        let received = join_all(streams.iter().map(|stream| async {
            let count = stream.receive(&mut [0; 8]).await.unwrap();
            noticed.fetch_add(count, Ordering::SeqCst);
        }));
        let mut received = Box::pin(received);
        poll_fn(|context| {
            let poll = received.as_mut().poll(context);
            polled.store(true, Ordering::SeqCst);
            poll.map(|_| ())
        })
        .await;
        drop(writer.join().unwrap());
    });
}

/// Wakers outlive the tasks and the shard; they are used meanwhile, from elsewhere.
#[test]
fn wakes_while_a_shard_ends_do_no_harm() {
    if !can_run() {
        return;
    }
    for round in 0..30 {
        let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let held = Arc::new(());
        let (of_shard, of_tasks) = (Arc::clone(&wakers), Arc::clone(&held));
        let shard = spawn_shard(0, None, &ShardOptions::default(), |io| async move {
            for _ in 0..100 {
                let (wakers, held) = (Arc::clone(&of_shard), Arc::clone(&of_tasks));
                io.spawn(TaskClass::Foreground, async move {
                    let _held = held;
                    let mut first = true;
                    poll_fn(|context| {
                        if std::mem::take(&mut first) {
                            wakers.lock().unwrap().push(context.waker().clone());
                        }
                        Poll::<()>::Pending
                    })
                    .await;
                });
            }
            let turns = Rc::new(Cell::new(0));
            poll_fn(|context| {
                turns.set(turns.get() + 1);
                context.waker().wake_by_ref();
                if turns.get() > 20 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        })
        .unwrap();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (wakers, over) = (Arc::clone(&wakers), Arc::clone(&over));
                thread::spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        for waker in wakers.lock().unwrap().iter() {
                            waker.wake_by_ref();
                        }
                    }
                })
            })
            .collect();
        shard.join();
        assert_eq!(
            Arc::strong_count(&held),
            1,
            "tasks are dropped, round {round}"
        );
        over.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.join().unwrap();
        }
        for waker in wakers.lock().unwrap().drain(..) {
            waker.wake();
        }
    }
}
