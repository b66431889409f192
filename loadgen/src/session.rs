//! A whole invocation: the broker is found or started, the load is run, results are written, the
//! broker is let go.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{
    args::{LoadArgs, Mode},
    broker::Target,
    clock::Clock,
    console::Console,
    host::HostFacts,
    interrupt::Interrupts,
    load::Load,
    results::{Document, FORMAT},
    run::{Stage, run_once},
    summary::{say_run, write_json},
    workers::Connect,
};

/// The git revision, if the build was told: a source archive has none to find.
const REVISION: Option<&str> = option_env!("MILLSTREAM_REVISION");

/// Runs the generator on this thread and its workers' threads; true if all went well. Everything
/// found wrong has been printed by then. `executable` is what `--spawn` starts.
///
/// # Errors
/// What kept the run from starting; a `clap::Error` if it is the command line.
pub fn run(args: &LoadArgs, executable: Option<PathBuf>) -> Result<bool> {
    let load = Load::of(args.mode.clone())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(run_session(&load, args, executable))
}

async fn run_session(load: &Load, args: &LoadArgs, executable: Option<PathBuf>) -> Result<bool> {
    let mut interrupts = Interrupts::listen()?;
    let target = tokio::select! {
        target = Target::open(&args.mode.extent().broker, executable) => target?,
        () = interrupts.next() => bail!("interrupted before the start"),
    };
    let result = measure(load, &args.mode, &target, &mut interrupts).await;
    let closed = target.close().await;
    // What went wrong first is what matters.
    let ok = result?;
    closed?;
    Ok(ok)
}

async fn measure(
    load: &Load,
    mode: &Mode,
    target: &Target,
    interrupts: &mut Interrupts,
) -> Result<bool> {
    let outputs = &mode.extent().outputs;
    let clock = Clock::start();
    let connect = Connect {
        server: target.server.clone(),
        clock,
        patience: load.extent.delivery_timeout,
    };
    let admin = connect.once().await?.admin();
    let facts = target.facts(&admin).await;
    let mut console = Console::new(outputs.json.as_deref());
    let started_at = timestamp(clock.now_us());
    let mut stage = Stage {
        clock,
        connect,
        admin,
        facts: facts.clone(),
        observer: target.observer(clock),
        console: &mut console,
        interrupts,
    };
    let result = run_once(load, &mut stage).await?;
    say_run(&console, &result, &facts);
    for error in &result.errors {
        eprintln!("error: {error}");
    }
    let ok = result.is_ok();
    if let Some(path) = &outputs.json {
        let document = Document {
            format: FORMAT,
            mode: mode.name().to_owned(),
            started_at,
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: REVISION.map(str::to_owned),
            host: HostFacts::read(),
            broker: facts,
            ok,
            run: Some(result),
            points: Vec::new(),
        };
        write_json(path, &document)?;
    }
    Ok(ok)
}

/// RFC 3339, to the second.
fn timestamp(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}
