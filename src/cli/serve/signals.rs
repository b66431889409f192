//! SIGINT and SIGTERM: the first one asks for a clean stop, the second one ends the process at once.

use std::{io, sync::mpsc, thread};

use tokio::signal::unix::{SignalKind, signal};

/// What a shell shows for a process that a signal ended: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

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
                let mut next = async || {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                };
                next().await;
                // Nobody listens if the start failed; the second signal counts all the same.
                let _ = told.send(());
                next().await;
                tracing::warn!("a second signal: ending at once");
                std::process::exit(EXIT_INTERRUPTED);
            });
        })?;
    Ok(Signals { first })
}
