//! Limits of the process: open files and lockable memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::io::glommio::locked_memory_limit;

/// Fewer open files than this and a handful of partitions and clients already hit the limit.
pub const MIN_OPEN_FILES: u64 = 1024;

/// Three rings a shard pin this much at the least, in bytes; without it none starts.
const MIN_LOCKED_BYTES: u64 = 512 << 10;

/// Which limit is too low, with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Open files.
    #[error(
        "the limit of open files is {limit}, Millstream needs {MIN_OPEN_FILES} and wants 65536: \
         raise it with `ulimit -n 65536`, in systemd with LimitNOFILE=65536, in Docker with \
         --ulimit nofile=65536"
    )]
    OpenFiles {
        /// The hard limit.
        limit: u64,
    },
    /// Lockable memory.
    #[error(
        "the limit of locked memory is {limit} bytes, io_uring needs {MIN_LOCKED_BYTES}: raise it \
         with `ulimit -l 65536`, in systemd with LimitMEMLOCK=64M, in Docker with --ulimit \
         memlock=67108864"
    )]
    LockedMemory {
        /// The hard limit, in bytes.
        limit: u64,
    },
}

/// Raises soft limits to the hard ones, and returns how many files may be open.
///
/// # Errors
/// A hard limit is too low to run with.
pub fn raise_limits() -> Result<u64, LimitError> {
    let open_files = raise(Resource::Nofile);
    let locked_bytes = raise(Resource::Memlock);
    judge(open_files, locked_bytes)?;
    if locked_memory_limit().is_some() {
        // A registered buffer within a huge page counts as the whole page: a few would use up what a
        // stock host allows. Where this is not known, registering fails and costs only speed.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
    Ok(open_files.unwrap_or(u64::MAX))
}

fn raise(resource: Resource) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(resource);
    if current == maximum {
        return maximum;
    }
    match setrlimit(
        resource,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

fn judge(open_files: Option<u64>, locked_bytes: Option<u64>) -> Result<(), LimitError> {
    match (open_files, locked_bytes) {
        (Some(limit), _) if limit < MIN_OPEN_FILES => Err(LimitError::OpenFiles { limit }),
        (_, Some(limit)) if limit < MIN_LOCKED_BYTES => Err(LimitError::LockedMemory { limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_too_low_are_named() {
        assert_eq!(judge(None, None), Ok(()));
        assert_eq!(judge(Some(1024), Some(8 << 20)), Ok(()));
        let few = judge(Some(256), None).unwrap_err();
        assert_eq!(few, LimitError::OpenFiles { limit: 256 });
        assert!(few.to_string().contains("ulimit -n 65536"));
        let little = judge(Some(4096), Some(64 << 10)).unwrap_err();
        assert_eq!(little, LimitError::LockedMemory { limit: 65_536 });
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        raise_limits().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
