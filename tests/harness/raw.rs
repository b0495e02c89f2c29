//! Both ends of HTTP written by hand: a homeserver that says what no library would, and a client that
//! dawdles or hangs up.

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

use super::{PATIENCE, client::PREFIX, homeserver::NAME};

/// Answers each request for a media with fixed bytes.
#[derive(Debug)]
pub struct RawServer {
    pub address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, (Bytes, Then)>>>,
    task: JoinHandle<()>,
}

/// What it does after it has answered.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    Close,
    /// The connection stays open, and nothing more comes.
    Hold,
}

impl RawServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answers = Arc::new(Mutex::new(HashMap::new()));
        let said = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(answer(stream, Arc::clone(&said)));
            }
        });
        Self { address, answers, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers so from now on; gives the media's name as `server/id`.
    pub fn says(&self, id: &str, answer: impl Into<Bytes>, then: Then) -> String {
        self.answers.lock().unwrap().insert(id.to_owned(), (answer.into(), then));
        format!("{NAME}/{id}")
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, answers: Arc<Mutex<HashMap<String, (Bytes, Then)>>>) {
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut asked).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&asked).lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let id = path.rsplit('/').next().unwrap_or_default();
    let Some((bytes, then)) = answers.lock().unwrap().get(id).cloned() else { return };
    // The client may close before it has read all.
    let _ = stream.write_all(&bytes).await;
    match then {
        Then::Close => drop(stream.shutdown().await),
        // Until the client closes.
        Then::Hold => drop(stream.read_u8().await),
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Caller(TcpStream);

impl Caller {
    pub async fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    /// Asks for a path below the contract's prefix, with this token.
    pub async fn get(address: &str, path: &str, token: &str) -> Self {
        let mut caller = Self::connect(address).await;
        caller.ask(path, token).await;
        caller
    }

    /// Asks as [`Caller::get`] does, on a socket that holds little: who reads slowly soon keeps the
    /// program waiting.
    pub async fn get_narrowly(address: &str, path: &str, token: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 * 1024).expect("a smaller buffer");
        let address = address.parse().expect("an address");
        let mut caller = Self(socket.connect(address).await.expect("a connection"));
        caller.ask(path, token).await;
        caller
    }

    async fn ask(&mut self, path: &str, token: &str) {
        let head = format!(
            "GET {PREFIX}{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        self.write(head.as_bytes()).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }

    /// Reads at least `length` bytes.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let read = timeout(PATIENCE, self.0.read_buf(&mut bytes)).await.expect("some bytes");
            assert_ne!(read.expect("some bytes"), 0, "closed after {bytes:?}");
        }
        bytes
    }

    /// Reads until the other side closes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _reset_or_closed =
            timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("an end");
        bytes
    }

    /// Whether nothing comes within this time.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.0.read_u8()).await.is_err()
    }

    pub fn hang_up(self) {}
}
