//! A world in memory: executor, clock, disk and network from one seed.
//!
//! [`Sim::run`] runs a program against [`SimIo`]. The same seed takes the same path, to the byte
//! ([`Sim::trace_hash`]). A [`SimDisk`] outlives its simulation: crash it, and mount what is left in
//! another. Faults are asked for, never invented: without any, nothing fails.
#![forbid(unsafe_code)]

mod disk;
mod executor;
mod net;
#[cfg(test)]
mod tests;

use std::{future::Future, rc::Rc, task::Poll, time::Duration};

use super::{Clock, Io, Monotonic, Random, TaskClass, Tasks};
use executor::Executor;

pub use disk::{
    CrashPolicy, DiskImage, DiskTimes, Errno, Fault, Operation, SimBuffer, SimDisk, SimFile,
};
pub use net::{SimDetached, SimListener, SimNet, SimStream};

/// A simulation.
pub struct Sim {
    seed: u64,
    disk: SimDisk,
    trace_hash: u64,
}

impl Sim {
    /// A simulation of a seed, with an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            disk: SimDisk::new(),
            trace_hash: 0,
        }
    }

    /// Puts a disk in place of the empty one.
    #[must_use]
    pub fn with_disk(mut self, disk: &SimDisk) -> Self {
        self.disk = disk.clone();
        self
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Runs a program to its end; tasks that it leaves behind are dropped.
    ///
    /// # Panics
    /// On a deadlock, and if the disk is cut ([`SimDisk::cut_after`]).
    pub fn run<T, F>(&mut self, program: impl FnOnce(SimIo) -> F) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        self.run_until_cut(program)
            .expect("the disk was cut; use run_until_cut")
    }

    /// Runs a program to its end, or to the point where its disk is cut: then `None`.
    pub fn run_until_cut<T, F>(&mut self, program: impl FnOnce(SimIo) -> F) -> Option<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let executor = Executor::new(self.seed);
        let net = SimNet::default();
        let io = SimIo {
            executor: Rc::clone(&executor),
            disk: self.disk.clone(),
            net,
            node: 0,
        };
        let result = executor.run(program(io));
        self.trace_hash = executor.trace_hash();
        result
    }

    /// A hash over every choice and operation of the last run.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace_hash
    }
}

/// One node of a simulation: its disk, and the world that all nodes share.
#[derive(Clone)]
pub struct SimIo {
    executor: Rc<Executor>,
    disk: SimDisk,
    net: SimNet,
    node: u32,
}

impl SimIo {
    /// Another node of the same world, with a disk of its own.
    #[must_use]
    pub fn node(&self, node: u32, disk: &SimDisk) -> Self {
        let net = self.net.clone();
        Self {
            executor: Rc::clone(&self.executor),
            disk: disk.clone(),
            net,
            node,
        }
    }

    /// Drops every task of this node, as if its process were killed. Its disk stays as it is.
    pub fn kill(&self) {
        self.executor.kill(self.node);
    }

    /// Steps the wall clock, which the monotonic clock does not follow.
    pub fn step_wall(&self, by_ms: i64) {
        self.executor.step_wall(by_ms);
    }

    /// The network that all nodes share.
    #[must_use]
    pub fn sim_net(&self) -> &SimNet {
        &self.net
    }

    /// The disk of this node.
    #[must_use]
    pub fn sim_disk(&self) -> &SimDisk {
        &self.disk
    }
}

impl Clock for SimIo {
    fn now(&self) -> Monotonic {
        Monotonic(self.executor.now_ns())
    }

    fn wall_ms(&self) -> i64 {
        self.executor.wall_ms()
    }

    async fn sleep(&self, duration: Duration) {
        self.executor.sleep(duration).await;
    }
}

impl Tasks for SimIo {
    /// The class is ignored: the seed's order is harsher than any scheduler's.
    fn spawn(&self, _class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(self.node, task);
    }

    async fn yield_if_needed(&self) {
        if self.executor.random(|random| random.chance(25)) {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                if yielded {
                    return Poll::Ready(());
                }
                yielded = true;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}

impl Io for SimIo {
    fn random_u64(&self) -> u64 {
        self.executor.random(Random::next_u64)
    }
}
