//! `millstream disk-check`: what a disk can do, and so what to expect of a broker on it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_loadgen::units::{parse_duration, parse_size};

use super::{failure::usage, output};
use crate::{
    host::{
        check_kernel,
        disk_check::{DiskPlan, MIN_SIZE, Step, check_disk},
    },
    io::uring::{ShardOptions, spawn_shard},
    types::quantity::show_size,
};
use report::Report;

mod report;

/// More would tell nothing new.
const MAX_STEP_TIME: Duration = Duration::from_secs(60);
const MIN_STEP_TIME: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "\
It writes --size bytes several times over, into a file that has no name and is gone with the
process, also after Ctrl-C. A disk's own cache may answer reads of what was just written: a larger
--size tells more.
Exit status: 0 it was measured; 1 it was not, standard error says why; 2 the command line is wrong.

Examples:
  millstream disk-check /var/lib/millstream
  millstream disk-check /mnt/nvme --size 8GiB --time 10s --json | jq .expect";

/// Arguments of `millstream disk-check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiskCheckArgs {
    /// Directory on the disk; it must exist
    dir: PathBuf,
    /// Size of the file; what is free bounds it
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// Time of each of the four steps, up to 60s
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    time: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl DiskCheckArgs {
    /// Measures and prints.
    ///
    /// # Errors
    /// What kept it from being measured.
    pub fn run(self) -> Result<ExitCode> {
        if !(MIN_STEP_TIME..=MAX_STEP_TIME).contains(&self.time) {
            return Err(usage("--time is from 10ms to 60s"));
        }
        if self.size < MIN_SIZE {
            return Err(usage("--size is 16MiB or more"));
        }
        let directory = self.dir.canonicalize();
        let directory =
            directory.with_context(|| format!("cannot look at {}", self.dir.display()))?;
        if !directory.is_dir() {
            bail!("{} is no directory", directory.display());
        }
        check_kernel()?;
        let plan = DiskPlan {
            size: self.size,
            step_time: self.time,
        };
        let place = directory.clone();
        let options = ShardOptions::default();
        let shard = spawn_shard(0, None, &options, move |io| async move {
            check_disk(&io, &place, &plan, |step| tell(step, &plan)).await
        });
        let figures = shard.context("cannot start")?.join()?;
        let report = Report::of(&directory, &figures);
        if self.json {
            output::json(&report)?;
        } else {
            report.print()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell(step: Step, plan: &DiskPlan) {
    let what = match step {
        Step::Fill => format!("filling {} with zeros", show_size(plan.size)),
        Step::Write => "writing in order".to_owned(),
        Step::Flush => "writing and flushing one by one".to_owned(),
        Step::Read => "reading in order".to_owned(),
    };
    eprintln!("{what}, {:?} at most", plan.step_time);
}
