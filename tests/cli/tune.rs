//! `millstream tune` on a host of the test's own: a directory that looks like `/`.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use crate::broker::{Run, millstream};

/// Files of a host whose only faults are that it swaps and has a short queue of connections.
const HOST: &[(&str, &str)] = &[
    ("proc/sys/kernel/random/boot_id", "0123\n"),
    ("proc/sys/vm/swappiness", "60\n"),
    ("proc/sys/net/core/somaxconn", "128\n"),
    ("proc/swaps", "Filename\n/dev/sda2\n"),
    (
        "proc/self/mountinfo",
        "1 0 8:1 / / rw,noatime - ext4 /dev/sda1 rw\n",
    ),
];

struct Host {
    temp: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            temp: tempfile::tempdir().unwrap(),
        };
        for (path, text) in HOST {
            host.set(path, text);
        }
        host
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join("root")
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("state/tune-undo.json")
    }

    fn files(&self) -> BTreeMap<&str, String> {
        let text = |path: &str| fs::read_to_string(self.root().join(path)).unwrap();
        HOST.iter().map(|(path, _)| (*path, text(path))).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = millstream(&["tune"]);
        command.args(args).arg("--root").arg(self.root());
        command
    }

    fn tune(&self, args: &[&str]) -> Run {
        Run::of(self.command(args), b"")
    }

    /// With the place for what was there before.
    fn change(&self, args: &[&str]) -> Run {
        let mut command = self.command(args);
        command.arg("--state").arg(self.state());
        Run::of(command, b"")
    }
}

#[test]
fn check_tells_by_its_status_and_in_json() {
    let host = Host::new();
    let run = host.tune(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(report["not_ok"], 2);
    let items = report["items"].as_array().unwrap();
    let item = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
    assert_eq!(item("vm-swappiness")["outcome"], "not_ok");
    assert_eq!(item("vm-swappiness")["found"], "60");
    assert_eq!(item("vm-swappiness")["changes"][0]["value"], "1");
    assert_eq!(item("file-system")["outcome"], "ok");
    assert_eq!(item("cpu-governor")["outcome"], "cannot_tell");
    assert!(
        items
            .iter()
            .all(|item| !item["why"].as_str().unwrap().is_empty())
    );

    let text = host
        .tune(&["check", "--skip", "vm-swappiness,net-somaxconn"])
        .text();
    assert!(text.contains(" 0 not ok"), "{text}");
    assert!(!text.contains("vm-swappiness"));
    let text = host.tune(&["check", "--only", "file-system"]).text();
    assert!(text.contains("1 ok, 0 not ok, 0 cannot tell"), "{text}");
    let said = host.tune(&["check", "--only", "swap"]).failed(2);
    assert!(said.contains("there is no item \"swap\""), "{said}");
}

#[test]
fn apply_shows_first_sets_and_is_undone() {
    let host = Host::new();
    let before = host.files();
    let script = host.change(&["apply", "--dry-run"]).text();
    assert!(
        script.contains("echo 1 > /proc/sys/vm/swappiness  # was: 60"),
        "{script}"
    );
    // Nobody can be asked: the script is shown, and nothing is done.
    let run = host.change(&["apply"]);
    assert_eq!(String::from_utf8_lossy(&run.stdout), script);
    assert!(run.failed(2).contains("--yes"));
    assert_eq!(host.files(), before);
    assert!(!host.state().exists());

    let run = host.change(&["apply", "--yes"]);
    assert_eq!(run.text(), script);
    assert_eq!(host.files()["proc/sys/vm/swappiness"], "1\n");
    assert_eq!(host.files()["proc/sys/net/core/somaxconn"], "4096\n");
    host.tune(&["check"]).text();

    let said = host.change(&["undo"]).text();
    assert!(
        said.contains("/proc/sys/vm/swappiness: as before"),
        "{said}"
    );
    assert_eq!(host.files(), before);
    assert_eq!(host.change(&["undo"]).text(), "nothing to undo\n");
}

#[test]
fn somebody_elses_change_is_left_and_told() {
    let host = Host::new();
    host.change(&["apply", "--yes"]).text();
    host.set("proc/sys/vm/swappiness", "5\n");
    let run = host.change(&["undo"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stdout).contains("left at 5"));
    host.change(&["undo", "--force"]).text();
    assert_eq!(host.files()["proc/sys/vm/swappiness"], "60\n");
}
