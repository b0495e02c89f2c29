//! Reloads of engines and sandboxes that the service may reject.

use std::fs;

use super::{EICAR_SCRIPT, RECORDING_SCRIPT, reload, reload_fails, reload_succeeds, rewrite};
use crate::harness::{
    MockHomeserver, ScannerBuilder, ScannerProcess, png, report_skipped, scanner::is_root,
    wait_until,
};

#[tokio::test]
async fn reload_rejects_invalid_configuration_as_a_whole() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let config = scanner.dir.path("config.toml");
    let good = fs::read_to_string(&config).unwrap();
    let assert_scans = async |id: &str| {
        let media = homeserver.add_bytes(id, [1; 5000].to_vec());
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    };

    let log = reload_fails(
        &scanner,
        "download.max_size = 1000\nscan.timeout = \"soon\"\nscan.wrokers = 3\nweb.max_body_size = 0",
    )
    .await;
    for key in ["scan.timeout", "scan.wrokers", "web.max_body_size"] {
        let line = log.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("\"level\":\"ERROR\""), "{line}");
    }
    assert_scans("after-a-bad-file").await;

    fs::write(&config, "this = is [no TOML").unwrap();
    let log = reload(&scanner).await;
    assert!(
        log.contains("config.toml:1") && log.contains("reload rejected, configuration unchanged"),
        "{log}"
    );
    assert_scans("after-no-toml").await;

    fs::remove_file(&config).unwrap();
    let log = reload(&scanner).await;
    assert!(
        log.contains("config.toml") && log.contains("reload rejected, configuration unchanged"),
        "{log}"
    );
    assert_scans("after-no-file").await;

    fs::write(&config, &good).unwrap();
    let log = reload_fails(&scanner, "scan.script = \"none.sh\"\ndownload.max_size = 1000").await;
    assert!(log.contains("scan.script") && log.contains("none.sh"), "{log}");
    assert_scans("after-no-script").await;

    fs::write(&config, &good).unwrap();
    fs::write(scanner.dir.path("ca.pem"), "no certificate").unwrap();
    let log = reload_fails(&scanner, "download.ca_certificates = \"ca.pem\"").await;
    assert!(log.contains("ca.pem"), "{log}");
    assert_scans("after-no-certificates").await;

    fs::write(&config, &good).unwrap();
    fs::rename(scanner.dir.path("request_secret"), scanner.dir.path("away")).unwrap();
    let log = reload_fails(&scanner, "").await;
    assert!(log.contains("a new one is generated only at startup"), "{log}");
    assert!(!scanner.dir.path("request_secret").exists(), "the reload created a key");
    assert_scans("after-no-key").await;

    fs::rename(scanner.dir.path("away"), scanner.dir.path("request_secret")).unwrap();
    let log = reload(&scanner).await;
    assert!(log.contains("reloaded, no changes"), "{log}");
    assert_scans("after-all").await;
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn reload_rejects_script_that_fails_canary() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(EICAR_SCRIPT).homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let media = homeserver.add_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();

    scanner.dir.write_script("blind.sh", "exit 0");
    let log = reload_fails(&scanner, "scan.script = \"blind.sh\"").await;
    assert!(log.contains("reports the infected sample as clean"), "{log}");
    // Settings under which the current script fails the canary are rejected too.
    let log =
        reload_fails(&scanner, "scan.script = \"script.sh\"\nscan.failure_exit_codes = [1]").await;
    assert!(log.contains("no verdict on the infected sample"), "{log}");
    let other = homeserver.add_bytes("def", "other");
    scanner.client.get(&format!("/scan/{other}")).await.assert_clean();
    let runs = scanner.dir.read_mark("runs");
    assert!(runs.lines().all(|line| line.ends_with("script.sh")), "{runs}");

    scanner.dir.write_script("better.sh", EICAR_SCRIPT);
    reload_succeeds(&scanner, "scan.script = \"better.sh\"\n-scan.failure_exit_codes").await;
    scanner.client.get(&format!("/scan/{other}")).await.assert_clean();
    assert!(scanner.dir.read_mark("runs").trim_end().ends_with("better.sh"));

    // A script changed in place is already in use: a reload runs the canary immediately.
    scanner.dir.write_script("better.sh", "exit 0");
    reload_succeeds(&scanner, "").await;
    scanner.wait_for_log("not ready", 1).await;
    scanner.client.get(&format!("/scan/{other}")).await.assert_error(503, "M_UNKNOWN");
    reload_succeeds(&scanner, "scan.script = \"script.sh\"").await;
    scanner.wait_for_log("ready: the canary passed", 2).await;
    scanner.client.get(&format!("/scan/{other}")).await.assert_clean();
}

#[tokio::test]
async fn reload_replaces_engines_unless_canary_fails() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();
    // No server listens at this address. The cached verdict of the script is not used for clamd.
    let absent = "scan.engines = [\"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]";
    reload_succeeds(&scanner, absent).await;
    scanner.client.get(&path).await.assert_error(500, "M_UNKNOWN");
    reload_succeeds(&scanner, "scan.engines = [\"script\"]").await;
    scanner.client.get(&path).await.assert_clean();
    reload_succeeds(&scanner, "scan.canary = \"eicar\"").await;
    rewrite(&scanner, absent);
    let log = reload(&scanner).await;
    assert!(log.contains("reload rejected"), "{log}");
    assert!(log.contains("absent.ctl) gives no verdict on the infected sample"), "{log}");
    scanner.client.get(&path).await.assert_clean();
}

#[tokio::test]
async fn reload_replaces_sandbox_and_rejects_missing_layer() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(r#"cat "$LICENCE_FILE" && exit 1"#)
        .homeserver(&homeserver)
        .start()
        .await;
    let media = homeserver.add_bytes("abc", "content");
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_not_clean("File not clean (no output)");
    fs::create_dir(scanner.dir.path("shown")).unwrap();
    fs::write(scanner.dir.path("shown/licence"), "seen").unwrap();
    let licence = scanner.dir.path("shown/licence");
    let setting = format!("sandbox.environment = {{ LICENCE_FILE = \"{}\" }}", licence.display());
    let log = reload_succeeds(&scanner, &setting).await;
    assert!(log.contains("sandbox.environment"), "{log}");
    reload_succeeds(&scanner, "sandbox.read_only_paths = [\"shown\"]").await;
    scanner.client.get(&path).await.assert_not_clean("File not clean. Output: 'seen'");

    let log =
        reload_fails(&scanner, "sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]").await;
    assert!(log.contains("cgroup"), "{log}");
    scanner.client.get(&path).await.assert_not_clean("File not clean. Output: 'seen'");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn reload_rejects_weaker_sandbox() {
    let test = "reload_rejects_weaker_sandbox";
    if is_root() {
        return report_skipped(test, "namespaces cannot be disabled for root from inside");
    }
    // The server runs in its own user namespace, in which the wrapper disables further user namespaces on request.
    let disable_namespaces = r#"
        (read go < "$MARKS/disable" && echo 0 > /proc/sys/user/max_user_namespaces && echo done > "$MARKS/disabled") &
        exec setpriv --inh-caps=-all --ambient-caps=-all "$@""#;
    let wrapper = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        disable_namespaces,
        "sh",
    ];
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).wrapped_by(&wrapper);
    let marks = builder.dir().path("marks").display().to_string();
    builder.dir().make_fifo("disable");
    let scanner = builder.env("MARKS", &marks).start().await;
    if !scanner.log().contains("namespaces: ") || scanner.log().contains("namespaces: OFF") {
        return report_skipped(test, "user namespaces are unavailable");
    }
    scanner.dir.release_fifo("disable").await;
    wait_until("namespaces are disabled", || scanner.dir.mark_count("disabled") == 1).await;
    let log = reload_fails(&scanner, "sandbox.environment = { ANOTHER = \"one\" }").await;
    assert!(log.contains("lack active layers: namespaces"), "{log}");
    // The current sandbox is not weakened either: the job fails.
    let media = homeserver.add_bytes("abc", "content");
    scanner.client.get(&format!("/scan/{media}")).await.assert_error(500, "M_UNKNOWN");
}
