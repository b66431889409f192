//! The disks under the data: how the kernel queues for them, and what they promise.

use super::{
    files::chosen,
    item::{Finding, Host, Outcome},
};

/// Mappings upon mappings end somewhere.
const MAX_DEPTH: u32 = 8;

pub(super) fn scheduler(host: &Host<'_>) -> Finding {
    each_disk(
        host,
        |disk, text| match chosen(text) {
            "none" => Verdict::Ok("none".to_owned()),
            // Virtual disks call themselves rotating too, but not by this name.
            choice if disk.starts_with("sd") && rotates(host, disk) => {
                Verdict::Unsure(format!("{choice}, and the disk says that it rotates"))
            }
            choice if text.split_whitespace().any(|word| word == "none") => {
                Verdict::Change(choice.to_owned(), "none")
            }
            choice => Verdict::Unsure(format!("{choice}, and there is no choice `none`")),
        },
        "scheduler",
    )
}

pub(super) fn nomerges(host: &Host<'_>) -> Finding {
    each_disk(
        host,
        |_, text| match text.trim() {
            "2" => Verdict::Ok("2".to_owned()),
            value => Verdict::Change(value.to_owned(), "2"),
        },
        "nomerges",
    )
}

/// Only looked at: to say that there is no cache where there is one loses data.
pub(super) fn write_cache(host: &Host<'_>) -> Finding {
    let finding = each_disk(
        host,
        |disk, text| {
            let device = scsi_cache(host, disk);
            match (text.trim(), device.as_deref()) {
                ("write through", Some(cache)) if cache.starts_with("write back") => {
                    Verdict::Wrong(
                        "the kernel was told `write through`, the disk says `write back`"
                            .to_owned(),
                    )
                }
                ("write through", _) => {
                    Verdict::Ok("no volatile cache, flushes cost little".to_owned())
                }
                ("write back", _) => Verdict::Ok(
                    "volatile cache, every acknowledgement waits for its flush".to_owned(),
                ),
                (other, _) => Verdict::Unsure(format!("{other:?}")),
            }
        },
        "write_cache",
    );
    match finding.outcome {
        Outcome::NotOk => finding.remedy(
            "set it back in /sys/block/…/queue/write_cache: without flushes an acknowledged \
             record does not outlive a power cut",
        ),
        _ => finding,
    }
}

enum Verdict {
    Ok(String),
    Unsure(String),
    Wrong(String),
    /// What is there, and what should be.
    Change(String, &'static str),
}

/// Judges one attribute of the queue of each disk that holds data.
fn each_disk(host: &Host<'_>, judge: impl Fn(&str, &str) -> Verdict, attribute: &str) -> Finding {
    let disks = match disks(host) {
        Ok(disks) => disks,
        Err(reason) => return Finding::cannot_tell(reason),
    };
    let (mut shown, mut changes) = (Vec::new(), Vec::new());
    let (mut all_ok, mut wrong) = (true, false);
    for disk in disks {
        let path = format!("/sys/block/{disk}/queue/{attribute}");
        let verdict = host.read(&path).map(|text| judge(&disk, &text));
        let text = match verdict {
            Some(Verdict::Ok(text)) => text,
            Some(Verdict::Unsure(text)) => {
                all_ok = false;
                text
            }
            Some(Verdict::Wrong(text)) => {
                wrong = true;
                text
            }
            Some(Verdict::Change(text, value)) => {
                changes.push((path, value));
                text
            }
            None => {
                all_ok = false;
                "the kernel does not say".to_owned()
            }
        };
        shown.push(format!("{disk}: {text}"));
    }
    let shown = shown.join("; ");
    let finding = match (wrong || !changes.is_empty(), all_ok) {
        (true, _) => Finding::not_ok(shown),
        (false, true) => Finding::ok(shown),
        (false, false) => Finding::cannot_tell(shown),
    };
    changes.into_iter().fold(finding, |finding, (path, value)| {
        finding.change(path, value)
    })
}

fn rotates(host: &Host<'_>, disk: &str) -> bool {
    let rotates = host.read(&format!("/sys/block/{disk}/queue/rotational"));
    rotates.is_some_and(|text| text.trim() == "1")
}

/// What a SCSI disk itself says of its cache.
fn scsi_cache(host: &Host<'_>, disk: &str) -> Option<String> {
    let disks = format!("/sys/block/{disk}/device/scsi_disk");
    let address = host.files.list(&disks).into_iter().next()?;
    let text = host.read(&format!("{disks}/{address}/cache_type"))?;
    Some(text.trim().to_owned())
}

/// Names in `/sys/block` of the disks that hold the data, or why there is none to name.
fn disks(host: &Host<'_>) -> Result<Vec<String>, String> {
    let Some(mount) = host.mount() else {
        return Err(format!(
            "no mount is known that holds {}",
            host.data_dir.display()
        ));
    };
    let node = match mount.device.starts_with("0:") {
        false => format!("/sys/dev/block/{}", mount.device),
        // btrfs and the like have a number of their own, over a device that they name.
        true => match mount.source.strip_prefix("/dev/") {
            Some(name) => format!("/sys/class/block/{name}"),
            None => return Err(format!("{} has no disk of its own", mount.file_system)),
        },
    };
    let mut disks = Vec::new();
    below(host, &node, 0, &mut disks);
    disks.sort_unstable();
    disks.dedup();
    match disks.is_empty() {
        true => Err(format!(
            "the device of {} is not to be seen here",
            mount.point
        )),
        false => Ok(disks),
    }
}

/// A partition stands for its disk, a mapping for what is mapped.
fn below(host: &Host<'_>, node: &str, depth: u32, disks: &mut Vec<String>) {
    let mapped = host.files.list(&format!("{node}/slaves"));
    if !mapped.is_empty() && depth < MAX_DEPTH {
        for name in mapped {
            below(host, &format!("/sys/class/block/{name}"), depth + 1, disks);
        }
        return;
    }
    let Some(event) = host.read(&format!("{node}/uevent")) else {
        return;
    };
    let value = |key: &str| {
        let mut lines = event.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    match (value("DEVTYPE"), value("DEVNAME")) {
        (Some("partition"), _) if depth < MAX_DEPTH => {
            below(host, &format!("{node}/.."), MAX_DEPTH, disks);
        }
        (_, Some(name)) => disks.push(name.replace('/', "!")),
        (_, None) => {}
    }
}
