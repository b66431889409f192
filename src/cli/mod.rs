//! The command line: one file per command, each with its arguments and a `run`.
//!
//! Exit codes a script can trust: 0 done, 1 it failed (the reason is on stderr), 2 the command line
//! itself is wrong.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::settings::Environment;

mod bench;
mod completions;
mod config;
mod connect;
mod consume;
mod consume_group;
mod delay;
mod disk_check;
mod failure;
mod group;
mod json_record;
mod lines;
mod log;
mod moment;
mod output;
mod partitioner;
mod produce;
pub mod serve;
mod status;
mod text_record;
mod topic;
mod tune;

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
    /// Create, list, describe, alter, delete and trim topics
    Topic(topic::TopicArgs),
    /// Write lines of standard input to a topic
    Produce(produce::ProduceArgs),
    /// Print a topic's records
    Consume(consume::ConsumeArgs),
    /// List, count and cancel records that wait to be delivered
    Delay(delay::DelayArgs),
    /// List, describe, move and delete consumer groups
    Group(group::GroupArgs),
    /// Show whether the broker answers, and how it fares
    Status(status::StatusArgs),
    /// Generate load, measure it, and verify that nothing is lost
    Bench(Box<bench::BenchArgs>),
    /// Look at a stopped broker's files, and repair them
    Log(log::LogArgs),
    /// Measure what a disk can do, and so what to expect of a broker on it
    DiskCheck(disk_check::DiskCheckArgs),
    /// Look at what this host could do better, set it, take it back
    Tune(tune::TuneArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever kept it from being done; `failure::report` prints it and gives the exit code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => args.run(),
            Self::Topic(args) => args.run(),
            Self::Produce(args) => args.run(),
            Self::Consume(args) => args.run(),
            Self::Delay(args) => args.run(),
            Self::Group(args) => args.run(),
            Self::Status(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::Log(args) => args.run(),
            Self::DiskCheck(args) => args.run(),
            Self::Tune(args) => args.run(),
            Self::Completions(args) => args.run(),
        }
    }
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    // A broker says it in its log.
    if !matches!(command, Command::Serve(_)) {
        for misspelt in Environment::of_process().misspelt() {
            eprintln!("warning: {misspelt}");
        }
    }
    match command.run() {
        Ok(code) => code,
        Err(error) => failure::report(error),
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
