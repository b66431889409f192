//! The load generator, as a program of its own.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millstream_loadgen::{LoadArgs, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator and verifier for Millstream
#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// What to do.
    #[command(flatten)]
    args: LoadArgs,
}

fn main() -> ExitCode {
    match run(&Cli::parse().args, broker_executable()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => usage.exit(),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// `millstream`, where it lies beside this program.
fn broker_executable() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("millstream");
    beside.is_file().then_some(beside)
}
