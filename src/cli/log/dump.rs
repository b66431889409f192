//! `millstream log dump DIR`.

use std::{
    io::{self, BufWriter, StdoutLock, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use millstream_client::ConsumerRecord;
use millstream_protocol::{
    Offset, PartitionIndex,
    batch::{Batches, DecodedBatch},
};

use super::{
    super::{json_record, moment::show_time, output::counted},
    Purpose, Stopped,
};
use crate::storage::{
    inspect::{CheckpointV1, Finding, Summary, Verdict, inspect},
    is_delay_log, log_of_dir,
};

const EXAMPLES: &str = "\
With --records, topics appear by their id: their names are not in these files;
delayed records appear only when DIR is the directory of a delay log.

Examples:
  millstream log dump ./data
  millstream log dump ./data/topics/TOPIC-ID/0 --batches
  millstream log dump ./data/topics/TOPIC-ID --records |
      millstream produce rescued --format json";

/// Arguments of `millstream log dump`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DumpArgs {
    /// A data directory, or a topic's or partition's directory in one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print every batch too
    #[arg(long)]
    batches: bool,
    /// Print nothing but the records, as consume --format json does
    #[arg(long, conflicts_with = "batches")]
    records: bool,
    /// With --records: those below the log start too, which were trimmed or expired and are still in the files
    #[arg(long, requires = "records")]
    trimmed: bool,
}

impl DumpArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut printer = Printer {
            out: BufWriter::new(io::stdout().lock()),
            batches: self.batches,
            records: self.records,
            trimmed: self.trimmed,
            log_start: Offset(0),
            skipped: 0,
            line: Vec::new(),
        };
        let Stopped {
            partitions,
            journals,
            _held,
        } = Stopped::open(&self.dir, Purpose::Show)?;
        let is_delay = |dir: &Path| log_of_dir(dir).is_some_and(is_delay_log);
        for dir in partitions {
            if self.records && dir != self.dir && is_delay(&dir) {
                // Nobody who consumes the topic sees them yet, and what was taken back is among them.
                eprintln!("skipped delayed records: {} has them", dir.display());
                continue;
            }
            let mut printed = Ok(());
            printer.log_start = Offset(0);
            let summary = inspect(&dir, &journals, &mut |finding| {
                if printed.is_ok() {
                    printed = printer.print(finding);
                }
            });
            printed?;
            let summary = summary.with_context(|| format!("cannot read {}", dir.display()))?;
            if !self.records {
                printer.summary(&summary)?;
            }
        }
        for damage in journals.damage() {
            let (path, position, reason) = (damage.path.display(), damage.position, &damage.reason);
            match self.records {
                // Standard output is for records alone.
                true => eprintln!("warning: {path} at {position}: {reason}"),
                false => writeln!(printer.out, "{path}\n  {position:>10} damaged: {reason}")?,
            }
        }
        printer.out.flush()?;
        if printer.skipped > 0 {
            let skipped = counted(printer.skipped, "record", "records");
            eprintln!(
                "skipped {skipped} below the log start, trimmed or expired; --trimmed prints them too"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    batches: bool,
    records: bool,
    trimmed: bool,
    /// Of the log that is printed, as its checkpoints say.
    log_start: Offset,
    skipped: u64,
    line: Vec<u8>,
}

impl Printer {
    fn print(&mut self, finding: &Finding<'_>) -> Result<()> {
        if self.records {
            return match finding {
                Finding::Chunk {
                    header,
                    payload,
                    until,
                    ..
                }
                | Finding::Journaled {
                    header,
                    payload,
                    until,
                } => self.records(
                    &header.id.topic.to_string(),
                    header.id.partition,
                    payload,
                    *until,
                ),
                Finding::Checkpoint { state, .. } => {
                    let said = state.as_ref().map_or(0, |(_, state)| state.log_start);
                    self.log_start = self.log_start.max(Offset(said));
                    Ok(())
                }
                Finding::Segment { .. } | Finding::Stop { .. } => Ok(()),
            };
        }
        match finding {
            Finding::Checkpoint { path, state } => self.checkpoint(path, state),
            Finding::Segment { path, size, header } => {
                write!(self.out, "{}: {size} bytes", path.display())?;
                match header {
                    Ok(header) => writeln!(
                        self.out,
                        ", base offset {}, made {}",
                        header.base,
                        show_time(header.created_ms)
                    )?,
                    Err(reason) => writeln!(self.out, ": {reason}")?,
                }
                Ok(())
            }
            Finding::Chunk {
                position,
                header,
                payload,
                until,
                ..
            } => {
                writeln!(
                    self.out,
                    "  {position:>10} chunk {}..{} in {} batches, {} bytes, epoch {}, life {}, \
                     durable below {}, appended {}",
                    header.base,
                    header.next,
                    header.batch_count,
                    header.payload_size,
                    header.epoch,
                    header.incarnation,
                    header.flushed,
                    show_time(header.append_time_ms)
                )?;
                if *until < header.next {
                    writeln!(self.out, "             cut at offset {until}")?;
                }
                self.batches(payload, *until)
            }
            Finding::Journaled {
                header,
                payload,
                until,
            } => {
                writeln!(
                    self.out,
                    "  in journal {}..{until}, {} bytes, epoch {}, life {}, appended {}",
                    header.base,
                    payload.len(),
                    header.epoch,
                    header.incarnation,
                    show_time(header.append_time_ms)
                )?;
                self.batches(payload, *until)
            }
            Finding::Stop {
                position, reason, ..
            } => {
                writeln!(self.out, "  {position:>10} end: {reason}")?;
                Ok(())
            }
        }
    }

    fn checkpoint(
        &mut self,
        path: &Path,
        state: &Result<(u64, &CheckpointV1), String>,
    ) -> Result<()> {
        let path = path.display();
        match state {
            Ok((sequence, state)) => writeln!(
                self.out,
                "{path}: number {sequence}, log start {}, durable below {}, {}, {} bytes of \
                 producers",
                state.log_start,
                state.flushed,
                if state.clean { "clean stop" } else { "running" },
                state.snapshot.as_ref().map_or(0, Vec::len)
            )?,
            Err(reason) => writeln!(self.out, "{path}: {reason}")?,
        }
        Ok(())
    }

    /// A line for each batch, if they are wanted.
    fn batches(&mut self, payload: &[u8], until: Offset) -> Result<()> {
        if !self.batches {
            return Ok(());
        }
        for batch in Batches::trusted(payload) {
            let (header, _) = batch?;
            if header.next_offset() > until {
                break;
            }
            writeln!(
                self.out,
                "             batch {}..{}, {} bytes, {}, producer {} epoch {} sequence {}, {} to {}",
                header.base_offset,
                header.next_offset(),
                header.size,
                header.attributes.compression(),
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                show_time(header.base_timestamp_ms),
                show_time(header.max_timestamp_ms)
            )?;
        }
        Ok(())
    }

    fn records(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        payload: &[u8],
        until: Offset,
    ) -> Result<()> {
        for batch in Batches::checked(payload) {
            let (header, bytes) = batch?;
            if header.next_offset() > until {
                break;
            }
            let bytes = DecodedBatch::open(bytes).with_context(|| {
                format!("cannot open the batch at offset {}", header.base_offset)
            })?;
            for record in bytes.records() {
                let record = record?;
                if record.offset < self.log_start && !self.trimmed {
                    self.skipped += 1;
                    continue;
                }
                let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
                let headers = record.headers.map(|(name, value)| {
                    let name = String::from_utf8_lossy(name).into_owned();
                    (name, value.map(copy))
                });
                let record = ConsumerRecord {
                    topic: topic.into(),
                    partition,
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.map(copy),
                    value: record.value.map(copy),
                    headers: headers.collect(),
                };
                self.line.clear();
                json_record::write(&mut self.line, &record)?;
                self.out.write_all(&self.line)?;
            }
        }
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> Result<()> {
        let Summary {
            log_start,
            log_end,
            chunk_count,
            journal_batch_count,
            ..
        } = summary;
        write!(
            self.out,
            "  offsets {log_start} to {log_end} in {chunk_count} chunks"
        )?;
        if *journal_batch_count > 0 {
            write!(
                self.out,
                " and {journal_batch_count} batches of the journal"
            )?;
        }
        write!(self.out, ": ")?;
        match &summary.verdict {
            Verdict::Good => writeln!(self.out, "good")?,
            Verdict::TornTail { end } => writeln!(self.out, "a torn tail at offset {end}")?,
            Verdict::Damaged { below, reason, .. } => {
                writeln!(self.out, "damaged at offset {below}: {reason}")?;
            }
            Verdict::NewerFormat { path, version } => {
                let path = path.display();
                writeln!(self.out, "format version {version} of {path} is not known")?;
            }
        }
        Ok(())
    }
}
