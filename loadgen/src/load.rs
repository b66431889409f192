//! What one run does, once command line, workload file and defaults have been put together.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::error::ErrorKind;

use crate::{
    args::{ConsumeArgs, FromArg, Mode, SoakArgs, WriteArgs},
    payload::HEAD_SIZE,
    workload::{Extent, Writing, fill},
};

/// Segments of a soak's topics: small enough that retention, which deletes whole ones, is even.
const SOAK_SEGMENTS: u64 = 16;
const SMALLEST_SEGMENT: u64 = 1 << 20;
/// A soak's figures are told so often at most.
const SOAK_INTERVALS: u32 = 400;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Load {
    /// In which way.
    pub kind: Kind,
    /// How much and how long.
    pub extent: Extent,
}

/// In which way a run writes and reads.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Writers alone.
    Produce(Writing),
    /// Readers alone.
    Consume(FromArg),
    /// Writers, and readers beside them.
    Both(Writing),
    /// One record at a time, from producer to consumer.
    EndToEnd(Writing),
}

impl Load {
    /// The load of a mode that is a single run.
    ///
    /// # Errors
    /// A workload file that makes no sense, or arguments that contradict each other (a
    /// `clap::Error`).
    pub fn of(mode: Mode) -> Result<Self> {
        let load = match mode {
            Mode::Produce(args) => producing(args)?,
            Mode::Both(args) => writing(args, Kind::Both)?,
            Mode::EndToEnd(args) => end_to_end(args)?,
            Mode::Consume(args) => reading(args)?,
            Mode::Soak(args) => soak(args)?,
            Mode::Sweep(_)
            | Mode::Saturate(_)
            | Mode::Group(_)
            | Mode::Delay(_)
            | Mode::Compare(_)
            | Mode::Report(_)
            | Mode::NullSink(_) => {
                return Err(usage("not a single run"));
            }
        };
        load.check()?;
        Ok(load)
    }

    /// What is written, if anything is.
    #[must_use]
    pub fn writing(&self) -> Option<&Writing> {
        match &self.kind {
            Kind::Produce(writing) | Kind::Both(writing) | Kind::EndToEnd(writing) => Some(writing),
            Kind::Consume(_) => None,
        }
    }

    /// What the command line alone can tell.
    fn check(&self) -> Result<()> {
        let Some(writing) = self.writing() else {
            return Ok(());
        };
        let needs_head = self.extent.verify || matches!(self.kind, Kind::EndToEnd(_));
        if needs_head && writing.sizes.smallest() < HEAD_SIZE as u64 {
            return Err(usage(&format!(
                "verification and end-to-end need a --record-size that is at least {HEAD_SIZE}"
            )));
        }
        Ok(())
    }
}

/// An error of the command line as a whole.
pub fn usage(message: &str) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

fn writing(mut args: WriteArgs, kind: fn(Writing) -> Kind) -> Result<Load> {
    fill(&mut args.extent, Some(&mut args.produce))?;
    Ok(Load {
        kind: kind(Writing::of(&args.produce)),
        extent: Extent::of(&args.extent),
    })
}

fn producing(args: WriteArgs) -> Result<Load> {
    if args.extent.verify && args.extent.broker.spawn {
        return Err(usage(
            "produce --verify only stamps records, for consume --verify to judge later; with --spawn they are deleted \
             at the end and nothing can: use both --spawn --verify, or a broker that stays",
        ));
    }
    writing(args, Kind::Produce)
}

fn end_to_end(args: WriteArgs) -> Result<Load> {
    let mut load = writing(args, Kind::EndToEnd)?;
    if let Kind::EndToEnd(writing) = &mut load.kind {
        // Each connection has a partition to itself.
        writing.partitions.get_or_insert(load.extent.producers);
        ensure!(!load.extent.verify, "end-to-end does not verify: use both");
    }
    Ok(load)
}

fn reading(mut args: ConsumeArgs) -> Result<Load> {
    fill(&mut args.extent, None)?;
    Ok(Load {
        kind: Kind::Consume(args.from),
        extent: Extent::of(&args.extent),
    })
}

fn soak(mut args: SoakArgs) -> Result<Load> {
    fill(&mut args.write.extent, Some(&mut args.write.produce))?;
    args.fill_defaults();
    let told_interval = args.write.extent.interval.is_some();
    let mut load = writing(args.write, Kind::Both)?;
    let extent = &mut load.extent;
    if let (false, Some(duration)) = (told_interval, extent.duration) {
        // Whole seconds, so that a long run has a series that can still be looked at.
        let seconds = duration.as_secs() / u64::from(SOAK_INTERVALS);
        extent.interval = Duration::from_secs(seconds.max(1));
    }
    if let Kind::Both(writing) = &mut load.kind {
        let topics = u64::from(extent.topics.unwrap_or(1));
        let partitions = topics * u64::from(writing.partitions.unwrap_or(1));
        let kept = (args.disk / partitions).max(SMALLEST_SEGMENT);
        let segment = (kept / SOAK_SEGMENTS).max(SMALLEST_SEGMENT);
        let setting = |name: &str, value: u64| (name.to_owned(), value.to_string());
        let config = &mut writing.topic_config;
        config.insert(0, setting("retention.bytes", kept));
        config.insert(1, setting("segment.bytes", segment));
    }
    Ok(load)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::LoadArgs;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn load(line: &str) -> Result<Load> {
        let words = std::iter::once("loadgen").chain(line.split(' '));
        Load::of(Cli::try_parse_from(words)?.load.mode)
    }

    #[test]
    fn a_soak_is_bounded_in_time_and_disk_and_verifies() {
        let soak = load("soak --partitions 4 --disk 1GiB").unwrap();
        assert!(soak.extent.verify);
        assert_eq!(soak.extent.duration, Some(Duration::from_secs(600)));
        assert_eq!(soak.extent.interval, Duration::from_secs(1));
        let writing = soak.writing().unwrap();
        assert_eq!(writing.rate, 10_000);
        let config = &writing.topic_config;
        assert_eq!(config[0], ("retention.bytes".into(), "268435456".into()));
        assert_eq!(config[1], ("segment.bytes".into(), "16777216".into()));
        let long = load("soak --duration 8h --rate 0").unwrap();
        assert_eq!(long.extent.interval, Duration::from_secs(72));
        assert_eq!(long.writing().unwrap().rate, 0);
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        for line in [
            "produce --verify --record-size 39",
            "both --verify --record-size uniform:10-100",
            "end-to-end --record-size 8",
            "produce --verify --spawn",
        ] {
            assert!(load(line).is_err(), "{line}");
        }
        assert!(load("produce --record-size 8").is_ok());
        assert!(load("both --verify --record-size 40").is_ok());
        assert!(load("both --verify --spawn").is_ok());
    }

    #[test]
    fn a_workload_fills_what_no_flag_says() {
        let load = load("produce --workload orders --rate 5").unwrap();
        let writing = load.writing().unwrap();
        assert_eq!((writing.rate, writing.partitions), (5, Some(4)));
        assert_eq!((load.extent.producers, load.extent.consumers), (8, 8));
    }
}
