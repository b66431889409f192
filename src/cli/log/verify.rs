//! `millstream log verify DIR`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::{
    super::output::{self, show_size},
    partitions,
};
use crate::storage::inspect::{Summary, Verdict, inspect};

const EXAMPLES: &str = "\
A torn tail is what a crash leaves of a write that was never acknowledged: the
next start cuts it away, and nothing is wrong.

Exit status: 0 nothing durable is missing or damaged; 1 something is.

Examples:
  millstream log verify ./data
  millstream log verify ./data --json | jq '.[] | select(.verdict == \"damaged\")'";

/// Arguments of `millstream log verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// A data directory, or a topic's or partition's directory in one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verified {
    /// Null if no file says whose log it is.
    topic_id: Option<String>,
    partition: Option<u32>,
    path: PathBuf,
    log_start_offset: i64,
    log_end_offset: i64,
    segments: u64,
    batches: u64,
    bytes: u64,
    /// `good`, `torn tail` or `damaged`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<Damaged>,
}

#[derive(Serialize)]
struct Damaged {
    /// Everything below this offset is good.
    below: i64,
    path: PathBuf,
    position: u64,
    reason: String,
}

impl Verified {
    fn new(path: PathBuf, summary: Summary) -> Self {
        let (verdict, damage) = match summary.verdict {
            Verdict::Good => ("good", None),
            Verdict::TornTail { .. } => ("torn tail", None),
            Verdict::Damaged {
                below,
                path,
                position,
                reason,
            } => {
                let below = below.0;
                let damage = Damaged {
                    below,
                    path,
                    position,
                    reason,
                };
                ("damaged", Some(damage))
            }
        };
        Self {
            topic_id: summary.id.map(|id| id.topic.to_string()),
            partition: summary.id.map(|id| id.partition.0),
            path,
            log_start_offset: summary.log_start.0,
            log_end_offset: summary.log_end.0,
            segments: summary.segment_count,
            batches: summary.batch_count,
            bytes: summary.batch_bytes,
            verdict,
            damage,
        }
    }

    fn print(&self) -> Result<()> {
        let Self {
            log_start_offset,
            log_end_offset,
            segments,
            batches,
            bytes,
            verdict,
            ..
        } = self;
        output::line(format_args!(
            "{}: {verdict}: offsets {log_start_offset} to {log_end_offset}, {batches} batches, {} \
             in {segments} segments",
            self.path.display(),
            show_size(*bytes)
        ))?;
        let Some(damage) = &self.damage else {
            return Ok(());
        };
        output::line(format_args!(
            "  good below offset {}; at {} of {}: {}",
            damage.below,
            damage.position,
            damage.path.display(),
            damage.reason
        ))
    }
}

impl VerifyArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut verified = Vec::new();
        for dir in partitions(&self.dir)? {
            let summary = inspect(&dir, &mut |_| {})
                .with_context(|| format!("cannot read {}", dir.display()))?;
            let one = Verified::new(dir, summary);
            if !self.json {
                one.print()?;
            }
            verified.push(one);
        }
        if self.json {
            output::json(&verified)?;
        } else if verified.is_empty() {
            output::line("no partitions")?;
        }
        let damaged = verified.iter().any(|one| one.damage.is_some());
        Ok(match damaged {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}
