//! HTTP load generator over keep-alive connections. Every response is checked: an unexpected status or length aborts the
//! measurement.

use std::{
    borrow::Cow,
    net::SocketAddr,
    ops::Range,
    slice::SliceIndex,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use httparse::Status;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Upper bound of response headers.
const MAX_HEADERS: usize = 32;

/// Time after which a response is considered missing.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// Source of serialized requests, shared by all connections.
#[derive(Clone)]
pub(crate) struct RequestSource {
    all: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    until: Option<Instant>,
}

impl RequestSource {
    /// Yields each request once.
    pub(crate) fn once(all: Vec<Vec<u8>>) -> Self {
        Self { all: Arc::new(all), next: Arc::default(), until: None }
    }

    /// Yields the same request repeatedly for `duration`.
    pub(crate) fn repeated(request: Vec<u8>, duration: Duration) -> Self {
        let until = Some(Instant::now() + duration);
        Self { all: Arc::new(vec![request]), next: Arc::default(), until }
    }

    fn next(&self) -> Option<&[u8]> {
        let index = match self.until {
            Some(until) => (Instant::now() < until).then_some(0)?,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        self.all.get(index).map(Vec::as_slice)
    }
}

/// Expected body of a response with status 200.
#[derive(Clone, Copy)]
pub(crate) enum ExpectedBody {
    /// A body of this many bytes.
    Length(u64),
    /// A body that contains this text.
    Text(&'static str),
}

/// Result of a load run.
pub(crate) struct LoadResult {
    /// Time from the first request to the last response.
    pub(crate) elapsed: Duration,
    /// Latency of each request in seconds, sorted.
    pub(crate) latencies: Vec<f64>,
}

impl LoadResult {
    /// Creates the result of sequential requests with these latencies in seconds.
    pub(crate) fn from_latencies(mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        Self { elapsed: Duration::from_secs_f64(latencies.iter().sum()), latencies }
    }

    /// Responses per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Latency percentile in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = self.latencies.len() * percent / 100;
        self.latencies[index.min(self.latencies.len() - 1)] * 1000.0
    }
}

/// Serializes a GET request.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Serializes a POST request with a JSON body.
pub(crate) fn post(path: &str, json: &str) -> Vec<u8> {
    let length = json.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{json}")
        .into_bytes()
}

/// Sends all requests over this many connections.
pub(crate) async fn run(
    to: SocketAddr,
    connections: usize,
    requests: &RequestSource,
    expect: ExpectedBody,
) -> LoadResult {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(LoadConnection::open(to).await);
    }
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for mut connection in opened {
        let requests = requests.clone();
        running.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(request) = requests.next() {
                latencies.push(connection.measure(request, expect).await);
            }
            latencies
        });
    }
    let latencies = running.join_all().await.into_iter().flatten().collect();
    LoadResult { elapsed: begin.elapsed(), ..LoadResult::from_latencies(latencies) }
}

/// Keep-alive connection.
pub(crate) struct LoadConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl LoadConnection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 128 * 1024] }
    }

    /// Sends a request and reads the response. Returns the latency in seconds.
    pub(crate) async fn measure(&mut self, request: &[u8], expect: ExpectedBody) -> f64 {
        let begin = Instant::now();
        let exchange = tokio::time::timeout(RESPONSE_TIMEOUT, self.exchange(request, expect));
        exchange.await.expect("response in time");
        begin.elapsed().as_secs_f64()
    }

    /// Sends a request and reads the complete response, with any status.
    pub(crate) async fn fetch(&mut self, request: &[u8]) -> FullResponse {
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, async {
            let ResponseHead { status, length, body_start } =
                self.send_and_read_head(request).await;
            let head = self.text(..body_start.start).into_owned();
            let mut body = self.buffer[body_start].to_vec();
            let received = body.len();
            body.resize(usize::try_from(length).unwrap(), 0);
            self.stream.read_exact(&mut body[received..]).await.unwrap();
            FullResponse { status, head, body }
        });
        response.await.expect("response in time")
    }

    /// Sends a request and waits until the response begins.
    pub(crate) async fn begin(&mut self, request: &[u8]) {
        self.send_and_read_head(request).await;
    }

    /// Sends a request and reads the head of the response.
    async fn send_and_read_head(&mut self, request: &[u8]) -> ResponseHead {
        self.stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "connection closed");
            filled += read;
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            if let Status::Complete(end) = head.parse(&self.buffer[..filled]).unwrap() {
                let status = head.code.unwrap();
                let mut headers = head.headers.iter();
                let length =
                    headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
                let length = str::from_utf8(length.expect("Content-Length").value).unwrap();
                let length = length.parse().unwrap();
                assert!((filled - end) as u64 <= length, "data after the response");
                return ResponseHead { status, length, body_start: end..filled };
            }
        }
    }

    async fn exchange(&mut self, request: &[u8], expect: ExpectedBody) {
        let ResponseHead { status, length, body_start } = self.send_and_read_head(request).await;
        assert_eq!(status, 200, "{}", self.text(..body_start.end));
        match expect {
            ExpectedBody::Length(expected) => {
                assert_eq!(length, expected);
                let mut remaining = length - body_start.len() as u64;
                while remaining > 0 {
                    let read = self.stream.read(&mut self.buffer).await.unwrap() as u64;
                    assert!(read > 0, "connection closed");
                    remaining = remaining.checked_sub(read).expect("data after the response");
                }
            }
            ExpectedBody::Text(text) => {
                let end = body_start.start + usize::try_from(length).unwrap();
                self.stream.read_exact(&mut self.buffer[body_start.end..end]).await.unwrap();
                let body = self.text(body_start.start..end);
                assert!(body.contains(text), "{body}");
            }
        }
    }

    /// Returns a range of the buffer as text.
    fn text(&self, range: impl SliceIndex<[u8], Output = [u8]>) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.buffer[range])
    }
}

/// Head of a response.
struct ResponseHead {
    status: u16,
    length: u64,
    /// Range of the body's first bytes in the buffer.
    body_start: Range<usize>,
}

/// Complete response.
pub(crate) struct FullResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl FullResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn body_contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }
}
