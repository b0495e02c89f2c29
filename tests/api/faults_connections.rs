//! Limits of connections: slow clients, long scans, and the number of connections.

use std::time::{Duration, Instant};

use crate::{
    faults_load::BLOCKS_ON_HOLD,
    harness::{
        MockHomeserver, RawClient, ScannerBuilder, client::PREFIX, homeserver::TOKEN, wait_until,
    },
};

#[tokio::test]
async fn closes_connections_of_slow_clients() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        // The header timeout is long enough for a header that is sent at once.
        .config("web.header_timeout = \"2s\"\nweb.idle_timeout = \"300ms\"")
        .start()
        .await;
    let start = Instant::now();
    let mut silent = RawClient::connect(&scanner.address).await;
    assert_eq!(silent.read_to_end().await, b"");
    let mut half = RawClient::connect(&scanner.address).await;
    half.write(format!("GET {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\n").as_bytes()).await;
    assert!(!half.read_to_end().await.starts_with(b"HTTP/1.1 200"));
    // A body that stalls gets the contract's error response.
    let mut body = RawClient::connect(&scanner.address).await;
    let head =
        format!("POST {PREFIX}/scan_encrypted HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    body.write(head.as_bytes()).await;
    let response = String::from_utf8(body.read_to_end().await).unwrap();
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(response.ends_with('}') && response.contains(r#""reason":"M_UNKNOWN""#), "{response}");
    assert!(start.elapsed() < Duration::from_secs(20), "closed by longer timeouts than these");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn keeps_connection_open_while_scan_exceeds_client_timeouts() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config("web.header_timeout = \"2s\"\nweb.idle_timeout = \"2s\"")
        .start()
        .await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "abc HOLD\n");
    let mut client = RawClient::get(&scanner.address, &format!("/scan/{media}"), TOKEN).await;
    wait_until("scan has started", || scanner.dir.mark_count("runs") == 1).await;
    assert!(client.receives_nothing_for(Duration::from_millis(2500)).await);
    scanner.dir.release_fifo("go").await;
    let response = client.read_to_end().await;
    assert!(response.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&response));
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn new_connection_takes_the_place_of_a_waiting_one() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("web.max_connections = 2")
        .start()
        .await;
    let mut silent = RawClient::connect(&scanner.address).await;
    let mut idle = RawClient::get(&scanner.address, "/public_key", TOKEN).await;
    assert!(idle.read(15).await.starts_with(b"HTTP/1.1 200 OK"));
    let mut third = RawClient::get(&scanner.address, "/public_key", TOKEN).await;
    assert!(third.read(15).await.starts_with(b"HTTP/1.1 200 OK"));
    // Which one depends on the age of the silent one.
    tokio::select! {
        _ = silent.read_to_end() => {}
        _ = idle.read_to_end() => {}
    }
    third.disconnect();
    assert_eq!(scanner.client.public_key().await.len(), 43);
}

#[tokio::test]
async fn new_connection_takes_the_place_of_one_that_sends_no_body() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("web.max_connections = 2\nweb.idle_timeout = \"1h\"")
        .start()
        .await;
    let mut silent = Vec::new();
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        let head = format!(
            "POST /_matrix/media_proxy/unstable/scan_encrypted HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n"
        );
        let mut client = RawClient::connect(&scanner.address).await;
        client.write(head.as_bytes()).await;
        silent.push(client);
    }
    for _ in 0..2 {
        assert_eq!(scanner.client.public_key().await.len(), 43);
    }
    let [first, second] = &mut silent[..] else { unreachable!() };
    tokio::select! {
        _ = first.read_to_end() => {}
        _ = second.read_to_end() => {}
    }
}
