//! A broker for tests that treat it badly: the real binary in a process of its own, whose memory,
//! log and data directory can be looked at, and which can be killed and started again otherwise.
#![allow(dead_code, reason = "each binary that tests with it uses a part")]

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Memory budget of a test's broker, in bytes.
pub const MEMORY: u64 = 128 << 20;

/// A running broker. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    address: SocketAddr,
    dir: TempDir,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Kept open: the banner's pipe must not break under the broker.
    _stdout: BufReader<ChildStdout>,
}

impl Broker {
    /// Starts a broker on a free port with two shards, and these flags besides; none where the host
    /// has no io_uring, unless `MILLSTREAM_REQUIRE` says that it must.
    pub fn start(flags: &[&str]) -> Option<Self> {
        Self::start_by(&[], flags)
    }

    fn start_by(launcher: &[&str], flags: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::start_with(dir, launcher, flags)
    }

    /// Starts a broker whose data directory, `data` in `dir`, is there already.
    pub fn start_in(dir: TempDir, flags: &[&str]) -> Option<Self> {
        Self::start_with(dir, &[], flags)
    }

    fn start_with(dir: TempDir, launcher: &[&str], flags: &[&str]) -> Option<Self> {
        if let Err(reason) = millstream::host::check_kernel() {
            let required = std::env::var("MILLSTREAM_REQUIRE").unwrap_or_default();
            let required = required.split(',').any(|name| name.trim() == "io_uring");
            assert!(!required, "io_uring is required and missing: {reason}");
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        let (process, address) = spawn(dir.path(), launcher, "127.0.0.1:0", flags);
        Some(Self {
            process,
            address,
            dir,
        })
    }

    /// Starts a broker that may have so many open files.
    pub fn start_limited(open_files: u64) -> Option<Self> {
        let script = format!("ulimit -n {open_files}; exec \"$0\" \"$@\"");
        Self::start_by(&["sh", "-c", &script], &[])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// What it logged since the test began.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process
            .child
            .try_wait()
            .expect("a child to ask about")
            .is_none()
    }

    /// Waits until it has ended by itself; its exit status.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.child.wait().expect("the broker ends").code()
    }

    /// Kills it with no warning.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.child.wait().expect("the broker ends");
    }

    /// Stops it as an operator does.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.process.child.wait().expect("the broker ends");
        assert!(status.success(), "{status:?}\n{}", self.log());
    }

    /// Starts it again, after [`Broker::kill`] or [`Broker::stop`], on the same port.
    pub fn start_again(&mut self, flags: &[&str]) {
        let listen = self.address.to_string();
        (self.process, self.address) = spawn(self.dir.path(), &[], &listen, flags);
    }

    /// A command that reaches this broker.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = millstream(args);
        command.env("MILLSTREAM_SERVER", self.address.to_string());
        command
    }

    /// Runs a command that must succeed; its standard output.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = self
            .command(args)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        assert!(
            output.status.success(),
            "{args:?}: {output:?}\n{}",
            self.log()
        );
        output.stdout
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("our own process");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- broker ---\n{}", self.log());
        }
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
    }
}

/// A command that knows no broker and nothing of the caller's settings.
pub fn millstream(args: &[&str]) -> Command {
    let mut command = launched(&[]);
    command.args(args);
    command
}

/// The binary, started by a command that replaces itself with it, if one is given.
fn launched(launcher: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_millstream");
    let mut command = match launcher {
        [] => Command::new(binary),
        [name, args @ ..] => {
            let mut command = Command::new(name);
            command.args(args).arg(binary);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    command
}

fn spawn(dir: &Path, launcher: &[&str], listen: &str, flags: &[&str]) -> (Process, SocketAddr) {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .expect("a log file");
    let mut command = launched(launcher);
    command.args(["serve", "--listen", listen, "--admin-listen", "off"]);
    command.args(["--pin", "false", "--memory", &MEMORY.to_string()]);
    if !flags.contains(&"--shards") {
        command.args(["--shards", "2"]);
    }
    let mut child = command
        .args(flags)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the broker starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let address = read_banner(&mut stdout);
    let Some(address) = address else {
        let status = child.wait();
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("the broker did not start: {status:?}\n{log}");
    };
    let process = Process {
        child,
        _stdout: stdout,
    };
    (process, address)
}

/// The banner comes when the broker is ready and names its address.
fn read_banner(stdout: &mut BufReader<ChildStdout>) -> Option<SocketAddr> {
    let mut line = String::new();
    while stdout.read_line(&mut line).ok()? > 0 {
        if let Some(address) = line.trim().strip_prefix("clients") {
            return address.trim().parse().ok();
        }
        line.clear();
    }
    None
}
