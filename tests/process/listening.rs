//! What the program listens on, and how it says that it cannot.

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

use crate::harness::{Builder, Client, Homeserver, PATIENCE, client::PREFIX, skipped};

/// On a unix socket, without host and port.
fn on_socket(homeserver: &Homeserver) -> Builder {
    Builder::new("exit 0")
        .homeserver(homeserver)
        .config(r#"web.socket = "http.sock""#)
        .environment("MCS_WEB__HOST", "")
        .environment("MCS_WEB__PORT", "")
}

async fn public_key_at(path: &Path) -> String {
    public_key_over(UnixStream::connect(path).await.expect("somebody listens")).await
}

/// The whole answer to one request for it.
pub(crate) async fn public_key_over(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request =
        format!("GET {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_and_replaces_a_stale_one() {
    let homeserver = Homeserver::start().await;
    let builder = on_socket(&homeserver);
    let path = builder.place().path("http.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "a stale one is there");

    let mut scanner = builder.start().await;
    let answer = public_key_at(&path).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("public_key"), "{answer}");
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(!path.exists(), "it goes with its server");
}

#[tokio::test]
async fn a_socket_that_is_in_use_or_none_at_all_is_left_alone() {
    let homeserver = Homeserver::start().await;
    for (in_use, word) in [(true, "in use"), (false, "no socket")] {
        let builder = on_socket(&homeserver);
        let path = builder.place().path("http.sock");
        let listener = in_use.then(|| UnixListener::bind(&path).unwrap());
        if !in_use {
            fs::write(&path, "precious").unwrap();
        }
        let (code, said) = builder.fails();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("http.sock") && said.contains(word), "{said}");
        drop(listener);
    }
}

#[tokio::test]
async fn it_listens_on_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skipped("it_listens_on_ipv6", "this machine has no ::1");
    }
    let homeserver = Homeserver::start().await;
    let config = "web.host = \"::\"";
    let both = Builder::new("exit 0").homeserver(&homeserver).config(config).start().await;
    let port = both.address.strip_prefix("[::]:").expect(&both.address);
    for host in ["[::1]", "127.0.0.1"] {
        let client = Client::new(&format!("{host}:{port}"));
        assert_eq!(client.public_key().await.len(), 43, "{host}");
    }
    for host in ["::1", "[::1]"] {
        let config = format!("web.host = \"{host}\"");
        let scanner = Builder::new("exit 0").homeserver(&homeserver).config(&config).start().await;
        assert!(scanner.address.starts_with("[::1]:"), "{}", scanner.address);
        assert_eq!(scanner.client.public_key().await.len(), 43);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_a_clear_error() {
    let homeserver = Homeserver::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (config, words) in [
        (format!("web.port = {port}"), format!("cannot listen on 127.0.0.1:{port}")),
        // TEST-NET-1 is nobody's own.
        ("web.host = \"192.0.2.1\"".to_owned(), "cannot listen on 192.0.2.1:0".to_owned()),
    ] {
        let builder = Builder::new("exit 0").homeserver(&homeserver).config(&config);
        let (code, said) = builder.fails();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&words), "{said}");
    }
    drop(taken);
}

#[tokio::test]
async fn as_many_files_may_be_open_as_the_hard_limit_lets() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.inside(&["prlimit", "--nofile=256:2000"]).start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", scanner.pid())).unwrap();
    let of_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let of_files: Vec<_> = of_files.split_whitespace().collect();
    assert_eq!(of_files[3..5], ["2000", "2000"]);
    assert!(scanner.log().contains("open files is below web.max_connections"));
}
