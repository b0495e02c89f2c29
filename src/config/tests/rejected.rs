//! Rejected configurations and their error texts.

use super::{
    invalid_values::{CRYPTO, DOWNLOAD, INCIDENTS, LIMITS, LISTENERS, SANDBOX, SCAN, STORE},
    *,
};

#[test]
fn errors_name_key_value_and_expectation() {
    let dir = ConfigDir::new();
    dir.file("plain", "", 0o644);
    for directory in ["a b", "jobs"] {
        fs::create_dir(dir.path().join(directory)).unwrap();
    }
    let long = "x".repeat(120);
    let too_long = format!("log.format = \"{long}\"");
    let cases = [LISTENERS, INCIDENTS, SCAN, SANDBOX, DOWNLOAD, STORE, CRYPTO, LIMITS]
        .into_iter()
        .flatten()
        .copied();
    for (lines, expected) in cases.chain([(too_long.as_str(), "x…\", expected")]) {
        let errors = dir.errors(lines);
        assert!(errors.contains(expected), "{lines}\n  {errors}\n  {expected}");
        assert!(!errors.contains("hush"), "{lines}\n  {errors}");
        assert!(!errors.contains(&long), "{lines}\n  {errors}");
    }
}

#[test]
fn every_key_rejects_value_of_wrong_type() {
    let dir = ConfigDir::new();
    for (section, key) in properties::known() {
        // No key takes a date.
        let errors = dir.errors(&format!("{section}.{key} = 1979-05-27"));
        let is_reported = |line: &str| line.contains(&format!(": {section}.{key}: found "));
        assert!(errors.lines().any(is_reported), "{section}.{key}\n  {errors}");
    }
}

#[test]
fn former_key_names_report_current_name() {
    let dir = ConfigDir::new();
    for (former, current) in [
        ("scan.script_larger", "scan.script_on_oversize"),
        ("rules.larger", "rules.on_oversize"),
        ("clamd.larger", "clamd.on_oversize"),
        ("icap.larger", "icap.on_oversize"),
    ] {
        let expected = format!("{former}: found a key that was renamed, expected {current}");
        let errors = dir.errors(&format!("{former} = 'skip'"));
        assert_eq!(errors, format!("F:1:{}: {expected}", former.find('.').unwrap() + 2));
        let variable = format!("MCS_{}", former.replace('.', "__").to_uppercase());
        let errors = environment(&[(&variable, "skip")]).unwrap_err().to_string();
        assert_eq!(errors, format!("{variable}: {expected}"));
    }
}

#[test]
fn reports_all_errors_with_line() {
    let errors =
        ConfigDir::new().errors("web.port = 'x'\n\n  scan.workers = 0\nlog.levle = 'info'");
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(
        lines,
        [
            "F:1:5: web.port: found \"x\", expected an integer from 0 to 65535",
            "F:3:8: scan.workers: found 0, expected an integer from 1 to 1024",
            "F:4:5: log.levle: found an unknown key, expected log.level?",
        ]
    );
}

#[test]
fn reports_syntax_errors_without_line_content() {
    let errors = ConfigDir::new().errors("crypto.pickle_key = \"hush\nweb.port = \n");
    assert!(errors.contains("F:1:") && errors.contains("F:2:"), "{errors}");
    assert!(!errors.contains("hush"), "{errors}");
}

#[test]
fn syntax_errors_are_explained_once_per_line() {
    let dir = ConfigDir::new();
    for (text, expected) in [
        ("[web]\nhost = \"a\nport = 1", "F:2:10: found a text without its closing quotation mark"),
        (
            "[web]\nhost = a.example",
            "F:2:8: found a value without quotes, expected a text in quotes",
        ),
        ("[web]\nport: 1", "F:2:5: found a colon after a key, expected KEY = VALUE"),
        ("[web\nport = 1", "F:1:5: found a section without closing bracket"),
        ("[scan]\nengines = [\"rules\"\nworkers = 1", "F:3:1: found no comma after an element"),
        ("[web]\nhost = “a”", "F:2:8: found the typographic quotation mark “, expected \""),
        ("[web]\nport\u{a0}= 1", "F:2:5: found the character U+00A0, expected a plain space"),
        ("[web]\nport = 08080", "F:2:8: found a number with a leading zero"),
        ("[web]\nhost = \"a\" port = 1", "F:2:12: found more than one key in a line"),
        ("# old\n\nweb:\n  port: 1", "F:1:1: found YAML, expected TOML"),
        (" { \"web\": 1 }", "F:1:1: found JSON, expected TOML"),
        ("[web]\nhost = \"\\q\"", "F:2:10: found a backslash in double quotes, expected two"),
    ] {
        let file = dir.file("config.toml", text, 0o644);
        let errors = Config::load(Some(&file), std::iter::empty()).unwrap_err().to_string();
        let errors = errors.replace(file.to_str().unwrap(), "F");
        assert!(errors.starts_with(expected), "{text}\n{errors}\n{expected}");
        let mut lines: Vec<_> = errors.lines().map(|line| line.split(':').nth(1)).collect();
        let count = lines.len();
        lines.dedup();
        assert_eq!(lines.len(), count, "{errors}");
    }
}

#[test]
fn empty_variable_that_unsets_required_key_is_named() {
    let errors =
        environment(&[("MCS_SCAN__SCRIPT", "/bin/true"), ("MCS_CRYPTO__REQUEST_SECRET_PATH", "")]);
    let errors = errors.unwrap_err().to_string();
    let expected = "MCS_CRYPTO__REQUEST_SECRET_PATH: crypto.request_secret_path: missing, since this empty variable";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn empty_configuration_lists_required_keys() {
    let errors = Config::load(None, std::iter::empty()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "no configuration file (see -c): rules.paths: missing, expected files or directories of YARA \
         rules, unless scan.script is set or scan.engines lists others\nno configuration file (see -c): crypto.request_secret_path: missing, \
         expected the path of the request key (generate-key FILE writes one), or pickle_path and pickle_key"
    );
}

#[test]
fn unreadable_file_is_only_error() {
    let dir = ConfigDir::new();
    for (path, reason) in
        [(dir.path().join("absent"), "No such file"), (dir.path(), "not a regular file")]
    {
        let errors = Config::load(Some(&path), std::iter::empty()).unwrap_err();
        assert_eq!(errors.problems().len(), 1);
        let errors = errors.to_string();
        assert!(errors.contains(path.to_str().unwrap()) && errors.contains(reason), "{errors}");
    }
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff]).unwrap();
    assert!(Config::load(Some(&binary), std::iter::empty()).is_err());
}
