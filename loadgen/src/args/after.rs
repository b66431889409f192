//! Arguments of what is done with results afterwards: no broker is needed.

use std::path::PathBuf;

use clap::Args;

/// Two sides to compare.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Results: two of them, or, before --with, repeated runs of one side
    #[arg(required = true, value_name = "FILE.json")]
    pub files: Vec<PathBuf>,
    /// Results of the other side, repeated runs too
    #[arg(long, value_name = "FILE.json", num_args = 1..)]
    pub with: Vec<PathBuf>,
    /// End with exit status 1 if anything got worse by more than noise
    #[arg(long)]
    pub fail_if_worse: bool,
}

/// Results to draw.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Results of an earlier run, as --json wrote them
    #[arg(value_name = "FILE.json")]
    pub results: PathBuf,
    /// The page to write
    #[arg(value_name = "FILE.html")]
    pub page: PathBuf,
}
