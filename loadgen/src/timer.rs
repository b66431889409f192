//! A timer with microsecond resolution. tokio's counts whole milliseconds, which at an open-loop
//! rate would show as latency of the broker.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One Linux `timerfd`, readable once its time has come.
#[derive(Debug)]
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
    set_for_us: Option<i64>,
}

impl Timer {
    /// A timer that is not set. Must be made within a tokio runtime.
    ///
    /// # Errors
    /// What the system said.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that lie about their descriptor; OwnedFd does not"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self {
            fd,
            set_for_us: None,
        })
    }

    /// Ready once `at_us` has come. Asking again for the same time costs no system call.
    ///
    /// # Errors
    /// What the system said.
    pub fn poll_until(
        &mut self,
        context: &mut Context<'_>,
        at_us: i64,
        now_us: i64,
    ) -> Poll<io::Result<()>> {
        if now_us >= at_us {
            self.set_for_us = None;
            return Poll::Ready(Ok(()));
        }
        if self.set_for_us != Some(at_us) {
            let after_us = at_us - now_us;
            let spec = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: after_us / 1_000_000,
                    tv_nsec: after_us % 1_000_000 * 1_000,
                },
            };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &spec)?;
            self.set_for_us = Some(at_us);
        }
        loop {
            let mut readable = ready!(self.fd.poll_read_ready(context))?;
            let mut expirations = [0; 8];
            match rustix::io::read(self.fd.get_ref(), &mut expirations) {
                Ok(_) => {
                    self.set_for_us = None;
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => readable.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn waits_as_long_as_it_should_and_can_be_set_again() {
        let clock = Clock::start();
        let mut timer = Timer::new().unwrap();
        for after_us in [0, 300, 2_500] {
            let at_us = clock.now_us() + after_us;
            poll_fn(|context| timer.poll_until(context, at_us, clock.now_us()))
                .await
                .unwrap();
            assert!(clock.now_us() >= at_us, "{after_us} us were not waited");
        }
    }
}
