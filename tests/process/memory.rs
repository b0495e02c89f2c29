//! Memory that clients can occupy with requests that wait.

use std::fs;

use reqwest::Method;

use crate::harness::{
    MockHomeserver, MockMedia, ScannerBuilder, client::send, homeserver::Gate, homeserver::TOKEN,
    wait_until,
};

/// Requests that wait, as many as the default queue holds.
const REQUESTS: usize = 256;

/// Largest request header of docs/sizing.md, bytes.
const MAX_HEADER: usize = 64 << 10;

#[tokio::test]
async fn queued_requests_with_large_headers_take_bounded_memory() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    // The queue keeps what is forwarded.
    let config = "download.headers_to_forward = [\"x-filler\"]\nscan.workers = 1\n\
                  scan.max_scripts = 1\nlog.level = \"info\"";
    let builder = ScannerBuilder::new("exit 0").config(config);
    let scanner = builder.homeserver(&homeserver).start().await;
    let filler = "x".repeat(60_000);
    let request = |path: &str| {
        let request = scanner.client.request(Method::GET, path).bearer_auth(TOKEN);
        request.header("x-filler", &filler)
    };
    // The first request of a process allocates more.
    let first = homeserver.add_bytes("first", "text");
    send(request(&format!("/scan/{first}"))).await.assert_clean();
    let resident = || {
        let statm = fs::read_to_string(format!("/proc/{}/statm", scanner.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut waiting = Vec::new();
    for number in 0..REQUESTS {
        let media = MockMedia::new("text/plain", "text").gated_by(&gate);
        let media = homeserver.add_media(&format!("m{number}"), media);
        waiting.push(tokio::spawn(send(request(&format!("/scan/{media}")))));
    }
    let operations = scanner.operations_client().await;
    let expected = format!("mcs_queue_jobs {}\n", REQUESTS - 1);
    let mut queued = false;
    while !queued {
        let metrics = send(operations.request_outside_prefix(Method::GET, "/metrics")).await.body;
        queued = String::from_utf8_lossy(&metrics).contains(&expected);
        assert!(waiting.iter().all(|request| !request.is_finished()));
    }
    let grown = resident() - before;
    // The request in the queue, the two buffers of the connection, and 64 KiB for tasks and the allocator.
    let bound = REQUESTS * (MAX_HEADER + 2 * MAX_HEADER + (64 << 10));
    assert!(grown <= bound, "{grown} of {bound} bytes");
    assert!(grown >= REQUESTS * filler.len(), "{grown} bytes");
    gate.open();
    for request in waiting {
        request.await.unwrap().assert_clean();
    }
    wait_until("all scans end", || scanner.is_idle()).await;
}
