//! What commands print: tables for people, JSON for scripts. Every failure to write is an error, so
//! that a full disk behind `> file` is not taken for success.

use std::io::{self, BufRead as _, Write};

use anyhow::{Context, Result};
use serde::Serialize;

const FAILED: &str = "cannot write to standard output";

/// Prints a line.
///
/// # Errors
/// If standard output can't be written.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout(), "{text}").context(FAILED)
}

/// Asks on standard error; anything but a yes is a no.
///
/// # Errors
/// If nobody can be asked.
pub fn agreed(question: impl std::fmt::Display) -> Result<bool> {
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

/// Prints a value as JSON.
///
/// # Errors
/// If standard output can't be written.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    io::stdout().write_all(&bytes).context(FAILED)
}

/// Rows under a header, columns aligned: text to the left, numbers to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let is_number = |column: usize| {
            let mut cells = self.rows[1..].iter().map(|row| row[column].as_str());
            cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
        };
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let layout: Vec<(usize, bool)> = (0..columns)
            .map(|column| (width(column), is_number(column)))
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &(width, is_number)) in row.iter().zip(&layout) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let padded = match is_number {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                };
                line.push_str(&padded);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// Prints the table.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn print(&self) -> Result<()> {
        let rendered = self.render();
        io::stdout().write_all(rendered.as_bytes()).context(FAILED)
    }
}

/// A number of things: `1 batch`, `2 batches`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A number of bytes to three digits: `1.21 GiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn show_size(bytes: u64) -> String {
    let mut number = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        unit = larger;
    }
    match (unit, number) {
        ("B", _) => format!("{bytes} B"),
        (_, ..10.0) => format!("{number:.2} {unit}"),
        (_, ..100.0) => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["NAME", "COUNT", "NOTE"]);
        table.row(["a".into(), "1".into(), String::new()]);
        table.row(["longer".into(), "100000".into(), "x".into()]);
        assert_eq!(
            table.render(),
            "NAME     COUNT  NOTE\na            1\nlonger  100000  x\n"
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1024), "1.00 KiB");
        assert_eq!(show_size(64 << 20), "64.0 MiB");
        assert_eq!(show_size(u64::MAX), "16384 PiB");
    }
}
