//! A broker started for one run: a process of its own, free ports, data in a fresh directory, and
//! nothing left of it afterwards.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{BrokerArgs, mounts};

/// Longest time from start to the banner.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Longest time from the signal to the end; the broker gives up sooner by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 12;

/// A broker that runs until it is stopped. Dropped before, it is killed.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    server: String,
    admin: String,
    dir: TempDir,
    /// Kept open: the broker's standard output must not break under it.
    _stdout: BufReader<ChildStdout>,
}

impl Spawned {
    /// Starts `executable serve` and waits until it is ready.
    ///
    /// # Errors
    /// If the directory is in memory unasked, or the broker does not start: what it logged.
    pub async fn start(args: &BrokerArgs, executable: &Path) -> Result<Self> {
        let parent = args.spawn_dir.clone().unwrap_or_else(|| PathBuf::from("."));
        let parent = parent
            .canonicalize()
            .with_context(|| format!("cannot use {} for --spawn", parent.display()))?;
        let in_memory = mounts::of(&parent).is_some_and(|mount| mount.is_memory());
        ensure!(
            args.allow_tmpfs || !in_memory,
            "{} is in memory, where nothing is durable: name a directory on a disk with \
             --spawn-dir, or say --allow-tmpfs",
            parent.display()
        );
        let dir = tempfile::Builder::new()
            .prefix("millstream-bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        let log = File::create(log_file(dir.path())).context("cannot make the broker's log")?;
        let mut child = Command::new(executable)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(&args.broker_flag)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C on the terminal is for the generator, which stops the broker when it is done.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut stdout = BufReader::new(stdout);
        let banner = timeout(START_PATIENCE, read_banner(&mut stdout)).await;
        let Ok(Some((server, admin))) = banner else {
            bail!("the broker did not start:\n{}", log_tail(dir.path()));
        };
        Ok(Self {
            child,
            server,
            admin,
            dir,
            _stdout: stdout,
        })
    }

    /// Where clients connect.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Where its metrics are.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Stops it as an operator does, and removes its data.
    ///
    /// # Errors
    /// If it does not end well; what it logged.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // An error means that it is gone already; its status tells.
            let _ = kill_process(pid, Signal::TERM);
        }
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => {
                let log = log_tail(self.dir.path());
                bail!("the started broker ended with {status}:\n{log}");
            }
            Ok(Err(error)) => return Err(error).context("cannot wait for the started broker"),
            Err(_) => bail!("the started broker did not stop within {STOP_PATIENCE:?}: killed"),
        }
        let path = self.dir.path().to_owned();
        self.dir
            .close()
            .with_context(|| format!("cannot remove {}", path.display()))
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// The end of the broker's log, for an error.
fn log_tail(dir: &Path) -> String {
    let log = fs::read(log_file(dir)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].join("\n")
}

/// Reads what the broker prints when it is ready: where it serves clients, and metrics.
async fn read_banner(stdout: &mut BufReader<ChildStdout>) -> Option<(String, String)> {
    let mut server = None;
    let mut line = String::new();
    while stdout.read_line(&mut line).await.ok()? > 0 {
        let text = line.trim();
        if let Some(address) = text.strip_prefix("clients ") {
            server = Some(address.trim().to_owned());
        }
        if let Some(url) = text.strip_prefix("admin ") {
            return Some((server?, admin_address(url)?));
        }
        line.clear();
    }
    None
}

/// The address in `http://ADDRESS/metrics`.
fn admin_address(url: &str) -> Option<String> {
    let address = url.trim().strip_prefix("http://")?;
    Some(address.split('/').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_found_in_its_url() {
        let found = admin_address("  http://127.0.0.1:7401/metrics");
        assert_eq!(found.as_deref(), Some("127.0.0.1:7401"));
        assert_eq!(admin_address("off"), None);
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..30).map(|line| format!("line {line}")).collect();
        fs::write(log_file(dir.path()), lines.join("\n")).unwrap();
        let tail = log_tail(dir.path());
        assert_eq!(tail.lines().count(), LOG_LINES);
        assert!(tail.ends_with("line 29"), "{tail}");
    }
}
