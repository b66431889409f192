//! Real brokers on a disk that loses what was not flushed, when they are killed in the middle of real load:
//! the real rings, the real file operations, everything acknowledged there afterwards.

use std::{
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

use millstream::io::Random;

use crate::{
    broker::Broker,
    kill::{Load, verify},
    lossy_fs::LossyFs,
};

/// Whether the host can mount through FUSE; where it cannot, the test is skipped, unless
/// `MILLSTREAM_REQUIRE` says that it must.
fn has_fuse() -> bool {
    let device = rustix::fs::access("/dev/fuse", rustix::fs::Access::WRITE_OK).is_ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tool = std::env::split_paths(&path).any(|dir| dir.join("fusermount3").exists());
    if device && tool {
        return true;
    }
    let required = std::env::var("MILLSTREAM_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|name| name.trim() == "fuse");
    assert!(
        !required,
        "FUSE is required: /dev/fuse writable: {device}, fusermount3: {tool}"
    );
    eprintln!("SKIPPED: no FUSE (/dev/fuse writable: {device}, fusermount3: {tool})");
    false
}

/// Dropped after the broker on it.
struct Mounted {
    fs: LossyFs,
    dir: tempfile::TempDir,
    session: Option<fuser::BackgroundSession>,
}

impl Mounted {
    fn new() -> Self {
        let fs = LossyFs::new();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let session = fs.mount(dir.path()).expect("FUSE mounts");
        Self {
            fs,
            dir,
            session: Some(session),
        }
    }

    /// The power goes and comes back.
    fn cut(&mut self, random: &mut Random, keep_percent: u64) {
        self.unmount();
        self.fs.cut_power(random, keep_percent);
        self.session = Some(self.fs.mount(self.dir.path()).expect("FUSE mounts"));
    }

    /// Unmounts it, and waits until the last one has let go: the kernel ends what a killed process had under way
    /// only after the process.
    fn unmount(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let mut command = Command::new("fusermount3");
        let status = command.args(["-u", "-z"]).arg(self.dir.path()).status();
        assert!(status.expect("fusermount3 runs").success());
        session.join().expect("no request panics");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn started(on: &Path) -> Option<Broker> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    symlink(on, dir.path().join("data")).expect("a link to the disk");
    Broker::start_in(dir, &[])
}

#[test]
fn what_was_acknowledged_survives_a_disk_that_loses_what_was_not_flushed() {
    if !has_fuse() {
        return;
    }
    let mut mounted = Mounted::new();
    let Some(mut broker) = started(mounted.dir.path()) else {
        return;
    };
    let mut random = Random::new(21);
    for (round, keep_percent) in [0, 50, 90, 0, 50].into_iter().enumerate() {
        let topic = format!("round-{round}");
        let rate = if round % 2 == 0 { "30000" } else { "2000" };
        let mut load = Load::begin_with(&broker, &topic, "2s", &["--rate", rate]);
        load.await_figures(1);
        broker.kill();
        mounted.cut(&mut random, keep_percent);
        broker.start_again(&["--shards", ["2", "4", "1"][round % 3]]);
        let said = load.finish();
        // Once more with nobody writing, and everything read from the disk.
        broker.kill();
        mounted.cut(&mut random, keep_percent);
        broker.start_again(&[]);
        println!(
            "cut {round}, {keep_percent} % kept: {said}; read again: {}",
            verify(&broker, &topic)
        );
    }
    for round in 0..5 {
        verify(&broker, &format!("round-{round}"));
    }
    let lost = mounted.fs.lost();
    println!("lost: {lost:?}");
    // Names are flushed almost at once, so it takes luck to lose one.
    assert!(lost.blocks > 0, "nothing was lost: {lost:?}");
}

#[test]
fn a_journal_that_fails_ends_the_broker_with_a_word() {
    if !has_fuse() {
        return;
    }
    let mounted = Mounted::new();
    let Some(mut broker) = started(mounted.dir.path()) else {
        return;
    };
    broker.run(&["topic", "create", "t"]);
    produce(&broker, "before\n").wait().expect("it ends");
    mounted.fs.fail_writes(Some(".journal"));
    let mut refused = produce(&broker, "refused\n");
    assert_eq!(broker.ended(), Some(1), "{}", broker.log());
    refused.kill().expect("our own process");
    refused.wait().expect("it ends");
    let log = broker.log();
    let said = log.lines().find(|line| line.contains("the broker ends"));
    assert!(
        said.is_some_and(|said| said.contains("the journal of shard")),
        "{log}"
    );
    assert!(log.contains(".journal error="), "the file is named: {log}");
    mounted.fs.fail_writes(None);
    broker.start_again(&[]);
    let read = String::from_utf8(broker.run(&["consume", "t"])).expect("text");
    // What was refused may have been written all the same.
    assert!(read == "before\n" || read == "before\nrefused\n", "{read}");
}

fn produce(broker: &Broker, line: &str) -> Child {
    let mut child = broker
        .command(&["produce", "t"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(line.as_bytes()).expect("it reads");
    child
}
