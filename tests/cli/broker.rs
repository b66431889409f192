//! A broker for one test, and the commands run against it.

use std::{
    fs::{self, File},
    io::Write,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A command that knows no broker and nothing of the caller's settings.
pub fn millstream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    command.args(args).env("COLUMNS", "100");
    command
}

/// What a command did.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Runs a command with this on its standard input.
    pub fn of(mut command: Command, input: &[u8]) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // The command may leave before it has read all; its status tells why.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("the binary ends")
        });
        Self {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.status.code(), Some(0), "{self:?}");
        self.stdout
    }

    /// The same as text.
    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text")
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_slice(&self.ok()).expect("JSON")
    }

    /// Standard error of a command that must have failed with this status.
    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        assert_eq!(self.status.code(), Some(status), "{self:?}");
        assert!(!self.stderr.is_empty(), "a failure says why");
        self.stderr
    }
}

/// Whether the host has io_uring; where it has none, a test is skipped, unless `MILLSTREAM_REQUIRE`
/// says that it must.
pub fn has_io_uring() -> bool {
    let Err(reason) = millstream::host::check_kernel() else {
        return true;
    };
    let required = std::env::var("MILLSTREAM_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|name| name.trim() == "io_uring");
    assert!(!required, "io_uring is required and missing: {reason}");
    eprintln!("SKIPPED: {reason}");
    false
}

/// A running broker. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    server: String,
    dir: TempDir,
}

impl Broker {
    /// Starts a broker and waits until it answers; none where the host has no io_uring, unless
    /// `MILLSTREAM_REQUIRE` says that it must.
    pub fn start() -> Option<Self> {
        if !has_io_uring() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let server = format!("127.0.0.1:{port}");
        let child = spawn(&dir, &server);
        let broker = Self { child, server, dir };
        broker.await_ready();
        Some(broker)
    }

    fn await_ready(&self) {
        let ready = self.run(&["status", "--wait", "30s"]);
        assert!(ready.status.success(), "{ready:?}\n{}", self.log());
    }

    /// What the broker printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A command that reaches this broker.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = millstream(args);
        command.env("MILLSTREAM_SERVER", &self.server);
        command
    }

    /// Runs a command with nothing on its standard input.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, b"")
    }

    /// Runs a command with this on its standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Run {
        Run::of(self.command(args), input)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Stops the broker as an operator does.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("the broker ends");
        assert!(status.success(), "{status:?}\n{}", self.log());
    }

    /// Starts the broker that was stopped.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.dir, &self.server);
        self.await_ready();
    }

    /// Starts the broker that was stopped, on files that it finds damaged.
    pub fn start_damaged(&mut self) {
        self.child = spawn(&self.dir, &self.server);
        let answered = self.run(&["status", "--wait", "30s"]);
        assert!(!answered.stdout.is_empty(), "{answered:?}");
    }

    /// Starts the broker that was stopped, on files that it refuses; gives what it says.
    pub fn start_refused(&mut self) -> String {
        self.child = spawn(&self.dir, &self.server);
        let status = self.child.wait().expect("the broker ends");
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log()
    }

    /// Stops the broker and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Kills the broker with no warning, and starts it again.
    pub fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills the broker with no warning.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the broker ends");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("our own process");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- broker ---\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &TempDir, server: &str) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .expect("a log file");
    let data = dir.path().join("data");
    millstream(&["serve", "--listen", server, "--admin-listen", "off"])
        .args(["--shards", "2", "--pin", "false", "--memory", "128MiB"])
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn()
        .expect("the broker starts")
}
