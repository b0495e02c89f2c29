//! Clients of the soak test: they request new media (plain, encrypted and large) and cached media, or disconnect early.
//! Each checks its responses: the expected bytes, the expected verdict, or a 503 with `Retry-After`.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::super::API;
use crate::{
    files::MediaFile,
    load::{FullResponse, LoadConnection, get, post},
};

const PLAIN: usize = 288;
const ENCRYPTED: usize = 64;
const LARGE: usize = 8;
/// Number of clients that request new media, each with one request at a time.
pub(super) const ASKING: usize = PLAIN + ENCRYPTED + LARGE;
/// Number of clients that disconnect while they wait or during a large download.
const DISCONNECTING: usize = 8;
const DISCONNECT_AFTER: Duration = Duration::from_millis(100);
/// Number of clients that request cached media.
const CACHED: usize = 16;
const CACHED_PAUSE: Duration = Duration::from_millis(20);
/// Pause before a rejected request is retried. Much shorter than `Retry-After`.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Media that the clients request.
pub(super) struct SoakMedia {
    /// Directory of the files.
    pub(super) directory: PathBuf,
    pub(super) plain: Vec<MediaFile>,
    pub(super) encrypted: Vec<MediaFile>,
    pub(super) large: Vec<MediaFile>,
    pub(super) cached: Vec<MediaFile>,
}

/// Returns whether the file with this index is infected. One in ten is.
pub(super) fn is_infected(index: usize) -> bool {
    index % 20 < 2
}

/// Returns the seed of the encryption key for the file with this index.
pub(super) fn seed(index: usize) -> u8 {
    u8::try_from(index % 251).unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestKind {
    Plain,
    Encrypted,
    Large,
    Cached,
}

/// A correct response.
#[derive(Clone, Copy)]
pub(super) struct ObservedResponse {
    /// Time of the response in seconds since the start.
    pub(super) at: f64,
    pub(super) kind: RequestKind,
    /// Whether the response is a 503.
    pub(super) rejected: bool,
    /// Seconds.
    pub(super) latency: f64,
}

impl ObservedResponse {
    pub(super) fn is_within(&self, begin: f64, duration: f64) -> bool {
        (begin..begin + duration).contains(&self.at)
    }
}

#[derive(Clone, Default)]
pub(super) struct FailureLog {
    pub(super) count: usize,
    pub(super) examples: Vec<String>,
}

/// Responses that all clients have received.
pub(super) struct ResponseLog {
    begin: Instant,
    duration: Duration,
    responses: Mutex<Vec<ObservedResponse>>,
    failures: Mutex<FailureLog>,
    disconnects: AtomicUsize,
    /// Number of requests of each [`RequestKind`].
    requests: [AtomicUsize; 4],
}

impl ResponseLog {
    /// Creates the log of a load that runs for `duration` from now on.
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            begin: Instant::now(),
            duration,
            responses: Mutex::default(),
            failures: Mutex::default(),
            disconnects: AtomicUsize::new(0),
            requests: Default::default(),
        }
    }

    pub(super) fn responses(&self) -> Vec<ObservedResponse> {
        self.responses.lock().unwrap().clone()
    }

    pub(super) fn failures(&self) -> FailureLog {
        self.failures.lock().unwrap().clone()
    }

    pub(super) fn disconnects(&self) -> usize {
        self.disconnects.load(Ordering::Relaxed)
    }

    /// Returns the latencies of accepted requests for new media within a time span, in seconds.
    pub(super) fn accepted(&self, begin: f64, duration: f64) -> Vec<f64> {
        let responses = self.responses.lock().unwrap();
        let matching = responses.iter().filter(|response| {
            !response.rejected
                && response.kind != RequestKind::Cached
                && response.is_within(begin, duration)
        });
        matching.map(|response| response.latency).collect()
    }

    fn is_over(&self) -> bool {
        self.begin.elapsed() >= self.duration
    }

    /// Returns the next file of this kind, cyclically, and its index.
    fn next_file<'media>(
        &self,
        kind: RequestKind,
        media: &'media [MediaFile],
    ) -> (usize, &'media MediaFile) {
        let index = self.requests[kind as usize].fetch_add(1, Ordering::Relaxed) % media.len();
        (index, &media[index])
    }

    /// Records a response. Returns whether it is a rejection.
    fn record(
        &self,
        kind: RequestKind,
        begin: Instant,
        response: &FullResponse,
        is_correct: bool,
    ) -> bool {
        let retry_after = response.header("retry-after");
        let rejected = response.status == 503
            && retry_after.is_some_and(|value| value.parse::<u32>().is_ok())
            && response.body_contains("\"reason\":\"M_UNKNOWN\"");
        if is_correct || rejected {
            let at = self.begin.elapsed().as_secs_f64();
            let latency = begin.elapsed().as_secs_f64();
            let observed = ObservedResponse { at, kind, rejected, latency };
            self.responses.lock().unwrap().push(observed);
        } else {
            let mut failures = self.failures.lock().unwrap();
            failures.count += 1;
            if failures.examples.len() < 10 {
                let body = &response.body[..response.body.len().min(200)];
                let body = String::from_utf8_lossy(body);
                failures.examples.push(format!("{kind:?}: {}{body}", response.head));
            }
        }
        rejected
    }
}

/// Runs all clients until the time is over and each has its response.
pub(super) async fn run(to: SocketAddr, media: &SoakMedia, log: &ResponseLog) {
    let all = (0..ASKING).map(|number| match number {
        0..PLAIN => RequestKind::Plain,
        number if number < PLAIN + ENCRYPTED => RequestKind::Encrypted,
        _ => RequestKind::Large,
    });
    let new = join_all(all.map(|kind| request_repeatedly(to, media, log, kind)));
    let cached = (0..CACHED).map(|_| request_repeatedly(to, media, log, RequestKind::Cached));
    let cached = join_all(cached);
    let disconnecting = (0..DISCONNECTING).map(|number| disconnect(to, media, log, number));
    let disconnecting = join_all(disconnecting);
    tokio::join!(new, cached, disconnecting);
}

async fn request_repeatedly(
    to: SocketAddr,
    media: &SoakMedia,
    log: &ResponseLog,
    kind: RequestKind,
) {
    let mut connection = LoadConnection::open(to).await;
    let (mut request, mut index, mut file) = next(media, log, kind);
    while !log.is_over() {
        let begin = Instant::now();
        let response = connection.fetch(&request.text).await;
        let is_correct = match request.expected {
            ExpectedResponse::Verdict => {
                let verdict = if is_infected(index) { "\"clean\":false" } else { "\"clean\":true" };
                response.status == 200 && response.body_contains(verdict)
            }
            ExpectedResponse::NotClean => {
                response.status == 403 && response.body_contains("MCS_MEDIA_NOT_CLEAN")
            }
            ExpectedResponse::Bytes => {
                response.status == 200
                    && response.body == fs::read(media.directory.join(&file.name)).unwrap()
            }
        };
        if log.record(kind, begin, &response, is_correct) {
            // Retries the same request.
            sleep(PAUSE).await;
            continue;
        }
        if kind == RequestKind::Cached {
            sleep(CACHED_PAUSE).await;
        }
        (request, index, file) = next(media, log, kind);
    }
}

enum ExpectedResponse {
    Verdict,
    Bytes,
    /// An error instead of the bytes.
    NotClean,
}

struct SoakRequest {
    text: Vec<u8>,
    expected: ExpectedResponse,
}

fn next<'media>(
    media: &'media SoakMedia,
    log: &ResponseLog,
    kind: RequestKind,
) -> (SoakRequest, usize, &'media MediaFile) {
    let files = match kind {
        RequestKind::Plain => &media.plain,
        RequestKind::Encrypted => &media.encrypted,
        RequestKind::Large => &media.large,
        RequestKind::Cached => &media.cached,
    };
    let (index, file) = log.next_file(kind, files);
    let path = file.mxc_path();
    let (text, expected) = match kind {
        RequestKind::Plain => (get(&format!("{API}/scan/{path}")), ExpectedResponse::Verdict),
        RequestKind::Encrypted if index.is_multiple_of(2) => {
            let body = file.encrypted_body(seed(index));
            (post(&format!("{API}/scan_encrypted"), &body), ExpectedResponse::Verdict)
        }
        RequestKind::Encrypted => {
            let expected = if is_infected(index) {
                ExpectedResponse::NotClean
            } else {
                ExpectedResponse::Bytes
            };
            let body = file.encrypted_body(seed(index));
            (post(&format!("{API}/download_encrypted"), &body), expected)
        }
        RequestKind::Large | RequestKind::Cached => {
            (get(&format!("{API}/download/{path}")), ExpectedResponse::Bytes)
        }
    };
    (SoakRequest { text, expected }, index, file)
}

/// Disconnects while waiting (even numbers) or at the first bytes of a large file (odd numbers).
async fn disconnect(to: SocketAddr, media: &SoakMedia, log: &ResponseLog, number: usize) {
    while !log.is_over() {
        let mut connection = LoadConnection::open(to).await;
        if number.is_multiple_of(2) {
            let (request, ..) = next(media, log, RequestKind::Plain);
            let _timed_out = timeout(DISCONNECT_AFTER, connection.begin(&request.text)).await;
        } else {
            let (request, ..) = next(media, log, RequestKind::Large);
            connection.begin(&request.text).await;
        }
        drop(connection);
        log.disconnects.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
}
