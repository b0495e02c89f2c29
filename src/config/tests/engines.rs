//! `scan.engines` and the sections of the engines.

use std::time::Duration;

use mcs_evaluator::UnpackSettings;

use super::*;
use crate::config::sections::unpack::InnerLists;
use crate::scan::engines::{
    Bounds, ContentPolicy, EngineSettings, FindingPolicy, OversizePolicy, SkipPolicy,
    clamd::Address, icap::Method,
};

#[test]
fn script_is_default_engine() {
    let config = ConfigDir::new().load_valid("");
    let bounds = Bounds {
        max_size: None,
        on_oversize: OversizePolicy::Fail,
        on_failure: SkipPolicy::Fail,
        on_not_clean: FindingPolicy::Refuse,
    };
    assert_eq!(config.scan.engines, [EngineSettings::Script(bounds)]);
}

#[test]
fn reads_settings_of_each_engine() {
    let dir = ConfigDir::new();
    let config = dir.load_valid(
        r#"
        scan.engines = ["icap", "clamd", "script"]
        scan.version_interval = "5s"
        scan.script_max_size = "1MiB"
        scan.script_on_oversize = "skip"
        scan.script_on_failure = "skip"
        clamd.addresses = ["run/clamd.ctl", "/run/other.ctl", "clamd.internal:3310", "[::1]:3310"]
        clamd.timeout = "5s"
        clamd.max_size = "2GiB"
        clamd.on_oversize = "skip"
        clamd.on_failure = "skip"
        scan.on_encrypted = "pass"
        scan.on_limit = "refuse"
        icap.urls = ["icap://10.0.0.1:1345/avscan?a=b", "icaps://[::1]/x/y"]
        icap.method = "reqmod"
        icap.preview = "off"
        icap.timeout = "7s"
        "#,
    );
    assert_eq!(config.scan.version_interval, Duration::from_secs(5));
    let [EngineSettings::Icap(icap), EngineSettings::Clamd(clamd), EngineSettings::Script(script)] =
        &config.scan.engines[..]
    else {
        panic!("{config}");
    };
    let skipped = |max_size| Bounds {
        max_size: Some(max_size),
        on_oversize: OversizePolicy::Skip,
        on_failure: SkipPolicy::Skip,
        on_not_clean: FindingPolicy::Refuse,
    };
    assert_eq!(*script, skipped(1 << 20));
    assert_eq!(clamd.bounds, skipped(2 << 30));
    assert_eq!(
        (clamd.timeout, config.scan.on_encrypted),
        (Duration::from_secs(5), ContentPolicy::Pass)
    );
    assert_eq!(config.scan.on_limit, ContentPolicy::Refuse);
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
    let displayed = config.to_string();
    assert!(displayed.contains("engines = [\"icap\", \"clamd\", \"script\"]"), "{displayed}");
    // The displayed configuration is equivalent.
    let again = dir.load_with(&displayed, &[]).unwrap().0;
    assert_eq!(again.scan.engines, config.scan.engines, "{displayed}");
}

#[test]
fn script_is_optional_without_script_engine() {
    let dir = ConfigDir::new();
    let text = "scan.engines = ['clamd']\ncrypto.request_secret_path = 'key'";
    let config = dir.load_with(text, &[]).unwrap().0;
    assert_eq!(config.scan.script, None);
    let EngineSettings::Clamd(clamd) = &config.scan.engines[0] else { panic!("{config}") };
    assert_eq!(clamd.addresses, [Address::Unix("/run/clamav/clamd.ctl".into())]);
    assert_eq!(clamd.bounds.max_size, Some(25 << 20));
    // A configured script is validated even if it is unused.
    assert!(dir.errors("scan.engines = ['clamd']\nscan.script = 'absent'").contains("scan.script"));
}

#[test]
fn engines_and_rules_may_be_observed_except_for_one() {
    let dir = ConfigDir::new();
    dir.file("a.yar", "rule A { condition: true } rule B { condition: true }", 0o644);
    let rules = "rules.paths = ['a.yar']\n";
    for lines in [
        "scan.engines = ['rules', 'clamd']\nclamd.on_not_clean = 'observe'",
        "scan.engines = ['rules', 'clamd']\nrules.on_not_clean = 'observe'",
        "scan.engines = ['rules']\nrules.observe = ['A']",
        "scan.engines = ['rules', 'clamd']\nrules.observe = ['A', 'B']",
    ] {
        dir.load_with(&format!("{rules}{lines}\ncrypto.request_secret_path = 'key'"), &[]).unwrap();
    }
    for (lines, expected) in [
        (
            "scan.engines = ['clamd']\nclamd.on_not_clean = 'observe'",
            "clamd.on_not_clean: found only observed engines in scan.engines, expected \"refuse\" for at least one",
        ),
        (
            "scan.engines = ['rules', 'clamd']\nrules.on_not_clean = 'observe'\nclamd.on_not_clean = 'observe'",
            "rules.on_not_clean: found only observed engines",
        ),
        (
            "scan.engines = ['rules']\nrules.observe = ['A', 'B']",
            "rules.observe: found only observed engines in scan.engines, expected a shorter list, or another engine",
        ),
        (
            "scan.engines = ['rules']\nrules.observe = ['A']\nrules.ignore = ['B']",
            "rules.observe: found only observed engines",
        ),
        ("rules.observe = ['C']", "rules.observe: found \"C\", expected names of rules"),
        (
            "rules.observe = ['A']\nrules.ignore = ['A']",
            "rules.observe: found \"A\", which rules.ignore lists as well",
        ),
        ("icap.on_not_clean = 'pass'", "expected \"refuse\" or \"observe\""),
        ("scan.script_on_not_clean = 'skip'", "expected \"refuse\" or \"observe\""),
        ("hashes.on_not_clean = 1", "expected \"refuse\" or \"observe\""),
    ] {
        let errors = dir.errors(&format!("{rules}{lines}"));
        assert!(errors.contains(expected), "{lines}: {errors}");
    }
}

#[test]
fn rejects_invalid_engine_settings() {
    let dir = ConfigDir::new();
    for (lines, expected) in [
        ("scan.engines = []", "scan.engines: found an empty list, expected at least one engine"),
        ("scan.engines = ['script', 'script']", "each once"),
        (
            "scan.engines = ['clamav']",
            "[0]: found \"clamav\", expected \"script\" or \"rules\" or \"hashes\" or \"clamd\" or \"icap\"",
        ),
        ("scan.engines = 'clamd'", "expected a list"),
        ("scan.engines = ['icap']", "icap.urls: missing, expected a list of URLs"),
        ("scan.version_interval = 0", "from 1s"),
        ("scan.script_on_oversize = 'pass'", "expected \"fail\" or \"refuse\" or \"skip\""),
        ("scan.script_max_size = 0", "from 1 to"),
        ("clamd.addresses = []", "expected at least one"),
        ("clamd.addresses = ['localhost']", "expected a socket path or HOST:PORT"),
        ("clamd.addresses = ['localhost:0']", "HOST:PORT"),
        ("clamd.addresses = ['localhost:70000']", "HOST:PORT"),
        ("clamd.addresses = [':3310']", "HOST:PORT"),
        ("clamd.addresses = ['::1:3310']", "HOST:PORT"),
        ("clamd.addresses = ['[::1:3310']", "HOST:PORT"),
        ("clamd.addresses = ['[a]:3310']", "HOST:PORT"),
        ("clamd.addresses = ['a b:3310']", "HOST:PORT"),
        ("clamd.timeout = 0", "from 1ms"),
        ("clamd.max_size = 0", "from 1 to"),
        (
            "clamd.on_oversize = 'clean'",
            "clamd.on_oversize: found \"clean\", expected \"fail\" or \"refuse\" or \"skip\"",
        ),
        ("clamd.on_failure = true", "expected \"fail\" or \"skip\""),
        (
            "scan.on_encrypted = 'yes'",
            "scan.on_encrypted: found \"yes\", expected \"refuse\" or \"fail\" or \"pass\"",
        ),
        (
            "scan.on_limit = 'skip'",
            "scan.on_limit: found \"skip\", expected \"refuse\" or \"fail\" or \"pass\"",
        ),
        (
            "clamd.encrypted = 'refuse'",
            "clamd.encrypted: found a key that was renamed, expected scan.on_encrypted",
        ),
        ("clamd.address = 'x'", "clamd.address: found an unknown key, expected clamd.addresses?"),
        ("icap.urls = []", "expected at least one"),
        ("icap.urls = ['http://a/b']", "[0]: found \"http://a/b\", expected \"icap://a/b\"?"),
        ("icap.urls = ['tcp://a:1/b']", "[0]: found \"tcp://a:1/b\", expected \"icap://a:1/b\"?"),
        ("icap.urls = ['http://a']", "[0]: found \"http://a\", expected a URL like"),
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
        let errors = dir.errors(lines);
        assert!(errors.contains(expected), "{lines}\n{errors}\n{expected}");
    }
}

#[test]
fn warns_of_media_above_engine_limit() {
    let warnings = |lines: &str| {
        let mut warnings = warnings_for(lines);
        // The script is not one of the engines.
        warnings.retain(|warning| !matches!(warning, Warning::Unused { .. }));
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let clamd = "scan.engines = ['clamd']\nclamd.on_oversize";
    assert_eq!(
        warnings("scan.engines = ['clamd']"),
        [
            "clamd.max_size: files above 25 MiB will be refused (413), since download.max_size is larger"
        ]
    );
    assert_eq!(
        warnings(&format!("{clamd} = 'refuse'\nclamd.max_size = 1001")),
        ["clamd.max_size: files above 1001 bytes will be refused as not clean (403), since \
          download.max_size is larger"]
    );
    assert_eq!(
        warnings("scan.script_max_size = '1M'"),
        [
            "scan.script_max_size: files above 1 MiB will be refused (413), since download.max_size is larger"
        ]
    );
    assert_eq!(warnings(&format!("{clamd} = 'skip'")), [""; 0]);
    assert_eq!(warnings("scan.engines = ['clamd']\ndownload.max_size = '25MiB'"), [""; 0]);
}

#[test]
fn warns_of_engines_that_are_set_but_not_listed() {
    let unused = |lines: &str| -> Vec<_> {
        let names_engines = |warning: &Warning| matches!(warning, Warning::Unused { .. });
        let warnings = warnings_for(lines).into_iter().filter(names_engines);
        warnings.map(|warning| warning.to_string()).collect()
    };
    let not_listed = |keys: &str, verb, name| {
        format!("{keys}: {verb} no effect, since scan.engines does not list \"{name}\"")
    };
    for (lines, keys, verb, name) in [
        ("scan.engines = ['clamd']", "scan.script", "has", "script"),
        (
            "scan.engines = ['clamd']\nscan.script_args = ['-v']",
            "scan.script, scan.script_args",
            "have",
            "script",
        ),
        ("clamd.addresses = ['a:1']\nclamd.timeout = '60s'", "clamd.addresses", "has", "clamd"),
        ("icap.urls = ['icap://a/b']", "icap.urls", "has", "icap"),
        ("rules.timeout = '5s'", "rules.timeout", "has", "rules"),
    ] {
        assert_eq!(unused(lines), [not_listed(keys, verb, name)], "{lines}");
    }
    // The values are the defaults.
    assert_eq!(
        unused("clamd.addresses = ['/run/clamav/clamd.ctl']\nscan.script_args = []"),
        [""; 0]
    );
    assert_eq!(
        unused("unpack.max_depth = 3"),
        [
            "unpack.max_depth: has no effect, since scan.engines lists neither \"rules\" nor \"hashes\""
        ]
    );
    assert_eq!(
        unused("admin.token_path = 't'"),
        ["admin.token_path: has no effect, since admin.enabled is false"]
    );
    assert_eq!(
        unused("audit.user = 'hash'\naudit.all_responses = true"),
        ["audit.all_responses, audit.user: have no effect, since audit.path is not set"]
    );
    assert_eq!(
        unused("audit.user = 'hash'\naudit.path = '-'"),
        [
            "audit.user: has no effect, since no homeserver is configured, and discovered ones are not asked for users"
        ]
    );
    let configured = "download.base_homeserver_url = 'http://a'";
    assert_eq!(unused(&format!("audit.user = 'hash'\naudit.path = '-'\n{configured}")), [""; 0]);
}

fn with_rules(rule: &str) -> ConfigDir {
    let dir = ConfigDir::new();
    dir.file("some.yar", rule, 0o644);
    dir
}

#[test]
fn compiles_rules_on_load() {
    let dir = with_rules("rule One { condition: true } private rule Two { condition: true }");
    let lines = "scan.engines = ['rules']\nrules.paths = ['some.yar']\nrules.ignore = ['One']";
    let config = dir.load_valid(lines);
    let rules = config.scan.rules().unwrap();
    assert_eq!(rules.paths, [dir.path().join("some.yar")]);
    assert_eq!((rules.ignore.as_slice(), rules.timeout.as_secs()), (&["One".to_owned()][..], 60));
    assert_eq!(rules.bounds.max_size, None);
    let displayed = config.to_string();
    assert!(
        displayed.contains("[rules]\npaths = [") && displayed.contains("ignore = [\"One\"]"),
        "{displayed}"
    );
}

#[test]
fn reads_limits_and_policies_of_unpacking() {
    let dir = with_rules("rule One { condition: true }");
    let text = "scan.engines = ['rules']\nrules.paths = ['.']";
    let unpack = |lines: &str| {
        let config = dir.load_valid(&format!("{text}\n{lines}"));
        config.scan.unpack.unwrap()
    };
    let defaults = unpack("");
    assert_eq!(defaults.limits, UnpackSettings::default());
    assert_eq!(
        (defaults.on_unreadable, defaults.on_inconsistent, defaults.report_paths),
        (ContentPolicy::Pass, ContentPolicy::Refuse, false)
    );
    let lines = "unpack = { enabled = false, max_total = '1KiB', max_file = '1KiB', max_files = 1, \
        max_depth = 64, on_unreadable = 'fail', on_inconsistent = 'pass', mime_types = 'both', \
        report_paths = true }";
    let changed = unpack(lines);
    let limits = UnpackSettings {
        enabled: false,
        max_total: 1024,
        max_file: 1024,
        max_files: 1,
        max_depth: 64,
    };
    assert_eq!(changed.limits, limits);
    assert_eq!(
        (changed.on_unreadable, changed.on_inconsistent, changed.report_paths),
        (ContentPolicy::Fail, ContentPolicy::Pass, true)
    );
    assert_eq!((defaults.mime_types, changed.mime_types), (InnerLists::Blocked, InnerLists::Both));
    // The displayed configuration is equivalent, and has no section of an engine that is not used.
    let displayed = dir.load_valid(&format!("{text}\n{lines}")).to_string();
    let again = dir.load_with(&displayed, &[]).unwrap().0;
    assert_eq!(again.scan.unpack.unwrap(), changed, "{displayed}");
    assert!(!dir.load_valid(lines).to_string().contains("[unpack]"));
}

#[test]
fn warns_of_size_of_unpacked_file_above_total() {
    let never_reached = |lines: &str| {
        let mut warnings = warnings_for(lines);
        warnings.retain(|warning| matches!(warning, Warning::NeverReached { .. }));
        warnings
    };
    let (key, because) = ("unpack.max_file", "unpack.max_total");
    assert_eq!(
        never_reached("unpack.max_total = '32MiB'"),
        [Warning::NeverReached { key, because }]
    );
    assert_eq!(never_reached("unpack.max_total = '64MiB'"), []);
}

#[test]
fn default_engine_is_script_if_configured_else_rules() {
    let dir = with_rules("rule One { condition: true }");
    assert!(dir.load_valid("rules.paths = ['.']").scan.rules().is_none(), "with a script");
    let text = "rules.paths = ['.']\ncrypto.request_secret_path = 'key'";
    assert!(dir.load_with(text, &[]).unwrap().0.scan.rules().is_some());
}

#[test]
fn reports_unusable_rules_with_location() {
    let dir = with_rules("rule One {\n  condition: $nowhere\n}");
    let location = dir.path().join("some.yar");
    let errors = dir.errors("rules.paths = ['.']");
    let expected = format!("F:1:7: rules.paths: found {}:2:14: error: ", location.display());
    assert!(errors.starts_with(&expected), "{errors}");
    let dir = with_rules("rule One { condition: true }");
    for (lines, expected) in [
        ("scan.engines = ['rules']", "rules.paths: missing, expected files or directories"),
        ("rules.paths = []", "expected at least one"),
        ("rules.paths = ['none']", "/none cannot be read: No such file"),
        (
            "rules.paths = ['.']\nrules.ignore = ['Oen']",
            "rules.ignore: found \"Oen\", expected names",
        ),
        ("rules.timeout = 0", "rules.timeout: "),
        ("rules.on_oversize = 'pass'", "rules.on_oversize: "),
        ("unpack.enabled = 'no'", "unpack.enabled: found \"no\", expected true or false"),
        ("unpack.max_total = 1023", "unpack.max_total: found 1023, expected a size from 1KiB to"),
        ("unpack.max_file = '2PiB'", "unpack.max_file: "),
        ("unpack.max_files = 0", "expected an integer from 1 to 1000000"),
        ("unpack.max_files = 1000001", "expected an integer from 1 to 1000000"),
        ("unpack.max_depth = 0", "expected an integer from 1 to 64"),
        ("unpack.max_depth = 65", "expected an integer from 1 to 64"),
        (
            "unpack.on_unreadable = 'skip'",
            "unpack.on_unreadable: found \"skip\", expected \"refuse\" or \"fail\" or \"pass\"",
        ),
        ("unpack.on_inconsistent = true", "unpack.on_inconsistent: "),
        ("unpack.report_paths = 1", "unpack.report_paths: found 1, expected true or false"),
        (
            "unpack.mime_types = true",
            "unpack.mime_types: found true, expected \"no\" or \"blocked\" or \"both\"",
        ),
        ("unpack.on_limit = 'pass'", "unpack.on_limit: found an unknown key, expected "),
    ] {
        let errors = dir.errors(lines);
        assert!(errors.contains(expected), "{lines}: {errors}");
    }
}
