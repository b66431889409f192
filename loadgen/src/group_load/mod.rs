//! A consumer group under load while members are killed and added: every record is read, none by a
//! member that no longer has its partition, and nobody stops who does not have to.
//!
//! With `--rate 0` nothing is written: what many members cost the broker that only live shows then.

mod judge;
mod member;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_client::{
    Admin, Client, NewTopic, Offset, OffsetSpec, PartitionIndex, ProducerRecord, TopicPartition,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    clock::Clock,
    units::{parse_count, parse_duration},
};

use self::{
    judge::{Judge, What},
    member::{Member, Order},
};

/// Members that share the connections of one client: a broker takes 1,024 requests of a connection at
/// once, and the heartbeat of each member waits for news.
const MEMBERS_PER_CLIENT: usize = 200;

/// All that was written has to be read within so long of the last write.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Arguments of the mode.
#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    /// Broker to connect to
    #[arg(
        long,
        env = "MILLSTREAM_SERVER",
        default_value = "127.0.0.1:7400",
        value_name = "HOST:PORT"
    )]
    pub server: String,
    /// Groups, each with a topic of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub groups: usize,
    /// Members of each group
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub members: usize,
    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub partitions: u32,
    /// Records a second, of all groups together; 0 writes nothing
    #[arg(long, value_name = "COUNT", default_value = "10k", value_parser = parse_count)]
    pub rate: u64,
    /// How long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Kill or add a member about so often; 0s never
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    pub churn: Duration,
    /// Session timeout of members
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    pub session_timeout: Duration,
    /// Heartbeat interval of members
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub heartbeat: Duration,
    /// Chooses who is killed when
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What the run is made of.
struct Setting {
    args: GroupArgs,
    clock: Clock,
    /// Names of this run's topics and groups begin with it.
    name: String,
    facts: mpsc::UnboundedSender<judge::Fact>,
}

/// Runs it; true if nothing was found wrong.
///
/// # Errors
/// What kept it from running.
pub async fn run(args: &GroupArgs) -> Result<bool> {
    let (facts, mut heard) = mpsc::unbounded_channel();
    let setting = Setting {
        args: args.clone(),
        clock: Clock::start(),
        name: format!("group-{}", uuid::Uuid::new_v4().simple()),
        facts,
    };
    let admin = connect(&args.server).await?.admin();
    for group in 0..args.groups {
        let topic = NewTopic::new(setting.topic(group)).partitions(args.partitions);
        admin
            .create_topic(topic)
            .await
            .context("cannot create a topic")?;
    }
    let mut judge = Judge::default();
    let judging = tokio::spawn(async move {
        while let Some(fact) = heard.recv().await {
            judge.hear(fact);
        }
        judge
    });
    let written = drive(&setting).await?;
    let ends = setting.ends(&admin).await?;
    let groups = args.groups;
    for group in 0..groups {
        // What each run leaves would fill the disk.
        admin.delete_topic(&setting.topic(group)).await?;
    }
    drop(setting);
    let judge = judging.await.context("the judge ended early")?;
    println!("{written} records written and acknowledged");
    Ok(judge.tell(&ends))
}

async fn connect(server: &str) -> Result<Client> {
    let client = Client::builder(server).client_name("loadgen-group");
    Ok(client.connect().await?)
}

impl Setting {
    fn topic(&self, group: usize) -> String {
        format!("{}-{group}", self.name)
    }

    async fn ends(&self, admin: &Admin) -> Result<BTreeMap<(usize, PartitionIndex), Offset>> {
        let mut ends = BTreeMap::new();
        for group in 0..self.args.groups {
            let latest = admin
                .list_offsets(&self.topic(group), OffsetSpec::Latest)
                .await?;
            ends.extend(
                latest
                    .into_iter()
                    .map(|(partition, end)| ((group, partition), end)),
            );
        }
        Ok(ends)
    }
}

/// Writes, kills and adds until the time is over, then lets the members read the rest.
async fn drive(setting: &Setting) -> Result<u64> {
    let args = &setting.args;
    let mut members = Vec::new();
    let mut client = connect(&args.server).await?;
    for number in 0..args.groups * args.members {
        if number.is_multiple_of(MEMBERS_PER_CLIENT) {
            client = connect(&args.server).await?;
        }
        members.push(Member::start(setting, &client, number % args.groups));
    }
    let deadline = Instant::now() + args.duration;
    let written = async {
        match args.rate {
            0 => {
                tokio::time::sleep_until(deadline).await;
                Ok(0)
            }
            rate => write(setting, rate, deadline).await,
        }
    };
    let churned = churn(setting, &mut members, deadline);
    let (written, churned) = tokio::join!(written, churned);
    let (written, ()) = (written?, churned?);
    await_all_read(setting, &members).await?;
    let mut ending = JoinSet::new();
    for member in members {
        ending.spawn(member.end(Order::Leave));
    }
    ending.join_all().await;
    Ok(written)
}

/// Kills a member or adds one, now and then; at least one of each group lives.
async fn churn(setting: &Setting, members: &mut Vec<Member>, deadline: Instant) -> Result<()> {
    let args = &setting.args;
    let mut random = SmallRng::seed_from_u64(args.seed);
    if args.churn.is_zero() {
        return Ok(());
    }
    loop {
        let pause = args.churn.mul_f64(random.random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        if Instant::now() + pause >= deadline {
            return Ok(());
        }
        let group = random.random_range(0..args.groups);
        let its: Vec<usize> = (0..members.len())
            .filter(|at| members[*at].group == group)
            .collect();
        if its.len() > 1 && (its.len() > args.members || random.random_bool(0.5)) {
            let member = members.remove(its[random.random_range(0..its.len())]);
            let number = member.number;
            member.end(Order::Die).await;
            let _ = setting
                .facts
                .send(setting.fact(group, number, What::Killed));
        } else {
            // A process of its own would have connections of its own.
            let client = connect(&args.server).await?;
            members.push(Member::start(setting, &client, group));
        }
    }
}

async fn write(setting: &Setting, rate: u64, deadline: Instant) -> Result<u64> {
    const TICK: Duration = Duration::from_millis(10);
    let args = &setting.args;
    let client = connect(&args.server).await?;
    let producer = client.producer().build().await?;
    let mut ticks = tokio::time::interval(TICK);
    let begun = Instant::now();
    let mut sent = 0;
    let mut under_way = Vec::new();
    while Instant::now() < deadline {
        ticks.tick().await;
        let due = rate.saturating_mul(u64::try_from(begun.elapsed().as_millis())?) / 1000;
        while sent < due {
            let group = usize::try_from(sent % args.groups as u64)?;
            let partition = u32::try_from(sent / args.groups as u64 % u64::from(args.partitions))?;
            let record = ProducerRecord::to(setting.topic(group))
                .value(sent.to_le_bytes().to_vec())
                .partition(PartitionIndex(partition));
            under_way.push(producer.send(record).await?);
            sent += 1;
        }
        if under_way.len() > 100_000 {
            bail!("the broker acknowledges less than is written: lower --rate");
        }
        let mut left = Vec::with_capacity(under_way.len());
        for delivery in under_way {
            match delivery.outcome() {
                None => left.push(delivery),
                Some(done) => drop(done?),
            }
        }
        under_way = left;
    }
    for delivery in under_way {
        delivery.await?;
    }
    Ok(sent)
}

/// Waits until the group has committed all there is.
async fn await_all_read(setting: &Setting, members: &[Member]) -> Result<()> {
    if setting.args.rate == 0 || members.is_empty() {
        return Ok(());
    }
    let admin = connect(&setting.args.server).await?.admin();
    let give_up = Instant::now() + READ_WITHIN;
    let ends = setting.ends(&admin).await?;
    for group in 0..setting.args.groups {
        let id = admin.topic(&setting.topic(group)).await?.id;
        loop {
            let committed = admin.committed_offsets(&setting.topic(group)).await?;
            let done =
                ends.iter()
                    .filter(|((of, _), _)| *of == group)
                    .all(|((_, partition), end)| {
                        let at = TopicPartition {
                            topic: id,
                            partition: *partition,
                        };
                        end.0 == 0 || committed.get(&at).is_some_and(|it| it.offset >= *end)
                    });
            if done {
                break;
            }
            if Instant::now() > give_up {
                println!("group {group} had not committed all within {READ_WITHIN:?}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}
