//! A whole invocation: the broker is found or started, the load is run, results are written, the
//! broker is let go.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{
    args::{ExtentArgs, LoadArgs, Mode, OutputArgs},
    broker::{BrokerFacts, Target},
    clock::Clock,
    compare::{compare, read},
    console::Console,
    delay_load, group_load,
    host::HostFacts,
    html,
    interrupt::Interrupts,
    load::{Kind, Load},
    modes::{Saturate, Sweep},
    null_sink,
    results::{Document, FORMAT, RunResult},
    run::{Stage, run_once},
    summary::{say_broker, say_run, write_json},
    workers::Connect,
    workload::Extent,
};

/// The git revision, if the build was told: a source archive has none to find.
const REVISION: Option<&str> = option_env!("MILLSTREAM_REVISION");

/// What is to be measured.
#[derive(Debug)]
enum Task {
    One(Box<Load>),
    Sweep(Box<Sweep>),
    Saturate(Box<Saturate>),
}

impl Task {
    fn of(mode: Mode) -> Result<Self> {
        Ok(match mode {
            Mode::Sweep(args) => Self::Sweep(Box::new(Sweep::of(args)?)),
            Mode::Saturate(args) => Self::Saturate(Box::new(Saturate::of(args)?)),
            mode => Self::One(Box::new(Load::of(mode)?)),
        })
    }

    fn extent(&self) -> &Extent {
        match self {
            Self::One(load) => &load.extent,
            Self::Sweep(sweep) => &sweep.base.extent,
            Self::Saturate(saturate) => &saturate.base.extent,
        }
    }
}

/// Runs the generator on this thread and its workers' threads; true if all went well. Everything
/// found wrong has been printed by then. `executable` is what `--spawn` starts.
///
/// # Errors
/// What kept the run from starting; a `clap::Error` if it is the command line.
pub fn run(args: &LoadArgs, executable: Option<PathBuf>) -> Result<bool> {
    let (mode, extent) = match &args.mode {
        Mode::Compare(args) => return compare(args),
        Mode::Report(args) => {
            html::write(&args.page, &read(&args.results)?)?;
            return Ok(true);
        }
        Mode::Group(args) => return runtime()?.block_on(group_load::run(args)),
        Mode::Delay(args) => return runtime()?.block_on(delay_load::run(args, executable)),
        Mode::NullSink(args) => {
            runtime()?.block_on(null_sink::run(args))?;
            return Ok(true);
        }
        mode => (
            mode,
            mode.extent().context("a mode with load has an extent")?,
        ),
    };
    let task = Task::of(mode.clone())?;
    runtime()?.block_on(run_session(&task, mode.name(), extent, executable))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

async fn run_session(
    task: &Task,
    mode: &str,
    args: &ExtentArgs,
    executable: Option<PathBuf>,
) -> Result<bool> {
    let mut interrupts = Interrupts::listen()?;
    let target = tokio::select! {
        target = Target::open(&args.broker, executable) => target?,
        () = interrupts.next() => bail!("interrupted before the start"),
    };
    let result = measure(task, mode, &args.outputs, &target, &mut interrupts).await;
    let closed = target.close().await;
    // What went wrong first is what matters.
    let ok = result?;
    closed?;
    Ok(ok)
}

async fn measure(
    task: &Task,
    mode: &str,
    outputs: &OutputArgs,
    target: &Target,
    interrupts: &mut Interrupts,
) -> Result<bool> {
    let clock = Clock::start();
    let connect = Connect {
        server: target.server.clone(),
        clock,
        patience: task.extent().delivery_timeout,
    };
    let admin = connect.once().await?.admin();
    let facts = target.facts(&admin).await;
    let mut console = Console::new(outputs.json.as_deref());
    let mut document = document(mode, clock.now_us(), facts.clone());
    let mut stage = Stage {
        clock,
        connect,
        admin,
        facts: facts.clone(),
        observer: target.observer(clock),
        console: &mut console,
        interrupts,
        tells_intervals: true,
        interrupted: false,
    };
    match task {
        Task::One(load) => {
            let result = run_once(load, &mut stage).await?;
            say_run(&console, &result, &facts);
            if let (Kind::Produce(_), true) = (&load.kind, load.extent.verify) {
                console.say(&stamped(&load.extent));
            }
            document.run = Some(result);
        }
        Task::Sweep(sweep) => {
            document.points = sweep.run(&mut stage).await?;
            say_broker(&console, &document.points, &facts);
        }
        Task::Saturate(saturate) => {
            let (points, saturation) = saturate.run(&mut stage).await?;
            say_broker(&console, &points, &facts);
            document.points = points;
            document.saturation = Some(saturation);
        }
    }
    let ok = document.runs().all(RunResult::is_ok);
    document.ok = ok;
    for error in document.runs().flat_map(|run| &run.errors) {
        eprintln!("error: {error}");
    }
    if let Some(path) = &outputs.report {
        html::write(path, &document)?;
    }
    if let Some(path) = &outputs.json {
        write_json(path, &document)?;
    }
    Ok(ok)
}

/// What is to be done with records that were stamped and not judged.
fn stamped(extent: &Extent) -> String {
    let mut command = "consume --verify".to_owned();
    if let (Some(topic), None) = (&extent.topic, &extent.state) {
        command = format!("{command} --topic {topic}");
    }
    let note = match &extent.state {
        Some(state) => {
            command = format!("{command} --state {}", state.display());
            ""
        }
        None => " (with --state FILE in both, every acknowledged record is asked for)",
    };
    format!("  verify  stamped, not judged yet: check with `{command}`{note}")
}

/// Everything but what is yet to be measured.
fn document(mode: &str, now_us: i64, broker: BrokerFacts) -> Document {
    Document {
        format: FORMAT,
        mode: mode.to_owned(),
        started_at: timestamp(now_us),
        command: std::env::args().collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: REVISION.map(str::to_owned),
        host: HostFacts::read(),
        broker,
        ok: false,
        run: None,
        points: Vec::new(),
        saturation: None,
    }
}

/// RFC 3339, to the second.
fn timestamp(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}
