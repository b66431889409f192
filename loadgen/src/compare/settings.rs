//! What was not the same on both sides: a difference in figures may come from there.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::results::Document;

/// Settings, host and broker where the two sides differ, or one side in itself.
#[must_use]
pub fn differing(before: &[Document], after: &[Document]) -> Vec<String> {
    let (before, after) = (all(before), all(after));
    let mut lines = Vec::new();
    for (name, old) in &before {
        let new = after.get(name);
        if new != Some(old) {
            let new = new.map_or_else(|| "nothing".to_owned(), |it| it.join(" or "));
            lines.push(format!("{name}: {} before, {new} after", old.join(" or ")));
        }
    }
    for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        lines.push(format!(
            "{name}: nothing before, {} after",
            new.join(" or ")
        ));
    }
    lines
}

/// Each setting, with every value that it has in these documents.
fn all(documents: &[Document]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for document in documents {
        for (name, value) in of_document(document) {
            let values = found.entry(name).or_default();
            if !values.contains(&value) {
                values.push(value);
                values.sort();
            }
        }
    }
    found
}

fn of_document(document: &Document) -> Vec<(String, String)> {
    let broker = &document.broker;
    let host = &document.host;
    let mut found = vec![
        ("mode".to_owned(), document.mode.clone()),
        ("host".to_owned(), host.name.clone()),
        ("kernel".to_owned(), host.kernel.clone()),
        ("processor".to_owned(), host.cpu_model.clone()),
        ("cores".to_owned(), host.cores.to_string()),
        ("version".to_owned(), document.version.clone()),
        ("broker version".to_owned(), broker.version.clone()),
        ("broker shards".to_owned(), broker.shards.to_string()),
        ("broker disk".to_owned(), broker.disk()),
    ];
    if let Some(revision) = &document.revision {
        found.push(("revision".to_owned(), revision.clone()));
    }
    // Points of one document differ in what is varied; the first stands for the rest.
    let settings = document.runs().next().map(|run| &run.settings);
    if let Some(Ok(Value::Object(settings))) = settings.map(serde_json::to_value) {
        let varied = ["linger_ms", "batch_size", "rate"];
        let is_one = document.run.is_some();
        let fixed = settings.into_iter();
        let fixed = fixed.filter(|(name, _)| is_one || !varied.contains(&name.as_str()));
        found.extend(fixed.map(|(name, value)| (name, value.to_string())));
    }
    found
}
