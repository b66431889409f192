//! What a run says.

use std::fmt;

use super::{DelayArgs, judge::Judge};
use crate::{
    meter::Sample,
    units::{counted, show_bytes, show_count, show_rounded, show_us},
};

/// Fewer ordinary records than these say nothing of a 99th percentile.
const MIN_SAMPLES: u64 = 1_000;

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    pub args: DelayArgs,
    pub accepting_us: i64,
    /// All were accepted so long before the first was due.
    pub was_ahead_us: i64,
    /// How many waited once all were accepted, and their bytes of disk.
    pub pending: (u64, u64),
    pub resident_before: u64,
    pub resident_pending: u64,
    pub resident_peak: u64,
    pub judge: Judge,
    /// Ordinary records before the first was due, and from then until the last had come.
    pub quiet: Sample,
    pub busy: Sample,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.judge.is_sound()
    }
}

fn percentiles(sample: &Sample) -> String {
    let all = &sample.latency_us;
    if all.is_empty() {
        return "nothing to tell".to_owned();
    }
    let at = |quantile: f64| show_us(all.value_at_quantile(quantile));
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        show_us(all.max())
    )
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = &self.args;
        writeln!(
            out,
            "{}, {} each, due over {:?}, {}",
            counted(args.records, "delayed record"),
            show_bytes(rounded(args.record_size)),
            args.over,
            counted(u64::from(args.partitions), "partition")
        )?;
        let seconds = rounded(self.accepting_us.unsigned_abs().max(1)) / 1e6;
        let rate = rounded(args.records) / seconds;
        let ahead = match self.was_ahead_us {
            0.. => "before the first was due".to_owned(),
            late => format!(
                "{} after the first was due: raise --after",
                show_us(late.unsigned_abs())
            ),
        };
        let rate = show_rounded(rate);
        writeln!(out, "accepted  in {seconds:.1} s, {rate}/s; all {ahead}")?;
        let (pending, disk) = self.pending;
        writeln!(
            out,
            "pending   {}, {} on disk; memory of the broker {} before, {} then, {} at most until the end",
            show_count(pending),
            show_bytes(rounded(disk)),
            memory(self.resident_before),
            memory(self.resident_pending),
            memory(self.resident_peak)
        )?;
        let judge = &self.judge;
        writeln!(
            out,
            "delivered {}, {} missing, {} early, {} repeated, {} out of order, {} of nobody",
            show_count(judge.distinct),
            show_count(judge.missing()),
            show_count(judge.early),
            show_count(judge.repeated),
            show_count(judge.disordered),
            show_count(judge.foreign)
        )?;
        if judge.rushed > 0 {
            let rushed = show_count(judge.rushed);
            writeln!(
                out,
                "          {rushed} were accepted too late for theirs to count"
            )?;
        }
        writeln!(
            out,
            "late      {} (broker's clock)",
            percentiles(&judge.late)
        )?;
        writeln!(
            out,
            "          {} (until read)",
            percentiles(&judge.seen_late)
        )?;
        self.tell_beside(out)
    }
}

impl Report {
    fn tell_beside(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.args.beside == 0 {
            return Ok(());
        }
        let rate = show_count(self.args.beside);
        writeln!(
            out,
            "beside    {rate} ordinary records/s: {} before",
            percentiles(&self.quiet)
        )?;
        writeln!(
            out,
            "          {} while they fell due",
            percentiles(&self.busy)
        )?;
        let (quiet, busy) = (&self.quiet.latency_us, &self.busy.latency_us);
        let few = quiet.len().min(busy.len());
        if few < MIN_SAMPLES {
            let few = show_count(few);
            return writeln!(
                out,
                "          only {few} in one of the two: give a longer --after or --over"
            );
        }
        let p99 = |all: &hdrhistogram::Histogram<u64>| rounded(all.value_at_quantile(0.99));
        let times = p99(busy) / p99(quiet).max(1.0);
        writeln!(out, "          p99 {times:.2} times that of before")
    }
}

fn memory(bytes: u64) -> String {
    match bytes {
        0 => "unknown".to_owned(),
        bytes => show_bytes(rounded(bytes)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn rounded(number: u64) -> f64 {
    number as f64
}
