//! `compare`: the results of two sides, each of one run or of several, and whether they differ by
//! more than runs of one side differ among themselves.

mod measures;
mod noise;
mod settings;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    args::CompareArgs,
    load::usage,
    results::{Document, FORMAT},
};
use measures::{Measure, Unit, measures};
use noise::{Difference, difference, median};
use settings::differing;

/// Reads results that `--json` wrote.
///
/// # Errors
/// If the file can't be read, or is none.
pub fn read(path: &Path) -> Result<Document> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let document: Document =
        serde_json::from_slice(&bytes).with_context(|| format!("{name} holds no results"))?;
    ensure!(
        document.format <= FORMAT,
        "{name} has format {}, this build knows {FORMAT}",
        document.format
    );
    Ok(document)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Document>> {
    files.iter().map(|file| read(file)).collect()
}

/// Prints the comparison; false if it was to fail, and something got worse.
///
/// # Errors
/// If results can't be read, or the arguments make no two sides.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let (before, after) = match (args.files.as_slice(), args.with.as_slice()) {
        ([before, after], []) => (std::slice::from_ref(before), std::slice::from_ref(after)),
        (_, []) => {
            return Err(usage(
                "name two results, or the repeated runs of one side, then --with and those of the \
                 other",
            ));
        }
        (before, after) => (before, after),
    };
    let (before, after) = (read_all(before)?, read_all(after)?);
    let rows = rows(&before, &after);
    ensure!(!rows.is_empty(), "the two sides measured nothing in common");
    for line in lines(&before, &after, &rows) {
        println!("{line}");
    }
    let worse = rows.iter().any(|row| row.verdict() == Verdict::Worse);
    Ok(!(args.fail_if_worse && worse))
}

/// One measure on both sides.
#[derive(Clone, Debug)]
struct Row {
    measure: Measure,
    before: Vec<f64>,
    after: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Differs,
    WithinNoise,
    Unknown,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Differs => "differs",
            Self::WithinNoise => "within noise",
            Self::Unknown => "noise unknown",
        }
    }
}

impl Row {
    /// Change of the median, as a part of what it was.
    fn change(&self) -> Option<f64> {
        let before = median(&self.before);
        (before != 0.0).then(|| median(&self.after) / before - 1.0)
    }

    fn verdict(&self) -> Verdict {
        match difference(&self.before, &self.after) {
            Difference::Unknown => Verdict::Unknown,
            Difference::WithinNoise => Verdict::WithinNoise,
            Difference::Real => match self.measure.more_is_better {
                None => Verdict::Differs,
                Some(more) if more == (median(&self.after) > median(&self.before)) => {
                    Verdict::Better
                }
                Some(_) => Verdict::Worse,
            },
        }
    }
}

/// What every run of both sides measured, in the order of the first.
fn rows(before: &[Document], after: &[Document]) -> Vec<Row> {
    let before: Vec<Vec<(Measure, f64)>> = before.iter().map(measures).collect();
    let after: Vec<Vec<(Measure, f64)>> = after.iter().map(measures).collect();
    let values = |side: &[Vec<(Measure, f64)>], measure: &Measure| -> Option<Vec<f64>> {
        let of_run = |run: &Vec<(Measure, f64)>| {
            let found = run.iter().find(|(other, _)| other.name == measure.name);
            found.map(|(_, value)| *value)
        };
        side.iter().map(of_run).collect()
    };
    let names = before.first().into_iter().flatten();
    let rows = names.filter_map(|(measure, _)| {
        Some(Row {
            measure: measure.clone(),
            before: values(&before, measure)?,
            after: values(&after, measure)?,
        })
    });
    rows.collect()
}

fn lines(before: &[Document], after: &[Document], rows: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> = differing(before, after)
        .into_iter()
        .map(|it| format!("differs  {it}"))
        .collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let widest = rows
        .iter()
        .map(|row| row.measure.name.chars().count())
        .max();
    let width = widest.unwrap_or(0);
    let heads = [("before", before.len()), ("after", after.len())];
    let heads = heads.map(|(side, runs)| match runs {
        1 => format!("{side}, 1 run"),
        runs => format!("{side}, median of {runs}"),
    });
    lines.push(format!(
        "{:width$} {:>28} {:>28} {:>9}",
        "", heads[0], heads[1], "change"
    ));
    for row in rows {
        let (name, unit) = (&row.measure.name, row.measure.unit);
        let change = row
            .change()
            .map_or_else(|| "-".to_owned(), |part| format!("{:+.1} %", part * 100.0));
        lines.push(format!(
            "{name:width$} {:>28} {:>28} {change:>9}  {}",
            side(&row.before, unit),
            side(&row.after, unit),
            row.verdict().name()
        ));
    }
    if rows.iter().any(|row| row.verdict() == Verdict::Unknown) {
        lines.push(String::new());
        lines.push(
            "One run says nothing of noise: repeat each side, then: compare A1.json A2.json A3.json \
             --with B1.json B2.json B3.json"
                .to_owned(),
        );
    }
    lines
}

/// `412 (400 to 421)`.
fn side(values: &[f64], unit: Unit) -> String {
    let middle = unit.show(median(values));
    if values.len() < 2 {
        return middle;
    }
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (lowest, highest) = (unit.show(lowest), unit.show(highest));
    // A unit that both have need not be said twice.
    let lowest = match (lowest.split_once(' '), highest.split_once(' ')) {
        (Some((number, its_unit)), Some((_, other))) if its_unit == other => number,
        _ => lowest.as_str(),
    };
    format!("{middle} ({lowest} to {highest})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(more_is_better: Option<bool>, before: &[f64], after: &[f64]) -> Row {
        Row {
            measure: Measure {
                name: "it".to_owned(),
                unit: Unit::Us,
                more_is_better,
            },
            before: before.to_vec(),
            after: after.to_vec(),
        }
    }

    #[test]
    fn better_is_more_or_less_as_it_should_be() {
        let (low, high) = ([10.0, 11.0, 10.5], [20.0, 21.0, 20.5]);
        assert_eq!(row(Some(true), &low, &high).verdict(), Verdict::Better);
        assert_eq!(row(Some(false), &low, &high).verdict(), Verdict::Worse);
        assert_eq!(row(None, &low, &high).verdict(), Verdict::Differs);
        assert_eq!(row(Some(true), &low, &low).verdict(), Verdict::WithinNoise);
        assert_eq!(row(Some(true), &low, &[99.0]).verdict(), Verdict::Unknown);
        let change = row(Some(true), &low, &high).change().unwrap();
        assert!((change - 0.952_38).abs() < 1e-4, "{change}");
    }

    #[test]
    fn a_side_shows_its_spread() {
        assert_eq!(
            side(&[100.0, 300.0, 200.0], Unit::Us),
            "200 us (100 to 300 us)"
        );
        assert_eq!(side(&[1_240.0], Unit::Us), "1.24 ms");
        assert_eq!(
            side(&[900.0, 1_240.0], Unit::Us),
            "1.07 ms (900 us to 1.24 ms)"
        );
    }
}
