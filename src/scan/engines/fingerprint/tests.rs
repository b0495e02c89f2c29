//! What fingerprints depend on.

use std::{fs, iter};

use super::*;
use crate::config::Config;

/// Engines with rules, a script and servers.
const BASE: &str = r#"
scan.script = "scan.sh"
scan.script_args = ["--some"]
scan.engines = ["script", "rules", "clamd", "icap"]
rules.paths = ["rules"]
clamd.addresses = ["127.0.0.1:3310"]
icap.urls = ["icap://127.0.0.1:1344/avscan"]
"#;

/// A directory with files that configurations refer to.
struct FingerprintFixture(tempfile::TempDir);

impl FingerprintFixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.write("scan.sh", "#!/bin/sh\n");
        fixture.write("rules/a.yar", "rule Some { condition: filesize == 1 }");
        fixture
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, executable).unwrap();
    }

    /// Returns the fingerprint of the settings and that of the script's conditions.
    fn fingerprint(&self, lines: &str) -> [[u8; 32]; 2] {
        let path = self.0.path().join("config.toml");
        let own: Vec<_> = lines.lines().filter_map(|line| line.split_once(" = ")).collect();
        let is_replaced = |line: &&str| {
            let key = line.split_once(" = ").map(|(key, _)| key);
            own.iter().any(|(own, _)| Some(*own) == key)
        };
        let base = BASE.lines().filter(|line| !is_replaced(line));
        let required = "crypto.request_secret_path = \"key\"";
        let text: Vec<_> = base.chain(lines.lines()).chain([required]).collect();
        fs::write(&path, text.join("\n")).unwrap();
        let (config, _) = Config::load(Some(&path), iter::empty())
            .unwrap_or_else(|errors| panic!("{lines}: {errors}"));
        let policy = Policy {
            environment: vec![("SOME".into(), "value".into())],
            limits: config.sandbox.limits.clone(),
            network: config.sandbox.network.clone(),
            ..Policy::default()
        };
        [of_settings(&config.scan), of_script(&config.scan, &policy)]
    }
}

#[test]
fn fingerprint_depends_on_what_engines_find() {
    let fixture = FingerprintFixture::new();
    let base = fixture.fingerprint("");
    for lines in [
        "scan.engines = [\"rules\", \"script\", \"clamd\", \"icap\"]",
        "scan.engines = [\"script\", \"rules\", \"clamd\"]",
        "rules.ignore = [\"Some\"]",
        "rules.max_size = \"1MiB\"",
        "clamd.max_size = \"1MiB\"",
        "scan.script_max_size = \"1MiB\"",
        "icap.urls = [\"icap://127.0.0.1:1344/other\"]",
        "icap.method = \"reqmod\"",
        "icap.preview = \"off\"",
        "unpack.enabled = false",
        "unpack.max_depth = 3",
        "unpack.max_files = 3",
        "unpack.max_file = \"1MiB\"",
        "unpack.max_total = \"65MiB\"",
        "scan.blocked_mimetypes = [\"text/html\"]",
        "scan.blocked_mimetypes = [\"text/css\"]",
        "scan.max_output_size = 10",
    ] {
        let changed = fixture.fingerprint(lines);
        assert_ne!(changed[0], base[0], "{lines}");
        assert_eq!(changed[1], base[1], "{lines}");
    }
    fixture.write("rules/a.yar", "rule Some { condition: filesize == 2 }");
    assert_ne!(fixture.fingerprint("")[0], base[0]);
}

#[test]
fn fingerprint_of_a_script_depends_on_its_conditions() {
    let fixture = FingerprintFixture::new();
    let base = fixture.fingerprint("");
    for lines in [
        "scan.script_args = [\"--other\"]",
        "scan.script_args = [\"--so\", \"me\"]",
        "scan.script_args = []",
        "scan.failure_exit_codes = [3]",
        "sandbox.network = \"host\"",
        "sandbox.limits.open_files = 20",
    ] {
        let changed = fixture.fingerprint(lines);
        assert_eq!(changed[0], base[0], "{lines}");
        assert_ne!(changed[1], base[1], "{lines}");
    }
}

#[test]
fn fingerprint_does_not_depend_on_policies_and_places() {
    let fixture = FingerprintFixture::new();
    let base = fixture.fingerprint("");
    for lines in [
        "rules.timeout = \"3s\"",
        "rules.on_failure = \"skip\"",
        "rules.on_not_clean = \"observe\"",
        "rules.observe = [\"Some\"]",
        "scan.script_on_not_clean = \"observe\"",
        "clamd.on_oversize = \"skip\"",
        "clamd.addresses = [\"127.0.0.1:3311\"]",
        "icap.urls = [\"icaps://scanner.example.org/avscan\"]",
        "scan.on_encrypted = \"pass\"",
        "unpack.on_unreadable = \"refuse\"",
        "unpack.report_paths = true",
        "scan.allowed_mimetypes = [\"text/html\"]",
    ] {
        assert_eq!(fixture.fingerprint(lines), base, "{lines}");
    }
    // The same rules and script in another directory.
    fixture.write("other/b.yar", "rule Some { condition: filesize == 1 }");
    fixture.write("copy.sh", "#!/bin/sh\n");
    let lines = "rules.paths = [\"other\"]\nscan.script = \"copy.sh\"";
    assert_eq!(fixture.fingerprint(lines), base);
    assert_eq!(FingerprintFixture::new().fingerprint(""), base);
}

/// Stored verdicts stay valid only while this does not change. Expected: the first eight bytes of the SHA-256 of
/// `label`, `a`, nothing, 1, 2, `x` and `y`, each behind its length, numbers with 64 bits, in little-endian order.
#[test]
fn fingerprints_are_the_same_in_each_release() {
    let hash = FingerprintHasher::new("label").text("a").optional(None).optional(Some(1));
    let hash = hash.list(&["x", "y"], |hash, text| hash.text(text));
    assert_eq!(hash.short(), 14_121_432_694_098_802_738);
}
