//! `millstream log verify DIR`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::{
    super::output::{self, show_size},
    Stopped,
};
use crate::storage::inspect::{JournalDamage, Summary, Verdict, inspect};

const EXAMPLES: &str = "\
A torn tail is what a crash leaves of a write that was never acknowledged: the
next start cuts it away, and nothing is wrong. What a journal alone holds is
counted with the log it follows; a damaged journal has a line of its own, as
nobody can tell whose records are missing. A partition of a topic that was
deleted may still appear, with what a journal holds of it.

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
    /// Those that a journal alone holds.
    journal_batches: u64,
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
            journal_batches: summary.journal_batch_count,
            bytes: summary.batch_bytes,
            verdict,
            damage,
        }
    }

    /// The journal's own entry.
    fn journal(damage: JournalDamage) -> Self {
        Self {
            topic_id: None,
            partition: None,
            path: damage.path.clone(),
            log_start_offset: 0,
            log_end_offset: 0,
            segments: 0,
            batches: 0,
            journal_batches: 0,
            bytes: 0,
            verdict: "damaged",
            damage: Some(Damaged {
                below: 0,
                path: damage.path,
                position: damage.position,
                reason: damage.reason,
            }),
        }
    }

    fn print_journal(&self) -> Result<()> {
        let Some(damage) = &self.damage else {
            return Ok(());
        };
        output::line(format_args!(
            "{}: {}: at {}: {}",
            self.path.display(),
            self.verdict,
            damage.position,
            damage.reason
        ))
    }

    fn print(&self) -> Result<()> {
        let Self {
            log_start_offset,
            log_end_offset,
            segments,
            batches,
            journal_batches,
            bytes,
            verdict,
            ..
        } = self;
        let journal = match journal_batches {
            0 => String::new(),
            count => format!(", {count} of them in the journal alone"),
        };
        output::line(format_args!(
            "{}: {verdict}: offsets {log_start_offset} to {log_end_offset}, {batches} batches, {} \
             in {segments} segments{journal}",
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
        let Stopped {
            partitions,
            journals,
        } = Stopped::open(&self.dir)?;
        for dir in partitions {
            let summary = inspect(&dir, &journals, &mut |_| {})
                .with_context(|| format!("cannot read {}", dir.display()))?;
            let one = Verified::new(dir, summary);
            if !self.json {
                one.print()?;
            }
            verified.push(one);
        }
        for damage in journals.damage() {
            let one = Verified::journal(damage);
            if !self.json {
                one.print_journal()?;
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
