//! What was measured, as a table for people and as JSON for scripts, with what it means for a broker.

use std::path::Path;

use anyhow::Result;
use millstream_loadgen::units::{show_count, show_us};
use serde::Serialize;

use super::super::output::{self, Table};
use crate::{
    host::disk_check::{
        DEPTH, DiskFigures, LARGE_SIZE, Latencies, Percentiles, SMALL_SIZE, Throughput,
    },
    types::quantity::show_size,
};

#[derive(Serialize)]
pub(super) struct Report {
    directory: String,
    file_system: String,
    direct_io: bool,
    free_bytes: u64,
    file_bytes: u64,
    sequential_write: Sequential,
    write_and_flush: Small,
    sequential_read: Sequential,
    expect: Expect,
}

#[derive(Serialize)]
struct Sequential {
    operation_bytes: usize,
    depth: usize,
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    latency_us: Percentiles,
}

#[derive(Serialize)]
struct Small {
    operation_bytes: usize,
    count: u64,
    seconds: f64,
    per_second: f64,
    latency_us: Percentiles,
    write_us: Percentiles,
    flush_us: Percentiles,
}

/// Bounds that the disk sets to a broker: what it takes of its own comes on top.
#[derive(Serialize)]
struct Expect {
    /// Of a flushed produce, one in flight, without the network.
    acknowledgement_p50_us: f64,
    acknowledgement_p99_us: f64,
    /// Acknowledgements of one producer that waits for each.
    one_in_flight_per_second: f64,
    produce_bytes_per_second: f64,
    cold_read_bytes_per_second: f64,
}

impl Sequential {
    fn of(measured: &Throughput) -> Self {
        Self {
            operation_bytes: LARGE_SIZE,
            depth: DEPTH,
            bytes: measured.bytes,
            seconds: measured.elapsed.as_secs_f64(),
            bytes_per_second: measured.bytes_per_second(),
            latency_us: measured.latencies.percentiles(),
        }
    }
}

impl Report {
    pub(super) fn of(directory: &Path, figures: &DiskFigures) -> Self {
        let flush = &figures.flush;
        let both = flush.both.percentiles();
        Self {
            directory: directory.display().to_string(),
            file_system: figures.file_system.clone(),
            direct_io: figures.direct,
            free_bytes: figures.free_bytes,
            file_bytes: figures.size,
            sequential_write: Sequential::of(&figures.write),
            write_and_flush: Small {
                operation_bytes: SMALL_SIZE,
                count: flush.both.count(),
                seconds: flush.elapsed.as_secs_f64(),
                per_second: flush.per_second(),
                latency_us: both,
                write_us: Latencies::percentiles(&flush.writes),
                flush_us: Latencies::percentiles(&flush.flushes),
            },
            sequential_read: Sequential::of(&figures.read),
            expect: Expect {
                acknowledgement_p50_us: both.p50,
                acknowledgement_p99_us: both.p99,
                one_in_flight_per_second: flush.per_second(),
                produce_bytes_per_second: figures.write.bytes_per_second(),
                cold_read_bytes_per_second: figures.read.bytes_per_second(),
            },
        }
    }

    pub(super) fn print(&self) -> Result<()> {
        let io = match self.direct_io {
            true => "direct I/O",
            false => "through the page cache: only flushes tell of the disk",
        };
        output::line(format_args!(
            "{} ({}, {io}, {} free), a file of {}\n",
            self.directory,
            self.file_system,
            show_size(self.free_bytes),
            show_size(self.file_bytes)
        ))?;
        self.table().print()?;
        let expect = &self.expect;
        output::line(format_args!(
            "\nWhat to expect of a broker on it, at best:\n\
             \x20 flushed, one in flight  acknowledged after {} (p50), {} (p99) and the network's time\n\
             \x20 flushed, many at once   {}; half of that while logs grow, for zeros go ahead of them\n\
             \x20 reading cold            {}",
            time(expect.acknowledgement_p50_us),
            time(expect.acknowledgement_p99_us),
            rate(expect.produce_bytes_per_second),
            rate(expect.cold_read_bytes_per_second),
        ))
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["", "RATE", "MEAN", "P50", "P99", "P99.9", "MAX"]);
        let mut row = |what: &str, rate: String, latency: &Percentiles| {
            let Percentiles {
                mean,
                p50,
                p99,
                p999,
                max,
            } = *latency;
            let [mean, p50, p99, p999, max] = [mean, p50, p99, p999, max].map(time);
            table.row([what.to_owned(), rate, mean, p50, p99, p999, max]);
        };
        let (write, small, read) = (
            &self.sequential_write,
            &self.write_and_flush,
            &self.sequential_read,
        );
        let large = format!("{}, {DEPTH} at once", show_size(LARGE_SIZE as u64));
        let name = format!("writes in order, {large}");
        row(&name, rate(write.bytes_per_second), &write.latency_us);
        let name = format!("a write of {} and its flush", show_size(SMALL_SIZE as u64));
        row(&name, per_second(small.per_second), &small.latency_us);
        row("  the write alone", String::new(), &small.write_us);
        row("  the flush alone", String::new(), &small.flush_us);
        let name = format!("reads in order, {large}");
        row(&name, rate(read.bytes_per_second), &read.latency_us);
        table
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for people; saturates"
)]
fn time(us: f64) -> String {
    show_us(us.round() as u64)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for people; saturates"
)]
fn per_second(count: f64) -> String {
    format!("{}/s", show_count(count.round() as u64))
}

fn rate(bytes_per_second: f64) -> String {
    match bytes_per_second / 1e6 {
        megabytes @ 1000.0.. => format!("{:.2} GB/s", megabytes / 1e3),
        megabytes @ 100.0.. => format!("{megabytes:.0} MB/s"),
        megabytes => format!("{megabytes:.1} MB/s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::disk_check::Flushes;

    #[test]
    fn rates() {
        assert_eq!(rate(2.345e9), "2.35 GB/s");
        assert_eq!(rate(3.456e8), "346 MB/s");
        assert_eq!(rate(1.25e6), "1.2 MB/s");
    }

    #[test]
    fn the_table_has_each_figure_in_its_place() {
        let throughput = |bytes, micros| Throughput {
            bytes,
            elapsed: Duration::from_secs(2),
            latencies: Latencies::of([Duration::from_micros(micros)]),
        };
        let latencies = |micros| Latencies::of([Duration::from_micros(micros)]);
        let figures = DiskFigures {
            file_system: "ext4".to_owned(),
            direct: true,
            free_bytes: 20 << 30,
            size: 1 << 30,
            write: throughput(4_000_000_000, 500),
            flush: Flushes {
                elapsed: Duration::from_millis(1),
                writes: latencies(50),
                flushes: latencies(70),
                both: latencies(120),
            },
            read: throughput(1_000_000_000, 900),
        };
        let report = Report::of(Path::new("/data"), &figures);
        let lines = [
            "                                     RATE         MEAN     P50     P99   P99.9     MAX",
            "writes in order, 128 KiB, 8 at once  2.00 GB/s  500 us  500 us  500 us  500 us  500 us",
            "a write of 4 KiB and its flush       1,000/s    120 us  120 us  120 us  120 us  120 us",
            "  the write alone                                50 us   50 us   50 us   50 us   50 us",
            "  the flush alone                                70 us   70 us   70 us   70 us   70 us",
            "reads in order, 128 KiB, 8 at once   500 MB/s   900 us  900 us  900 us  900 us  900 us",
        ];
        let expected = lines.map(|line| format!("{line}\n")).concat();
        assert_eq!(report.table().render(), expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["expect"]["acknowledgement_p99_us"], 120.0);
        assert_eq!(json["expect"]["produce_bytes_per_second"], 2e9);
        assert_eq!(json["write_and_flush"]["flush_us"]["p50"], 70.0);
    }
}
