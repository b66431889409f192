//! `--print-config`: every setting with its value and its source, as a file that can be used.

use std::fmt;

use super::{Resolved, table::ROWS};

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<(String, String)> = ROWS
            .iter()
            .map(|row| {
                let value = toml::Value::String((row.show)(&self.settings));
                (
                    format!("{} = {value}", row.name),
                    self.origin(row.name).to_string(),
                )
            })
            .collect();
        let width = lines
            .iter()
            .map(|(line, _)| line.chars().count())
            .max()
            .unwrap_or(0);
        for (line, origin) in lines {
            writeln!(f, "{line:width$}  # {origin}")?;
        }
        Ok(())
    }
}
