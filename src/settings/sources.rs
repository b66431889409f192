//! Where values come from, laid over each other: the later source wins, each value remembers its own.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    Settings,
    table::{ROWS, Row},
};
use crate::types::topic_config::nearest;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, or not ours to read.
    #[error("cannot read the configuration file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is not valid TOML: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// No such setting.
    #[error("{path}: there is no setting {key:?}{}", nearest_hint(.nearest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest key there is.
        nearest: Option<&'static str>,
    },
    /// One address cannot serve both.
    #[error("listen and admin-listen are both {0}: give one of them another port")]
    SameAddress(std::net::SocketAddr),
    /// The value is no value of the setting.
    #[error("{name}={value:?} ({origin}) is not allowed: {reason}")]
    BadValue {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// Where it comes from.
        origin: Origin,
        /// What it takes.
        reason: String,
    },
}

fn nearest_hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            format!("; the settings are {}", names.join(", "))
        }
    }
}

/// The environment as settings see it.
#[derive(Clone, Debug, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// The variables of this process whose names begin with `MILLSTREAM_`.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name
                .into_string()
                .ok()
                .filter(|name| name.starts_with("MILLSTREAM_"))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self(variables.collect())
    }

    /// Variables that look like a misspelt setting. Not an error: orchestrators set variables of
    /// their own named after a service.
    #[must_use]
    pub fn misspelt(&self) -> Vec<Misspelt> {
        let mut known: Vec<String> = ROWS.iter().map(Row::variable).collect();
        known.extend(["MILLSTREAM_SERVER", "MILLSTREAM_CONFIG"].map(str::to_owned));
        let likely = |variable: &String| {
            let name = variable.to_ascii_uppercase();
            let distance = |known: &String| strsim::levenshtein(&name, known);
            let nearest = known.iter().min_by_key(|known| distance(known))?;
            (variable != nearest && distance(nearest) <= 2).then(|| Misspelt {
                variable: variable.clone(),
                nearest: nearest.clone(),
            })
        };
        self.0.keys().filter_map(likely).collect()
    }
}

/// A variable that nothing reads, though its name is nearly one that something does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// As it is written.
    pub variable: String,
    /// The name that is read.
    pub nearest: String,
}

impl fmt::Display for Misspelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, nearest } = self;
        write!(
            f,
            "nothing reads the environment variable {variable}; did you mean {nearest}?"
        )
    }
}

/// The settings, and where each comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The values.
    pub settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Resolved {
    /// Where the value of a setting comes from.
    #[must_use]
    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }

    fn set(&mut self, row: &'static Row, value: &str, origin: Origin) -> Result<(), SettingsError> {
        (row.parse)(&mut self.settings, value).map_err(|refused| SettingsError::BadValue {
            name: row.name,
            value: value.to_owned(),
            origin: origin.clone(),
            reason: refused.unwrap_or_else(|| format!("{} takes {}", row.name, row.takes)),
        })?;
        self.origins.insert(row.name, origin);
        Ok(())
    }
}

/// Lays the sources over each other: defaults, then the file, then the environment, then flags.
/// `flags` are values by the name of their setting.
///
/// # Errors
/// The first value or key that is refused, with its source.
pub fn resolve(
    file: Option<(&Path, &str)>,
    environment: &Environment,
    flags: &BTreeMap<&'static str, String>,
) -> Result<Resolved, SettingsError> {
    let mut resolved = Resolved {
        settings: Settings::default(),
        origins: BTreeMap::new(),
    };
    if let Some((path, text)) = file {
        for (key, value) in file_values(path, text)? {
            let row = ROWS.iter().find(|row| row.name == key);
            let row = row.ok_or_else(|| SettingsError::UnknownKey {
                path: path.to_owned(),
                nearest: nearest(&key, ROWS.iter().map(|row| row.name)),
                key,
            })?;
            resolved.set(row, &value, Origin::File(path.to_owned()))?;
        }
    }
    for row in &ROWS {
        let variable = row.variable();
        if let Some(value) = environment.0.get(&variable) {
            resolved.set(row, value, Origin::Environment(variable))?;
        }
        if let Some(value) = flags.get(row.name) {
            resolved.set(row, value, Origin::Flag(format!("--{}", row.name)))?;
        }
    }
    let Settings {
        listen,
        admin_listen,
        ..
    } = resolved.settings;
    match admin_listen == Some(listen) && listen.port() != 0 {
        true => Err(SettingsError::SameAddress(listen)),
        false => Ok(resolved),
    }
}

/// The file's values as text, by key. A table becomes `name=value` pairs.
fn file_values(path: &Path, text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| SettingsError::Syntax {
                path: path.to_owned(),
                reason: error.to_string().trim_end().to_owned(),
            })?;
    Ok(table
        .into_iter()
        .map(|(key, value)| (key, value_text(&value)))
        .collect())
}

fn value_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(value_text).collect::<Vec<_>>().join(","),
        toml::Value::Table(table) => pairs("", table).join(","),
        other => other.to_string(),
    }
}

/// `retention.ms = 5` in a table is a table in a table; the names are joined again.
fn pairs(prefix: &str, table: &toml::Table) -> Vec<String> {
    let pairs = table.iter().flat_map(|(key, value)| {
        let name = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => pairs(&format!("{name}."), inner),
            value => vec![format!("{name}={}", value_text(value))],
        }
    });
    pairs.collect()
}
