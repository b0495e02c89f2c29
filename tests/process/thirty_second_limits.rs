//! Tests of limits that are 30 s by default. They run concurrently, so that the file takes 30 s instead of 120 s.

use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::time::sleep;

use crate::{
    harness::{
        MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, homeserver::TOKEN, noise, png,
        raw::RawClient, scanner::list_dir, wait_until,
    },
    signals::{HANGING_SCRIPT, assert_nothing_left, start_hanging_scan},
};

/// Asserts a minimum of about 30 s. The upper bound of each wait is [`TEST_TIMEOUT`](crate::harness::TEST_TIMEOUT).
#[track_caller]
fn assert_took_thirty_seconds(took: Duration) {
    assert!(took.as_secs() >= 28, "{took:?}");
}

#[tokio::test]
async fn thirty_second_limits_are_enforced() {
    tokio::join!(
        kills_hanging_removal_command(),
        kills_scan_after_grace_period(),
        aborts_download_below_min_rate(),
        disconnects_client_below_min_rate_and_frees_spool(),
    );
}

async fn kills_hanging_removal_command() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let hangs = r#"trap '' TERM; date +%s >> "$MARKS/removals"; while :; do sleep 1000; done"#;
    let removal = builder.dir().write_script("removal.sh", hangs);
    let config = format!("scan.removal_command = [\"{}\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    let media = homeserver.add_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    wait_until("the removal command runs", || scanner.dir.mark_count("removals") == 1).await;
    scanner.wait_until_idle().await;
    let begun = Duration::from_secs(scanner.dir.read_mark("removals").trim().parse().unwrap());
    assert_took_thirty_seconds((UNIX_EPOCH + begun).elapsed().unwrap());
    scanner.wait_for_log("scan.removal_command failed", 1).await;
}

async fn kills_scan_after_grace_period() {
    let homeserver = MockHomeserver::start().await;
    let mut scanner = ScannerProcess::start(&homeserver, HANGING_SCRIPT).await;
    start_hanging_scan(&scanner, &homeserver).await;
    let begun = Instant::now();
    scanner.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert_took_thirty_seconds(begun.elapsed());
    assert!(scanner.log().contains("grace period expired"));
    assert_nothing_left(&scanner.dir).await;
    assert!(list_dir(&scanner.dir.path("temp")).is_empty());
}

async fn aborts_download_below_min_rate() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    // A tenth of download.min_rate.
    let drips =
        MockMedia::new("image/png", "").dripping(noise(1, 50), 10_000, Duration::from_millis(500));
    let media = homeserver.add_media("drips", drips);
    let begun = Instant::now();
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.assert_error(504, "MCS_MEDIA_REQUEST_FAILED");
    assert_took_thirty_seconds(begun.elapsed());
    scanner.wait_until_idle().await;
}

async fn disconnects_client_below_min_rate_and_frees_spool() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("download.max_size = 20000000\nscan.max_spool_size = 40000000")
        // In 30 s this rate amounts to more than the file. No other limit applies.
        .config("web.min_rate = \"1MiB\"\nweb.idle_timeout = \"1h\"")
        .start()
        .await;
    // Larger than the socket buffers.
    let large = noise(1, 19_000_000);
    let [slow, next] = ["slow", "next"].map(|id| homeserver.add_bytes(id, large.clone()));
    let begun = Instant::now();
    let mut caller =
        RawClient::get_with_small_buffer(&scanner.address, &format!("/download/{slow}"), TOKEN)
            .await;
    caller.read(1).await;
    let path = format!("/download/{next}");
    scanner.client.get(&path).await.assert_error(503, "M_UNKNOWN");
    let read_slowly = async {
        loop {
            // An eighth of the minimum rate, and enough for the kernel to accept more data from time to time.
            caller.read(64 * 1024).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = read_slowly => {}
        () = scanner.wait_for_log("client reads too slowly", 1) => {}
    }
    assert_took_thirty_seconds(begun.elapsed());
    scanner.client.get(&path).await.assert_media(&large);
}
