//! Metrics as plain values, and their OpenMetrics text.
//!
//! Shards keep counters of their own kind; a source turns them into families at each scrape, so
//! nothing on the data path knows of metrics.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text::encode},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

/// What kind of number a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name in the text ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What tells it from others of its family, as (name, value).
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// The only number of its family.
    #[must_use]
    pub fn plain(value: f64) -> Self {
        Self {
            labels: Vec::new(),
            value,
        }
    }

    /// A number with one label.
    #[must_use]
    pub fn labelled(name: &'static str, label: impl ToString, value: f64) -> Self {
        Self {
            labels: vec![(name, label.to_string())],
            value,
        }
    }
}

/// Numbers of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, without `_total`.
    pub name: Cow<'static, str>,
    /// One sentence.
    pub help: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// The numbers.
    pub samples: Vec<Sample>,
}

impl Family {
    /// A family of counters.
    #[must_use]
    pub fn counter(
        name: impl Into<Cow<'static, str>>,
        help: &'static str,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Self {
        Self {
            name: name.into(),
            help,
            kind: Kind::Counter,
            samples: samples.into_iter().collect(),
        }
    }

    /// A family of gauges.
    #[must_use]
    pub fn gauge(
        name: impl Into<Cow<'static, str>>,
        help: &'static str,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Self {
        Self {
            name: name.into(),
            help,
            kind: Kind::Gauge,
            samples: samples.into_iter().collect(),
        }
    }
}

/// Called at each scrape, on the admin thread; must only read.
pub type FamilySource = Box<dyn Fn() -> Vec<Family> + Send + Sync>;

/// The OpenMetrics text of some families.
#[must_use]
pub fn render(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(Mutex::new(families))));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written to it");
    text
}

#[derive(Debug)]
struct Collected(Mutex<Vec<Family>>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let metric_type = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric =
                encoder.encode_descriptor(&family.name, family.help, None, metric_type)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    encode_value(&mut metric, family.kind, sample.value)?;
                } else {
                    let mut metric = metric.encode_family(&sample.labels)?;
                    encode_value(&mut metric, family.kind, sample.value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(
    metric: &mut MetricEncoder<'_>,
    kind: Kind,
    value: f64,
) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => {
            metric.encode_counter(&value, None::<&Exemplar<Vec<(String, String)>, f64>>)
        }
        Kind::Gauge => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_as_text() {
        let text = render(vec![
            Family::counter(
                "millstream_appended_bytes",
                "Bytes appended.",
                [
                    Sample::labelled("shard", 0, 12.0),
                    Sample::labelled("shard", "a\"b", 3.5),
                ],
            ),
            Family::gauge("millstream_partitions", "Partitions.", [Sample::plain(2.0)]),
        ]);
        assert_eq!(
            text,
            "# HELP millstream_appended_bytes Bytes appended.\n\
             # TYPE millstream_appended_bytes counter\n\
             millstream_appended_bytes_total{shard=\"0\"} 12.0\n\
             millstream_appended_bytes_total{shard=\"a\\\"b\"} 3.5\n\
             # HELP millstream_partitions Partitions.\n\
             # TYPE millstream_partitions gauge\n\
             millstream_partitions 2.0\n\
             # EOF\n"
        );
    }
}
