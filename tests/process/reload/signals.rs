//! Reload signals: in quick succession, during shutdown, and what the service manager and metrics report.

use std::{sync::Arc, time::Duration};

use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};

use super::{
    BLOCKING_SCRIPT, EICAR_SCRIPT, RECORDING_SCRIPT, reload, reload_fails, reload_succeeds,
    rewrite, spawn_get, traffic::Traffic,
};
use crate::{
    harness::{MockHomeserver, ScannerBuilder, png, scanner::list_dir, wait_until},
    operations::scrape_until,
    service_manager::Manager,
};

#[tokio::test]
async fn last_of_many_reload_signals_wins() {
    let homeserver = Arc::new(MockHomeserver::start().await);
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let traffic = Traffic::start(&homeserver, &scanner.client);
    for round in 0..40 {
        rewrite(&scanner, &format!("scan.max_scripts = {}", round % 4 + 1));
        scanner.signal(Signal::SIGHUP);
        tokio::time::sleep(Duration::from_millis(round % 7)).await;
    }
    traffic.wait_for_progress().await;
    // At most one reload is pending after the signals that arrived during a reload.
    rewrite(&scanner, "download.max_size = 1000");
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"changed\":\"download.max_size", 1).await;
    traffic.wait_for_progress().await;
    traffic.stop().await;
    let media = homeserver.add_bytes("abc", [1; 5000].to_vec());
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.assert_error(413, "MCS_MEDIA_REQUEST_FAILED");
    assert!(!scanner.log().contains("reload rejected"), "{}", scanner.log());
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn ignores_reload_signal_during_shutdown() {
    let homeserver = MockHomeserver::start().await;
    let mut scanner = ScannerBuilder::new(BLOCKING_SCRIPT).homeserver(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "content");
    let running = spawn_get(&scanner, format!("/download/{media}"));
    wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;
    scanner.signal(Signal::SIGTERM);
    scanner.wait_for_log("stopping, waiting for running requests and scans", 1).await;
    rewrite(&scanner, "download.max_size = 1");
    scanner.signal(Signal::SIGHUP);
    scanner.dir.release_fifo("go").await;
    running.await.unwrap().assert_media(b"content");
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(!scanner.log().contains("reload requested"), "{}", scanner.log());
    assert!(list_dir(&scanner.dir.path("temp")).is_empty());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_hanging_reload() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(EICAR_SCRIPT).homeserver(&homeserver);
    let mut scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    scanner
        .dir
        .write_script("hangs.sh", "echo run >> \"$MARKS/hangs\"\nwhile :; do sleep 1000; done");
    rewrite(&scanner, "scan.script = \"hangs.sh\"");
    scanner.signal(Signal::SIGHUP);
    wait_until("the canary hangs", || scanner.dir.mark_count("hangs") == 1).await;
    // Scans continue during the reload.
    let media = homeserver.add_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    wait_until("no script process is left", || scanner.dir.processes().is_empty()).await;
    assert!(list_dir(&scanner.dir.path("temp")).is_empty());
}

/// Returns `CLOCK_MONOTONIC` in microseconds, as in `MONOTONIC_USEC=`.
fn monotonic() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
}

#[tokio::test]
async fn notifies_service_manager_about_reload() {
    let homeserver = MockHomeserver::start().await;
    let builder =
        ScannerBuilder::new("exit 0").homeserver(&homeserver).config("scan.canary = \"eicar\"");
    let (mut manager, builder) = Manager::attach(builder);
    let scanner = builder.start().await;
    manager.expect_message("STATUS=Not ready").await;
    // A reload during the start sends no `RELOADING=1`.
    reload(&scanner).await;
    scanner.dir.write_script("script.sh", EICAR_SCRIPT);
    manager.expect_message("READY=1").await;
    assert!(!manager.has_received("RELOADING=1"), "RELOADING=1 during the start");

    scanner.dir.write_script("better.sh", EICAR_SCRIPT);
    for (lines, runs_canary) in
        [("scan.script = \"better.sh\"", true), ("scan.timeout = \"soon\"", false)]
    {
        rewrite(&scanner, lines);
        let before = monotonic();
        scanner.signal(Signal::SIGHUP);
        let message = manager.expect_message("RELOADING=1\nMONOTONIC_USEC=").await;
        let notified: u128 = message.rsplit_once('=').unwrap().1.parse().unwrap();
        assert!((before..=monotonic()).contains(&notified), "{before} {notified}");
        if runs_canary {
            // Twice scan.timeout and the 30 s of an inspection, plus one minute.
            manager.expect_message("EXTEND_TIMEOUT_USEC=240000000").await;
        }
        manager.expect_message("READY=1").await;
    }
}

#[tokio::test]
async fn counts_reloads_by_result() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let operations = scanner.operations_client().await;
    let assert_counts = async |applied: usize, rejected: usize| {
        let line = |result, count| format!("mcs_reloads_total{{result=\"{result}\"}} {count}");
        let metrics = scrape_until(&operations, &line("applied", applied)).await;
        assert!(metrics.lines().any(|found| found == line("rejected", rejected)), "{metrics}");
    };
    assert_counts(0, 0).await;
    reload_succeeds(&scanner, "download.max_size = 1000").await;
    assert_counts(1, 0).await;
    reload_fails(&scanner, "scan.timeout = \"soon\"").await;
    assert_counts(1, 1).await;
    reload_succeeds(&scanner, "-scan.timeout").await;
    assert_counts(2, 1).await;
}
