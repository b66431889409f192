//! Whether what was acknowledged is durable: judged from what the broker did, not from what it says.

use serde::{Deserialize, Serialize};

use crate::broker::{BrokerFacts, BrokerFigures};

/// The judgement on one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// Whether it is; nothing if that was not seen.
    pub durable: Option<bool>,
    /// The topic's setting.
    pub setting: String,
    /// Why it is not, or why nobody can tell.
    pub reason: Option<String>,
}

/// What is known when a run that wrote has ended.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The topic's setting `durability`.
    pub setting: &'a str,
    /// The broker.
    pub facts: &'a BrokerFacts,
    /// What it did.
    pub figures: Option<&'a BrokerFigures>,
    /// Whether anything was acknowledged.
    pub acknowledged: bool,
}

impl Durability {
    /// Judges a run that wrote.
    #[must_use]
    pub fn judge(evidence: Evidence<'_>) -> Self {
        let Evidence {
            setting,
            facts,
            figures,
            acknowledged,
        } = evidence;
        let (durable, reason) = if facts.in_memory {
            (Some(false), "the broker's data is in memory")
        } else if setting == "buffered" {
            (Some(false), "the topic has durability=buffered")
        } else {
            match figures {
                None => (
                    None,
                    "flushes were not seen: no admin port (--admin) was reached",
                ),
                Some(figures) if figures.flushes == 0.0 && acknowledged => {
                    (Some(false), "the broker flushed nothing meanwhile")
                }
                Some(_) => (Some(true), ""),
            }
        };
        Self {
            durable,
            setting: setting.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(setting: &str, in_memory: bool, flushes: Option<f64>) -> Option<bool> {
        let facts = BrokerFacts {
            in_memory,
            ..BrokerFacts::default()
        };
        let figures = flushes.map(|flushes| BrokerFigures {
            flushes,
            ..BrokerFigures::default()
        });
        let judged = Durability::judge(Evidence {
            setting,
            facts: &facts,
            figures: figures.as_ref(),
            acknowledged: true,
        });
        assert_eq!(judged.reason.is_none(), judged.durable == Some(true));
        judged.durable
    }

    #[test]
    fn only_a_flush_seen_on_a_disk_is_durable() {
        assert_eq!(durable("flushed", false, Some(3.0)), Some(true));
        assert_eq!(durable("flushed", false, Some(0.0)), Some(false));
        assert_eq!(durable("flushed", true, Some(3.0)), Some(false));
        assert_eq!(durable("buffered", false, Some(3.0)), Some(false));
        assert_eq!(durable("flushed", false, None), None);
    }
}
