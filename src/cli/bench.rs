//! `millstream bench`: the load generator, without installing another program.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use millstream_loadgen::LoadArgs;

/// Arguments of `millstream bench`: those of `loadgen`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    load: LoadArgs,
}

impl BenchArgs {
    /// Runs the load.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn run(self) -> Result<ExitCode> {
        // For --spawn: the broker of this very build.
        let executable = std::env::current_exe().ok();
        Ok(match millstream_loadgen::run(&self.load, executable)? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
