//! Any text is converted or rejected, in bounded time and memory, whatever the validation rejects.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests and their helpers fail by panicking"
)]

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use mcs_migrate::{MigrateError, Predecessor, Rejection, YamlError, format, migrate};
use proptest::{prelude::*, sample::select};
use toml::{Table, Value};

/// Far above the time needed on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Rejects every value and part of a value.
fn reject_all(toml: &str, _: &Path) -> Vec<Rejection> {
    let mut rejections = Vec::new();
    let mut reject = |key: String| {
        rejections.push(Rejection { key: Some(key), message: "found x, expected y".into() });
    };
    for (section, keys) in toml.parse::<Table>().unwrap() {
        for (key, value) in keys.as_table().unwrap() {
            let path = format!("{section}.{key}");
            match value {
                Value::Array(list) if !list.is_empty() => {
                    (0..list.len()).for_each(|index| reject(format!("{path}[{index}]")));
                }
                Value::Table(table) if !table.is_empty() => {
                    table.keys().for_each(|name| reject(format!("{path}.{}", format::key(name))));
                }
                _ => reject(path),
            }
        }
    }
    rejections
}

/// Migrates a text with validations that reject nothing and everything.
fn check(text: &str) -> Result<(), MigrateError> {
    let start = Instant::now();
    for validate in [|_: &str, _: &Path| Vec::new(), reject_all] {
        let migrated = migrate(text, Path::new("a\nb"), Path::new("/nowhere"), &validate)?;
        let parsed = migrated.toml.parse::<Table>();
        assert!(parsed.is_ok(), "{parsed:?}\nof {text:?}\nin {}", migrated.toml);
        // Comments contain untrusted text.
        assert!(
            !migrated.toml.contains(|c: char| c.is_control() && c != '\n'),
            "{}",
            migrated.toml
        );
    }
    assert!(start.elapsed() < TIME_LIMIT, "{:?}", start.elapsed());
    Ok(())
}

/// Files with valid keys and arbitrary values.
fn near_yaml() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("~".to_owned()),
        Just("[]".to_owned()),
        Just("{a: b}".to_owned()),
        Just("\"a\\nb = 1\\n[web]\\n\"".to_owned()),
        Just("*x".to_owned()),
        "-?[0-9]{1,25}",
        "[0-9.]{1,6} ?[a-zA-Z]{0,4}",
        "\\[[^\\]\n]{0,20}\\]",
        "\\PC{0,20}",
    ];
    let keys = [Predecessor::Python.keys(), Predecessor::Node.keys()].concat();
    prop::collection::vec((select(keys), value), 0..20).prop_map(|lines| {
        let mut text = "web: &x {}\ncrypto: {}\n".to_owned();
        for (path, value) in lines {
            let mut indent = String::new();
            for part in path.split('.') {
                write!(text, "\n{indent}{part}: ").unwrap();
                indent.push_str("  ");
            }
            text.push_str(&value);
        }
        text
    })
}

/// Returns the default configuration, which `PROPTEST_CASES` sets, with at least this number of cases.
fn at_least(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(cases), ..default }
}

proptest! {
    #![proptest_config(at_least(512))]

    #[test]
    fn arbitrary_bytes_are_converted_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _result = check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_yaml_is_converted_or_rejected(
        text in "([a-z\\[\\]{}:,&*!|>'\"%@#?\n\t -]|web:|crypto:|server:|scan:\n  ){0,200}",
    ) {
        let _result = check(&text);
    }

    #[test]
    fn arbitrary_values_are_converted_or_rejected(text in near_yaml()) {
        let _result = check(&text);
    }
}

/// Returns a text of at most `size` bytes with `unit` repeated between `start` and `end`.
fn filled(size: usize, start: &str, unit: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = start.to_owned();
    for unit in (0..).map(unit) {
        if text.len() + unit.len() + end.len() > size {
            break;
        }
        text.push_str(&unit);
    }
    text + end
}

/// A quadratic algorithm would exceed the time limit.
#[test]
fn converts_large_files_in_bounded_time() {
    for (start, unit, end) in [
        ("web: {}\n", "scan: {x: y}\n", ""),
        ("web: {", "a: b, ", "}\n"),
        ("web: {}\nscan: {allowed_mimetypes: [", "a,", "]}\n"),
        ("server: {}\nscan: {script: '", "a ", "'}\n"),
        ("web: {}\ndownload: {proxy: '", "a", "'}\n"),
    ] {
        check(&filled(64 * 1024, start, |_| unit.into(), end)).unwrap();
    }
    let start = "web: {}\ndownload: {additional_headers: {";
    check(&filled(256 * 1024, start, |n| format!("a{n}: b,"), "}}\n")).unwrap();
}

#[test]
fn rejects_aliases_that_expand_to_too_much() {
    let section = format!("web: &a {{{}}}\n", "a: ,".repeat(30_000));
    let key = format!("web: {{&a {}: ", "x".repeat(100_000));
    for text in [
        filled(256 * 1024, &section, |_| "web: *a\n".into(), ""),
        filled(256 * 1024, &key, |_| ", *a : ".into(), "}\n"),
    ] {
        let error = check(&text).err();
        assert!(
            matches!(error, Some(MigrateError::Yaml(YamlError::TooManyAliases(_)))),
            "{error:?}"
        );
    }
}
