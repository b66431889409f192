//! `millstream delay`: what waits to be delivered; and taking it back.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use millstream_client::{
    Admin, CancelOutcome, DelayRef, DelayedRecord, DelayedStatus, ErrorCode, Offset, PartitionIndex,
};
use serde::Serialize;

use super::{
    connect::{ConnectArgs, block_on},
    moment::show_time,
    output::{self, Table, show_size},
};

/// Arguments of `millstream delay`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct DelayArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: DelayCommand,
}

#[derive(Debug, Subcommand)]
enum DelayCommand {
    /// List what waits, soonest first
    List(ListArgs),
    /// Count what waits in each partition
    Count(CountArgs),
    /// Take records back before they are delivered
    Cancel(CancelArgs),
}

const LIST_EXAMPLES: &str = "\
Examples:
  millstream delay list reminders
  millstream delay list reminders --partition 0 --max-records 1000 --json";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// The topic
    topic: String,
    /// Only this partition
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// The most records to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_records: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CountArgs {
    /// The topic
    topic: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CANCEL_EXAMPLES: &str = "\
Prints for each record: cancelled, delivered (it was too late) or unknown. What is
printed is durable.

Exit status: 0 every one is cancelled; 1 one is not; 2 wrong command line.

Examples:
  millstream delay cancel reminders --id order-17
  millstream delay cancel reminders 0:4711 2:17";

#[derive(Debug, Args)]
#[command(after_help = CANCEL_EXAMPLES)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["records", "id"]))]
struct CancelArgs {
    /// The topic
    topic: String,
    /// Records as `delay list` names them
    #[arg(value_name = "PARTITION:NUMBER", value_parser = parse_record)]
    records: Vec<(u32, i64)>,
    /// A record by the id it was sent with; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
}

#[derive(Serialize)]
struct Waiting<'a> {
    partition: u32,
    delay_id: i64,
    /// Null, or the id it was sent with.
    id: Option<&'a str>,
    due_ms: i64,
    /// Null, or the key, as text.
    key: Option<String>,
    value_bytes: u32,
}

#[derive(Serialize)]
struct Count {
    partition: u32,
    pending: u64,
    /// When the next one is due, or null.
    next_due_ms: Option<i64>,
    physical_bytes: u64,
}

impl DelayArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn run(self) -> Result<ExitCode> {
        block_on(async {
            let admin = self.connect.client().await?.admin();
            match self.command {
                DelayCommand::List(args) => args.run(&admin).await,
                DelayCommand::Count(args) => args.run(&admin).await,
                DelayCommand::Cancel(args) => args.run(&admin).await,
            }
        })
    }
}

impl ListArgs {
    async fn run(self, admin: &Admin) -> Result<ExitCode> {
        let partition = self.partition.map(PartitionIndex);
        let listed = admin.list_delayed(&self.topic, partition, self.max_records);
        let listed = listed.await?;
        if self.json {
            let all: Vec<Waiting<'_>> = listed.iter().map(Waiting::of).collect();
            output::json(&all)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(["RECORD", "DUE", "VALUE", "ID", "KEY"]);
        for record in &listed {
            let key = record.key.as_deref().map(String::from_utf8_lossy);
            table.row([
                format!("{}:{}", record.partition, record.delay_id),
                show_time(record.due_ms),
                show_size(u64::from(record.value_size)),
                record.id.clone(),
                key.unwrap_or_default().into_owned(),
            ]);
        }
        table.print()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl<'a> Waiting<'a> {
    fn of(record: &'a DelayedRecord) -> Self {
        let key = record.key.as_deref();
        Self {
            partition: record.partition.0,
            delay_id: record.delay_id.0,
            id: (!record.id.is_empty()).then_some(&record.id),
            due_ms: record.due_ms,
            key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            value_bytes: record.value_size,
        }
    }
}

impl CountArgs {
    async fn run(self, admin: &Admin) -> Result<ExitCode> {
        let statuses = admin.count_delayed(&self.topic).await?;
        let counts: Vec<Count> = statuses.iter().map(count).collect::<Result<_>>()?;
        if self.json {
            output::json(&counts)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(["PARTITION", "PENDING", "PHYSICAL", "NEXT"]);
        for it in counts {
            table.row([
                it.partition.to_string(),
                it.pending.to_string(),
                show_size(it.physical_bytes),
                it.next_due_ms.map(show_time).unwrap_or_default(),
            ]);
        }
        table.print()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn count(status: &DelayedStatus) -> Result<Count> {
    if status.error != ErrorCode::None {
        bail!("partition {}: {}", status.partition, status.message);
    }
    Ok(Count {
        partition: status.partition.0,
        pending: status.pending,
        next_due_ms: (status.next_due_ms >= 0).then_some(status.next_due_ms),
        physical_bytes: status.physical_bytes,
    })
}

impl CancelArgs {
    async fn run(self, admin: &Admin) -> Result<ExitCode> {
        let named = self.records.into_iter().map(|(partition, number)| {
            let record = DelayRef::DelayId(PartitionIndex(partition), Offset(number));
            (format!("{partition}:{number}"), record)
        });
        let by_id = self
            .id
            .into_iter()
            .map(|id| (id.clone(), DelayRef::Id(None, id)));
        let mut code = ExitCode::SUCCESS;
        for (name, record) in named.chain(by_id) {
            let outcome = admin.cancel_delayed(&self.topic, &record).await?;
            let word = match outcome {
                CancelOutcome::Cancelled => "cancelled",
                CancelOutcome::Delivered => "delivered",
                CancelOutcome::Unknown => "unknown",
            };
            if outcome != CancelOutcome::Cancelled {
                code = ExitCode::FAILURE;
            }
            output::line(format_args!("{name} {word}"))?;
        }
        Ok(code)
    }
}

fn parse_record(text: &str) -> Result<(u32, i64), String> {
    let parsed = text.split_once(':').and_then(|(partition, number)| {
        let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
        Some((partition.parse().ok()?, number))
    });
    parsed.ok_or_else(|| format!("{text:?} is no delayed record: write 0:17, as delay list does"))
}

/// How many records of a topic wait.
///
/// # Errors
/// If the broker can't be asked.
pub(super) async fn pending(admin: &Admin, topic: &str) -> Result<u64> {
    let statuses = admin.count_delayed(topic).await?;
    Ok(statuses.iter().map(|status| status.pending).sum())
}
