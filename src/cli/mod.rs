//! The command line: one file per command, each with its arguments and a `run`.
//!
//! Exit codes a script can trust: 0 done, 1 it failed (the reason is on stderr), 2 the command line
//! itself is wrong.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod serve;

/// A durable, thread-per-core log broker.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, propagate_version = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a broker; Ctrl-C stops it cleanly
    Serve(serve::ServeArgs),
}

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever kept it from being done; `main` prints the chain of causes on one line.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => args.run(),
        }
    }
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
