//! `millstream serve`: starts the broker and stays until a signal.

use std::process::ExitCode;

use clap::Args;

/// Arguments of `millstream serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {}

impl ServeArgs {
    /// Runs the broker until a signal ends it.
    ///
    /// # Errors
    /// What the host or the data directory lacks, in one sentence.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("this build has no broker in it yet")
    }
}
