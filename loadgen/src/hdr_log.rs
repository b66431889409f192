//! Latencies in HdrHistogram's own formats: a log of one histogram an interval (`.hlog`), and the
//! percentile distribution as text, for the tools that plot either.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};

use crate::{
    meter::Sample,
    results::Percentile,
    series::{Tick, Whole},
};

/// Values are microseconds, and the log's own columns milliseconds.
const US_PER_MS: f64 = 1_000.0;

/// Writes one log. The library's writer borrows its file and serializer, so all three live on a
/// thread of their own, which also keeps compression from the thread that watches the run.
#[derive(Debug)]
pub struct HdrLog {
    path: PathBuf,
    intervals: mpsc::Sender<Entry>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    from: Duration,
    duration: Duration,
    latency_us: Histogram<u64>,
}

impl HdrLog {
    /// Begins a log.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn create(path: &Path, now_us: i64) -> Result<Self> {
        let file = File::create(path).with_context(|| cannot_write(path))?;
        let (intervals, received) = mpsc::channel();
        let start = micros(now_us);
        let thread = thread::Builder::new()
            .name("hdr-log".to_owned())
            .spawn(move || write_log(BufWriter::new(file), start, &received))
            .context("cannot start a thread")?;
        Ok(Self {
            path: path.to_owned(),
            intervals,
            thread,
        })
    }

    /// Adds an interval of each direction.
    pub fn add(&self, ticks: Vec<Tick>) {
        for tick in ticks {
            // An error means that the thread failed; `finish` tells why.
            let _ = self.intervals.send(Entry {
                name: tick.name,
                from: micros(tick.from_us),
                duration: micros(tick.duration_us),
                latency_us: tick.sample.latency_us,
            });
        }
    }

    /// Ends the log.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn finish(self) -> Result<()> {
        drop(self.intervals);
        match self.thread.join() {
            Ok(written) => written.with_context(|| cannot_write(&self.path)),
            Err(_) => Err(anyhow!(cannot_write(&self.path))),
        }
    }
}

fn write_log(
    mut file: impl Write,
    start: Duration,
    entries: &mpsc::Receiver<Entry>,
) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("latencies in microseconds, by Millstream's load generator")
        .with_start_time(UNIX_EPOCH + start)
        .with_max_value_divisor(US_PER_MS)
        .begin_log_with(&mut file, &mut serializer)?;
    for entry in entries {
        let (latency_us, from, duration) = (&entry.latency_us, entry.from, entry.duration);
        log.write_histogram(latency_us, from, duration, Tag::new(entry.name))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    file.flush()
}

/// Writes the percentile distribution of each direction. With two of them, the second part of each
/// file's name says which: `latency.txt` becomes `latency.produce.txt` and `latency.consume.txt`.
///
/// # Errors
/// If a file can't be written.
pub fn write_percentiles(path: &Path, wholes: &[Whole]) -> Result<()> {
    for whole in wholes {
        let path = match wholes.len() {
            1 => path.to_owned(),
            _ => named(path, whole.name),
        };
        let text = distribution(&whole.total, &whole.result.percentiles);
        fs::write(&path, text).with_context(|| cannot_write(&path))?;
    }
    Ok(())
}

fn named(path: &Path, name: &str) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(format!("{name}.{}", extension.to_string_lossy())),
        None => path.with_extension(name),
    }
}

/// HdrHistogram's text format, in milliseconds, as its plotter reads it.
fn distribution(sample: &Sample, percentiles: &[Percentile]) -> String {
    let histogram = &sample.latency_us;
    let ms = |us: u64| as_f64(us) / US_PER_MS;
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for point in percentiles {
        let part = point.percent / 100.0;
        let (value, count) = (ms(point.us), point.count);
        let _ = write!(text, "{value:>12.3} {part:>14.12} {count:>10}");
        match 1.0 / (1.0 - part) {
            tail if tail.is_finite() => {
                let _ = writeln!(text, " {tail:>14.2}");
            }
            _ => text.push('\n'),
        }
    }
    let (mean, deviation) = (histogram.mean() / US_PER_MS, histogram.stdev() / US_PER_MS);
    let _ = write!(
        text,
        "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        ms(histogram.max()),
        histogram.len(),
        histogram.buckets(),
        2048,
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "three digits are kept")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;
    use crate::{
        meter::Meter,
        series::{Series, Stream},
    };

    fn ticks(series: &mut Series, meter: &Meter, second: i64) -> Vec<Tick> {
        meter.record(|sample| sample.latency(0, second * 100, 3));
        series.interval(second * 1_000_000)
    }

    #[test]
    fn a_log_is_read_back_as_it_was_measured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.hlog");
        let meter = Meter::default();
        let stream = Stream::new("produce", vec![meter.clone()]);
        let mut series = Series::new(vec![stream], Duration::ZERO);
        series.begin(0);
        let log = HdrLog::create(&path, 0).unwrap();
        for second in 1..=2 {
            log.add(ticks(&mut series, &meter, second));
        }
        log.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let text = base64::Engine::decode(
                    &base64::engine::general_purpose::STANDARD,
                    interval.encoded_histogram(),
                );
                let text = text.unwrap();
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut text.as_slice())
                    .unwrap();
                let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                found.push((
                    tag,
                    interval.start_timestamp(),
                    histogram.max(),
                    histogram.len(),
                ));
            }
        }
        let produce = Some("produce".to_owned());
        assert_eq!(
            found,
            [
                (produce.clone(), Duration::ZERO, 100, 3),
                (produce, Duration::from_secs(1), 200, 3)
            ]
        );
    }

    #[test]
    fn a_distribution_looks_as_its_plotter_expects() {
        let mut sample = Sample::default();
        for us in 1..=1_000 {
            sample.latency(0, us, 1);
        }
        let text = distribution(&sample, &crate::figures::percentiles(&sample));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "       Value     Percentile TotalCount 1/(1-Percentile)"
        );
        assert_eq!(
            lines[2],
            "       0.001 0.000000000000          1           1.00"
        );
        let last = lines.iter().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(*last, "       1.000 1.000000000000       1000");
        assert!(text.contains("#[Max     =        1.000, Total count    =         1000]"));
    }

    #[test]
    fn files_are_named_for_their_direction() {
        let name = |path: &str| named(Path::new(path), "consume").display().to_string();
        assert_eq!(name("a/latency.txt"), "a/latency.consume.txt");
        assert_eq!(name("latency"), "latency.consume");
    }
}
