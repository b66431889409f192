//! The broker under load: one that runs already, or one started for this run; what it is, and what
//! it counts.

mod facts;
mod metrics;
mod mounts;
mod observer;
mod spawn;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::Admin;

use crate::clock::Clock;

pub use facts::BrokerFacts;
pub use metrics::{BrokerFigures, resident_bytes};
pub use observer::{BrokerInterval, Observer};
use spawn::Spawned;

/// Where a broker listens unless told otherwise, for clients and for `/metrics`.
const DEFAULT_SERVER: &str = "127.0.0.1:7400";
const DEFAULT_ADMIN: &str = "127.0.0.1:7401";

/// Which broker.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// Broker to connect to
    #[arg(
        long,
        env = "MILLSTREAM_SERVER",
        default_value = DEFAULT_SERVER,
        value_name = "HOST:PORT"
    )]
    pub server: String,
    /// Its admin address, for figures of its own [default: port 7401 if it serves on 7400]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// Start a broker of this build for the run, with its data in a fresh directory below the
    /// working directory; both are gone at the end
    #[arg(long, conflicts_with = "admin")]
    pub spawn: bool,
    /// Put the started broker's data below this directory instead
    #[arg(long, value_name = "DIR", requires = "spawn")]
    pub spawn_dir: Option<PathBuf>,
    /// Let the started broker keep its data in memory, on a tmpfs
    #[arg(long, requires = "spawn")]
    pub allow_tmpfs: bool,
    /// Give the started broker this flag of `serve`, such as --broker-flag=--shards=1; may be
    /// repeated
    #[arg(
        long,
        value_name = "FLAG",
        requires = "spawn",
        allow_hyphen_values = true
    )]
    pub broker_flag: Vec<String>,
}

/// The broker of a run.
#[derive(Debug)]
pub struct Target {
    /// Where clients connect.
    pub server: String,
    admin: Option<String>,
    spawned: Option<Spawned>,
}

impl Target {
    /// The broker named, or a fresh one, started by `executable`.
    ///
    /// # Errors
    /// What kept the broker from starting.
    pub async fn open(args: &BrokerArgs, executable: Option<PathBuf>) -> Result<Self> {
        if args.spawn {
            let executable = executable.context(
                "--spawn finds no `millstream` beside this program: use `millstream bench --spawn`",
            )?;
            let spawned = Spawned::start(args, &executable).await?;
            return Ok(Self {
                server: spawned.server().to_owned(),
                admin: Some(spawned.admin().to_owned()),
                spawned: Some(spawned),
            });
        }
        Ok(Self {
            server: args.server.clone(),
            admin: args.admin.clone().or_else(|| default_admin(&args.server)),
            spawned: None,
        })
    }

    /// What the broker says of itself, and what this host knows of its disk.
    pub async fn facts(&self, admin: &Admin) -> BrokerFacts {
        BrokerFacts::ask(admin, &self.server, self.spawned.is_some()).await
    }

    /// Where it tells its counters, if that is known.
    #[must_use]
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// Looks at its counters.
    #[must_use]
    pub fn observer(&self, clock: Clock) -> Observer {
        Observer::new(self.admin.clone(), clock)
    }

    /// Stops a broker that was started, and removes its data.
    ///
    /// # Errors
    /// If it did not stop cleanly.
    pub async fn close(self) -> Result<()> {
        match self.spawned {
            Some(spawned) => spawned.stop().await,
            None => Ok(()),
        }
    }
}

/// Only the pair of default ports is known to belong together: another broker's figures would be
/// worse than none.
fn default_admin(server: &str) -> Option<String> {
    let (_, server_port) = DEFAULT_SERVER.split_once(':')?;
    let (_, admin_port) = DEFAULT_ADMIN.split_once(':')?;
    let (host, port) = server.rsplit_once(':')?;
    (port == server_port).then(|| format!("{host}:{admin_port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_pair_is_guessed() {
        assert_eq!(default_admin("box:7400").as_deref(), Some("box:7401"));
        assert_eq!(default_admin("[::1]:7400").as_deref(), Some("[::1]:7401"));
        assert_eq!(default_admin("box:7500"), None);
        assert_eq!(default_admin("box"), None);
    }
}
