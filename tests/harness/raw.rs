//! Raw HTTP over sockets: a homeserver that sends malformed responses, and a client that is slow or
//! disconnects.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::{TEST_TIMEOUT, client::PREFIX, homeserver::NAME};

/// Server that sends fixed bytes for each media ID.
#[derive(Debug)]
pub struct RawServer {
    pub address: SocketAddr,
    responses: Responses,
    task: JoinHandle<()>,
}

type Responses = Arc<Mutex<HashMap<String, (Bytes, AfterResponse)>>>;

/// Action after the response has been sent.
#[derive(Clone, Copy, Debug)]
pub enum AfterResponse {
    Close,
    /// Keeps the connection open without sending anything more.
    KeepOpen,
}

impl RawServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("local address");
        let responses = Responses::default();
        let shared = Arc::clone(&responses);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(respond(stream, Arc::clone(&shared)));
            }
        });
        Self { address, responses, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the response for a media ID. Returns the media's name as `server/id`.
    pub fn set_response(
        &self,
        id: &str,
        response: impl Into<Bytes>,
        after: AfterResponse,
    ) -> String {
        self.responses.lock().unwrap().insert(id.to_owned(), (response.into(), after));
        format!("{NAME}/{id}")
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(mut stream: TcpStream, responses: Responses) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let id = path.rsplit('/').next().unwrap_or_default();
    let Some((bytes, after)) = responses.lock().unwrap().get(id).cloned() else { return };
    // The client may close before it has read everything.
    let _ = stream.write_all(&bytes).await;
    match after {
        AfterResponse::Close => drop(stream.shutdown().await),
        // Returns when the client closes the connection.
        AfterResponse::KeepOpen => drop(stream.read_u8().await),
    }
}

/// Client connection for hand-written requests.
#[derive(Debug)]
pub struct RawClient(TcpStream);

impl RawClient {
    pub async fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).await.expect("connect"))
    }

    /// Connects and sends GET for a path below the contract's prefix.
    pub async fn get(address: &str, path: &str, token: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.send_get(path, token).await;
        client
    }

    /// Like [`RawClient::get`], with a small receive buffer, so that a slow reader soon blocks the
    /// program's writes.
    pub async fn get_with_small_buffer(address: &str, path: &str, token: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.set_recv_buffer_size(64 * 1024).expect("set buffer size");
        let address = address.parse().expect("socket address");
        let mut client = Self(socket.connect(address).await.expect("connect"));
        client.send_get(path, token).await;
        client
    }

    async fn send_get(&mut self, path: &str, token: &str) {
        let head = format!(
            "GET {PREFIX}{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        self.write(head.as_bytes()).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("send");
    }

    /// Reads at least `length` bytes.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let read = timeout(TEST_TIMEOUT, self.0.read_buf(&mut bytes)).await;
            let count = read.expect("read timed out").expect("read");
            assert_ne!(count, 0, "connection closed after {bytes:?}");
        }
        bytes
    }

    /// Reads until the peer closes the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _reset_or_closed =
            timeout(TEST_TIMEOUT, self.0.read_to_end(&mut bytes)).await.expect("connection closed");
        bytes
    }

    /// Returns whether nothing arrives within this time.
    pub async fn receives_nothing_for(&mut self, time: Duration) -> bool {
        timeout(time, self.0.read_u8()).await.is_err()
    }

    pub fn disconnect(self) {}
}
