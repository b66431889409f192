//! `millstream produce TOPIC`: lines of standard input become records.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Read},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use millstream_client::{
    Client, Compression, Delivery, ErrorCode, PartitionIndex, ProduceError, Producer,
    ProducerRecord, RequestError,
};
use millstream_loadgen::{
    CompressionArg,
    units::{parse_duration, show_count},
};
use millstream_protocol::limits::MAX_BATCH_SIZE;
use tokio::sync::mpsc;

use super::{
    config::parse_setting,
    connect::{ConnectArgs, block_on},
    failure::usage,
    json_record,
    lines::{Line, LineSplitter},
    moment::Moment,
    partitioner::PartitionerArg,
    text_record::{self, LineForm, NO_NEWLINE},
};

/// Bytes read from standard input at once.
const CHUNK_SIZE: usize = 256 << 10;
/// Chunks read ahead of sending.
const CHUNKS_AHEAD: usize = 8;
/// How long records are tried for if nothing is said.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

const EXAMPLES: &str = "\
A line ends at a line feed and nowhere else: carriage returns, empty lines and
bytes that are no UTF-8 arrive as they are. Where the last line has no line
feed, its record gets the header millstream.no-newline, and consume then leaves
the line feed out too.

Exit status: 0 every record was acknowledged; 1 not; 2 wrong command line.

Examples:
  echo hello | millstream produce events
  millstream produce events --key-separator : < pairs.txt
  millstream produce events --partition 0 --compression zstd < access.log
  echo 'call back' | millstream produce reminders --delay 1h --delay-id call-17
  millstream consume events --format json | millstream produce copy --format json";

/// Arguments of `millstream produce`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ProduceArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The topic
    topic: String,
    /// Send to this partition; otherwise the key chooses it
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// How the key chooses the partition
    #[arg(long, value_enum, default_value_t = PartitionerArg::Murmur2)]
    partitioner: PartitionerArg,
    /// What lines are
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The key is what precedes this in each line, the value what follows
    #[arg(long, value_name = "TEXT", conflicts_with = "tombstone")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Each line is a key, and its record has no value: it marks the key as deleted
    #[arg(long)]
    tombstone: bool,
    /// Add a header to every record; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    header: Vec<(String, String)>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    compression: CompressionArg,
    /// With --format json: the partition in a line does not count
    #[arg(long)]
    ignore_partition: bool,
    /// Have the records delivered so long after the broker has accepted them
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Have the records delivered at a time, such as 2030-01-01T08:00:00Z or @1893484800000
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// With --delay or --at: an id to cancel it by; another record of this id takes its place
    #[arg(long, value_name = "ID")]
    delay_id: Option<String>,
    /// How long to keep trying while the broker is away, from the first connection on; without this the
    /// first connection is tried once, and records for 2m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// What lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The value, byte for byte
    Text,
    /// A JSON object for each record, carrying everything it has
    Json,
}

impl ProduceArgs {
    /// Sends standard input.
    ///
    /// # Errors
    /// If a line can't be sent.
    pub fn run(self) -> Result<ExitCode> {
        let text_only = self.key_separator.is_some() || self.tombstone;
        if self.format == Format::Json && text_only {
            return Err(usage(
                "--key-separator and --tombstone are for text; JSON says key and value itself",
            ));
        }
        if let Some((name, _)) = self
            .header
            .iter()
            .find(|(name, _)| name.starts_with("millstream."))
        {
            return Err(usage(format_args!(
                "header {name:?}: names that begin with \"millstream.\" are the system's"
            )));
        }
        if self.delay_id.is_some() && !self.is_delayed() {
            return Err(usage("--delay-id goes with --delay or --at"));
        }
        block_on(self.send_all())
    }

    fn is_delayed(&self) -> bool {
        self.delay.is_some() || self.at.is_some()
    }

    async fn reach(&self) -> Result<Client, RequestError> {
        let client = self.connect.client().await?;
        // Says that there is no such topic before a line is typed.
        client.admin().topic(&self.topic).await?;
        Ok(client)
    }

    async fn send_all(self) -> Result<ExitCode> {
        let client = match self.timeout {
            Some(patience) => {
                let reach = async || self.reach().await;
                self.connect.keep_trying(patience, reach).await?
            }
            // A wrong address should not take two minutes to show.
            None => self.reach().await?,
        };
        let producer = self
            .partitioner
            .set(client.producer())
            .compression(Compression::from(self.compression))
            .delivery_timeout(self.timeout.unwrap_or(DELIVERY_TIMEOUT))
            .build()
            .await?;
        let talks = io::stdin().is_terminal();
        let mut sender = Sender {
            topic: Arc::from(self.topic.as_str()),
            form: match &self.key_separator {
                Some(separator) => LineForm::KeyValue(separator.as_bytes().to_vec()),
                None if self.tombstone => LineForm::Tombstone,
                None => LineForm::Value,
            },
            args: self,
            producer,
            talks,
            lines: 0,
            acknowledged: 0,
            pending: VecDeque::new(),
        };
        let sent = sender.send_input().await;
        let settled = match sent {
            Ok(()) => sender.settle_all().await,
            Err(error) => {
                // What was taken before the bad line still arrives, so that the count is true.
                let _ = sender.settle_all().await;
                Err(error)
            }
        };
        if !talks {
            let records = show_count(sender.acknowledged);
            let done = match sender.args.is_delayed() {
                true => "accepted for",
                false => "written to",
            };
            eprintln!("{records} record(s) {done} topic {:?}", sender.args.topic);
        }
        settled?;
        sender.producer.close().await?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Sender {
    args: ProduceArgs,
    topic: Arc<str>,
    form: LineForm,
    producer: Producer,
    /// Somebody types: each line goes at once, and its place is printed.
    talks: bool,
    lines: u64,
    acknowledged: u64,
    /// Batches under way.
    pending: VecDeque<Pending>,
}

/// A batch under way, and the lines it was made of.
struct Pending {
    delivery: Delivery,
    first: u64,
    count: u64,
}

impl Pending {
    /// Which lines, for whoever has to find the one that was refused.
    fn lines(&self) -> String {
        let (first, last) = (self.first, self.first + self.count - 1);
        match self.count {
            1 => format!("line {first}"),
            _ => format!("lines {first} to {last}, one batch"),
        }
    }
}

impl Sender {
    async fn send_input(&mut self) -> Result<()> {
        let mut chunks = read_stdin();
        let mut splitter = LineSplitter::default();
        while let Some(chunk) = chunks.recv().await {
            splitter.push(&chunk.context("cannot read standard input")?);
            while let Some(line) = splitter.next_line() {
                self.send(&line).await?;
            }
            if splitter.pending_size() > MAX_BATCH_SIZE as usize {
                let (line, limit) = (self.lines + 1, MAX_BATCH_SIZE);
                bail!("line {line} is longer than {limit} bytes, the most a record may have");
            }
        }
        match splitter.finish() {
            Some(line) => self.send(&line).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, line: &Line) -> Result<()> {
        self.lines += 1;
        let number = self.lines;
        let record = self
            .record(line)
            .with_context(|| format!("line {number}"))?;
        let delivery = self
            .producer
            .send(record)
            .await
            .with_context(|| format!("line {number}"))?;
        if self.talks {
            let delivered = delivery.await.with_context(|| format!("line {number}"))?;
            self.acknowledged += 1;
            match delivered.delay_id {
                Some(delay_id) => println!("{}:{delay_id}", delivered.partition),
                None => println!("{}@{}", delivered.partition, delivered.offset),
            }
            return Ok(());
        }
        match self.pending.back_mut() {
            Some(last) if last.delivery.shares_batch_with(&delivery) => last.count += 1,
            _ => self.pending.push_back(Pending {
                delivery,
                first: number,
                count: 1,
            }),
        }
        while let Some(outcome) = self.pending.front().and_then(|it| it.delivery.outcome())
            && let Some(batch) = self.pending.pop_front()
        {
            outcome.map_err(|error| self.explained(error, batch.lines()))?;
            self.acknowledged += batch.count;
        }
        Ok(())
    }

    fn record(&self, line: &Line) -> Result<ProducerRecord> {
        let mut record = ProducerRecord::to(Arc::clone(&self.topic));
        let mut partition = self.args.partition;
        let (key, value, headers) = match self.args.format {
            Format::Text => {
                let (key, value) = text_record::read(&self.form, line)?;
                (key, value, Vec::new())
            }
            Format::Json => {
                let content = json_record::read(&line.bytes)?;
                if !self.args.ignore_partition {
                    partition = partition.or(content.partition);
                }
                if let Some(timestamp_ms) = content.timestamp_ms {
                    record = record.timestamp_ms(timestamp_ms);
                }
                (content.key, content.value, content.headers)
            }
        };
        if let Some(partition) = partition {
            record = record.partition(PartitionIndex(partition));
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.value(value);
        }
        for (name, value) in headers {
            record = record.header(name, value);
        }
        for (name, value) in &self.args.header {
            record = record.header(name, Some(value.clone().into()));
        }
        if !line.ended && self.args.format == Format::Text && !self.talks {
            record = record.header(NO_NEWLINE, None);
        }
        if let Some(delay) = self.args.delay {
            record = record.deliver_after(delay);
        }
        if let Some(at) = self.args.at {
            record = record.deliver_at(at.timestamp_ms());
        }
        if let Some(id) = &self.args.delay_id {
            record = record.delay_id(id.clone());
        }
        Ok(record)
    }

    /// What the command can say beyond the broker's own sentence.
    fn explained(&self, error: ProduceError, lines: String) -> anyhow::Error {
        let too_large = error.code() == Some(ErrorCode::BatchTooLarge);
        let error = match too_large {
            true => anyhow!(
                "{error}: raise it with `millstream topic alter {} --config max.batch.bytes={}MiB`",
                self.args.topic,
                MAX_BATCH_SIZE >> 20
            ),
            false => anyhow!(error),
        };
        error.context(lines)
    }

    /// Waits for everything sent; the first failure is the error, the count is of all.
    async fn settle_all(&mut self) -> Result<()> {
        // The deliveries tell what failed, and which.
        let _ = self.producer.flush().await;
        let mut failure = None;
        for batch in std::mem::take(&mut self.pending) {
            let lines = batch.lines();
            match batch.delivery.await {
                Ok(_) => self.acknowledged += batch.count,
                Err(error) => failure = failure.or(Some(self.explained(error, lines))),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Reads standard input on a thread of its own, a chunk as soon as there is one.
fn read_stdin() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut chunk = vec![0; CHUNK_SIZE];
            let read = match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(size) => {
                    chunk.truncate(size);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
