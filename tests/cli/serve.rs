//! `millstream serve` from outside: what it says, what it refuses, how it stops.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Run, millstream};

/// A broker whose banner has been read. Dropping it kills it.
struct Serving {
    child: Child,
    banner: String,
}

impl Serving {
    /// Starts on free ports and waits for the whole banner.
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        Self::start_with(data_dir, more, &[])
    }

    /// The same with environment variables.
    fn start_with(data_dir: &Path, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let child = millstream(&["serve", "--listen", "127.0.0.1:0", "--pin", "false"])
            .envs(variables.iter().copied())
            .args(["--shards", "2", "--memory", "128MiB", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut serving = Self {
            child,
            banner: String::new(),
        };
        let stdout = serving.child.stdout.take().expect("piped");
        for line in BufReader::new(stdout).lines() {
            serving.banner.push_str(&line.expect("text"));
            serving.banner.push('\n');
            if serving.banner.contains("millstream consume") {
                return serving;
            }
        }
        let log = serving.log();
        panic!("no whole banner: {}\n{log}", serving.banner);
    }

    /// What the banner says after a word.
    fn fact(&self, name: &str) -> &str {
        let line = self
            .banner
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.banner))
            .trim()
    }

    /// Signals, waits, and returns the exit status and the log.
    fn stop(self, signal: Signal) -> (Option<i32>, String) {
        self.stop_by(&[signal])
    }

    /// The same with several signals at once.
    fn stop_by(mut self, signals: &[Signal]) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        for signal in signals {
            kill_process(pid.expect("a process id"), *signal).expect("our own process");
        }
        let status = self.child.wait().expect("the broker ends");
        (status.code(), self.log())
    }

    /// All of the log of a broker that has ended.
    fn log(&mut self) -> String {
        let mut log = String::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        log
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reply to a plain GET.
fn get(url: &str, path: &str) -> String {
    let address = url
        .trim_start_matches("http://")
        .split('/')
        .next()
        .expect("an address");
    let mut stream = TcpStream::connect(address).expect("the admin server listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("text");
    reply
}

/// A start that must fail, with the sentence that says why.
fn refused(data_dir: &Path, more: &[&str], status: i32) -> String {
    let mut command = millstream(&["serve", "--data-dir"]);
    command
        .arg(data_dir)
        .args(["--listen", "127.0.0.1:0"])
        .args(more);
    run_refused(command, status)
}

/// The same. A broker that starts after all prints its banner, and is not waited for.
fn run_refused(mut command: Command, status: i32) -> String {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut banner = [0; 1];
    let mut stdout = child.stdout.take().expect("piped");
    if stdout.read(&mut banner).expect("readable") > 0 {
        child.kill().expect("our own process");
        child.wait().expect("the broker ends");
        panic!("the broker started: {command:?}");
    }
    let output = child.wait_with_output().expect("the binary ends");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    stderr
}

#[test]
fn a_service_manager_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let heard = || {
        let mut memory = [0; 256];
        let size = manager.recv(&mut memory).expect("a datagram comes");
        String::from_utf8(memory[..size].to_vec()).expect("text")
    };
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "50000"),
    ];
    let data_dir = temp.path().join("data");
    let broker = Serving::start_with(&data_dir, &["--admin-listen", "off"], &variables);
    let mut said = vec![heard()];
    while !said.iter().any(|text| text.starts_with("READY=1")) {
        said.push(heard());
    }
    let ready = said.pop().expect("it is there");
    assert!(ready.ends_with(broker.fact("clients")), "{ready}");
    while heard() != "WATCHDOG=1" {}
    let (status, log) = broker.stop(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    while !heard().starts_with("STOPPING=1") {}
}

#[test]
fn the_banner_the_admin_server_and_a_clean_stop() {
    let temp = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let broker = Serving::start(temp.path(), &["--admin-listen", "127.0.0.1:0"]);
        assert!(
            broker.banner.starts_with("Millstream "),
            "{}",
            broker.banner
        );
        assert_eq!(broker.fact("shards"), "2, not pinned");
        assert_eq!(broker.fact("memory"), "128 MiB");
        assert!(
            broker.banner.contains("a write and its flush take"),
            "{}",
            broker.banner
        );
        let admin = broker.fact("admin").to_owned();
        assert!(get(&admin, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(get(&admin, "/healthz").starts_with("HTTP/1.1 200"));
        let metrics = get(&admin, "/metrics");
        for shard in 0..2 {
            let sample = format!("millstream_shard_requests_total{{shard=\"{shard}\"}}");
            assert!(metrics.contains(&sample), "{metrics}");
        }
        let address = admin
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap();
        let wrong = millstream(&["status", "--wait", "30s", "--server", address]);
        let said = Run::of(wrong, b"").failed(1);
        assert!(said.contains("it speaks HTTP"), "{said}");
        // The banner's own commands work.
        let server = broker.fact("clients").to_owned();
        let status = Run::of(millstream(&["status", "--server", &server]), b"");
        assert_eq!(status.status.code(), Some(0), "{status:?}");
        let (status, log) = broker.stop(signal);
        assert_eq!(status, Some(0), "{log}");
        assert!(log.contains("stopped cleanly"), "{log}");
    }
}

/// As `timeout` does, whose signal reaches the broker once from it and once through the process group.
#[test]
fn two_signals_at_once_are_one_clean_stop() {
    let temp = tempfile::tempdir().unwrap();
    let broker = Serving::start(temp.path(), &["--admin-listen", "off"]);
    let (status, log) = broker.stop_by(&[Signal::TERM, Signal::INT]);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("stopped cleanly"), "{log}");
}

#[test]
fn a_second_broker_is_told_who_has_the_directory() {
    let temp = tempfile::tempdir().unwrap();
    let broker = Serving::start(temp.path(), &["--admin-listen", "off"]);
    let said = refused(temp.path(), &["--admin-listen", "off"], 1);
    assert!(
        said.contains(&format!("pid {}", broker.child.id())),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let temp = tempfile::tempdir().unwrap();
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    let said = refused(temp.path(), &["--admin-listen", &address], 1);
    assert!(
        said.contains(&address) && said.contains("--admin-listen"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn directories_that_cannot_serve_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let strange = temp.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("photo.jpg"), "x").unwrap();
    let said = refused(&strange, &["--admin-listen", "off"], 1);
    assert!(
        said.contains("no Millstream data directory") && said.contains("photo.jpg"),
        "{said}"
    );

    let newer = temp.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("FORMAT"), "millstream data format 9\n").unwrap();
    let said = refused(&newer, &["--admin-listen", "off"], 1);
    assert!(said.contains("has format 9"), "{said}");

    let headless = temp.path().join("headless");
    let broker = Serving::start(&headless, &["--admin-listen", "off"]);
    let server = broker.fact("clients").to_owned();
    Run::of(
        millstream(&["topic", "create", "t", "--server", &server]),
        b"",
    )
    .ok();
    let (status, log) = broker.stop(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    fs::remove_file(headless.join("metadata.redb")).unwrap();
    let said = refused(&headless, &["--admin-listen", "off"], 1);
    assert!(
        said.contains("has a topics directory but no metadata.redb"),
        "{said}"
    );
    fs::write(headless.join("metadata.redb"), "noise").unwrap();
    let said = refused(&headless, &["--admin-listen", "off"], 1);
    assert!(said.contains("is damaged"), "{said}");
    assert_eq!(fs::read(headless.join("metadata.redb")).unwrap(), b"noise");
}

#[test]
fn settings_show_where_they_come_from() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("m.toml");
    fs::write(
        &file,
        "shards = 3\nmemory = '1GiB'\n[topic-defaults]\ndurability = 'buffered'\n",
    )
    .unwrap();
    let mut command = millstream(&["serve", "--print-config", "--shards", "5", "--config"]);
    command.arg(&file).env("MILLSTREAM_MEMORY", "2GiB");
    let printed = Run::of(command, b"").text();
    let line = |name: &str| {
        let found = printed.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("{printed}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("shards"), "shards = \"5\" # flag --shards");
    assert_eq!(
        line("memory"),
        "memory = \"2147483648\" # environment MILLSTREAM_MEMORY"
    );
    assert!(
        line("topic-defaults").contains("durability=buffered"),
        "{printed}"
    );
    assert!(line("listen").ends_with("# default"), "{printed}");

    fs::write(&file, "shardz = 3\n").unwrap();
    let mut command = millstream(&["serve", "--config"]);
    command.arg(&file);
    let said = Run::of(command, b"").failed(2);
    assert!(said.contains("did you mean shards?"), "{said}");
}

#[test]
fn memory_file_systems_are_served_through_the_page_cache_and_said_once() {
    let Ok(temp) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    let broker = Serving::start(temp.path(), &["--admin-listen", "off"]);
    assert!(broker.banner.contains("buffered I/O"), "{}", broker.banner);
    let (status, log) = broker.stop(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(log.matches("cannot do direct I/O").count(), 1, "{log}");
    let told = log.matches("everything on it is gone, acknowledged or not");
    assert_eq!(told.count(), 1, "{log}");
}

#[test]
fn a_core_that_is_not_there_is_named_with_its_setting() {
    let temp = tempfile::tempdir().unwrap();
    // 4095 is more than the kernel's own sets hold.
    for core in ["1000", "4095"] {
        let more = ["--admin-listen", "off", "--shards", "1", "--cores", core];
        let said = refused(temp.path(), &more, 1);
        assert!(
            said.contains(&format!("core {core} is missing")) && said.contains("--cores"),
            "{said}"
        );
    }
}

#[test]
fn listening_to_the_world_warns() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = millstream(&["serve", "--listen", "0.0.0.0:0", "--data-dir"]);
    // The start ends at the first port that is taken, after the warning.
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    command.arg(temp.path()).args(["--admin-listen", &address]);
    let said = run_refused(command, 1);
    assert!(said.contains("there is no authentication"), "{said}");
}
