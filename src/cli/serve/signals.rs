//! SIGINT and SIGTERM: the first one asks for a clean stop, a second one ends the process at once.

use std::{io, sync::mpsc, thread, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// What a shell shows for a process that a signal ended: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// What comes within this of the first signal is the same wish: `timeout` signals the process and then its
/// whole group, and so do supervisors and terminals.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Signals as they come, from now on.
pub(super) struct Signals {
    first: mpsc::Receiver<()>,
}

impl Signals {
    /// Returns at the first signal.
    pub(super) fn wait(&self) {
        self.first
            .recv()
            .expect("the signal thread outlives the broker");
    }
}

/// Takes signals over from the defaults, on a thread of its own.
pub(super) fn listen() -> io::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let (told, first) = mpsc::channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let begin = Instant::now();
                let mut wishes = Wishes::default();
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    match wishes.signalled(begin.elapsed()) {
                        // Nobody listens if the start failed; a second signal counts all the same.
                        Wish::Stop => _ = told.send(()),
                        Wish::Repeated => {}
                        Wish::End => break,
                    }
                }
                tracing::warn!("a second signal: ending at once");
                std::process::exit(EXIT_INTERRUPTED);
            });
        })?;
    Ok(Signals { first })
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// A clean stop.
    Stop,
    /// What was asked for a moment ago.
    Repeated,
    /// The end, at once.
    End,
}

/// Tells impatience from one wish that arrives twice.
#[derive(Debug, Default)]
struct Wishes {
    first: Option<Duration>,
}

impl Wishes {
    /// A signal came at `now`, counted from any time.
    fn signalled(&mut self, now: Duration) -> Wish {
        match self.first {
            None => {
                self.first = Some(now);
                Wish::Stop
            }
            Some(first) if now.saturating_sub(first) < ONE_WISH => Wish::Repeated,
            Some(_) => Wish::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_counts_when_it_is_a_second_wish() {
        let ms = Duration::from_millis;
        let mut wishes = Wishes::default();
        let said = [5_000, 5_000, 5_001, 5_999, 6_000].map(|at| wishes.signalled(ms(at)));
        let same = Wish::Repeated;
        assert_eq!(said, [Wish::Stop, same, same, same, Wish::End]);
    }
}
