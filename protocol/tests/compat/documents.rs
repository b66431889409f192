//! `docs/protocol.md` is normative, so its tables are held to the code: each region between
//! `<!-- layout NAME -->` or `<!-- table NAME -->` and `<!-- end -->` is exactly what the code says.
//! `MILLSTREAM_BLESS=1` writes them anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use millstream_protocol::{
    ErrorCode, limits,
    messages::{Api, ErrorReply},
    schema::{Entry, Layout},
};

use crate::{
    golden::check_file,
    layouts::{self, Shape, shape},
};

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md"))
}

/// Rust's documentation as one line of Markdown: links lose their targets.
fn prose(doc: &[&str]) -> String {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    let mut text = lines.join(" ");
    while let Some(open) = text.find("[`") {
        let close = open + text[open..].find("`]").expect("a link is closed");
        let target = text[close + 2..]
            .starts_with('(')
            .then(|| close + 2 + text[close + 2..].find(')').expect("a target is closed") + 1);
        let name = text[open + 1..=close].to_owned();
        text.replace_range(open..target.unwrap_or(close + 2), &name);
    }
    text.replace('|', "\\|")
}

/// The type's name in the document.
fn on_the_wire(type_name: &str) -> String {
    match shape(type_name) {
        Shape::Array("u8") => "bytes".to_owned(),
        Shape::Array(element) => format!("array<{}>", on_the_wire(element)),
        Shape::Optional(value) => format!("optional<{}>", on_the_wire(value)),
        Shape::Pair(first, second) => {
            format!("pair<{}, {}>", on_the_wire(first), on_the_wire(second))
        }
        Shape::Named("String") => "string".to_owned(),
        Shape::Named("Uuid") => "uuid".to_owned(),
        Shape::Named(name) => name.to_owned(),
    }
}

/// The names in a type.
fn names(type_name: &str) -> Vec<&str> {
    match shape(type_name) {
        Shape::Array(inner) | Shape::Optional(inner) => names(inner),
        Shape::Pair(first, second) => [names(first), names(second)].concat(),
        Shape::Named(name) => vec![name],
    }
}

fn layout_table(layout: &Layout) -> String {
    let mut table = format!("**{}**: {}\n", layout.name, prose(layout.doc));
    if layout.fields.is_empty() {
        return table + "\nNo fields.\n";
    }
    table += "\n| field | type | |\n|---|---|---|\n";
    for field in layout.fields {
        let type_name = on_the_wire(field.type_name);
        table += &format!(
            "| `{}` | `{type_name}` | {} |\n",
            field.name,
            prose(field.doc)
        );
    }
    table
}

fn api_table() -> String {
    let mut table = "| number | API | versions | |\n|---|---|---|---|\n".to_owned();
    for (api, entry) in Api::ALL.iter().zip(Api::ENTRIES) {
        let Entry { name, number, doc } = entry;
        let link = name.to_lowercase();
        table += &format!(
            "| {number} | [{name}](#{link}) | 0–{} | {} |\n",
            api.max_version(),
            prose(doc)
        );
    }
    table
}

fn error_table() -> String {
    let mut table = "| number | error | retry | |\n|---|---|---|---|\n".to_owned();
    for (code, entry) in ErrorCode::ALL.iter().zip(ErrorCode::ENTRIES) {
        let retry = if code.is_retriable() { "yes" } else { "" };
        table += &format!(
            "| {} | `{}` | {retry} | {} |\n",
            entry.number,
            entry.name,
            prose(entry.doc)
        );
    }
    table
}

fn limit_table() -> String {
    let mut table = "| limit | value | |\n|---|---|---|\n".to_owned();
    for limit in limits::ENTRIES {
        table += &format!(
            "| `{}` | {} | {} |\n",
            limit.name,
            limit.number,
            prose(limit.doc)
        );
    }
    table
}

/// Every region the document must have, by its heading.
fn regions() -> BTreeMap<String, String> {
    let mut regions = BTreeMap::from([
        ("table apis".to_owned(), api_table()),
        ("table errors".to_owned(), error_table()),
        ("table limits".to_owned(), limit_table()),
    ]);
    for layout in layouts::all() {
        regions.insert(format!("layout {}", layout.name), layout_table(&layout));
    }
    regions
}

#[test]
fn the_tables_are_what_the_code_says() {
    let regions = regions();
    let document = fs::read_to_string(path()).expect("docs/protocol.md");
    let mut expected = String::new();
    let mut seen = BTreeSet::new();
    let mut left = document.as_str();
    while let Some((before, after)) = left.split_once("<!-- ") {
        let (heading, after) = after.split_once(" -->\n").expect("a heading ends its line");
        let (_, after) = after
            .split_once("<!-- end -->")
            .expect("a region is closed");
        let region = regions
            .get(heading)
            .unwrap_or_else(|| panic!("no such table: {heading}"));
        assert!(seen.insert(heading.to_owned()), "{heading} is there twice");
        expected += &format!("{before}<!-- {heading} -->\n{region}\n<!-- end -->");
        left = after;
    }
    expected += left;
    let missing: Vec<_> = regions
        .keys()
        .filter(|heading| !seen.contains(*heading))
        .collect();
    assert!(missing.is_empty(), "docs/protocol.md lacks {missing:?}");
    check_file(&path(), &expected);
}

#[test]
fn every_api_has_a_section_with_its_layouts() {
    let document = fs::read_to_string(path()).expect("docs/protocol.md");
    for api in Api::ALL {
        let heading = format!("\n### {}\n", api.name());
        let (_, section) = document
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no {heading}"));
        let end = ["\n### ", "\n## "]
            .iter()
            .filter_map(|next| section.find(next))
            .min();
        let section = &section[..end.unwrap_or(section.len())];
        let (request, response) = api.layouts();
        for layout in [request, response] {
            let region = format!("<!-- layout {} -->", layout.name);
            assert!(section.contains(&region), "{api} lacks {region}");
        }
    }
}

/// What [`layouts::all`] lists is what can be reached from the APIs, no more and no less.
#[test]
fn every_reachable_layout_is_listed() {
    let listed: BTreeMap<&str, Layout> = layouts::all()
        .into_iter()
        .map(|layout| (layout.name, layout))
        .collect();
    let mut queue = vec![Layout::of::<ErrorReply>()];
    for api in Api::ALL {
        let (request, response) = api.layouts();
        queue.extend([request, response]);
    }
    let mut reached = BTreeSet::new();
    while let Some(layout) = queue.pop() {
        assert_eq!(
            listed.get(layout.name),
            Some(&layout),
            "layouts::all() lacks {}",
            layout.name
        );
        if reached.insert(layout.name) {
            let names = layout
                .fields
                .iter()
                .flat_map(|field| names(field.type_name));
            queue.extend(names.filter_map(|name| listed.get(name)));
        }
    }
    assert_eq!(reached, listed.keys().copied().collect());
}
