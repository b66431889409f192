//! Workloads as TOML files: each key is a flag's name without the dashes, each value what the flag
//! takes. A flag on the command line wins.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use toml::{Table, Value};

/// Workloads that come with the generator, by name.
const READY: [(&str, &str); 6] = [
    ("ceiling", include_str!("../../workloads/ceiling.toml")),
    ("events", include_str!("../../workloads/events.toml")),
    ("logs", include_str!("../../workloads/logs.toml")),
    (
        "many-partitions",
        include_str!("../../workloads/many-partitions.toml"),
    ),
    ("metrics", include_str!("../../workloads/metrics.toml")),
    ("orders", include_str!("../../workloads/orders.toml")),
];

/// A workload file, its keys taken out one by one.
#[derive(Clone, Debug)]
pub struct WorkloadFile {
    name: String,
    left: Table,
}

impl WorkloadFile {
    /// Reads a file, or else the ready workload of this name.
    ///
    /// # Errors
    /// If there is neither, or it is no TOML.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let ready = READY.iter().find(|(ready, _)| *ready == name);
        let text = match ready {
            Some((_, text)) if !path.exists() => (*text).to_owned(),
            _ => fs::read_to_string(path).with_context(|| {
                let names: Vec<&str> = READY.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                format!("cannot read the workload {name}; the ready ones are {names}")
            })?,
        };
        Self::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let left = text.parse::<Table>();
        let mut left = left.with_context(|| format!("workload {name} is no TOML"))?;
        // For whoever reads the file.
        left.remove("description");
        Ok(Self {
            name: name.to_owned(),
            left,
        })
    }

    /// Takes a key; its value goes where the command line said nothing.
    ///
    /// # Errors
    /// If the value is none of the flag's.
    pub fn fill<T>(
        &mut self,
        key: &str,
        slot: &mut Option<T>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<()> {
        let Some(value) = self.left.remove(key) else {
            return Ok(());
        };
        if slot.is_none() {
            let parsed = text_of(&value).ok_or_else(|| "it is no text or number".to_owned());
            let parsed = parsed.and_then(|text| parse(&text));
            let name = &self.name;
            *slot = Some(parsed.map_err(|error| anyhow!("workload {name}, {key}: {error}"))?);
        }
        Ok(())
    }

    /// Takes a key whose flag is one of a few words.
    ///
    /// # Errors
    /// If the value is none of them.
    pub fn fill_word<T: ValueEnum>(&mut self, key: &str, slot: &mut Option<T>) -> Result<()> {
        self.fill(key, slot, |text| T::from_str(text, true))
    }

    /// Takes a key whose flag is a plain number.
    ///
    /// # Errors
    /// If the value is none, or 0.
    pub fn fill_number<T>(&mut self, key: &str, slot: &mut Option<T>) -> Result<()>
    where
        T: FromStr + PartialEq + Default,
    {
        self.fill(key, slot, |text| {
            let number = text.parse::<T>().ok().filter(|it| *it != T::default());
            number.ok_or_else(|| format!("{text:?} is no number above 0"))
        })
    }

    /// A key that another one made void.
    pub fn forget(&mut self, key: &str) {
        self.left.remove(key);
    }

    /// Nothing may be left: a misspelt key must not be passed over in silence.
    ///
    /// # Errors
    /// If something is.
    pub fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            Some(key) => bail!("workload {}: there is no setting {key:?}", self.name),
            None => Ok(()),
        }
    }
}

/// A value as it is written on the command line.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Array(values) => {
            let texts: Option<Vec<String>> = values.iter().map(text_of).collect();
            Some(texts?.join(","))
        }
        Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::{ExtentArgs, ProduceArgs},
        workload::{Keys, Sizes},
    };

    fn filled(text: &str) -> Result<(ProduceArgs, ExtentArgs)> {
        let mut file = WorkloadFile::parse("test", text)?;
        let mut produce = ProduceArgs {
            rate: Some(7),
            ..ProduceArgs::default()
        };
        let mut extent = ExtentArgs {
            records: Some(10),
            ..ExtentArgs::default()
        };
        produce.fill_from(&mut file)?;
        extent.fill_from(&mut file)?;
        file.finish()?;
        Ok((produce, extent))
    }

    #[test]
    fn flags_win_and_the_file_fills_the_rest() {
        let text = "description = \"x\"\nrecord-size = \"uniform:1-9\"\nkeys = \"zipf:9,1\"\n\
                    rate = \"5k\"\nduration = \"1m\"\npartitions = 3\narrivals = \"poisson\"";
        let (produce, extent) = filled(text).unwrap();
        assert_eq!(produce.record_size, Some(Sizes::Uniform(1, 9)));
        let keys = Keys::Zipf {
            count: 9,
            exponent: 1.0,
        };
        assert_eq!(produce.keys, Some(keys));
        assert_eq!((produce.rate, produce.partitions), (Some(7), Some(3)));
        assert_eq!(extent.duration, None, "--records was given");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("rat = 5", "there is no setting \"rat\""),
            ("keys = \"all\"", "keys: \"all\" are no keys"),
            ("partitions = 0", "partitions: \"0\" is no number above 0"),
            ("seed = true", "seed: it is no text or number"),
            ("rate", "is no TOML"),
        ] {
            let error = format!("{:#}", filled(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn every_ready_workload_is_one() {
        for (name, text) in READY {
            filled(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(
                text.starts_with("description = "),
                "{name} says what it is for"
            );
        }
        assert!(WorkloadFile::open("events").is_ok());
        let error = format!("{:#}", WorkloadFile::open("no-such").unwrap_err());
        assert!(error.contains("many-partitions"), "{error}");
    }
}
