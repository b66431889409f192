//! `millstream log repair DIR`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use millstream_protocol::Offset;
use serde::Serialize;

use super::{super::output, Purpose, Stopped};
use crate::storage::{
    is_delay_log, partition_of_log,
    repair::{LogRepair, Repair},
};

const EXAMPLES: &str = "\
Look first, with --dry-run: it says which records of which partitions are gone.
What can still be read stays, under its offsets; offsets whose records are gone
stay empty and never name another record. Nothing is deleted: damaged files get
a second name that ends in .damaged, which nothing looks at; remove them when
nobody wants to examine them any more. Where a journal cannot tell whose records
it lost, every partition goes on 2147483647 offsets later.

If the files can be restored from elsewhere, that loses nothing.

Exit status: 0 nothing is damaged, or it was repaired; 1 something is damaged
and was not repaired.

Examples:
  millstream log repair --dry-run ./data
  millstream log repair --yes ./data";

/// Arguments of `millstream log repair`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RepairArgs {
    /// The data directory of a stopped broker
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Told {
    repaired: bool,
    partitions: Vec<ToldLog>,
    /// Journals that are set aside whole.
    journals: Vec<PathBuf>,
}

#[derive(Serialize)]
struct ToldLog {
    topic_id: String,
    partition: u32,
    /// It is the delay log of the partition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delay_log: bool,
    path: PathBuf,
    reason: String,
    lost: Vec<ToldRange>,
    /// Offsets that may have named records in a journal that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<ToldRange>,
    log_start_offset: i64,
    log_end_offset: i64,
    set_aside: Vec<PathBuf>,
}

#[derive(Serialize)]
struct ToldRange {
    first_offset: i64,
    end_offset: i64,
}

impl From<&(Offset, Offset)> for ToldRange {
    fn from((first, end): &(Offset, Offset)) -> Self {
        Self {
            first_offset: first.0,
            end_offset: end.0,
        }
    }
}

impl From<&LogRepair> for ToldLog {
    fn from(log: &LogRepair) -> Self {
        Self {
            topic_id: log.id.topic.to_string(),
            partition: partition_of_log(log.id).partition.0,
            delay_log: is_delay_log(log.id),
            path: log.dir.clone(),
            reason: log.reason.clone(),
            lost: log.lost.iter().map(ToldRange::from).collect(),
            skipped: log.skipped.as_ref().map(ToldRange::from),
            log_start_offset: log.log_start.0,
            log_end_offset: log.log_end.0,
            set_aside: log.set_aside.clone(),
        }
    }
}

impl ToldLog {
    fn print(&self) -> Result<()> {
        output::line(format_args!("{}: {}", self.path.display(), self.reason))?;
        for range in &self.lost {
            let ToldRange {
                first_offset,
                end_offset,
            } = range;
            output::line(format_args!(
                "  lost: offsets {first_offset} to {}, at most {} records",
                end_offset - 1,
                end_offset - first_offset
            ))?;
        }
        if self.lost.is_empty() {
            output::line("  no record is known to be lost")?;
        }
        if let Some(skipped) = &self.skipped {
            output::line(format_args!(
                "  left out, as a lost frame may have used them: offsets from {} on",
                skipped.first_offset
            ))?;
        }
        output::line(format_args!(
            "  goes on at offset {} in a new life",
            self.log_end_offset
        ))?;
        for path in &self.set_aside {
            output::line(format_args!("  set aside: {}", path.display()))?;
        }
        Ok(())
    }
}

impl RepairArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        ensure!(
            self.dir.join("FORMAT").exists(),
            "{} is no data directory: there is no FORMAT file in it",
            self.dir.display()
        );
        let purpose = if self.yes {
            Purpose::Change
        } else {
            Purpose::Judge
        };
        let Stopped {
            partitions,
            journals,
            _held,
        } = Stopped::open(&self.dir, purpose)?;
        let repair = Repair::plan(&self.dir, &partitions, &journals).with_context(|| {
            format!("cannot repair {}, nothing was changed", self.dir.display())
        })?;
        let does = self.yes && !repair.is_empty();
        if does {
            let now = jiff::Timestamp::now().as_millisecond();
            let done = repair.execute(now);
            done.with_context(|| format!("cannot repair {}", self.dir.display()))?;
        }
        self.tell(&repair, does)?;
        if !repair.is_empty() && !self.yes && !self.dry_run {
            bail!("nothing was changed: to have it done, add --yes");
        }
        Ok(match repair.is_empty() || does {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    fn tell(&self, repair: &Repair, repaired: bool) -> Result<()> {
        let journals = repair.journals.values().flatten().chain(&repair.spoiled);
        let told = Told {
            repaired,
            partitions: repair.logs.iter().map(ToldLog::from).collect(),
            journals: journals.cloned().collect(),
        };
        if self.json {
            return output::json(&told);
        }
        told.partitions.iter().try_for_each(ToldLog::print)?;
        for path in &told.journals {
            output::line(format_args!("set aside: {}", path.display()))?;
        }
        output::line(match (repair.is_empty(), repaired) {
            (true, _) => "nothing is damaged",
            (false, true) => "repaired",
            (false, false) => "nothing was changed",
        })
    }
}
