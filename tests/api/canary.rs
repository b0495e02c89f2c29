//! Canary: no verdicts are given while a script returns wrong verdicts on the canary samples.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use mcs_testing::{FakeServer, Fault, linger, read_until, respond};
use tokio::sync::Semaphore;

use crate::harness::{MockHomeserver, ScannerBuilder, eicar, png, wait_until};

/// Detects the EICAR file unless `$MARKS/blind` exists.
const DETECTS_EICAR: &str = r#"
    [ -e "$MARKS/blind" ] && exit 0
    echo run >> "$MARKS/runs"
    if grep -q EICAR-STANDARD "$1"; then exit 1; fi
"#;

#[tokio::test]
async fn returns_503_until_script_detects_infected_sample() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.wait_for_log("not ready", 1).await;
    assert!(scanner.log().contains("reports the infected sample as clean"), "{}", scanner.log());
    for route in ["scan", "download"] {
        let response = scanner.client.get(&format!("/{route}/{media}")).await;
        response.assert_error(503, "M_UNKNOWN");
    }
    assert_eq!(homeserver.download_count(), 0, "downloaded media that cannot be scanned");
    scanner.client.public_key().await;

    scanner.dir.write_script("script.sh", DETECTS_EICAR);
    scanner.wait_for_log("ready: the canary passed", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
}

#[tokio::test]
async fn failed_canary_invalidates_cached_verdicts() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new(DETECTS_EICAR).homeserver(&homeserver);
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();
    std::fs::write(scanner.dir.path("marks").join("blind"), "").unwrap();
    scanner.wait_for_log("not ready", 1).await;
    scanner.client.get(&path).await.assert_error(503, "M_UNKNOWN");
    std::fs::remove_file(scanner.dir.path("marks").join("blind")).unwrap();
    scanner.wait_for_log("ready: the canary passed", 2).await;
    scanner.client.get(&path).await.assert_clean();
}

#[tokio::test]
async fn failed_canary_discards_running_scan() {
    let script = format!(
        r#"grep -qE "EICAR|scanner could object" "$1" || {{ echo scanned >> "$MARKS/scanned"; read go < "$MARKS/go"; }}{DETECTS_EICAR}"#
    );
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new(&script).homeserver(&homeserver);
    builder.dir().make_fifo("go");
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let path = format!("/scan/{media}");
    let (response, ()) = tokio::join!(scanner.client.get(&path), async {
        wait_until("scan has started", || scanner.dir.mark_count("scanned") == 1).await;
        std::fs::write(scanner.dir.path("marks").join("blind"), "").unwrap();
        scanner.wait_for_log("not ready", 1).await;
        std::fs::remove_file(scanner.dir.path("marks").join("blind")).unwrap();
        scanner.wait_for_log("ready: the canary passed", 2).await;
        scanner.dir.release_fifo("go").await;
    });
    response.assert_error(503, "M_UNKNOWN");
    // The discarded verdict is not cached.
    let (response, ()) = tokio::join!(scanner.client.get(&path), scanner.dir.release_fifo("go"));
    response.assert_clean();
    assert_eq!(scanner.dir.mark_count("scanned"), 2);
}

#[tokio::test]
async fn returns_503_while_script_rejects_clean_sample_or_gives_no_verdict() {
    for (script, message) in [
        ("echo broken; exit 1", "reports the clean sample as not clean: \\\"broken\\\""),
        ("exit 127", "gives no verdict on the infected sample"),
        ("kill -SEGV $$", "gives no verdict on the infected sample"),
    ] {
        let homeserver = MockHomeserver::start().await;
        let media = homeserver.add_bytes("abc", png());
        let builder = ScannerBuilder::new(script).homeserver(&homeserver);
        let scanner = builder.config("scan.canary = \"eicar\"").start().await;
        scanner.wait_for_log("not ready", 1).await;
        assert!(scanner.log().contains(message), "{message}: {}", scanner.log());
        scanner.client.get(&format!("/scan/{media}")).await.assert_error(503, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn scans_immediately_when_canary_is_off() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"off\"").start().await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    let log = scanner.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("canary")).collect();
    assert!(matches!(lines[..], [line] if line.contains("scan.canary: off")), "{log}");
}

#[tokio::test]
async fn scans_custom_samples_regardless_of_allowed_mimetypes() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder =
        ScannerBuilder::new(r#"if grep -q WRONG "$1"; then exit 1; fi"#).homeserver(&homeserver);
    std::fs::write(builder.dir().path("wrong.txt"), "a WRONG one").unwrap();
    std::fs::write(builder.dir().path("right.txt"), "a right one").unwrap();
    let config = "scan.canary = { infected = \"wrong.txt\", clean = \"right.txt\" }\n\
                  scan.allowed_mimetypes = [\"image/png\"]";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
}

/// State of an ICAP server that detects the EICAR file. Its version is always the same.
struct IcapState {
    /// The server requests previews without content, and then responds to them without a scan.
    previews: AtomicBool,
    /// Files that the server has received.
    received: AtomicUsize,
    /// Permits for the responses to files, in the order of their requests.
    responses: Semaphore,
}

async fn icap_server() -> (FakeServer, Arc<IcapState>) {
    let state = Arc::new(IcapState {
        previews: AtomicBool::new(false),
        received: AtomicUsize::new(0),
        responses: Semaphore::new(Semaphore::MAX_PERMITS),
    });
    let shared = Arc::clone(&state);
    let server = FakeServer::start(move |mut stream| {
        let state = Arc::clone(&shared);
        async move {
            let mut request = read_until(&mut stream, b"\r\n\r\n").await;
            let response = if request.starts_with(b"OPTIONS") {
                let preview = if state.previews.load(Relaxed) { "Preview: 0\r\n" } else { "" };
                format!("ICAP/1.0 200 OK\r\nISTag: \"1\"\r\nConnection: close\r\n{preview}\r\n")
            } else {
                while !request.ends_with(b"\r\n0\r\n\r\n") {
                    request.extend(read_until(&mut stream, b"\r\n\r\n").await);
                }
                state.received.fetch_add(1, Relaxed);
                state.responses.acquire().await.unwrap().forget();
                let is_found = String::from_utf8_lossy(&request).contains("EICAR-STANDARD");
                let found = if is_found { "X-Virus-ID: Eicar\r\n" } else { "" };
                format!("ICAP/1.0 204 x\r\nISTag: \"1\"\r\nConnection: close\r\n{found}\r\n")
            };
            respond(&mut stream, response.as_bytes(), Fault::None).await;
            linger(stream).await;
        }
    })
    .await;
    (server, state)
}

fn icap_config(icap: &FakeServer) -> String {
    format!(
        "scan.engines = [\"icap\"]\nicap.urls = [\"icap://{}/avscan\"]\nscan.canary = \"eicar\"\n\
         scan.canary_interval = \"1h\"\nscan.version_interval = \"1s\"",
        icap.address
    )
}

/// The engine may have changed while it scanned the file, and no canary has tested the change yet.
#[tokio::test]
async fn scan_that_ends_while_the_canary_runs_gives_no_verdict() {
    let homeserver = MockHomeserver::start().await;
    let path = format!("/scan/{}", homeserver.add_bytes("abc", png()));
    let (icap, state) = icap_server().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config(&icap_config(&icap)).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;

    let samples = state.received.load(Relaxed);
    state.responses.forget_permits(Semaphore::MAX_PERMITS);
    let (response, ()) = tokio::join!(scanner.client.get(&path), async {
        wait_until("file is sent", || state.received.load(Relaxed) == samples + 1).await;
        state.previews.store(true, Relaxed);
        wait_until("canary is sent", || state.received.load(Relaxed) > samples + 1).await;
        state.responses.add_permits(1);
    });
    response.assert_error(503, "M_UNKNOWN");
    assert!(!scanner.log().contains("not ready"), "{}", scanner.log());

    state.previews.store(false, Relaxed);
    state.responses.add_permits(Semaphore::MAX_PERMITS / 2);
    scanner.wait_for_log("ready: the canary passed", 2).await;
    let received = state.received.load(Relaxed);
    scanner.client.get(&path).await.assert_clean();
    assert_eq!(state.received.load(Relaxed), received + 1, "the discarded verdict was cached");
}

#[tokio::test]
async fn changed_options_of_icap_server_run_the_canary_before_they_take_effect() {
    let homeserver = MockHomeserver::start().await;
    let (icap, state) = icap_server().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config(&icap_config(&icap)).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let mut number = 0;
    let mut path_of_infected_file = || {
        number += 1;
        let content = [eicar(), number.to_string().into_bytes()].concat();
        format!("/scan/{}", homeserver.add_bytes(&format!("infected{number}"), content))
    };
    scanner
        .client
        .get(&path_of_infected_file())
        .await
        .assert_not_clean("File not clean. Output: 'Eicar'");
    state.previews.store(true, Relaxed);
    while !scanner.log().contains("not ready") {
        let response = scanner.client.get(&path_of_infected_file()).await;
        let is_clean = response.status == 200 && response.json()["clean"] == true;
        assert!(!is_clean, "the infected file is reported as clean");
    }
    assert!(scanner.log().contains("icap reports the infected sample as clean"));
    scanner.client.get(&path_of_infected_file()).await.assert_error(503, "M_UNKNOWN");
    state.previews.store(false, Relaxed);
    scanner.wait_for_log("ready: the canary passed", 2).await;
    scanner
        .client
        .get(&path_of_infected_file())
        .await
        .assert_not_clean("File not clean. Output: 'Eicar'");
}
