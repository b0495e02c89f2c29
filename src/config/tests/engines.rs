//! `scan.engines` and what each of them is told.

use std::time::Duration;

use super::*;
use crate::scan::encrypted::OnEncrypted;
use crate::scan::engines::{Bounds, Kind, Otherwise, clamd::Address, icap::Method};

#[test]
fn the_script_is_the_one_engine_where_none_is_named() {
    let config = Folder::new().good("");
    let bounds = Bounds { max_size: None, larger: Otherwise::Fail, on_failure: Otherwise::Fail };
    assert_eq!(config.scan.engines, [Kind::Script(bounds)]);
}

#[test]
fn each_engine_is_told_its_own() {
    let folder = Folder::new();
    let config = folder.good(
        r#"
        scan.engines = ["icap", "clamd", "script"]
        scan.version_interval = "5s"
        scan.script_max_size = "1MiB"
        scan.script_larger = "skip"
        scan.script_on_failure = "skip"
        clamd.addresses = ["run/clamd.ctl", "/run/other.ctl", "clamd.internal:3310", "[::1]:3310"]
        clamd.timeout = "5s"
        clamd.max_size = "2GiB"
        clamd.larger = "skip"
        clamd.on_failure = "skip"
        scan.on_encrypted = "pass"
        icap.urls = ["icap://10.0.0.1:1345/avscan?a=b", "icaps://[::1]/x/y"]
        icap.method = "reqmod"
        icap.preview = "off"
        icap.timeout = "7s"
        "#,
    );
    assert_eq!(config.scan.version_interval, Duration::from_secs(5));
    let [Kind::Icap(icap), Kind::Clamd(clamd), Kind::Script(script)] = &config.scan.engines[..]
    else {
        panic!("{config}");
    };
    let skipped = |max_size| Bounds {
        max_size: Some(max_size),
        larger: Otherwise::Skip,
        on_failure: Otherwise::Skip,
    };
    assert_eq!(*script, skipped(1 << 20));
    assert_eq!(clamd.bounds, skipped(2 << 30));
    assert_eq!(
        (clamd.timeout, config.scan.on_encrypted),
        (Duration::from_secs(5), OnEncrypted::Pass)
    );
    let [Address::Unix(relative), Address::Unix(absolute), name, ipv6] = &clamd.addresses[..]
    else {
        panic!("{config}");
    };
    assert!(relative.is_absolute() && relative.ends_with("run/clamd.ctl"));
    assert_eq!(absolute.to_str(), Some("/run/other.ctl"));
    assert_eq!(*name, Address::Tcp { host: "clamd.internal".into(), port: 3310 });
    assert_eq!(*ipv6, Address::Tcp { host: "::1".into(), port: 3310 });
    let urls: Vec<_> = icap.urls.iter().map(url::Url::as_str).collect();
    assert_eq!(urls, ["icap://10.0.0.1:1345/avscan?a=b", "icaps://[::1]/x/y"]);
    assert_eq!((icap.timeout, icap.method), (Duration::from_secs(7), Method::Reqmod));
    assert!(!icap.preview);
    assert_eq!(icap.bounds.max_size, Some(5 << 20));
    let shown = config.to_string();
    assert!(shown.contains("engines = [\"icap\", \"clamd\", \"script\"]"), "{shown}");
    // What is shown is what was meant.
    let again = folder.load_with(&shown, &[]).unwrap().0;
    assert_eq!(again.scan.engines, config.scan.engines, "{shown}");
}

#[test]
fn without_the_script_among_them_none_is_needed() {
    let folder = Folder::new();
    let text = "scan.engines = ['clamd']\ncrypto.request_secret_path = 'key'";
    let config = folder.load_with(text, &[]).unwrap().0;
    assert_eq!(config.scan.script, None);
    let Kind::Clamd(clamd) = &config.scan.engines[0] else { panic!("{config}") };
    assert_eq!(clamd.addresses, [Address::Unix("/run/clamav/clamd.ctl".into())]);
    assert_eq!(clamd.bounds.max_size, Some(25 << 20));
    // One that is written is right all the same.
    assert!(
        folder.told("scan.engines = ['clamd']\nscan.script = 'absent'").contains("scan.script")
    );
}

#[test]
fn what_is_wrong_with_an_engine_is_told() {
    let folder = Folder::new();
    for (lines, expected) in [
        ("scan.engines = []", "scan.engines: found an empty list, expected at least one engine"),
        ("scan.engines = ['script', 'script']", "each once"),
        (
            "scan.engines = ['clamav']",
            "[0]: found \"clamav\", expected \"script\" or \"rules\" or \"clamd\" or \"icap\"",
        ),
        ("scan.engines = 'clamd'", "expected a list"),
        ("scan.engines = ['icap']", "icap.urls: found nothing, expected a list of URLs"),
        ("scan.version_interval = 0", "from 1s"),
        ("scan.script_larger = 'pass'", "expected \"fail\" or \"skip\""),
        ("scan.script_max_size = 0", "from 1 to"),
        ("clamd.addresses = []", "expected at least one"),
        ("clamd.addresses = ['localhost']", "expected a socket's path, or HOST:PORT"),
        ("clamd.addresses = ['localhost:0']", "HOST:PORT"),
        ("clamd.addresses = ['localhost:70000']", "HOST:PORT"),
        ("clamd.addresses = [':3310']", "HOST:PORT"),
        ("clamd.addresses = ['::1:3310']", "HOST:PORT"),
        ("clamd.addresses = ['[::1:3310']", "HOST:PORT"),
        ("clamd.addresses = ['[a]:3310']", "HOST:PORT"),
        ("clamd.addresses = ['a b:3310']", "HOST:PORT"),
        ("clamd.timeout = 0", "from 1ms"),
        ("clamd.max_size = 0", "from 1 to"),
        ("clamd.larger = 'clean'", "clamd.larger: found \"clean\", expected \"fail\" or \"skip\""),
        ("clamd.on_failure = true", "expected \"fail\" or \"skip\""),
        (
            "scan.on_encrypted = 'yes'",
            "scan.on_encrypted: found \"yes\", expected \"refuse\" or \"fail\" or \"pass\"",
        ),
        (
            "clamd.encrypted = 'refuse'",
            "clamd.encrypted: found a key that was renamed, expected scan.on_encrypted",
        ),
        ("clamd.address = 'x'", "clamd.address: found an unknown key, expected clamd.addresses?"),
        ("icap.urls = []", "expected at least one"),
        ("icap.urls = ['http://a/b']", "[0]: found \"http://a/b\", expected a URL like"),
        ("icap.urls = ['icap://a']", "with a service"),
        ("icap.urls = ['icap://a/']", "with a service"),
        ("icap.urls = ['icap:///b']", "expected a URL like"),
        ("icap.urls = ['icap://u:p@a/b']", "expected a URL like"),
        ("icap.urls = ['icap://a:0/b']", "expected a URL like"),
        ("icap.urls = ['icap://a/b#c']", "expected a URL like"),
        ("icap.method = 'options'", "expected \"respmod\" or \"reqmod\""),
        ("icap.preview = 1024", "expected \"server\" or \"off\""),
        ("icap.ca_certificates = 'absent'", "does not exist"),
    ] {
        let told = folder.told(lines);
        assert!(told.contains(expected), "{lines}\n{told}\n{expected}");
    }
}

#[test]
fn a_media_that_no_engine_may_be_asked_about_is_warned_of() {
    let never = |because| vec![Warning::NeverReached { key: "download.max_size", because }];
    assert_eq!(warned("scan.engines = ['clamd']"), never("clamd.max_size"));
    assert_eq!(warned("scan.script_max_size = '1MiB'"), never("scan.script_max_size"));
    assert_eq!(warned("scan.engines = ['clamd']\nclamd.larger = 'skip'"), []);
    assert_eq!(warned("scan.engines = ['clamd']\ndownload.max_size = '25MiB'"), []);
}

fn with_rules(rule: &str) -> Folder {
    let folder = Folder::new();
    folder.file("some.yar", rule, 0o644);
    folder
}

#[test]
fn rules_are_compiled_when_they_are_read() {
    let folder = with_rules("rule One { condition: true } private rule Two { condition: true }");
    let lines = "scan.engines = ['rules']\nrules.paths = ['some.yar']\nrules.ignore = ['One']";
    let config = folder.good(lines);
    let rules = config.scan.rules().unwrap();
    assert_eq!(rules.paths, [folder.path().join("some.yar")]);
    assert_eq!((rules.ignore.as_slice(), rules.timeout.as_secs()), (&["One".to_owned()][..], 60));
    assert_eq!(rules.bounds.max_size, None);
    let shown = config.to_string();
    assert!(
        shown.contains("[rules]\npaths = [") && shown.contains("ignore = [\"One\"]"),
        "{shown}"
    );
}

#[test]
fn who_sets_a_script_alone_has_that_asked_and_who_sets_none_the_rules() {
    let folder = with_rules("rule One { condition: true }");
    assert!(folder.good("rules.paths = ['.']").scan.rules().is_none(), "with a script");
    let text = "rules.paths = ['.']\ncrypto.request_secret_path = 'key'";
    assert!(folder.load_with(text, &[]).unwrap().0.scan.rules().is_some());
}

#[test]
fn rules_that_cannot_be_used_are_told_with_their_place() {
    let folder = with_rules("rule One {\n  condition: $nowhere\n}");
    let place = folder.path().join("some.yar");
    let told = folder.told("rules.paths = ['.']");
    let expected = format!("F:1:7: rules.paths: found {}:2:14: error: ", place.display());
    assert!(told.starts_with(&expected), "{told}");
    let folder = with_rules("rule One { condition: true }");
    for (lines, expected) in [
        ("scan.engines = ['rules']", "rules.paths: found nothing, expected files or directories"),
        ("rules.paths = []", "expected at least one"),
        ("rules.paths = ['none']", "/none cannot be read: No such file"),
        (
            "rules.paths = ['.']\nrules.ignore = ['Oen']",
            "rules.ignore: found \"Oen\", expected names",
        ),
        ("rules.timeout = 0", "rules.timeout: "),
        ("rules.larger = 'pass'", "rules.larger: "),
    ] {
        let told = folder.told(lines);
        assert!(told.contains(expected), "{lines}: {told}");
    }
}
