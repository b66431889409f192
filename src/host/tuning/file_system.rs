//! The file system under the data, and how it is mounted.

use super::{
    super::mounts::Mount,
    item::{Finding, Host},
};

pub(super) fn kind(host: &Host<'_>) -> Finding {
    let mount = match mount(host) {
        Ok(mount) => mount,
        Err(finding) => return finding,
    };
    let found = format!("{} at {}", mount.file_system, mount.point);
    match mount.file_system.as_str() {
        "ext4" | "xfs" => Finding::ok(found),
        "tmpfs" | "ramfs" => {
            Finding::not_ok(found).remedy("this is memory: put --data-dir on a disk")
        }
        "overlay" => Finding::not_ok(found)
            .remedy("a container's own layers: mount a volume of ext4 or XFS at --data-dir"),
        "btrfs" | "zfs" => {
            Finding::not_ok(found).remedy("it copies on every write: put --data-dir on ext4 or XFS")
        }
        "nfs" | "nfs4" | "cifs" | "9p" => {
            Finding::not_ok(found).remedy("put --data-dir on a disk of this host")
        }
        _ => Finding::cannot_tell(format!("{found}, which nobody has tried")),
    }
}

pub(super) fn flushes(host: &Host<'_>) -> Finding {
    let mount = match mount(host) {
        Ok(mount) => mount,
        Err(finding) => return finding,
    };
    match ["nobarrier", "barrier=0"]
        .into_iter()
        .find(|it| mount.has(it))
    {
        Some(option) => Finding::not_ok(format!("{option} at {}", mount.point)).remedy(format!(
            "`mount -o remount,barrier=1 {}`, and take {option} out of /etc/fstab",
            mount.point
        )),
        None => Finding::ok(format!("flushes of {} reach the disk", mount.point)),
    }
}

pub(super) fn options(host: &Host<'_>) -> Finding {
    let mount = match mount(host) {
        Ok(mount) => mount,
        Err(finding) => return finding,
    };
    let mut found = Vec::new();
    let mut wanted = Vec::new();
    let mut remedies = Vec::new();
    if !mount.has("noatime") && !mount.has("ro") {
        found.push("no noatime");
        wanted.push("noatime");
    }
    if mount.has("discard") {
        found.push("discard");
        wanted.push("nodiscard");
        remedies.push("let fstrim.timer trim instead");
    }
    if mount.has("data=journal") {
        found.push("data=journal");
        remedies.push("take data=journal out of /etc/fstab and mount anew");
    }
    if mount.has("sync") {
        found.push("sync");
        wanted.push("async");
    }
    if found.is_empty() {
        return Finding::ok(format!("{} at {}", mount.options.join(","), mount.point));
    }
    let remount = format!(
        "`mount -o remount,{} {}`, and the same in /etc/fstab",
        wanted.join(","),
        mount.point
    );
    if !wanted.is_empty() {
        remedies.insert(0, &remount);
    }
    Finding::not_ok(format!("{} at {}", found.join(", "), mount.point)).remedy(remedies.join("; "))
}

fn mount(host: &Host<'_>) -> Result<Mount, Finding> {
    host.mount().ok_or_else(|| {
        Finding::cannot_tell(format!(
            "no mount is known that holds {}",
            host.data_dir.display()
        ))
    })
}
