//! Rules of the house that a reader would otherwise have to remember: who may use whom, how files
//! begin, how long they may be, and that the drawing in `ARCHITECTURE.md` is the code's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a source file, tests included.
const MAX_LINES: usize = 600;

/// What each module of `src/` may use of the others: the table of `ARCHITECTURE.md`.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("types", &[][..]),
        ("io", &[]),
        ("partition", &["types"]),
        ("delay", &[]),
        ("session", &["io"]),
        ("controller", &["types"]),
        ("group", &["io"]),
        ("storage", &["io"]),
        ("net", &["io", "session", "storage"]),
        ("control", &["controller", "types"]),
        (
            "shard",
            &[
                "control",
                "controller",
                "delay",
                "group",
                "io",
                "net",
                "partition",
                "session",
                "storage",
                "types",
            ],
        ),
        ("broker", &["control", "io", "shard", "storage"]),
        ("settings", &["types"]),
        ("host", &["io"]),
        ("logging", &["settings"]),
        ("admin", &[]),
        (
            "cli",
            &[
                "admin",
                "broker",
                "control",
                "controller",
                "host",
                "io",
                "logging",
                "settings",
                "shard",
                "storage",
                "types",
            ],
        ),
        ("main", &["cli"]),
    ])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn every_source() -> Vec<PathBuf> {
    ["src", "protocol", "client", "loadgen", "tests", "benches"]
        .iter()
        .map(|dir| root().join(dir))
        .filter(|dir| dir.exists())
        .flat_map(|dir| rust_files(&dir))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .collect()
}

/// Modules named by `crate::x`, and by the heads of a `crate::{x, y}` list.
fn modules_used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(heads_of_list(list)),
            None => _ = used.insert(head(rest)),
        }
    }
    used.remove("");
    used
}

fn heads_of_list(list: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 1;
    let mut item = String::new();
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(head(&std::mem::take(&mut item))),
            _ => item.push(c),
        }
    }
    heads.push(head(&item));
    heads
}

fn head(path: &str) -> String {
    path.trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn module_of(path: &Path) -> String {
    let inner = path.strip_prefix(root().join("src")).expect("below src");
    let first = inner.components().next().expect("a component").as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn dependencies_point_one_way() {
    let allowed = allowed();
    let mut breaches = Vec::new();
    for path in rust_files(&root().join("src")) {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let Some(may_use) = allowed.get(module.as_str()) else {
            breaches.push(format!(
                "{}: module {module} is not in the table",
                path.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&path).expect("a source file");
        for used in modules_used(&text) {
            let known = allowed.contains_key(used.as_str());
            if known && used != module && !may_use.contains(&used.as_str()) {
                breaches.push(format!("{}: {module} may not use {used}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn only_io_names_the_ring() {
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("a source file");
        let names_it = text.lines().map(str::trim_start).any(|line| {
            !line.starts_with("//")
                && (line.starts_with("use io_uring")
                    || line.contains(" io_uring::")
                    || line.starts_with("io_uring::"))
        });
        let may = path.starts_with(root().join("src/io/uring"));
        assert!(may || !names_it, "{} names io_uring", path.display());
    }
}

#[test]
fn the_code_map_is_the_code() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut drawn = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, place, _, uses, ..] = cells[..]
            && let Some(module) = place
                .strip_prefix("`src/")
                .and_then(|p| p.strip_suffix('`'))
        {
            drawn.insert(module.trim_end_matches(".rs").to_owned(), uses.to_owned());
        }
    }
    let names: BTreeSet<_> = drawn.keys().cloned().collect();
    let table: BTreeSet<_> = allowed().keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        names, table,
        "the code map names every module, and no other"
    );
    for (module, may_use) in allowed() {
        let cell = &drawn[module];
        if cell.starts_with("all above") || cell == "everything" {
            continue;
        }
        let named: BTreeSet<_> = cell.split('`').skip(1).step_by(2).collect();
        let expected: BTreeSet<_> = may_use.iter().copied().collect();
        assert_eq!(named, expected, "what {module} may use");
    }
    for module in &names {
        let dir = root().join("src").join(module);
        let is_there = dir.is_dir() || dir.with_extension("rs").is_file();
        assert!(is_there, "{module} is drawn and not there");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut breaches = Vec::new();
    for path in every_source() {
        let text = fs::read_to_string(&path).expect("a source file");
        let name = path
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            breaches.push(format!("{name}: {lines} lines: cut it along an idea"));
        }
        let is_unit_test = name.ends_with("tests.rs") || name.contains("/tests/");
        let opens = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!["));
        if !is_unit_test && !opens.is_some_and(|line| line.starts_with("//!")) {
            breaches.push(format!("{name}: does not begin with //!"));
        }
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    let text =
        "use crate::io::Io;\nuse crate::{net::{Budget, Permit}, shard};\nlet x = crate::types::Y;";
    let found: Vec<_> = modules_used(text).into_iter().collect();
    assert_eq!(found, ["io", "net", "shard", "types"]);
}
