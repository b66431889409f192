//! `millstream consume TOPIC…`: records become lines of standard output.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use millstream_client::{
    AutoOffsetReset, Client, ConsumeError, Consumer, ConsumerRecord, Offset, OffsetSpec,
    PartitionIndex, RequestError, StartAt,
};
use millstream_loadgen::units::parse_count;
use tokio::time::{Instant, sleep};

use super::{
    connect::{ConnectArgs, block_on},
    consume_group::{self, Membership},
    failure::usage,
    json_record,
    moment::Place,
    produce::Format,
    text_record::TextWriter,
};

/// Longest wait within one poll.
pub(super) const POLL_WAIT: Duration = Duration::from_millis(500);
/// Pause after an error that may pass.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Without --follow, trouble that lasts this long is final.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Records taken from the client at once.
pub(super) const POLL_RECORDS: usize = 10_000;

const EXAMPLES: &str = "\
Records of one partition come in offset order. Without --follow, reading stops
where each partition ended when the command started.

With --format json, a key, value or header value that is no UTF-8 appears as
key_base64 or value_base64; nothing is lost, and produce --format json takes it.

With --group, the group's members share the partitions; reading begins where the
group has committed, and what was printed is committed. --from beginning or end
says where to begin what the group has not read yet.

Exit status: 0 all was read, or the reader went (| head); 1 not; 2 wrong command
line.

Examples:
  millstream consume events
  millstream consume events --from end --follow
  millstream consume events --from -1h --max-records 10 --format json
  millstream consume events clicks --partition 0 | head
  millstream consume events --group billing --follow";

/// Arguments of `millstream consume`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConsumeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Where to begin: beginning, end, OFFSET, 2026-11-22T18:00:00Z, @MILLISECONDS or -1h (ago)
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    from: Place,
    /// Read only this partition; may be given several times
    #[arg(long, short, value_name = "N")]
    partition: Vec<u32>,
    /// Read as a member of this consumer group
    #[arg(long, short, value_name = "GROUP")]
    group: Option<String>,
    /// Name of this member that survives its restarts
    #[arg(long, value_name = "ID", requires = "group")]
    instance_id: Option<String>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = parse_count)]
    max_records: Option<u64>,
    /// Wait for new records at the end
    #[arg(long, short)]
    follow: bool,
    /// What lines are
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// In text, print each record's key and this before its value
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
}

/// Partitions under way: where each ends, if it has an end.
type Ends = BTreeMap<(Arc<str>, PartitionIndex), Option<Offset>>;

impl ConsumeArgs {
    /// Reads and prints.
    ///
    /// # Errors
    /// If something can't be read or written.
    pub fn run(self) -> Result<ExitCode> {
        if self.format == Format::Json && self.key_separator.is_some() {
            return Err(usage("--key-separator is for text; JSON has the key"));
        }
        match self.group.clone() {
            None => block_on(self.read_all()),
            Some(group) => self.read_as_member(group),
        }
    }

    fn read_as_member(self, group: String) -> Result<ExitCode> {
        if !self.partition.is_empty() {
            return Err(usage(
                "the group decides which partitions a member reads: leave --partition out",
            ));
        }
        let reset = match self.from {
            Place::Beginning => AutoOffsetReset::Earliest,
            Place::End => AutoOffsetReset::Latest,
            Place::Offset(_) | Place::Time(_) => {
                return Err(usage(
                    "a group begins where it has committed; millstream group reset-offsets moves that",
                ));
            }
        };
        let membership = Membership {
            group,
            instance_id: self.instance_id.clone(),
            topics: self.topics.clone(),
            reset,
            follow: self.follow,
        };
        let printer = Printer::new(self.max_records, self.format, self.key_separator);
        block_on(consume_group::read(&self.connect, membership, printer))
    }

    async fn read_all(self) -> Result<ExitCode> {
        let client = self.connect.client().await?;
        let mut consumer = client.consumer().max_poll_records(POLL_RECORDS).build();
        let mut ends = Ends::new();
        for topic in &self.topics {
            self.assign(&client, topic, &mut consumer, &mut ends)
                .await?;
        }
        let mut printer = Printer::new(self.max_records, self.format, self.key_separator);
        let mut trouble_since: Option<Instant> = None;
        while printer.left != Some(0) {
            ends.retain(|(topic, partition), end| {
                let position = consumer.position(topic, *partition);
                let Some(end) = end else { return true };
                position.is_none_or(|position| position < *end)
            });
            if ends.is_empty() {
                break;
            }
            match consumer.poll(POLL_WAIT).await {
                Ok(records) => {
                    trouble_since = None;
                    printer.print(&records, &ends)?;
                }
                Err(error) if error.is_retriable() => {
                    let since = *trouble_since.get_or_insert_with(|| {
                        eprintln!("warning: {error}; trying again");
                        Instant::now()
                    });
                    if !self.follow && since.elapsed() > PATIENCE {
                        return Err(error.into());
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(explained(error)),
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn assign(
        &self,
        client: &Client,
        topic: &str,
        consumer: &mut Consumer,
        ends: &mut Ends,
    ) -> Result<()> {
        let latest = client
            .admin()
            .list_offsets(topic, OffsetSpec::Latest)
            .await?;
        if let Some(&missing) = self
            .partition
            .iter()
            .find(|&&wanted| !latest.iter().any(|(partition, _)| partition.0 == wanted))
        {
            return Err(RequestError::UnknownPartition {
                topic: topic.into(),
                partition: PartitionIndex(missing),
                count: latest.len(),
            }
            .into());
        }
        let name: Arc<str> = Arc::from(topic);
        for (partition, end) in latest {
            if !self.partition.is_empty() && !self.partition.contains(&partition.0) {
                continue;
            }
            if let Place::Offset(from) = self.from
                && from > end.0
            {
                bail!("offset {from} of {topic}/{partition} is beyond its end, {end}");
            }
            consumer
                .assign(topic, partition, StartAt::from(self.from))
                .await
                .with_context(|| format!("cannot read {topic}/{partition}"))?;
            ends.insert(
                (Arc::clone(&name), partition),
                (!self.follow).then_some(end),
            );
        }
        Ok(())
    }
}

/// What the client says of offsets is for programs: here it is options of the command that help.
fn explained(error: ConsumeError) -> anyhow::Error {
    match error {
        ConsumeError::OffsetOutOfRange {
            topic,
            partition,
            offset,
            log_start,
            high_watermark,
        } => anyhow!(
            "offset {offset} of {topic}/{partition} is out of range: it holds {log_start} to {high_watermark}; give \
             --from beginning, or an offset in that range"
        ),
        error => error.into(),
    }
}

pub(super) struct Printer {
    left: Option<u64>,
    out: Vec<u8>,
    text: TextWriter,
    format: Format,
}

impl Printer {
    fn new(most: Option<u64>, format: Format, key_separator: Option<String>) -> Self {
        Self {
            left: most,
            out: Vec::new(),
            text: TextWriter::new(key_separator.map(String::into_bytes)),
            format,
        }
    }

    /// Whether as many were printed as were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Prints records up to the count that was asked for; tells how many.
    pub(super) fn print_all(&mut self, records: &[ConsumerRecord]) -> Result<usize> {
        let most = self.left.and_then(|left| usize::try_from(left).ok());
        let count = records.len().min(most.unwrap_or(usize::MAX));
        self.out.clear();
        for record in &records[..count] {
            self.write(record)?;
        }
        self.flush()?;
        Ok(count)
    }

    /// Prints records, those beyond the end of their partition excepted: the end is where the
    /// partition ended at the start, whoever writes meanwhile.
    fn print(&mut self, records: &[ConsumerRecord], ends: &Ends) -> Result<()> {
        self.out.clear();
        for record in records {
            if self.left == Some(0) {
                break;
            }
            let partition = (Arc::clone(&record.topic), record.partition);
            match ends.get(&partition) {
                Some(Some(end)) if record.offset < *end => {}
                Some(None) => {}
                Some(Some(_)) | None => continue,
            }
            self.write(record)?;
        }
        self.flush()
    }

    fn write(&mut self, record: &ConsumerRecord) -> Result<()> {
        match self.format {
            Format::Text => self.text.write(
                &mut self.out,
                record.key.as_deref(),
                record.value.as_deref(),
                &record.headers,
            ),
            Format::Json => json_record::write(&mut self.out, record)?,
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        // Rust's standard output is line-buffered: one write of many lines passes it by.
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.out).and_then(|()| stdout.flush());
        written.context("cannot write to standard output")
    }
}
