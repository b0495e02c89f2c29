//! The accept loop. `axum::serve` has no limit of connections and no time limits, hence this one.
//! Knows sockets and a service, and nothing of what that does.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{extract::Request, response::Response};
use hyper::service::Service;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::sleep,
};

use super::{
    connection::{self, Limits, Peer},
    listener::{Listener, Stream},
};
use crate::metrics::Metrics;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `shutdown` completes; then the listener is closed, requests under way are
/// answered, idle connections end, and this returns. It waits as long as that takes: the caller
/// bounds the time, and dropping the future cuts what is left.
///
/// `routes` and `limits` are asked for each connection anew.
///
/// While `max_connections` are open nothing is accepted: further clients wait in the kernel's
/// backlog until one of the open connections ends, at the latest by its time limits.
pub async fn serve<S>(
    listener: Listener,
    routes: impl Fn(Peer) -> S,
    max_connections: usize,
    limits: impl Fn() -> Limits,
    metrics: &Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    // Tasks in a set end with it: dropping this future leaves no connection behind.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (place, stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = accept(&listener, &places) => accepted,
        };
        let (routes, limits) = (routes(peer), limits());
        let watcher = graceful.watcher();
        let metrics = Arc::clone(metrics);
        connections.spawn(async move {
            let _counted = metrics.connection_begins();
            match stream {
                Stream::Tcp(io) => {
                    connection::serve(io, routes, limits, watcher, &metrics).await;
                }
                Stream::Unix(io) => {
                    connection::serve(io, routes, limits, watcher, &metrics).await;
                }
            }
            drop(place);
        });
    }
    // Before the connections: from now on new clients find the next process, or nobody.
    drop(listener);
    let mut told = pin!(graceful.shutdown());
    let mut all_told = false;
    loop {
        tokio::select! {
            () = &mut told, if !all_told => all_told = true,
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return,
            },
        }
    }
}

/// The next connection and its place among `max_connections`. Cancel-safe.
async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, Stream, Peer) {
    let mut pause = FIRST_PAUSE;
    let place = match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        // Nobody closes it.
        Err(_) => std::future::pending().await,
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (place, stream, peer),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                // Out of descriptors or memory: the connection stays in the backlog, and accept
                // fails again at once until something is freed.
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// accept(2), "Error handling": Linux passes pending network errors of the new socket on.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::Interrupted
            | K::TimedOut
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

#[cfg(test)]
mod tests {
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
    use crate::http::{
        Listen, Settings,
        listener::{BindError, LocalAddr},
    };

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(250);
    /// Far beyond what a test waits for; only a failing one gets there.
    const PATIENCE: Duration = Duration::from_secs(20);
    const GET: &[u8] = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

    static ZEROS: [u8; 65536] = [0; 65536];

    fn tcp(host: &str) -> Listen {
        Listen::Tcp { host: host.to_owned(), port: 0 }
    }

    fn settings(header: Duration, idle: Duration, max_connections: usize) -> Settings {
        Settings {
            listen: tcp("127.0.0.1"),
            max_body_size: 1024,
            max_connections,
            header_timeout: header,
            idle_timeout: idle,
            min_rate: 0,
            trusted_proxies: Vec::new(),
        }
    }

    struct Served {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        ended: JoinHandle<()>,
    }

    async fn start(router: Router, settings: Settings) -> Served {
        let (listener, address) = bind(&settings).await;
        serve_at(listener, address, router, settings)
    }

    /// With a client whose first request is there before the server looks: it is in time on a slow machine too.
    async fn start_asked(
        request: &[u8],
        router: Router,
        settings: Settings,
    ) -> (Served, TcpStream) {
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
    ) -> Served {
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let (places, limits, metrics) =
                (settings.max_connections, || settings.limits(), Arc::default());
            let stopped = async { stopped.await.unwrap_or(()) };
            let service = |_| TowerToHyperService::new(router.clone());
            serve(listener, service, places, limits, &metrics, stopped).await;
        });
        Served { address, stop, ended }
    }

    fn hello() -> Router {
        Router::new().route("/hello", get(|| async { "hello" }))
    }

    async fn within<T>(work: impl Future<Output = T>) -> T {
        timeout(PATIENCE, work).await.expect("it takes too long")
    }

    /// Reads until the body `hello` ends an answer.
    async fn read_hello(client: &mut (impl AsyncReadExt + Unpin)) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(within(client.read_buf(&mut answer)).await.unwrap(), 0, "{answer:?}");
        }
        String::from_utf8(answer).unwrap()
    }

    /// Reads until the server closes; what came.
    async fn read_to_end(client: &mut (impl AsyncReadExt + Unpin)) -> usize {
        let mut came = Vec::new();
        // A reset is an end as well.
        let _ = within(client.read_to_end(&mut came)).await;
        came.len()
    }

    #[tokio::test]
    async fn beyond_the_limit_a_connection_waits_for_another_to_end() {
        let served = start(hello(), settings(LONG, LONG, 1)).await;
        let mut first = TcpStream::connect(served.address).await.unwrap();
        first.write_all(GET).await.unwrap();
        read_hello(&mut first).await;
        let mut second = TcpStream::connect(served.address).await.unwrap();
        second.write_all(GET).await.unwrap();
        let early = timeout(SHORT, second.read_u8()).await;
        assert!(early.is_err(), "it was served beside the first");
        drop(first);
        read_hello(&mut second).await;
    }

    #[tokio::test]
    async fn a_header_that_drips_is_cut_though_bytes_keep_coming() {
        let (_served, mut client) = start_asked(GET, hello(), settings(SHORT, LONG, 9)).await;
        // A first request is answered; the second one's header never ends.
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
            () = sleep(PATIENCE) => panic!("it was not cut"),
        }
    }

    #[tokio::test]
    async fn a_header_that_begins_behind_a_request_is_cut() {
        for (header, idle) in [(SHORT, LONG), (LONG, SHORT)] {
            let begun = [GET, b"GET /hello HTTP/1.1\r\n"].concat();
            let (_served, mut client) =
                start_asked(&begun, hello(), settings(header, idle, 9)).await;
            read_hello(&mut client).await;
            // hyper has its first bytes already: a wait between two requests, until there are more.
            if idle == LONG {
                client.write_all(b"x: y\r\n").await.unwrap();
            }
            assert_eq!(read_to_end(&mut client).await, 0);
        }
    }

    #[tokio::test]
    async fn a_request_that_came_whole_behind_a_slow_answer_is_answered() {
        // Beyond what the sockets hold of it.
        let large = || async { Bytes::from(vec![b'.'; 32 << 20]) };
        let router = hello().route("/large", get(large));
        let first = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
        let (_served, mut client) = start_asked(first, router, settings(SHORT, LONG, 9)).await;
        assert_eq!(within(client.read_u8()).await.unwrap(), b'H');
        client.write_all(GET).await.unwrap();
        sleep(SHORT * 4).await;
        read_hello(&mut client).await;
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut() {
        let served = start(hello(), settings(SHORT, LONG, 9)).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(read_to_end(&mut client).await, 0);
    }

    #[tokio::test]
    async fn an_idle_connection_is_cut_by_its_own_limit() {
        let served = start(hello(), settings(LONG, SHORT, 9)).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;
        assert_eq!(read_to_end(&mut client).await, 0);
    }

    #[tokio::test]
    async fn a_connection_may_rest_longer_than_a_header_may_take() {
        let (_served, mut client) = start_asked(GET, hello(), settings(SHORT, LONG, 9)).await;
        read_hello(&mut client).await;
        assert!(timeout(SHORT * 4, client.read_u8()).await.is_err(), "it was cut");
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;
        assert!(timeout(SHORT * 4, client.read_u8()).await.is_err(), "it was cut");
    }

    #[tokio::test]
    async fn a_client_may_wait_for_its_answer_in_silence() {
        let router = Router::new().route(
            "/hello",
            get(|| async {
                sleep(SHORT * 4).await;
                "hello"
            }),
        );
        let (_served, mut client) = start_asked(GET, router, settings(SHORT, SHORT, 9)).await;
        read_hello(&mut client).await;
    }

    #[tokio::test]
    async fn a_reader_that_stalls_is_cut() {
        let (dropped, mut was_dropped) = mpsc::channel::<()>(1);
        let router = Router::new().route(
            "/hello",
            get(move || async move {
                let endless = stream::repeat_with(move || {
                    let _held = &dropped;
                    Ok::<_, io::Error>(Bytes::from_static(&ZEROS))
                });
                Body::from_stream(endless)
            }),
        );
        let served = start(router, settings(LONG, SHORT, 9)).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(GET).await.unwrap();
        // The router's own copy keeps the channel open: it goes with the server.
        drop(served.stop);
        assert_eq!(within(was_dropped.recv()).await, None, "the body is still being written");
        within(served.ended).await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_server_ends() {
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
        let served = start(router, settings(LONG, LONG, 9)).await;
        let mut idle = TcpStream::connect(served.address).await.unwrap();
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(GET).await.unwrap();
        within(has_entered.recv()).await.unwrap();
        served.stop.send(()).unwrap();
        assert_eq!(read_to_end(&mut idle).await, 0);
        let mut refused = false;
        while !refused {
            refused = TcpStream::connect(served.address).await.is_err();
        }
        assert!(!served.ended.is_finished());
        release.send(()).unwrap();
        let answer = read_hello(&mut client).await;
        assert!(answer.contains("connection: close"), "{answer}");
        within(served.ended).await.unwrap();
    }

    #[tokio::test]
    async fn a_304_tells_no_length_and_the_connection_goes_on() {
        // axum says 0 for the empty body, which is not the length of what the client has.
        let known = || async { StatusCode::NOT_MODIFIED };
        let served = start(hello().route("/known", get(known)), settings(LONG, LONG, 9)).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(b"GET /known HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.write_all(GET).await.unwrap();
        let answers = read_hello(&mut client).await;
        let (first, second) = answers.split_once("\r\n\r\n").unwrap();
        assert!(!first.contains("content-length"), "{first}");
        assert!(second.starts_with("HTTP/1.1 200"), "{second}");
    }

    #[tokio::test]
    async fn dropping_the_server_cuts_its_connections() {
        let router = Router::new().route("/hello", get(std::future::pending::<&str>));
        let served = start(router, settings(LONG, LONG, 9)).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(GET).await.unwrap();
        served.ended.abort();
        assert_eq!(read_to_end(&mut client).await, 0);
    }

    #[tokio::test]
    async fn ipv6_and_dual_addresses_listen() {
        if Listener::bind(&tcp("::1")).await.is_err() {
            return; // A machine without IPv6.
        }
        let on = |host: &str| Settings { listen: tcp(host), ..settings(LONG, LONG, 9) };
        let served = start(hello(), on("[::1]")).await;
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;

        let served = start(hello(), on("::")).await;
        for host in [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()] {
            let address = SocketAddr::new(host, served.address.port());
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(GET).await.unwrap();
            read_hello(&mut client).await;
        }
    }

    async fn serve_on(path: &Path) -> Result<(oneshot::Sender<()>, JoinHandle<()>), BindError> {
        let settings =
            Settings { listen: Listen::Unix(path.to_owned()), ..settings(LONG, LONG, 9) };
        let listener = Listener::bind(&settings.listen).await?;
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let (places, limits, metrics) =
                (settings.max_connections, || settings.limits(), Arc::default());
            let stopped = async { stopped.await.unwrap_or(()) };
            let routes = |_| TowerToHyperService::new(hello());
            serve(listener, routes, places, limits, &metrics, stopped).await;
        });
        Ok((stop, ended))
    }

    #[tokio::test]
    async fn a_unix_socket_replaces_a_stale_one_and_goes_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale socket");

        let (stop, ended) = serve_on(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;

        assert!(matches!(serve_on(&path).await, Err(BindError::Bind { .. })), "it is alive");
        client.write_all(GET).await.unwrap();
        read_hello(&mut client).await;

        stop.send(()).unwrap();
        within(ended).await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(serve_on(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_listener_made_elsewhere_is_served() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::from_std_tcp(listener).unwrap();
        let (limits, metrics) = (|| settings(LONG, LONG, 9).limits(), Arc::default());
        let routes = |_| TowerToHyperService::new(hello());
        let server = serve(listener, routes, 9, limits, &metrics, std::future::pending());
        let client = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(GET).await.unwrap();
            read_hello(&mut client).await
        };
        tokio::select! {
            () = server => panic!("it ended"),
            _ = client => {}
        }
    }
}
