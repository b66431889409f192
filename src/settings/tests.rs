//! Precedence, errors, and the table's own consistency.

use std::{collections::BTreeMap, path::Path};

use super::{table::ROWS, *};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment(owned.collect())
}

fn from_file(text: &str) -> Result<Resolved, SettingsError> {
    resolve(
        Some((Path::new("m.toml"), text)),
        &Environment::default(),
        &BTreeMap::new(),
    )
}

#[test]
fn each_source_wins_over_the_one_below() {
    let file = "shards = 2\nmemory = \"1GiB\"\nlisten = \"127.0.0.1:1\"\npin = false\n";
    let environment = environment(&[("MILLSTREAM_SHARDS", "3"), ("MILLSTREAM_MEMORY", "2GiB")]);
    let flags = BTreeMap::from([("shards", "4".to_owned())]);
    let resolved = resolve(Some((Path::new("m.toml"), file)), &environment, &flags).unwrap();
    let settings = &resolved.settings;
    assert_eq!(settings.shards, Some(4));
    assert_eq!(settings.memory_bytes, Some(2 << 30));
    assert_eq!(settings.listen.port(), 1);
    assert!(!settings.pin);
    assert_eq!(settings.admin_listen, Settings::default().admin_listen);
    assert_eq!(
        resolved.origin("shards"),
        &Origin::Flag("--shards".to_owned())
    );
    assert_eq!(
        resolved.origin("memory").to_string(),
        "environment MILLSTREAM_MEMORY"
    );
    assert_eq!(resolved.origin("listen").to_string(), "file m.toml");
    assert_eq!(resolved.origin("admin-listen"), &Origin::Default);
}

#[test]
fn printed_settings_read_back_the_same() {
    let file = "
        advertise = 'broker.example:7400'
        admin-listen = 'off'
        cores = [0, 2, 3]
        log-format = 'json'
        log-level = 'info,millstream::storage=debug'
        shutdown-timeout = '5s'
        direct-io = 'off'
        [topic-defaults]
        retention.ms = '1d'
        'durability' = 'buffered'
    ";
    let resolved = from_file(file).unwrap();
    assert_eq!(resolved.settings.cores, Some(vec![0, 2, 3]));
    assert_eq!(
        resolved.settings.topic_defaults.retention_ms,
        Some(86_400_000)
    );
    let printed = resolved.to_string();
    assert!(printed.contains("admin-listen = \"off\""), "{printed}");
    assert!(
        printed.contains("# file m.toml") && printed.contains("# default"),
        "{printed}"
    );
    assert_eq!(printed.lines().count(), ROWS.len());
    assert_eq!(from_file(&printed).unwrap().settings, resolved.settings);
    let defaults = from_file("").unwrap();
    assert_eq!(defaults.settings, Settings::default());
    assert_eq!(
        from_file(&defaults.to_string()).unwrap().settings,
        Settings::default()
    );
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (key, near) in [
        ("data_dir", "data-dir"),
        ("listn", "listen"),
        ("admin", "admin-listen"),
        ("topic-default", "topic-defaults"),
    ] {
        let error = from_file(&format!("{key} = 1")).unwrap_err().to_string();
        assert!(error.ends_with(&format!("did you mean {near}?")), "{error}");
    }
    let error = from_file("zookeeper = 1").unwrap_err().to_string();
    assert!(
        error.contains("the settings are data-dir, listen"),
        "{error}"
    );
}

#[test]
fn a_bad_value_says_what_where_and_what_it_takes() {
    let error = from_file("shards = 0").unwrap_err().to_string();
    assert_eq!(
        error,
        "shards=\"0\" (file m.toml) is not allowed: shards takes 1 to 1024, or auto"
    );
    let bad = [
        ("listen", "example.com"),
        ("listen", "127.0.0.1"),
        ("listen", "127.0.0.1:70000"),
        ("advertise", "host"),
        ("advertise", "a b:1"),
        ("advertise", "host:0"),
        ("admin-listen", "on"),
        ("cores", "3-1"),
        ("cores", "0,,1"),
        ("pin", "maybe"),
        ("memory", "1MiB"),
        ("log-level", "inof"),
        ("log-format", "xml"),
        ("shutdown-timeout", "2h"),
        ("data-dir", ""),
    ];
    for (name, value) in bad {
        let flags = BTreeMap::from([(name, value.to_owned())]);
        let error = resolve(None, &Environment::default(), &flags)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("(flag --{name})")), "{error}");
        assert!(error.contains(&format!("{name} takes ")), "{error}");
    }
    let error = from_file("shutdown-timeout = 5").unwrap_err().to_string();
    assert!(error.ends_with("5 has no unit: write 5s or 5ms"), "{error}");
    let error = from_file("topic-defaults = 'retention.mz=1'")
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean retention.ms?"), "{error}");
    let error = from_file("shards = ").unwrap_err().to_string();
    assert!(error.starts_with("m.toml is not valid TOML"), "{error}");
}

#[test]
fn variables_that_look_misspelt_are_told() {
    let given = environment(&[
        ("MILLSTREAM_SHARD", "1"),
        ("MILLSTREAM_DATADIR", "x"),
        ("MILLSTREAM_SHARDS", "1"),
        ("MILLSTREAM_SERVER", "x"),
        ("MILLSTREAM_SERVR", "x"),
        ("MILLSTREAM_SERVICE_HOST", "10.0.0.1"),
        ("MILLSTREAM_PORT_7400_TCP", "tcp://10.0.0.1:7400"),
    ]);
    let told = given.misspelt().into_iter();
    let told: Vec<_> = told.map(|it| (it.variable, it.nearest)).collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        told,
        [
            pair("MILLSTREAM_DATADIR", "MILLSTREAM_DATA_DIR"),
            pair("MILLSTREAM_SERVR", "MILLSTREAM_SERVER"),
            pair("MILLSTREAM_SHARD", "MILLSTREAM_SHARDS"),
        ]
    );
}

#[test]
fn one_address_does_not_serve_both() {
    let error = from_file("listen = '127.0.0.1:7401'").unwrap_err();
    assert!(matches!(error, SettingsError::SameAddress(_)), "{error}");
    from_file("listen = '127.0.0.1:0'\nadmin-listen = '127.0.0.1:0'").unwrap();
}

#[test]
fn addresses() {
    let listen = |text: &str| {
        let flags = BTreeMap::from([("listen", text.to_owned())]);
        resolve(None, &Environment::default(), &flags)
            .unwrap()
            .settings
            .listen
            .to_string()
    };
    assert_eq!(listen("localhost:9"), "127.0.0.1:9");
    assert_eq!(listen(":9"), "0.0.0.0:9");
    assert_eq!(listen("[::1]:9"), "[::1]:9");
}

/// The table of `docs/settings.md` between a marker and the end marker.
fn assert_documented(marker: &str, expected: &str) {
    let page = include_str!("../../docs/settings.md");
    let begin = format!("<!-- {marker} -->\n");
    let (_, rest) = page.split_once(&begin).expect("the marker");
    let (table, _) = rest.split_once("<!-- end -->").expect("the end marker");
    assert!(
        table == expected,
        "docs/settings.md: between the markers of {marker} should be\n{expected}"
    );
}

#[test]
fn the_page_of_settings_is_the_table() {
    let defaults = Settings::default();
    let mut table = String::from(
        "| flag | variable | takes | default | what it does |\n|---|---|---|---|---|\n",
    );
    for row in &ROWS {
        let default = (row.show)(&defaults);
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{default}`")
        };
        let (name, variable, takes, doc) = (row.name, row.variable(), row.takes, row.doc);
        table += &format!("| `--{name}` | `{variable}` | {takes} | {default} | {doc} |\n");
    }
    assert_documented("broker settings", &table);

    let mut table =
        String::from("| setting | takes | default | what it does |\n|---|---|---|---|\n");
    for entry in TopicConfig::default().entries() {
        let (takes, doc) = TopicConfig::describe(&entry.name).expect("a setting");
        let (name, value) = (entry.name, entry.value);
        table += &format!("| `{name}` | {takes} | `{value}` | {doc} |\n");
    }
    assert_documented("topic settings", &table);
}
