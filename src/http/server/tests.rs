use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use axum::{Router, body::Body, http::StatusCode, routing::get};
use bytes::Bytes;
use futures_util::stream;
use hyper_util::service::TowerToHyperService;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    config::Config,
    http::{
        Listen, Settings,
        listener::{BindError, LocalAddr},
    },
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(250);
/// Time limit of each step; only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const GET: &[u8] = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

static ZEROS: [u8; 65536] = [0; 65536];

fn tcp(host: &str) -> Listen {
    Listen::Tcp { host: host.to_owned(), port: 0 }
}

fn settings(header: Duration, idle: Duration, max_connections: usize) -> Settings {
    Settings {
        listen: tcp("127.0.0.1"),
        max_connections,
        header_timeout: header,
        idle_timeout: idle,
        min_rate: 0,
        ..Config::for_test().web
    }
}

struct TestServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(router: Router, settings: Settings) -> TestServer {
    let (listener, address) = bind(&settings).await;
    serve_at(listener, address, router, settings)
}

/// Starts the server after a client has sent its first request, so that the request is in time on a slow
/// machine too.
async fn start_with_request(
    request: &[u8],
    router: Router,
    settings: Settings,
) -> (TestServer, TcpStream) {
    let (listener, address) = bind(&settings).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    (serve_at(listener, address, router, settings), client)
}

async fn bind(settings: &Settings) -> (Listener, SocketAddr) {
    let listener = Listener::bind(&settings.listen).await.unwrap();
    let LocalAddr::Tcp(address) = listener.local_addr().unwrap() else { panic!("not TCP") };
    (listener, address)
}

fn serve_at(
    listener: Listener,
    address: SocketAddr,
    router: Router,
    settings: Settings,
) -> TestServer {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (max_connections, limits, metrics) =
            (settings.max_connections, || settings.connection_limits(), Arc::default());
        let stopped = async { stopped.await.unwrap_or(()) };
        let service = |_| TowerToHyperService::new(router.clone());
        serve(listener, service, max_connections, limits, &metrics, stopped).await;
    });
    TestServer { address, stop, task }
}

fn hello() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, work).await.expect("timed out")
}

/// Reads a response up to the end of the body `hello`.
async fn read_hello(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut response = Vec::new();
    while !response.ends_with(b"hello") {
        assert_ne!(within(client.read_buf(&mut response)).await.unwrap(), 0, "{response:?}");
    }
    String::from_utf8(response).unwrap()
}

/// Reads until the server closes the connection; returns the number of bytes.
async fn read_to_end(client: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let mut received = Vec::new();
    // A reset counts as the end too.
    let _ = within(client.read_to_end(&mut received)).await;
    received.len()
}

#[tokio::test]
async fn closes_connection_with_slow_header() {
    let (_server, mut client) = start_with_request(GET, hello(), settings(SHORT, LONG, 9)).await;
    // The first request is server; the header of the second one never ends.
    read_hello(&mut client).await;
    client.write_all(b"GET /hello HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = client.split();
    let drip = async {
        while writer.write_all(b"x: y\r\n").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    };
    tokio::select! {
        () = drip => {}
        _ = read_to_end(&mut reader) => {}
        () = sleep(TEST_TIMEOUT) => panic!("the connection was not closed"),
    }
}

#[tokio::test]
async fn closes_connection_with_pipelined_partial_header() {
    for (header, idle) in [(SHORT, LONG), (LONG, SHORT)] {
        let pipelined = [GET, b"GET /hello HTTP/1.1\r\n"].concat();
        let (_server, mut client) =
            start_with_request(&pipelined, hello(), settings(header, idle, 9)).await;
        read_hello(&mut client).await;
        // hyper has already buffered the first bytes, so the idle limit applies until more arrive.
        if idle == LONG {
            client.write_all(b"x: y\r\n").await.unwrap();
        }
        assert_eq!(read_to_end(&mut client).await, 0);
    }
}

#[tokio::test]
async fn serves_request_pipelined_behind_a_slow_response() {
    // Larger than the socket buffers.
    let large = || async { Bytes::from(vec![b'.'; 32 << 20]) };
    let router = hello().route("/large", get(large));
    let first = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    let (_server, mut client) = start_with_request(first, router, settings(SHORT, LONG, 9)).await;
    assert_eq!(within(client.read_u8()).await.unwrap(), b'H');
    client.write_all(GET).await.unwrap();
    sleep(SHORT * 4).await;
    read_hello(&mut client).await;
}

#[tokio::test]
async fn closes_connection_without_a_request() {
    let server = start(hello(), settings(SHORT, LONG, 9)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, 0);
}

#[tokio::test]
async fn closes_idle_connection_after_idle_timeout() {
    let server = start(hello(), settings(LONG, SHORT, 9)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;
    assert_eq!(read_to_end(&mut client).await, 0);
}

#[tokio::test]
async fn idle_connection_outlives_header_timeout() {
    let (_server, mut client) = start_with_request(GET, hello(), settings(SHORT, LONG, 9)).await;
    read_hello(&mut client).await;
    assert!(timeout(SHORT * 4, client.read_u8()).await.is_err(), "connection was closed");
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;
    assert!(timeout(SHORT * 4, client.read_u8()).await.is_err(), "connection was closed");
}

#[tokio::test]
async fn no_limit_applies_while_a_request_is_processed() {
    let router = Router::new().route(
        "/hello",
        get(|| async {
            sleep(SHORT * 4).await;
            "hello"
        }),
    );
    let (_server, mut client) = start_with_request(GET, router, settings(SHORT, SHORT, 9)).await;
    read_hello(&mut client).await;
}

#[tokio::test]
async fn closes_connection_of_stalled_reader() {
    let (dropped, mut was_dropped) = mpsc::channel::<()>(1);
    let router = Router::new().route(
        "/hello",
        get(move || async move {
            let endless = stream::repeat_with(move || {
                let _sender = &dropped;
                Ok::<_, io::Error>(Bytes::from_static(&ZEROS))
            });
            Body::from_stream(endless)
        }),
    );
    let server = start(router, settings(LONG, SHORT, 9)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(GET).await.unwrap();
    // Stops the server, since the router's own copy of the sender keeps the channel open.
    drop(server.stop);
    assert_eq!(within(was_dropped.recv()).await, None, "the body was not dropped");
    within(server.task).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn shutdown_completes_request_in_flight() {
    let (entered, mut has_entered) = mpsc::channel(1);
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(tokio::sync::Mutex::new(released));
    let router = Router::new().route(
        "/hello",
        get(move || async move {
            entered.send(()).await.unwrap();
            (&mut *released.lock().await).await.unwrap();
            "hello"
        }),
    );
    let server = start(router, settings(LONG, LONG, 9)).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(GET).await.unwrap();
    within(has_entered.recv()).await.unwrap();
    server.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, 0);
    let mut refused = false;
    while !refused {
        refused = TcpStream::connect(server.address).await.is_err();
    }
    assert!(!server.task.is_finished());
    release.send(()).unwrap();
    let response = read_hello(&mut client).await;
    assert!(response.contains("connection: close"), "{response}");
    within(server.task).await.unwrap();
}

#[tokio::test]
async fn response_304_without_length_keeps_the_connection() {
    // axum would send 0 for the empty body, which is not the length of the cached representation.
    let not_modified = || async { StatusCode::NOT_MODIFIED };
    let server = start(hello().route("/known", get(not_modified)), settings(LONG, LONG, 9)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET /known HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    client.write_all(GET).await.unwrap();
    let responses = read_hello(&mut client).await;
    let (first, second) = responses.split_once("\r\n\r\n").unwrap();
    assert!(!first.contains("content-length"), "{first}");
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
}

#[tokio::test]
async fn dropping_the_server_closes_its_connections() {
    let router = Router::new().route("/hello", get(std::future::pending::<&str>));
    let server = start(router, settings(LONG, LONG, 9)).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(GET).await.unwrap();
    server.task.abort();
    assert_eq!(read_to_end(&mut client).await, 0);
}

#[tokio::test]
async fn listens_on_ipv6_and_dual_stack_addresses() {
    if Listener::bind(&tcp("::1")).await.is_err() {
        return; // This machine has no IPv6.
    }
    let settings_for = |host: &str| Settings { listen: tcp(host), ..settings(LONG, LONG, 9) };
    let server = start(hello(), settings_for("[::1]")).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;

    let server = start(hello(), settings_for("::")).await;
    for host in [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()] {
        let address = SocketAddr::new(host, server.address.port());
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;
    }
}

async fn serve_on(path: &Path) -> Result<(oneshot::Sender<()>, JoinHandle<()>), BindError> {
    let settings = Settings { listen: Listen::Unix(path.to_owned()), ..settings(LONG, LONG, 9) };
    let listener = Listener::bind(&settings.listen).await?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (max_connections, limits, metrics) =
            (settings.max_connections, || settings.connection_limits(), Arc::default());
        let stopped = async { stopped.await.unwrap_or(()) };
        let routes = |_| TowerToHyperService::new(hello());
        serve(listener, routes, max_connections, limits, &metrics, stopped).await;
    });
    Ok((stop, task))
}

#[tokio::test]
async fn replaces_stale_unix_socket_and_removes_it_on_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket");

    let (stop, task) = serve_on(&path).await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;

    assert!(
        matches!(serve_on(&path).await, Err(BindError::Bind { .. })),
        "another server is listening"
    );
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;

    stop.send(()).unwrap();
    within(task).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn rejects_path_of_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(serve_on(&path).await, Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
}

#[tokio::test]
async fn serves_passed_listener() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Listener::from_std_tcp(listener).unwrap();
    let (limits, metrics) = (|| settings(LONG, LONG, 9).connection_limits(), Arc::default());
    let routes = |_| TowerToHyperService::new(hello());
    let server = serve(listener, routes, 9, limits, &metrics, std::future::pending());
    let client = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await
    };
    tokio::select! {
        () = server => panic!("server stopped"),
        _ = client => {}
    }
}

mod full_table;
