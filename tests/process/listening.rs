//! Tests of the public listener and its errors.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::Path,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::harness::{
    MockHomeserver, ScannerBuilder, TEST_TIMEOUT, TestClient, client::PREFIX, report_skipped,
};

/// Returns a builder of a scanner on a unix socket, without host and port.
fn socket_builder(homeserver: &MockHomeserver) -> ScannerBuilder {
    ScannerBuilder::new("exit 0")
        .homeserver(homeserver)
        .config(r#"web.socket = "http.sock""#)
        .env("MCS_WEB__HOST", "")
        .env("MCS_WEB__PORT", "")
}

async fn public_key_at(path: &Path) -> String {
    public_key_over(UnixStream::connect(path).await.expect("connection to the socket")).await
}

/// Requests the public key over `stream`; returns the whole response.
pub(crate) async fn public_key_over(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request =
        format!("GET {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(TEST_TIMEOUT, stream.read_to_string(&mut response)).await.expect("a response").unwrap();
    response
}

#[tokio::test]
async fn listens_on_unix_socket_and_replaces_stale_socket() {
    let homeserver = MockHomeserver::start().await;
    let builder = socket_builder(&homeserver);
    let path = builder.dir().path("http.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "no stale socket");

    let mut scanner = builder.start().await;
    let response = public_key_at(&path).await;
    assert!(
        response.starts_with("HTTP/1.1 200 OK") && response.contains("public_key"),
        "{response}"
    );
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(!path.exists(), "the socket remains after the exit");
}

#[tokio::test]
async fn keeps_socket_in_use_and_file_that_is_not_a_socket() {
    let homeserver = MockHomeserver::start().await;
    for (in_use, reason) in [(true, "in use"), (false, "not a socket")] {
        let builder = socket_builder(&homeserver);
        let path = builder.dir().path("http.sock");
        let listener = in_use.then(|| UnixListener::bind(&path).unwrap());
        if !in_use {
            fs::write(&path, "precious").unwrap();
        }
        let (code, stderr) = builder.run_to_exit();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("http.sock") && stderr.contains(reason), "{stderr}");
        drop(listener);
    }
}

#[tokio::test]
async fn listens_on_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return report_skipped("listens_on_ipv6", "this machine has no ::1");
    }
    let homeserver = MockHomeserver::start().await;
    let config = "web.host = \"::\"";
    let dual_stack =
        ScannerBuilder::new("exit 0").homeserver(&homeserver).config(config).start().await;
    let port = dual_stack.address.strip_prefix("[::]:").expect(&dual_stack.address);
    for host in ["[::1]", "127.0.0.1"] {
        let client = TestClient::new(&format!("{host}:{port}"));
        assert_eq!(client.public_key().await.len(), 43, "{host}");
    }
    for host in ["::1", "[::1]"] {
        let config = format!("web.host = \"{host}\"");
        let scanner =
            ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&config).start().await;
        assert!(scanner.address.starts_with("[::1]:"), "{}", scanner.address);
        assert_eq!(scanner.client.public_key().await.len(), 43);
    }
}

#[tokio::test]
async fn reports_address_that_cannot_be_bound() {
    let homeserver = MockHomeserver::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (config, message) in [
        (format!("web.port = {port}"), format!("cannot listen on 127.0.0.1:{port}")),
        // TEST-NET-1 is assigned to no machine.
        ("web.host = \"192.0.2.1\"".to_owned(), "cannot listen on 192.0.2.1:0".to_owned()),
    ] {
        let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&config);
        let (code, stderr) = builder.run_to_exit();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&message), "{stderr}");
    }
    drop(taken);
}

#[tokio::test]
async fn raises_open_file_limit_to_hard_limit() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.wrapped_by(&["prlimit", "--nofile=256:3000"]).start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", scanner.pid())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let open_files: Vec<_> = open_files.split_whitespace().collect();
    assert_eq!(open_files[3..5], ["3000", "3000"]);
}
