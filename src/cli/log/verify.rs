//! `millstream log verify DIR`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::{
    super::output::{self, show_size},
    Purpose, Stopped,
};
use crate::storage::{
    inspect::{JournalDamage, Summary, TornFrame, Verdict, inspect},
    is_delay_log, partition_of_log,
};

const EXAMPLES: &str = "\
A torn tail is what a crash leaves of a write that was never acknowledged: the
next start cuts it away, and nothing is wrong. What a journal alone holds is
counted with the log it follows; a damaged journal has a line of its own, as
nobody can tell whose records are missing, and so has a journal that ends with a
torn frame. A partition of a topic that was
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
    /// It is the delay log of the partition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delay_log: bool,
    path: PathBuf,
    log_start_offset: i64,
    log_end_offset: i64,
    segments: u64,
    batches: u64,
    /// Those that a journal alone holds.
    journal_batches: u64,
    bytes: u64,
    /// `good`, `torn tail`, `damaged` or `newer format`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<Damaged>,
    /// Of a journal that ends with a torn frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<Torn>,
}

#[derive(Serialize)]
struct Torn {
    position: u64,
    /// `TOPIC-ID/N` of the partitions that it held records of, as far as it says.
    partitions: Vec<String>,
    reason: String,
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
            Verdict::NewerFormat { path, version } => {
                let damage = Damaged {
                    below: summary.log_start.0,
                    path,
                    position: 0,
                    reason: format!(
                        "format version {version} is not known: a newer version of millstream wrote it"
                    ),
                };
                ("newer format", Some(damage))
            }
        };
        Self {
            topic_id: summary.id.map(|id| id.topic.to_string()),
            partition: summary.id.map(|id| partition_of_log(id).partition.0),
            delay_log: summary.id.is_some_and(is_delay_log),
            path,
            log_start_offset: summary.log_start.0,
            log_end_offset: summary.log_end.0,
            segments: summary.segment_count,
            batches: summary.batch_count,
            journal_batches: summary.journal_batch_count,
            bytes: summary.batch_bytes,
            verdict,
            damage,
            torn: None,
        }
    }

    /// The journal's own entry.
    fn journal(damage: JournalDamage) -> Self {
        Self {
            damage: Some(Damaged {
                below: 0,
                path: damage.path.clone(),
                position: damage.position,
                reason: damage.reason,
            }),
            ..Self::of_journal(&damage.path, "damaged")
        }
    }

    /// The entry of a journal that the next start cuts.
    fn torn(torn: &TornFrame) -> Self {
        Self {
            torn: Some(Torn {
                position: torn.position,
                partitions: torn.logs.iter().map(ToString::to_string).collect(),
                reason: torn.to_string(),
            }),
            ..Self::of_journal(&torn.path, "torn tail")
        }
    }

    fn of_journal(path: &Path, verdict: &'static str) -> Self {
        Self {
            topic_id: None,
            partition: None,
            delay_log: false,
            path: path.to_owned(),
            log_start_offset: 0,
            log_end_offset: 0,
            segments: 0,
            batches: 0,
            journal_batches: 0,
            bytes: 0,
            verdict,
            damage: None,
            torn: None,
        }
    }

    fn print_journal(&self) -> Result<()> {
        let damage = self.damage.as_ref().map(|it| (it.position, &it.reason));
        let torn = self.torn.as_ref().map(|it| (it.position, &it.reason));
        let Some((position, reason)) = damage.or(torn) else {
            return Ok(());
        };
        output::line(format_args!(
            "{}: {}: at {position}: {reason}",
            self.path.display(),
            self.verdict,
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
            "{}: {verdict}: offsets {log_start_offset} to {log_end_offset}, {}, {} in {}{journal}",
            self.path.display(),
            output::counted(*batches, "batch", "batches"),
            show_size(*bytes),
            output::counted(*segments, "segment", "segments"),
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
            _held,
        } = Stopped::open(&self.dir, Purpose::Judge)?;
        for dir in partitions {
            let summary = inspect(&dir, &journals, &mut |_| {})
                .with_context(|| format!("cannot read {}", dir.display()))?;
            let one = Verified::new(dir, summary);
            if !self.json {
                one.print()?;
            }
            verified.push(one);
        }
        let damaged = journals.damage().map(Verified::journal);
        for one in damaged.chain(journals.torn().iter().map(Verified::torn)) {
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
