//! Tests of the limit on connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpSocket, sync::Semaphore};

use super::*;

/// Connects from this loopback address.
async fn connect_from(last: u8, server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// Connects and completes one request.
async fn connect_idle(last: u8, server: &TestServer) -> TcpStream {
    let mut client = connect_from(last, server).await;
    client.write_all(GET).await.unwrap();
    read_hello(&mut client).await;
    client
}

/// Returns whether the server has closed the connection.
fn is_closed(client: &TcpStream) -> bool {
    match client.try_read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => panic!("unexpected byte"),
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Completes a request on each connection that the server has not closed. Returns the number of these connections.
async fn count_open(clients: Vec<TcpStream>) -> usize {
    let mut open = 0;
    for mut client in clients {
        if !is_closed(&client) && client.write_all(GET).await.is_ok() {
            read_hello(&mut client).await;
            open += 1;
        }
    }
    open
}

/// Returns the size of the largest table that the process can fill, with both ends of each connection.
fn table_size(wanted: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let available = usize::try_from(hard).unwrap_or(usize::MAX) / 2;
    wanted.min(available.saturating_sub(256))
}

#[tokio::test]
async fn new_client_is_served_among_idle_connections_of_another() {
    let max = table_size(2048);
    let server = start(hello(), settings(LONG, LONG, max)).await;
    let mut others = vec![connect_idle(3, &server).await];
    let mut idle = Vec::new();
    for _ in 0..max + 52 {
        idle.push(connect_idle(1, &server).await);
    }
    for _ in 0..10 {
        others.push(connect_idle(2, &server).await);
    }
    // Each connection beyond the limit has closed the oldest one of the client with the most; no other was closed.
    assert_eq!(count_open(idle).await, max - others.len());
    assert_eq!(count_open(others).await, 11);
}

#[tokio::test]
async fn new_client_is_served_among_half_open_connections() {
    let max = table_size(2048);
    let server = start(hello(), settings(LONG, LONG, max)).await;
    let kept = connect_idle(1, &server).await;
    let mut half_open = Vec::new();
    for sent in [&b""[..], b"GET /hello HTTP/1.1\r\nhost"].into_iter().cycle().take(max + 52) {
        let mut client = connect_from(1, &server).await;
        client.write_all(sent).await.unwrap();
        half_open.push(client);
    }
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(connect_idle(2, &server).await);
    }
    assert_eq!(count_open(others).await, 10);
    assert_eq!(half_open.iter().filter(|client| is_closed(client)).count(), 52 + 1 + 10);
    assert!(!is_closed(&kept), "the same client's idle connection");
}

/// Router with `/wait`, which answers after a permit has been added, and signals its requests.
fn waiting_router() -> (Router, Arc<Semaphore>, mpsc::Receiver<()>) {
    let (entered, has_entered) = mpsc::channel(9);
    let released = Arc::new(Semaphore::new(0));
    let release = Arc::clone(&released);
    let wait = move || async move {
        entered.send(()).await.unwrap();
        released.acquire().await.unwrap().forget();
        "hello"
    };
    (hello().route("/wait", get(wait)), release, has_entered)
}

#[tokio::test]
async fn connections_with_a_request_in_progress_are_not_closed() {
    let (router, release, mut entered) = waiting_router();
    let server = start(router, settings(LONG, LONG, 2)).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = connect_from(1, &server).await;
        client.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        within(entered.recv()).await.unwrap();
        busy.push(client);
    }
    let mut new = connect_from(2, &server).await;
    new.write_all(GET).await.unwrap();
    let early = timeout(SHORT, new.read_u8()).await;
    assert!(early.is_err(), "served while both places had a request in progress");
    release.add_permits(1);
    // The connection of the first completed request gives its place to the new one.
    read_hello(&mut new).await;
    release.add_permits(1);
    for client in &mut busy {
        read_hello(client).await;
    }
    let is_open: Vec<_> = busy.iter().map(|client| !is_closed(client)).collect();
    assert_eq!(is_open, [false, true]);
}

#[tokio::test]
async fn response_that_is_being_written_is_not_cut_off() {
    // Larger than the socket buffers; hyper has all of its bytes before the client reads the first one.
    let large = || async { Bytes::from(vec![b'.'; 32 << 20]) };
    let server = start(hello().route("/large", get(large)), settings(LONG, LONG, 1)).await;
    let mut reader = connect_from(1, &server).await;
    reader.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(within(reader.read_u8()).await.unwrap(), b'H');
    let mut new = connect_from(2, &server).await;
    new.write_all(GET).await.unwrap();
    assert!(timeout(SHORT, new.read_u8()).await.is_err(), "served before the response was read");
    assert!(read_to_end(&mut reader).await > 32 << 20);
    read_hello(&mut new).await;
}
