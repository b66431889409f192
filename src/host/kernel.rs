//! Is there an io_uring that the broker may use?

use std::{fs, io, thread, time::Duration};

use rustix::io::Errno;

/// The oldest kernel that has every operation the broker submits, as (major, minor).
const MIN_KERNEL: (u32, u32) = (5, 15);

/// How often, and with what pause, memory that is lacking is asked for again.
const MEMORY_ATTEMPTS: u32 = 40;
const MEMORY_PAUSE: Duration = Duration::from_millis(50);

/// Why io_uring cannot be used, with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Too old.
    #[error(
        "Linux {release} is too old: Millstream needs {}.{} or newer, for io_uring",
        MIN_KERNEL.0, MIN_KERNEL.1
    )]
    TooOld {
        /// What the kernel calls itself.
        release: String,
    },
    /// Built without it.
    #[error("this kernel was built without io_uring (CONFIG_IO_URING): boot one that has it")]
    Missing,
    /// Turned off for everybody or for this user.
    #[error(
        "io_uring is turned off by the sysctl kernel.io_uring_disabled={value}: run \
         `sudo sysctl kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// What it is set to.
        value: String,
    },
    /// Blocked by a filter of system calls.
    #[error(
        "io_uring is blocked, most likely by a container's seccomp profile: start the container \
         with `--security-opt seccomp=tuning/docker-seccomp.json` (a file of Millstream's sources), or \
         with seccomp=unconfined"
    )]
    Blocked,
    /// Not enough lockable memory for a ring.
    #[error(
        "not enough lockable memory for io_uring: raise it with `ulimit -l 65536`, in systemd with \
         LimitMEMLOCK=64M, in Docker with --ulimit memlock=67108864"
    )]
    Memlock,
    /// Something else.
    #[error("io_uring cannot be set up: {0}")]
    Other(String),
}

/// Sets up a ring as a shard would and lets it go again.
///
/// # Errors
/// Why there can be none, and what to do about it.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing runs yet that a pause could block"
)]
pub fn check_kernel() -> Result<(), KernelError> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if version_of(&release).is_some_and(|version| version < MIN_KERNEL) {
        return Err(KernelError::TooOld { release });
    }
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    for attempt in 1.. {
        let Err(error) = crate::io::uring::try_ring() else {
            break;
        };
        match diagnose(&error, disabled.as_deref().map(str::trim)) {
            // A broker that was just killed gives its locked memory back a moment later.
            KernelError::Memlock if attempt < MEMORY_ATTEMPTS => thread::sleep(MEMORY_PAUSE),
            error => return Err(error),
        }
    }
    Ok(())
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn diagnose(error: &io::Error, disabled: Option<&str>) -> KernelError {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS) => KernelError::Missing,
        Some(Errno::PERM | Errno::ACCESS) => match disabled {
            Some(value) if value != "0" => KernelError::Disabled {
                value: value.to_owned(),
            },
            _ => KernelError::Blocked,
        },
        Some(Errno::NOMEM) => KernelError::Memlock,
        _ => KernelError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_has_its_remedy() {
        let errno = |errno: Errno| io::Error::from(errno);
        assert_eq!(diagnose(&errno(Errno::NOSYS), None), KernelError::Missing);
        assert_eq!(
            diagnose(&errno(Errno::PERM), Some("0")),
            KernelError::Blocked
        );
        assert_eq!(diagnose(&errno(Errno::PERM), None), KernelError::Blocked);
        let disabled = diagnose(&errno(Errno::PERM), Some("2"));
        assert_eq!(
            disabled,
            KernelError::Disabled {
                value: "2".to_owned()
            }
        );
        assert!(
            disabled
                .to_string()
                .contains("sysctl kernel.io_uring_disabled=0")
        );
        assert_eq!(
            diagnose(&errno(Errno::NOMEM), Some("0")),
            KernelError::Memlock
        );
        assert!(matches!(
            diagnose(&errno(Errno::MFILE), None),
            KernelError::Other(_)
        ));
    }

    /// The remedy in the message must be one.
    #[test]
    fn the_profile_that_is_shipped_lets_rings_be_made() {
        let text = include_str!("../../tuning/docker-seccomp.json");
        let profile: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
        let denied = profile["syscalls"][0]["names"].as_array().unwrap();
        assert!(denied.iter().any(|name| name == "ptrace"));
        assert!(
            !denied
                .iter()
                .any(|name| name.as_str().unwrap().starts_with("io_uring"))
        );
        assert!(
            KernelError::Blocked
                .to_string()
                .contains("tuning/docker-seccomp.json")
        );
    }

    #[test]
    fn versions_of_real_kernels() {
        assert_eq!(version_of("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version_of("5.4.0-200-generic"), Some((5, 4)));
        assert_eq!(version_of("4.18.0+"), Some((4, 18)));
        assert_eq!(version_of("odd"), None);
        assert!(version_of("5.4.0").unwrap() < MIN_KERNEL);
    }
}
