//! Tells people and scripts what happens: a line each second, results at the end, JSON if wanted.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    figures::Figures,
    meter::{Meter, Sample},
    units::show_count,
    verify::Verdict,
};

/// A shorter rest at the end gets no line.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// What was asked for, for whoever compares results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// Client connections of each direction.
    pub connections: u32,
    /// Threads they were spread over.
    pub threads: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Seconds left out at the start.
    pub warmup_seconds: f64,
    /// How records were written, if they were.
    #[serde(flatten)]
    pub produce: Option<ProduceSettings>,
}

/// How records were written.
#[derive(Clone, Debug, Serialize)]
pub struct ProduceSettings {
    /// Bytes of a value.
    pub record_size: u64,
    /// Bytes at which a batch is full.
    pub batch_size: u64,
    /// Milliseconds a batch waits.
    pub linger_ms: f64,
    /// Most unacknowledged bytes of a connection.
    pub buffer_memory: u64,
    /// Records a second; 0 is as fast as possible.
    pub rate: u64,
    /// Codec.
    pub compression: &'static str,
    /// The topic's durability.
    pub durability: String,
}

/// One direction's figures over time.
#[derive(Debug)]
pub struct Stream {
    name: &'static str,
    meters: Vec<Meter>,
    total: Sample,
    intervals: Vec<Interval>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Interval {
    /// Seconds since the start at the end of the interval.
    at_seconds: f64,
    warmup: bool,
    #[serde(flatten)]
    figures: Figures,
}

/// The JSON result.
#[derive(Debug, Serialize)]
struct Results<'a> {
    run: String,
    topic: &'a str,
    settings: &'a Settings,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    produce: Option<StreamResult<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consume: Option<StreamResult<'a>>,
    /// Sent records that were neither acknowledged nor refused when the run was stopped.
    unanswered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<&'a Verdict>,
    errors: &'a [String],
}

#[derive(Debug, Serialize)]
struct StreamResult<'a> {
    total: Figures,
    intervals: &'a [Interval],
}

impl Stream {
    /// A direction with one meter for each worker.
    #[must_use]
    pub fn new(name: &'static str, meters: Vec<Meter>) -> Self {
        Self {
            name,
            meters,
            total: Sample::default(),
            intervals: Vec::new(),
        }
    }

    /// Takes what happened since the last call.
    fn take(&self) -> Sample {
        let mut sample = Sample::default();
        for meter in &self.meters {
            meter.drain_into(&mut sample);
        }
        sample
    }
}

/// Which run the results are of.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The run.
    pub run: u64,
    /// The topic.
    pub topic: &'a str,
    /// What was asked for.
    pub settings: &'a Settings,
}

/// What ended a run besides its figures.
#[derive(Debug, Default)]
pub struct Ending {
    /// Records neither acknowledged nor refused.
    pub unanswered: u64,
    /// The verdict, if the run verified.
    pub verdict: Option<Verdict>,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Ending {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.verdict.as_ref().is_none_or(Verdict::is_clean)
    }
}

/// Writes lines and results.
#[derive(Debug)]
pub struct Report {
    streams: Vec<Stream>,
    json: Option<PathBuf>,
    start_us: i64,
    warmup: Duration,
    /// Start of the interval under way.
    interval_us: i64,
    /// Length of all intervals that count.
    measured_us: i64,
    bar: Option<ProgressBar>,
    records: Option<u64>,
}

impl Report {
    /// A report on some streams. On a terminal there is a progress bar, over
    /// `records` or `duration`.
    #[must_use]
    pub fn new(
        streams: Vec<Stream>,
        json: Option<PathBuf>,
        warmup: Duration,
        duration: Option<Duration>,
        records: Option<u64>,
    ) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let length = records.or(duration.map(|limit| limit.as_secs()));
            let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = match length {
                Some(_) => "{bar:30} {elapsed} gone, {eta} left",
                None => "{spinner} {elapsed}",
            };
            bar.with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self {
            streams,
            json,
            warmup,
            start_us: 0,
            interval_us: 0,
            measured_us: 0,
            bar,
            records,
        }
    }

    /// The run starts.
    pub fn begin(&mut self, now_us: i64) {
        self.start_us = now_us;
        self.interval_us = now_us;
    }

    /// A second has passed (or the last part of one): a line for each stream.
    pub fn interval(&mut self, now_us: i64) {
        let duration_us = now_us - self.interval_us;
        // An interval that the warm-up ends in belongs to it.
        let warmup = since(self.start_us, self.interval_us) < self.warmup;
        self.interval_us = now_us;
        if !warmup {
            self.measured_us += duration_us;
        }
        let at_seconds = since(self.start_us, now_us).as_secs_f64();
        let mut lines = Vec::new();
        let mut done = 0;
        for stream in &mut self.streams {
            let sample = stream.take();
            let figures = Figures::new(&sample, duration_us);
            if !warmup {
                stream.total.add(&sample);
            }
            stream.intervals.push(Interval {
                at_seconds,
                warmup,
                figures,
            });
            let note = if warmup { "  (warm-up)" } else { "" };
            lines.push(format!(
                "{at_seconds:>6.1} s  {:<7} {figures}{note}",
                stream.name
            ));
            done = stream
                .intervals
                .iter()
                .map(|part| part.figures.records)
                .sum();
        }
        for line in lines {
            self.say(&line);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(match self.records {
                Some(_) => done,
                None => since(self.start_us, now_us).as_secs(),
            });
        }
    }

    /// What came in the last moment counts, and is no interval of its own.
    fn rest(&mut self) {
        for stream in &mut self.streams {
            let sample = stream.take();
            stream.total.add(&sample);
        }
    }

    /// A line for people: to standard output, unless that is for JSON.
    pub fn say(&self, line: &str) {
        let write = || {
            if self.json.as_deref() == Some(Path::new("-")) {
                eprintln!("{line}");
            } else {
                // A reader that has gone, as `head` does, is no reason to stop.
                let _ = writeln!(io::stdout(), "{line}");
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The end: totals, verdict, errors; and the JSON.
    ///
    /// # Errors
    /// If the JSON file can't be written.
    pub fn finish(mut self, about: &About<'_>, now_us: i64, ending: &Ending) -> Result<()> {
        if since(self.interval_us, now_us) >= SHORTEST_INTERVAL {
            self.interval(now_us);
        } else {
            self.rest();
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.say("");
        let mut results = Results {
            run: format!("{:016x}", about.run),
            topic: about.topic,
            settings: about.settings,
            ok: ending.is_ok(),
            produce: None,
            consume: None,
            unanswered: ending.unanswered,
            verify: ending.verdict.as_ref(),
            errors: &ending.errors,
        };
        for stream in &self.streams {
            let total = Figures::new(&stream.total, self.measured_us);
            self.say(&format!("   total  {:<7} {total}", stream.name));
            self.say(&format!(
                "          {} records, {} bytes in {:.1} s",
                show_count(total.records),
                show_count(total.bytes),
                total.seconds
            ));
            let result = Some(StreamResult {
                total,
                intervals: &stream.intervals,
            });
            match stream.name {
                "produce" => results.produce = result,
                _ => results.consume = result,
            }
        }
        if ending.unanswered > 0 {
            let count = show_count(ending.unanswered);
            self.say(&format!(
                "          {count} records were sent and not answered"
            ));
        }
        if let Some(verdict) = &ending.verdict {
            self.verdict(verdict);
        }
        self.write_json(&results)
    }

    fn verdict(&self, verdict: &Verdict) {
        let known = match verdict.acknowledged {
            Some(count) => format!(" of {} acknowledged", show_count(count)),
            None => String::new(),
        };
        self.say(&format!(
            "  verify  received {}{known}: lost {}, repeated {}, reordered {}, corrupt {}, moved {}{}",
            show_count(verdict.received),
            show_count(verdict.lost),
            show_count(verdict.repeated),
            show_count(verdict.reordered),
            show_count(verdict.corrupt),
            show_count(verdict.moved),
            if verdict.is_clean() {
                "; all is well"
            } else {
                ""
            },
        ));
        if verdict.foreign > 0 {
            let count = show_count(verdict.foreign);
            self.say(&format!(
                "          {count} records are not of this run: not judged"
            ));
        }
        for example in &verdict.examples {
            self.say(&format!("          {example}"));
        }
    }

    fn write_json(&self, results: &Results<'_>) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let mut json = serde_json::to_vec_pretty(results)?;
        json.push(b'\n');
        if path == Path::new("-") {
            return match io::stdout().write_all(&json) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(()),
            };
        }
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn since(from_us: i64, until_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(until_us - from_us).unwrap_or(0))
}
