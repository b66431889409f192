//! How a command's failure becomes an exit status.
//!
//! 0: done. 1: it failed, the reason is on standard error. 2: the command line is wrong. A reader
//! that has gone, as in `millstream consume t | head`, is no failure.

use std::{io, process::ExitCode};

use clap::error::ErrorKind;

/// An error of the command line that shows only when it is looked at as a whole: exit status 2.
#[must_use]
pub fn usage(message: impl std::fmt::Display) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

/// Prints an error and gives its exit status.
#[must_use]
pub fn report(error: anyhow::Error) -> ExitCode {
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    match error.downcast::<clap::Error>() {
        Ok(usage) => {
            // Nowhere is left to say that standard error is gone.
            let _ = usage.print();
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Only writing to standard output gives this error its `io` form: the client's are its own.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn statuses() {
        let gone = || Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe));
        let gone = gone().context("cannot write").unwrap_err();
        assert_eq!(report(gone), ExitCode::SUCCESS);
        assert_eq!(report(usage("no")), ExitCode::from(2));
        assert_eq!(report(anyhow::anyhow!("no")), ExitCode::FAILURE);
    }
}
