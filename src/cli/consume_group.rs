//! `millstream consume --group`: reads as a member of a consumer group, and commits what it printed.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use millstream_client::{
    AutoOffsetReset, CommitOffset, ConsumerRecord, DEFAULT_SESSION_TIMEOUT, GroupConsumer, Offset,
    PartitionIndex,
};
use tokio::time::{Instant, sleep};

use super::{
    connect::ConnectArgs,
    consume::{PATIENCE, POLL_RECORDS, POLL_WAIT, Printer, RETRY_PAUSE},
};

/// A member without partitions gives up after this, without --follow: when a member that died can hold none
/// any more (its session begins anew when the broker does).
const IDLE: Duration = DEFAULT_SESSION_TIMEOUT.saturating_add(Duration::from_secs(5));

/// What a member of a group is told on the command line.
pub(super) struct Membership {
    pub group: String,
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
    pub reset: AutoOffsetReset,
    pub follow: bool,
}

/// What was printed and not committed yet.
type Printed = BTreeMap<(Arc<str>, PartitionIndex), Offset>;

/// Reads until everything was read, the count is reached, or Ctrl-C.
pub(super) async fn read(
    connect: &ConnectArgs,
    membership: Membership,
    mut printer: Printer,
) -> Result<ExitCode> {
    let client = connect.client().await?;
    for topic in &membership.topics {
        // A typing error would wait for ever.
        client.admin().topic(topic).await?;
    }
    let consumer = client.consumer().max_poll_records(POLL_RECORDS);
    let mut builder = consumer
        .group_id(membership.group)
        .subscribe(membership.topics)
        .auto_commit(None)
        .auto_offset_reset(membership.reset);
    if let Some(id) = membership.instance_id {
        builder = builder.instance_id(id);
    }
    let mut member = builder.build();
    let mut printed = Printed::new();
    let interrupted = tokio::signal::ctrl_c();
    let read = read_on(&mut member, &mut printer, &mut printed, membership.follow);
    let outcome = tokio::select! {
        outcome = read => outcome,
        _ = interrupted => Ok(()),
    };
    let committed = commit(&mut member, &mut printed).await;
    let closed = member.close().await;
    outcome?;
    committed?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

async fn read_on(
    member: &mut GroupConsumer,
    printer: &mut Printer,
    printed: &mut Printed,
    follow: bool,
) -> Result<()> {
    let mut trouble_since: Option<Instant> = None;
    let mut idle_since = Instant::now();
    while !printer.is_done() {
        match member.poll(POLL_WAIT).await {
            Ok(records) => {
                trouble_since = None;
                let count = printer.print_all(&records)?;
                note(printed, &records[..count]);
                if !member.assignment().is_empty() {
                    idle_since = Instant::now();
                }
                if !follow && records.is_empty() && member.at_end() {
                    return Ok(());
                }
                if !follow && idle_since.elapsed() > IDLE {
                    eprintln!("warning: no partition was assigned: other members have them all");
                    return Ok(());
                }
            }
            Err(error) if error.is_retriable() => {
                let since = *trouble_since.get_or_insert_with(|| {
                    eprintln!("warning: {error}; trying again");
                    Instant::now()
                });
                if !follow && since.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
        // Before the next poll, which may let partitions go.
        commit(member, printed).await?;
    }
    Ok(())
}

fn note(printed: &mut Printed, records: &[ConsumerRecord]) {
    for record in records {
        let at = (Arc::clone(&record.topic), record.partition);
        printed.insert(at, Offset(record.offset.0 + 1));
    }
}

/// Commits what was printed of the partitions that are still here: others print the rest again.
async fn commit(member: &mut GroupConsumer, printed: &mut Printed) -> Result<()> {
    let held = member.assignment();
    printed.retain(|at, _| held.contains(at));
    let offsets = printed.iter();
    let offsets: Vec<CommitOffset> = offsets
        .map(|((topic, partition), offset)| CommitOffset {
            topic: Arc::clone(topic),
            partition: *partition,
            offset: *offset,
            metadata: String::new(),
        })
        .collect();
    match member.commit_offsets(&offsets).await {
        Err(error) if error.is_retriable() => {
            eprintln!("warning: {error}");
            Ok(())
        }
        done => {
            // Only now: this may be given up half-way, and tried again.
            printed.clear();
            Ok(done?)
        }
    }
}
