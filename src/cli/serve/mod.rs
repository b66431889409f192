//! `millstream serve`: starts the broker and stays until a signal.
//!
//! The order: settings, logging, the host, the data directory, the ports, the control plane, the
//! admin server (so that a long recovery can be watched), the shards, the banner. It stops the
//! other way round.

mod banner;
mod journal_watch;
mod plan;
mod signals;
mod supervisor;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use super::failure;
use crate::{
    admin::{Admin, AdminSources, process_families},
    broker::Broker,
    control::{self, Control, ControlThreads, DataDir},
    host::{self, DiskFacts},
    logging,
    settings::{Environment, Flags, LogFormat, Settings},
};
use banner::Banner;
use journal_watch::JournalWatch;
use plan::Plan;
use supervisor::{Supervisor, Watchdog};
use watch::Watch;

/// Arguments of `millstream serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millstream serve
  millstream serve --data-dir /var/lib/millstream --listen 0.0.0.0:7400
  millstream serve --config /etc/millstream.toml --print-config

The first SIGINT or SIGTERM stops the broker cleanly; one that comes more than a
second later ends it at once.")]
pub struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

impl ServeArgs {
    /// Runs the broker until a signal ends it.
    ///
    /// # Errors
    /// What the settings, the host or the data directory lack, in one sentence.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let environment = Environment::of_process();
        let resolved = self.flags.resolve(&environment);
        let resolved =
            resolved.map_err(|error| failure::usage(format!("{:#}", anyhow::Error::new(error))))?;
        if self.flags.print_config {
            write!(io::stdout(), "{resolved}")?;
            return Ok(ExitCode::SUCCESS);
        }
        logging::start(resolved.settings.log_format, &resolved.settings.log_level);
        logging::abort_on_panic();
        for misspelt in environment.misspelt() {
            tracing::warn!("{misspelt}");
        }
        serve(&resolved.settings)
    }
}

fn serve(settings: &Settings) -> anyhow::Result<ExitCode> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the time to ready, measured before any shard"
    )]
    let begin = Instant::now();
    let supervisor = Supervisor::of_process();
    let signals = signals::listen().context("cannot listen for signals")?;
    host::check_kernel()?;
    let resources = host::resources();
    if let Some(refusal) = plan::refusal(settings, &resources) {
        anyhow::bail!(refusal);
    }
    let open_files = host::raise_limits()?;
    let dir = DataDir::open(&settings.data_dir)?;
    let disk = host::disk_facts(dir.path())
        .with_context(|| format!("cannot write to {}", dir.path().display()))?;
    warn_of_surprises(settings, &dir, &disk);
    if let Some(surprise) = plan::more_shards_than_cores(settings, &resources) {
        tracing::warn!("{surprise}");
    }
    host::check_port(settings.listen, "listen")?;
    if let Some(address) = settings.admin_listen {
        host::check_port(address, "admin-listen")?;
    }
    let plan = Plan::of(settings, &dir, &disk, &resources, open_files);
    if let Some(surprise) = plan::too_little_to_prepare(settings, plan.broker.shard_cpus.len()) {
        tracing::warn!("{surprise}");
    }
    let (control, control_threads) = control::start(&dir, settings.topic_defaults.clone())?;
    let running = Running::start(settings, &plan, control, control_threads, &supervisor)?;
    let banner = Banner {
        plan: &plan,
        disk: &disk,
        address: running.broker.addresses()[0],
        admin: running.admin.as_ref().map(Admin::address),
        time_to_ready: begin.elapsed(),
    };
    banner.print();
    supervisor.ready(banner.address);
    if settings.log_format == LogFormat::Json {
        // Whoever reads only the log learns it too.
        tracing::info!(
            address = %banner.address,
            shards = plan.broker.shard_cpus.len(),
            memory_bytes = plan.broker.memory,
            data_dir = %plan.broker.data_dir.display(),
            direct_io = plan.broker.direct_io,
            "ready"
        );
    }
    signals.wait();
    supervisor.stopping();
    tracing::info!("stopping; a second signal ends the broker at once");
    running.stop(Duration::from_millis(settings.shutdown_timeout_ms))
}

fn warn_of_surprises(settings: &Settings, dir: &DataDir, disk: &DiskFacts) {
    let (path, file_system) = (dir.path().display(), &disk.file_system);
    if disk.is_memory() {
        tracing::warn!(
            "{path} ({file_system}) is memory: when the host restarts or loses power everything on it is \
             gone, acknowledged or not; choose a directory on a disk with --data-dir"
        );
    }
    if settings.direct_io && !disk.direct {
        tracing::warn!(
            "{path} ({file_system}) cannot do direct I/O: running through the page cache, slower \
             and with less even latency"
        );
    }
    for (address, what) in [
        (Some(settings.listen), "listen"),
        (settings.admin_listen, "admin-listen"),
    ] {
        if let Some(address) = address.filter(|address| !host::is_loopback(address)) {
            tracing::warn!(
                "--{what} {address} is reachable from other hosts, and there is no authentication \
                 or encryption yet: whoever can connect can read, write and delete everything"
            );
        }
    }
}

/// Everything that has to be stopped.
struct Running {
    ready: Arc<AtomicBool>,
    admin: Option<Admin>,
    broker: Broker,
    control_threads: ControlThreads,
    _watchdog: Watchdog,
    _journals: JournalWatch,
}

impl Running {
    fn start(
        settings: &Settings,
        plan: &Plan,
        control: Control,
        control_threads: ControlThreads,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let ready = Arc::new(AtomicBool::new(false));
        let watch = Arc::new(Watch::default());
        let admin = settings.admin_listen.map(|address| {
            let sources = sources(&ready, &watch, &control);
            Admin::start(address, sources).with_context(|| format!("cannot listen on {address}"))
        });
        let admin = admin.transpose()?;
        let broker = Broker::start(&plan.broker, &control)?;
        watch.set_counters(broker.counters().to_vec());
        let journals = JournalWatch::start(broker.counters().to_vec())?;
        let watchdog = supervisor.watch(move || watch.stuck_shard())?;
        ready.store(true, Ordering::Release);
        Ok(Self {
            ready,
            admin,
            broker,
            control_threads,
            _watchdog: watchdog,
            _journals: journals,
        })
    }

    fn stop(self, deadline: Duration) -> anyhow::Result<ExitCode> {
        self.ready.store(false, Ordering::Release);
        if let Err(error) = self.broker.stop(deadline) {
            tracing::error!(
                "{error}: giving up (--shutdown-timeout); what was acknowledged is durable, the \
                 next start verifies the rest"
            );
            // Threads that do not end would keep the process: nothing more can be done for them.
            std::process::exit(1);
        }
        self.control_threads.stop();
        if let Some(admin) = self.admin {
            admin.stop();
        }
        tracing::info!("stopped cleanly");
        Ok(ExitCode::SUCCESS)
    }
}

fn sources(ready: &Arc<AtomicBool>, watch: &Arc<Watch>, control: &Control) -> AdminSources {
    let ready = Arc::clone(ready);
    let (counters, shards) = (Arc::clone(watch), Arc::clone(watch));
    let (metadata, health) = (control.clone(), control.clone());
    let log_works = |control: &Control| match control.is_healthy() {
        true => Ok(()),
        false => Err("the metadata log failed: restart the broker".to_owned()),
    };
    AdminSources {
        metrics: vec![
            Box::new(process_families),
            Box::new(move || watch::control_families(&metadata)),
            Box::new(move || counters.families()),
        ],
        health: Box::new(move || {
            log_works(&health)?;
            shards.stuck_shard()
        }),
        ready: Box::new(move || match ready.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err("the broker is starting or stopping".to_owned()),
        }),
    }
}
