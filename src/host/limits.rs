//! Limits of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewer open files than this and a handful of partitions and clients already hit the limit.
pub const MIN_OPEN_FILES: u64 = 1024;

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
}

/// Raises soft limits to the hard ones, and returns how many files may be open.
///
/// # Errors
/// A hard limit is too low to run with.
pub fn raise_limits() -> Result<u64, LimitError> {
    let open_files = raise(Resource::Nofile);
    // Rings count against it on some kernels; a lack of it shows when they are made.
    raise(Resource::Memlock);
    judge(open_files)?;
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

fn judge(open_files: Option<u64>) -> Result<(), LimitError> {
    match open_files {
        Some(limit) if limit < MIN_OPEN_FILES => Err(LimitError::OpenFiles { limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_too_low_are_named() {
        assert_eq!(judge(None), Ok(()));
        assert_eq!(judge(Some(1024)), Ok(()));
        let few = judge(Some(256)).unwrap_err();
        assert_eq!(few, LimitError::OpenFiles { limit: 256 });
        assert!(few.to_string().contains("ulimit -n 65536"));
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        raise_limits().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
