//! `millstream tune check`: how each item stands.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{super::output, target::TargetArgs};
use crate::host::tuning::{Finding, Importance, Item, Outcome};

const EXAMPLES: &str = "\
Exit status: 0 every item is ok or cannot be told; 1 an item is not ok; 2 the command line is wrong.

Examples:
  millstream tune check --data-dir /var/lib/millstream --cores 2-7
  millstream tune check --skip mount-options --json | jq '.items[] | select(.outcome == \"not_ok\")'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: u64,
    not_ok: u64,
    cannot_tell: u64,
    items: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    outcome: Outcome,
    importance: Importance,
    found: &'a str,
    why: &'a str,
    remedy: Option<&'a str>,
    changes: Vec<Change<'a>>,
}

#[derive(Serialize)]
struct Change<'a> {
    path: &'a str,
    value: &'a str,
}

impl CheckArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let findings = self.target.findings(&self.target.tree())?;
        let report = Report::of(&findings);
        if self.json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        Ok(match report.not_ok {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

impl<'a> Report<'a> {
    fn of(findings: &'a [(&Item, Finding)]) -> Self {
        let count = |outcome| {
            let these = findings.iter().filter(|(_, it)| it.outcome == outcome);
            these.count() as u64
        };
        let rows = findings.iter().map(|(item, finding)| Row {
            name: item.name,
            outcome: finding.outcome,
            importance: item.importance,
            found: &finding.found,
            why: item.why,
            remedy: finding.remedy.as_deref(),
            changes: finding
                .changes
                .iter()
                .map(|change| Change {
                    path: &change.path,
                    value: &change.value,
                })
                .collect(),
        });
        Self {
            ok: count(Outcome::Ok),
            not_ok: count(Outcome::NotOk),
            cannot_tell: count(Outcome::CannotTell),
            items: rows.collect(),
        }
    }
}

/// Columns of text under an item's head.
const TEXT_WIDTH: usize = 84;

fn print(report: &Report<'_>) -> Result<()> {
    for row in &report.items {
        let outcome = match row.outcome {
            Outcome::Ok => "ok",
            Outcome::NotOk => "NOT OK",
            Outcome::CannotTell => "cannot tell",
        };
        output::line(format_args!("{outcome:<11}  {}: {}", row.name, row.found))?;
        print_wrapped(row.why)?;
        if !row.changes.is_empty() {
            let count = row.changes.len();
            print_wrapped(&format!(
                "→ `millstream tune apply` sets it ({count} value(s))"
            ))?;
        }
        if let Some(remedy) = row.remedy {
            print_wrapped(&format!("→ {remedy}"))?;
        }
    }
    output::line(format_args!(
        "\n{} ok, {} not ok, {} cannot tell",
        report.ok, report.not_ok, report.cannot_tell
    ))
}

fn print_wrapped(text: &str) -> Result<()> {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > TEXT_WIDTH {
            output::line(format_args!("{:13}{line}", ""))?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    output::line(format_args!("{:13}{line}", ""))
}
