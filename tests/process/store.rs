//! The file with verdicts: what survives a restart, and what makes the service scan again.

use std::{fs, os::unix::fs::PermissionsExt as _};

use reqwest::Method;

use crate::{
    harness::{
        MockHomeserver, ScannerBuilder, ScannerProcess, client::send, png, scanner::restart,
        wait_until,
    },
    operations::scrape_until,
    reload::reload_succeeds,
};

/// Finds files that contain `infected`.
const SCRIPT: &str = r#"
    echo run >> "$MARKS/runs"
    if grep -q infected "$1"; then echo Found; exit 1; fi
"#;

const FOUND: &str = "File not clean. Output: 'Found'";

const INFECTED: &[u8] = b"an infected file";

/// A service with a store, and its homeserver with a clean and an infected file.
struct RestartFixture {
    homeserver: MockHomeserver,
    clean: String,
    infected: String,
}

impl RestartFixture {
    async fn new() -> Self {
        let homeserver = MockHomeserver::start().await;
        let clean = homeserver.add_bytes("clean", png());
        let infected = homeserver.add_bytes("infected", INFECTED);
        Self { homeserver, clean, infected }
    }

    fn builder(&self, lines: &str) -> ScannerBuilder {
        let builder = ScannerBuilder::new(SCRIPT).homeserver(&self.homeserver);
        let state = builder.dir().path("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(state, fs::Permissions::from_mode(0o700)).unwrap();
        builder.config(&format!("store.path = \"state/store.db\"\n{lines}"))
    }

    /// Checks both verdicts, and the number of scans since the first start.
    async fn check(&self, scanner: &ScannerProcess, scans: usize) {
        scanner.client.get(&format!("/scan/{}", self.clean)).await.assert_clean();
        scanner.client.get(&format!("/scan/{}", self.infected)).await.assert_not_clean(FOUND);
        assert_eq!(scanner.dir.mark_count("runs"), scans, "{}", scanner.log());
    }
}

#[tokio::test]
async fn verdicts_survive_a_restart() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("").start().await;
    fixture.check(&scanner, 2).await;
    let dir = scanner.stop().await;
    assert!(!dir.path("state/store.db-wal").exists(), "the file is closed");
    for name in ["state/store.db", "state/store.db.lock"] {
        let mode = fs::metadata(dir.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let file = fs::read(dir.path("state/store.db")).unwrap();
    assert!(!file.windows(5).any(|bytes| bytes == b"Found"), "findings are sealed");
    let downloads = fixture.homeserver.download_count();
    let scanner = restart(dir).await;
    fixture.check(&scanner, 2).await;
    assert_eq!(fixture.homeserver.download_count(), downloads, "the verdict needs no download");
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_store_lookups_total{result=\"hit\"} 4").await;
    scrape_until(&operations, "mcs_store_records 6").await;
}

#[tokio::test]
async fn killed_service_answers_as_before() {
    let fixture = RestartFixture::new().await;
    let mut scanner = fixture.builder("").start().await;
    for _ in 0..5 {
        fixture.check(&scanner, 2).await;
        // Records are written shortly after the response.
        let operations = scanner.operations_client().await;
        scrape_until(&operations, "mcs_store_records 6").await;
        scanner = restart(scanner.kill()).await;
    }
    assert!(!scanner.log().contains("replaced by an empty one"), "{}", scanner.log());
}

#[tokio::test]
async fn changed_engines_and_keys_scan_again() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("").start().await;
    fixture.check(&scanner, 2).await;
    let dir = scanner.stop().await;
    // The same engine elsewhere is the same engine.
    fs::rename(dir.path("script.sh"), dir.path("moved.sh")).unwrap();
    let config = fs::read_to_string(dir.path("config.toml")).unwrap();
    fs::write(dir.path("config.toml"), config.replace("script.sh", "moved.sh")).unwrap();
    let scanner = restart(dir).await;
    fixture.check(&scanner, 2).await;
    let dir = scanner.stop().await;
    let script = fs::read_to_string(dir.path("moved.sh")).unwrap();
    dir.write_executable("moved.sh", &format!("{script}\n# other"));
    let scanner = restart(dir).await;
    fixture.check(&scanner, 4).await;
    let dir = scanner.stop().await;
    fs::remove_file(dir.path("request_secret")).unwrap();
    let scanner = restart(dir).await;
    fixture.check(&scanner, 6).await;
}

#[tokio::test]
async fn policies_apply_to_stored_outcomes() {
    const ENCRYPTED_ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");
    let fixture = RestartFixture::new().await;
    let media = fixture.homeserver.add_bytes("zip", ENCRYPTED_ZIP);
    let path = format!("/scan/{media}");
    let scanner = fixture.builder("scan.on_encrypted = \"pass\"").start().await;
    scanner.client.get(&path).await.assert_clean();
    let dir = scanner.stop().await;
    let config = fs::read_to_string(dir.path("config.toml")).unwrap();
    fs::write(dir.path("config.toml"), config.replace("\"pass\"", "\"refuse\"")).unwrap();
    let scanner = restart(dir).await;
    let info = "File not clean. Output: 'encrypted contents (zip)'";
    scanner.client.get(&path).await.assert_not_clean(info);
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

/// The media entry is in the file, which says nothing about the requester.
#[tokio::test]
async fn stored_media_needs_an_authorisation() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("").start().await;
    fixture.check(&scanner, 2).await;
    let scanner = restart(scanner.stop().await).await;
    let path = format!("/scan/{}", fixture.clean);
    let request = scanner.client.request(Method::GET, &path).bearer_auth("unknown");
    send(request).await.assert_error(401, "M_UNKNOWN_TOKEN");
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_cache_entries{kind=\"media\"} 0").await;
    scanner.client.get(&path).await.assert_clean();
    scrape_until(&operations, "mcs_cache_entries{kind=\"media\"} 1").await;
}

/// Whoever has the former key could make records.
#[tokio::test]
async fn verdicts_of_a_leaked_key_are_not_used() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("crypto.previous_key_ttl = \"0s\"").start().await;
    fixture.check(&scanner, 2).await;
    fs::write(scanner.dir.path("request_secret"), "A".repeat(43)).unwrap();
    reload_succeeds(&scanner, "").await;
    fixture.check(&scanner, 4).await;
    let scanner = restart(scanner.stop().await).await;
    fixture.check(&scanner, 4).await;
}

/// The records depend on the secret, not on the request key.
#[tokio::test]
async fn store_with_a_secret_survives_a_new_request_key() {
    let fixture = RestartFixture::new().await;
    let builder = fixture.builder("store.secret_path = \"store_secret\"");
    let secret = builder.dir().path("store_secret");
    fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let scanner = builder.start().await;
    fixture.check(&scanner, 2).await;
    fs::write(scanner.dir.path("request_secret"), "A".repeat(43)).unwrap();
    reload_succeeds(&scanner, "").await;
    let scanner = restart(scanner.stop().await).await;
    fixture.check(&scanner, 2).await;
    let dir = scanner.stop().await;
    fs::write(&secret, "another secret of the same length".repeat(2)).unwrap();
    let scanner = restart(dir).await;
    fixture.check(&scanner, 4).await;
}

#[tokio::test]
async fn unusable_secret_is_refused() {
    for (content, message) in [
        (Some("too short"), "contains 9 bytes, expected at least 32 random ones"),
        (Some(""), "store_secret (store.secret_path) cannot be read"),
        (None, "store_secret (store.secret_path) cannot be read"),
    ] {
        let fixture = RestartFixture::new().await;
        let builder = fixture.builder("store.secret_path = \"store_secret\"");
        if let Some(content) = content {
            fs::write(builder.dir().path("store_secret"), content).unwrap();
        }
        let (code, errors) = builder.run_to_exit();
        assert_ne!(code, Some(0));
        assert!(errors.contains(message), "{errors}");
    }
}

/// Nothing is served before the engines of this process have been tested.
#[tokio::test]
async fn stored_verdicts_need_the_canary() {
    let fixture = RestartFixture::new().await;
    let lines = "scan.canary = \"eicar\"";
    let script = r#"
        echo run >> "$MARKS/runs"
        if grep -q EICAR-STANDARD "$1" && ! [ -e "$MARKS/broken" ]; then echo Found; exit 1; fi"#;
    let builder = fixture.builder(lines);
    builder.dir().write_script("script.sh", script);
    let scanner = builder.start().await;
    let path = format!("/scan/{}", fixture.clean);
    scanner.client.get(&path).await.assert_clean();
    let dir = scanner.stop().await;
    fs::write(dir.path("marks/broken"), "").unwrap();
    let scanner = restart(dir).await;
    scanner.client.get(&path).await.assert_error(503, "M_UNKNOWN");
    let operations = scanner.operations_client().await;
    // The canary got a wrong result, so all records were removed.
    scrape_until(&operations, "mcs_store_records 0").await;
}

#[tokio::test]
async fn damaged_file_is_replaced() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("").start().await;
    fixture.check(&scanner, 2).await;
    let dir = scanner.stop().await;
    fs::write(dir.path("state/store.db"), "no database".repeat(1000)).unwrap();
    let scanner = restart(dir).await;
    scanner.wait_for_log("the store cannot be used and was replaced by an empty one", 1).await;
    fixture.check(&scanner, 4).await;
    let dir = scanner.stop().await;
    let names = fs::read_dir(dir.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
    let damaged = names.filter(|name| name.to_string_lossy().contains(".damaged-")).count();
    assert_eq!(damaged, 1);
    let scanner = restart(dir).await;
    fixture.check(&scanner, 4).await;
}

#[tokio::test]
async fn second_service_is_refused() {
    let fixture = RestartFixture::new().await;
    let scanner = fixture.builder("").start().await;
    let path = scanner.dir.path("state/store.db");
    let other = ScannerBuilder::new(SCRIPT).config(&format!("store.path = {path:?}"));
    let (code, errors) = other.run_to_exit();
    assert_ne!(code, Some(0));
    let pid = format!("{}", scanner.pid());
    assert!(errors.contains("store.db") && errors.contains(&pid), "{errors}");
}

#[tokio::test]
async fn unsafe_place_is_refused() {
    let fixture = RestartFixture::new().await;
    let builder = fixture.builder("");
    let state = builder.dir().path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, errors) = builder.run_to_exit();
    assert_ne!(code, Some(0));
    assert!(errors.contains("the store of verdicts ([store]) cannot be used"), "{errors}");
    assert!(errors.contains(state.to_str().unwrap()), "{errors}");
}

/// A directory that the service manager passes is used if that is safe.
#[tokio::test]
async fn state_directory_is_optional() {
    for (mode, is_used) in [(0o700, "1"), (0o777, "0")] {
        let fixture = RestartFixture::new().await;
        let builder = ScannerBuilder::new(SCRIPT).homeserver(&fixture.homeserver);
        let state = builder.dir().path("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let scanner = builder.env("STATE_DIRECTORY", state.to_str().unwrap()).start().await;
        fixture.check(&scanner, 2).await;
        let operations = scanner.operations_client().await;
        scrape_until(&operations, &format!("mcs_store_up {is_used}")).await;
        assert_eq!(state.join("store.db").exists(), is_used == "1");
    }
}

/// A script of the service's own user is kept out by the sandbox.
#[tokio::test]
async fn script_has_no_access_to_the_store() {
    let fixture = RestartFixture::new().await;
    let builder = fixture.builder("");
    let state = builder.dir().path("state");
    let state = state.to_str().unwrap();
    let attack = format!(
        "for file in {state}/store.db {state}/store.db-wal {state}/store.db.lock; do
            if cat \"$file\" || echo x >> \"$file\" || rm -f \"$file\" || flock -n \"$file\" true; then
                if [ -e \"$file\" ]; then echo \"$file\"; exit 1; fi
            fi
        done
        if ls {state} || mv {state} {state}.moved || touch {state}/other; then exit 1; fi"
    );
    builder.dir().write_script("script.sh", &attack);
    let scanner = builder.start().await;
    let media = fixture.homeserver.add_bytes("other", b"other".to_vec());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    wait_until("the verdict is stored", || {
        fs::metadata(format!("{state}/store.db-wal")).is_ok_and(|file| file.len() > 0)
    })
    .await;
    fixture.homeserver.remove_media("other");
    assert!(!fs::exists(format!("{state}/other")).unwrap());
}
