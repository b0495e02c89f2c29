//! Load: full queue, concurrency limits, disconnecting clients. Shares of tenants: `fairness`.

use reqwest::Method;
use tokio::{task::JoinHandle, time::timeout};

use crate::harness::{
    MockHomeserver, MockMedia, RawClient, ScannerBuilder, TEST_TIMEOUT, TestClient, TestResponse,
    client::send, homeserver::TOKEN, wait_until,
};

/// Records the first line of each file, and blocks on a FIFO if the file contains `HOLD`.
pub(crate) const BLOCKS_ON_HOLD: &str = r#"
    head -n 1 "$1" >> "$MARKS/runs"
    if grep -q HOLD "$1"; then read go < "$MARKS/go"; fi
    exit 0
"#;

const CLIENT_DISCONNECTED: &str = "request cancelled";

pub(crate) fn spawn_get(
    client: &TestClient,
    path: impl AsRef<str>,
    token: &str,
) -> JoinHandle<TestResponse> {
    let request = client.request(Method::GET, path.as_ref()).bearer_auth(token.to_owned());
    tokio::spawn(send(request))
}

pub(crate) fn builder_with_one_worker(homeserver: &MockHomeserver) -> ScannerBuilder {
    ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(homeserver)
        .config("scan.workers = 1\nscan.max_scripts = 1\nscan.queue_capacity = 1")
}

#[tokio::test]
async fn returns_503_at_once_when_queue_is_full_but_serves_public_key() {
    let homeserver = MockHomeserver::start().await;
    let scanner = builder_with_one_worker(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.add_bytes(id, format!("{id} HOLD\n")));
    let first = spawn_get(&scanner.client, path("first"), TOKEN);
    wait_until("first scan has started", || scanner.dir.mark_count("runs") == 1).await;

    // One of the two is queued. The other is rejected while the first scan is still running.
    let (second, third) = (path("second"), path("third"));
    let second = spawn_get(&scanner.client, second, TOKEN);
    let third = spawn_get(&scanner.client, third, TOKEN);
    let both = futures_util::future::select(second, third);
    let (rejected, waiting) =
        timeout(TEST_TIMEOUT, both).await.expect("rejected at once").factor_first();
    let rejected = rejected.unwrap();
    rejected.assert_error(503, "M_UNKNOWN");
    assert!(rejected.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(scanner.client.public_key().await.len(), 43);

    scanner.dir.release_fifo("go").await;
    first.await.unwrap().assert_clean();
    scanner.dir.release_fifo("go").await;
    waiting.await.unwrap().assert_clean();
    assert_eq!(scanner.dir.mark_count("runs"), 2);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn queued_job_is_dropped_when_its_client_disconnects() {
    let homeserver = MockHomeserver::start().await;
    let scanner = builder_with_one_worker(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let first = homeserver.add_bytes("first", "first HOLD\n");
    let next = homeserver.add_bytes("next", "next\n");
    let first = spawn_get(&scanner.client, format!("/scan/{first}"), TOKEN);
    wait_until("first scan has started", || scanner.dir.mark_count("runs") == 1).await;

    // One of the two is rejected, which shows that the other one is in the queue.
    let mut clients = Vec::new();
    for id in ["left0", "left1"] {
        let media = homeserver.add_bytes(id, format!("{id}\n"));
        clients.push(RawClient::get(&scanner.address, &format!("/scan/{media}"), TOKEN).await);
    }
    let responses = clients.into_iter().map(|mut client| {
        Box::pin(async move {
            let response = client.read(12).await;
            assert!(response.starts_with(b"HTTP/1.1 503"));
        })
    });
    let ((), _, waiting) = futures_util::future::select_all(responses).await;
    drop(waiting);
    scanner.wait_for_log(CLIENT_DISCONNECTED, 1).await;
    // The queue accepts another job soon after the disconnect.
    let client = scanner.client.clone();
    let next = tokio::spawn(async move {
        loop {
            let response = client.get(&format!("/scan/{next}")).await;
            if response.status != 503 {
                return response;
            }
        }
    });
    scanner.dir.release_fifo("go").await;
    first.await.unwrap().assert_clean();
    next.await.unwrap().assert_clean();
    assert_eq!(scanner.dir.read_mark("runs"), "first HOLD\nnext\n");
    assert!(homeserver.requests().iter().all(|request| !request.uri.contains("left")));
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn scan_continues_for_joined_clients_when_initiator_disconnects() {
    let homeserver = MockHomeserver::start().await;
    homeserver.add_token("another");
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD).homeserver(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "abc HOLD\n");
    let path = format!("/scan/{media}");
    let initiator = RawClient::get(&scanner.address, &path, TOKEN).await;
    wait_until("scan has started", || scanner.dir.mark_count("runs") == 1).await;
    let joined = spawn_get(&scanner.client, path.clone(), "another");
    // The download and the authorisation check of the joined client.
    homeserver.wait_for_requests(2).await;

    initiator.disconnect();
    scanner.wait_for_log(CLIENT_DISCONNECTED, 1).await;
    scanner.dir.release_fifo("go").await;
    joined.await.unwrap().assert_clean();
    scanner.client.get(&path).await.assert_clean();
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn scan_finishes_and_is_cached_when_all_clients_disconnect() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD).homeserver(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "abc HOLD\n");
    let path = format!("/scan/{media}");
    let client = RawClient::get(&scanner.address, &path, TOKEN).await;
    wait_until("scan has started", || scanner.dir.mark_count("runs") == 1).await;
    client.disconnect();
    scanner.wait_for_log(CLIENT_DISCONNECTED, 1).await;

    scanner.dir.release_fifo("go").await;
    scanner.wait_until_idle().await;
    scanner.client.get(&path).await.assert_clean();
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    assert_eq!(homeserver.download_count(), 1);
}

#[tokio::test]
async fn runs_at_most_max_scripts_scripts_concurrently() {
    let homeserver = MockHomeserver::start().await;
    // One FIFO for each file, because two readers of one FIFO would share what is written.
    let script = r#"
        id=$(cat "$1")
        echo "begin $id" >> "$MARKS/trace"
        read go < "$MARKS/$id"
        echo "end $id" >> "$MARKS/trace"
    "#;
    let scanner = ScannerBuilder::new(script)
        .homeserver(&homeserver)
        .config("scan.workers = 8\nscan.max_scripts = 2")
        .start()
        .await;
    let mut responses = Vec::new();
    for index in 0..6 {
        let id = format!("m{index}");
        scanner.dir.make_fifo(&id);
        homeserver.add_media(&id, MockMedia::new("image/png", id.clone()).served_without_token());
        // Different server names and no token, so that no other quota limits these jobs.
        let path = format!("/scan/s{index}.example/{id}");
        let request = scanner.client.request(Method::GET, &path);
        responses.push(tokio::spawn(send(request)));
    }
    homeserver.wait_for_requests(6).await;
    wait_until("all six jobs exist", || scanner.helper_count() == 6).await;
    let started = || {
        let trace = scanner.dir.read_mark("trace");
        let ids = trace.lines().filter_map(|line| line.strip_prefix("begin "));
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    for finished in 0..6 {
        wait_until("two scripts run", || started().len() >= (finished + 2).min(6)).await;
        scanner.dir.release_fifo(&started()[finished]).await;
    }
    for response in responses {
        response.await.unwrap().assert_clean();
    }
    let mut running = 0_i32;
    for line in scanner.dir.read_mark("trace").lines() {
        running += if line.starts_with("begin") { 1 } else { -1 };
        assert!((0..=2).contains(&running), "{running} scripts run concurrently");
    }
    assert_eq!(running, 0);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn serves_public_key_while_all_workers_and_scripts_are_busy() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(r#"until [ -e "$MARKS/end" ]; do :; done"#)
        .homeserver(&homeserver)
        .config("scan.workers = 4\nscan.max_scripts = 4")
        .start()
        .await;
    let mut scans = Vec::new();
    for index in 0..4 {
        let token = format!("t{index}");
        homeserver.add_token(&token);
        homeserver.add_bytes(&token, token.clone());
        scans.push(spawn_get(&scanner.client, format!("/scan/s{index}.example/{token}"), &token));
    }
    wait_until("four scripts run", || scanner.dir.processes().len() >= 4).await;
    for _ in 0..20 {
        assert_eq!(scanner.client.public_key().await.len(), 43);
    }
    assert!(scans.iter().all(|scan| !scan.is_finished()), "a scan finished too early");
    std::fs::write(scanner.dir.path("marks/end"), "").unwrap();
    for scan in scans {
        scan.await.unwrap().assert_clean();
    }
    scanner.wait_until_idle().await;
}
