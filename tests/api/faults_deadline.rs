//! Deadlines of requests: in the queue, the download, the scan and the authorisation check.

use tokio::time::timeout;

use crate::{
    faults_load::{BLOCKS_ON_HOLD, builder_with_one_worker, spawn_get},
    harness::{
        MockHomeserver, MockMedia, ScannerBuilder, TEST_TIMEOUT,
        homeserver::{Gate, TOKEN},
        png,
    },
};

/// Long enough for a job that is not blocked, even on a slow machine.
const DEADLINE: &str = r#"scan.deadline = "4s""#;

#[tokio::test]
async fn returns_504_at_deadline_when_authorisation_check_hangs() {
    let homeserver = MockHomeserver::start().await;
    homeserver.add_token("another");
    let scanner = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config(DEADLINE)
        .config("download.idle_timeout = \"1h\"\ndownload.total_timeout = \"1h\"")
        .start()
        .await;
    let media = homeserver.add_bytes("abc", png());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();

    // The homeserver never responds to the authorisation check for the cached media.
    homeserver.add_media("abc", MockMedia::new("image/png", png()).gated_by(&Gate::default()));
    let response = timeout(TEST_TIMEOUT / 2, spawn_get(&scanner.client, &path, "another")).await;
    response.expect("response in time").unwrap().assert_error(504, "MCS_MEDIA_REQUEST_FAILED");
}

#[tokio::test]
async fn returns_503_when_deadline_passes_in_queue() {
    let homeserver = MockHomeserver::start().await;
    let builder = builder_with_one_worker(&homeserver);
    // The worker is blocked by the removal command, which runs after the response.
    let removal = builder.dir().write_script("removal.sh", r#"read go < "$MARKS/go""#);
    let scanner = builder
        .config(&format!("scan.removal_command = [\"{}\"]", removal.display()))
        .config(DEADLINE)
        .start()
        .await;
    scanner.dir.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.add_bytes(id, format!("{id}\n")));
    scanner.client.get(&path("first")).await.assert_clean();

    let both = futures_util::future::select(
        spawn_get(&scanner.client, path("second"), TOKEN),
        spawn_get(&scanner.client, path("third"), TOKEN),
    );
    let (rejected, waiting) = both.await.factor_first();
    rejected.unwrap().assert_error(503, "M_UNKNOWN");
    // The response comes at the deadline, although no worker is free.
    let expired = timeout(TEST_TIMEOUT, waiting).await.expect("response in time").unwrap();
    expired.assert_error(503, "M_UNKNOWN");
    assert_eq!(expired.json()["info"], "The server was busy for too long");
    scanner.dir.release_fifo("go").await;
    scanner.wait_until_idle().await;
    assert_eq!(scanner.dir.read_mark("runs"), "first\n");
    assert_eq!(homeserver.download_count(), 1);
}

#[tokio::test]
async fn returns_error_when_deadline_passes_in_download_or_scan() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config(DEADLINE)
        .config("result_cache.failure_ttl = \"0s\"")
        .start()
        .await;
    scanner.dir.make_fifo("go");
    let gate = Gate::default();
    let silent = homeserver.add_media("silent", MockMedia::new("image/png", png()).gated_by(&gate));
    let blocking = homeserver.add_bytes("blocking", "blocking HOLD\n");

    let response = scanner.client.get(&format!("/scan/{silent}")).await;
    response.assert_error(504, "MCS_MEDIA_REQUEST_FAILED");
    scanner.wait_until_idle().await;
    scanner.client.get(&format!("/download/{blocking}")).await.assert_error(500, "M_UNKNOWN");
    scanner.wait_until_idle().await;
    // Neither failure is cached for the media.
    gate.open();
    scanner.client.get(&format!("/scan/{silent}")).await.assert_clean();
    let again = spawn_get(&scanner.client, format!("/scan/{blocking}"), TOKEN);
    scanner.dir.release_fifo("go").await;
    again.await.unwrap().assert_clean();
    scanner.wait_until_idle().await;
}
