//! Fake servers on loopback, and faults that any server may have.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

/// Interval between the bytes of [`Fault::Drip`]: long for loopback, far below every time limit.
const DRIP_INTERVAL: Duration = Duration::from_millis(5);

/// A server. Stops when dropped.
pub struct FakeServer {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// Starts a server on a free port that handles each connection with `handle`.
    pub async fn start<T>(handle: impl Fn(TcpStream) -> T + Send + 'static) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        Self::from_listener(TcpListener::bind("127.0.0.1:0").await.unwrap(), handle)
    }

    pub fn from_listener<T>(
        listener: TcpListener,
        handle: impl Fn(TcpStream) -> T + Send + 'static,
    ) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut handlers = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                handlers.spawn(handle(stream));
            }
        });
        Self { address, connections, task }
    }

    /// Returns the number of accepted connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Stops the server and closes its connections. Returns its address and a bound socket, which keeps the port
    /// reserved and refuses connections until it listens.
    pub async fn stop(mut self) -> (SocketAddr, TcpSocket) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(self.address).unwrap();
        (self.address, reserved)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a server sends a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Sends the whole response.
    None,
    /// Sends the first half.
    Cut,
    /// Sends the first byte again and again, slowly, without end.
    Drip,
    /// Sends nothing.
    Silent,
    /// Sends the response twice.
    Twice,
}

/// Sends a response with a fault.
pub async fn respond(stream: &mut TcpStream, bytes: &[u8], fault: Fault) {
    let result = match fault {
        Fault::None => stream.write_all(bytes).await,
        Fault::Cut => stream.write_all(&bytes[..bytes.len() / 2]).await,
        Fault::Drip => loop {
            if stream.write_all(&bytes[..1]).await.is_err() {
                return;
            }
            tokio::time::sleep(DRIP_INTERVAL).await;
        },
        Fault::Silent => std::future::pending().await,
        Fault::Twice => stream.write_all(&[bytes, bytes].concat()).await,
    };
    // The client may have closed the connection.
    let _ = result;
}

/// Reads until the data ends with `end`, or to the end of the connection. Returns all data.
pub async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        match stream.read_buf(&mut received).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
    }
    received
}

/// Closes the connection after the client has closed its side. Closing with unread data sends a reset, and the client
/// may then lose the response.
pub async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
}

/// Time limit that working servers never exceed.
pub const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for tests in which it expires.
pub const SHORT_TIMEOUT: Duration = Duration::from_millis(200);
