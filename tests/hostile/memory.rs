//! Watches how much memory the broker takes.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::broker::MEMORY;

/// What a broker may take besides its budget, in bytes: code, stacks, rings, tasks, metadata.
const BESIDES: u64 = 96 << 20;

/// The most that a broker's resident set may be.
pub const LIMIT: u64 = MEMORY + BESIDES;

/// Resident set of a process in bytes; 0 if it is gone.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Samples a process's memory until it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to sample.
    pub fn begin(pid: u32) -> Self {
        let (stop, most) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid), Ordering::Relaxed);
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        Self {
            stop,
            most,
            thread: Some(thread),
        }
    }

    /// The most there was, which must be within the limit.
    #[track_caller]
    pub fn check(&self) -> u64 {
        let most = self.most.load(Ordering::Relaxed);
        assert!(most > 0, "the broker's memory could be read");
        assert!(
            most <= LIMIT,
            "the broker took {} MiB, its limit is {} MiB",
            most >> 20,
            LIMIT >> 20
        );
        most
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
