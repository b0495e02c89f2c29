//! Load on a server, over connections that stay open, and what came of it. Every answer is looked at: one with another
//! status or length than expected ends the measurement.

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

/// More than any answer has.
const MAX_HEADERS: usize = 32;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Requests, each whole as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Requests {
    all: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    until: Option<Instant>,
}

impl Requests {
    /// Each of these once.
    pub(crate) fn once(all: Vec<Vec<u8>>) -> Self {
        Self { all: Arc::new(all), next: Arc::default(), until: None }
    }

    /// The same one again and again, for so long.
    pub(crate) fn repeated(request: Vec<u8>, time: Duration) -> Self {
        let until = Some(Instant::now() + time);
        Self { all: Arc::new(vec![request]), next: Arc::default(), until }
    }

    fn next(&self) -> Option<&[u8]> {
        let place = match self.until {
            Some(until) => (Instant::now() < until).then_some(0)?,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        self.all.get(place).map(Vec::as_slice)
    }
}

/// What an answer with status 200 has to be.
#[derive(Clone, Copy)]
pub(crate) enum Expect {
    /// So many bytes.
    Length(u64),
    /// With this in it.
    Text(&'static str),
}

/// What came of it.
pub(crate) struct Outcome {
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Of each request, sorted, seconds.
    pub(crate) latencies: Vec<f64>,
}

impl Outcome {
    /// Of requests that took so many seconds, one after another.
    pub(crate) fn of(mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        Self { took: Duration::from_secs_f64(latencies.iter().sum()), latencies }
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// Milliseconds within which this share of the answers came.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let place = self.latencies.len() * percent / 100;
        self.latencies[place.min(self.latencies.len() - 1)] * 1000.0
    }
}

/// A GET of this path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A POST of this JSON to this path.
pub(crate) fn post(path: &str, json: &str) -> Vec<u8> {
    let length = json.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{json}")
        .into_bytes()
}

/// Sends all, over so many connections.
pub(crate) async fn run(
    to: SocketAddr,
    connections: usize,
    requests: &Requests,
    expect: Expect,
) -> Outcome {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(to).await);
    }
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for mut connection in opened {
        let requests = requests.clone();
        running.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(request) = requests.next() {
                latencies.push(connection.ask(request, expect).await);
            }
            latencies
        });
    }
    let latencies = running.join_all().await.into_iter().flatten().collect();
    Outcome { took: begin.elapsed(), ..Outcome::of(latencies) }
}

/// One connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 128 * 1024] }
    }

    /// Sends a request, reads its answer; gives the seconds between.
    pub(crate) async fn ask(&mut self, request: &[u8], expect: Expect) -> f64 {
        let begin = Instant::now();
        let answered = tokio::time::timeout(PATIENCE, self.exchange(request, expect));
        answered.await.expect("an answer in time");
        begin.elapsed().as_secs_f64()
    }

    /// Sends a request, reads its answer whole, whatever it is.
    pub(crate) async fn answer(&mut self, request: &[u8]) -> Answer {
        let answered = tokio::time::timeout(PATIENCE, async {
            let Head { status, length, begun } = self.head(request).await;
            let head = self.text(..begun.start).into_owned();
            let mut body = self.buffer[begun].to_vec();
            let have = body.len();
            body.resize(usize::try_from(length).unwrap(), 0);
            self.stream.read_exact(&mut body[have..]).await.unwrap();
            Answer { status, head, body }
        });
        answered.await.expect("an answer in time")
    }

    /// Sends a request, waits until its answer begins.
    pub(crate) async fn begin(&mut self, request: &[u8]) {
        self.head(request).await;
    }

    /// Sends a request and reads the head of its answer.
    async fn head(&mut self, request: &[u8]) -> Head {
        self.stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the connection was closed");
            filled += read;
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            if let Status::Complete(end) = head.parse(&self.buffer[..filled]).unwrap() {
                let status = head.code.unwrap();
                let mut headers = head.headers.iter();
                let length = headers.find(|it| it.name.eq_ignore_ascii_case("content-length"));
                let length = str::from_utf8(length.expect("a length").value).unwrap();
                let length = length.parse().unwrap();
                assert!((filled - end) as u64 <= length, "one answer");
                return Head { status, length, begun: end..filled };
            }
        }
    }

    async fn exchange(&mut self, request: &[u8], expect: Expect) {
        let Head { status, length, begun } = self.head(request).await;
        assert_eq!(status, 200, "{}", self.text(..begun.end));
        match expect {
            Expect::Length(expected) => {
                assert_eq!(length, expected);
                let mut left = length - begun.len() as u64;
                while left > 0 {
                    let read = self.stream.read(&mut self.buffer).await.unwrap() as u64;
                    assert!(read > 0, "the connection was closed");
                    left = left.checked_sub(read).expect("one answer");
                }
            }
            Expect::Text(text) => {
                let whole = begun.start + usize::try_from(length).unwrap();
                self.stream.read_exact(&mut self.buffer[begun.end..whole]).await.unwrap();
                let body = self.text(begun.start..whole);
                assert!(body.contains(text), "{body}");
            }
        }
    }

    /// What lies there in the buffer, to be shown.
    fn text(&self, place: impl SliceIndex<[u8], Output = [u8]>) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.buffer[place])
    }
}

/// How an answer begins: what its head says, and where in the buffer, behind that, its first bytes are.
struct Head {
    status: u16,
    length: u64,
    begun: Range<usize>,
}

/// A whole one.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }
}
