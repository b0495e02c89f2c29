//! Fuzz target: parses any bytes as a server's response and checks invariants. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use std::{
    io,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

use crate::{
    answer::{Answer, FindingKind, IcapReply},
    connection::Connection,
    content::Content,
    error::IcapError,
    request::{IcapService, Method},
    response::Exchange,
    transport::{Transport, Unread},
};

const MEDIA: &[u8] = b"some media, not small and not large";

/// Behaviour of a server, except its response.
#[derive(Clone, Copy)]
struct Behaviour {
    method: Method,
    preview: Option<u64>,
    /// Maximum number of bytes per read of the client.
    read_size: usize,
    /// Number of request bytes that the server accepts before it closes that direction.
    write_limit: usize,
}

/// Checks one input: four bytes that determine a server's behaviour, and the server's response.
///
/// # Panics
/// If an invariant is violated.
pub fn check(input: &[u8]) {
    let Some(([flags, preview, read_size, write_limit], response)) = input.split_first_chunk::<4>()
    else {
        return;
    };
    let media = if flags & 1 == 0 { MEDIA } else { b"" };
    let behaviour = Behaviour {
        method: if flags & 2 == 0 { Method::Respmod } else { Method::Reqmod },
        preview: (flags & 4 != 0).then_some((*preview).into()),
        read_size: usize::from(*read_size).max(1),
        write_limit: if flags & 8 == 0 { usize::MAX } else { 4 * usize::from(*write_limit) },
    };
    let in_pieces = scan(media, response, behaviour);
    let at_once = scan(media, response, Behaviour { read_size: usize::MAX, ..behaviour });
    for result in [&in_pieces, &at_once] {
        let is_lost = matches!(result, Err(IcapError::ConnectionLost(_)));
        assert!(!is_lost || !has_line(response, is_infection), "missed an infection");
    }
    for result in [&in_pieces, &at_once].into_iter().flatten() {
        let is_clean = result.result.answer == Answer::Clean;
        assert!(!result.reusable || is_clean, "reused a connection with unread data");
        assert!(!is_clean || !names_finding(response), "clean despite a named finding");
        let mut kinds = result.result.answer.findings().map(|finding| finding.kind);
        let may_pass = !is_clean && !kinds.any(FindingKind::is_final);
        assert!(!may_pass || !has_line(response, is_infection), "hides an infection");
        let is_justified = is_unmodified(response) || contains_in_order(response, media);
        assert!(!is_clean || is_justified, "clean without 204 and without the file");
    }
    // Read boundaries may only determine whether data after a complete response is detected.
    match (in_pieces, at_once) {
        (Ok(first), Ok(second)) => assert_eq!(first.result.answer, second.result.answer),
        (Err(_), Err(_)) => {}
        (Ok(result), Err(failure)) | (Err(failure), Ok(result)) => {
            let is_excess = matches!(failure, IcapError::BadResponse(_));
            let answer = result.result.answer;
            assert!(!answer.is_valid_if_incomplete() && is_excess, "{answer:?}, {failure}");
        }
    }
    let options = connect(media, response, behaviour, async |connection| {
        connection.options(&service(behaviour.method)).await
    });
    let preview = options.ok().and_then(|options| options.result.preview);
    assert!(preview.is_none_or(|length| length <= 64 * 1024), "a preview of {preview:?} bytes");
}

fn scan(
    media: &'static [u8],
    response: &[u8],
    behaviour: Behaviour,
) -> Result<Exchange<IcapReply>, IcapError> {
    let Behaviour { method, preview, .. } = behaviour;
    connect(media, response, behaviour, async |connection| {
        connection.scan(&service(method), preview, &media).await
    })
}

/// Runs `exchange` on a connection to a server with this response and behaviour.
fn connect<T>(
    media: &'static [u8],
    response: &[u8],
    behaviour: Behaviour,
    exchange: impl AsyncFnOnce(&mut Connection) -> T,
) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));
    let server = ScriptedServer::new(response, behaviour, media);
    let mut connection = Connection::new(Box::new(server));
    RUNTIME.block_on(exchange(&mut connection))
}

fn service(method: Method) -> IcapService {
    let (uri, authority) = ("icap://a/b".to_owned(), "a".to_owned());
    IcapService { uri, authority, method, user_agent: "fuzz" }
}

impl Content for &'static [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    async fn read_chunk(&self, offset: u64, max: u64) -> io::Result<Bytes> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        let length = usize::try_from(max).unwrap_or(usize::MAX).min(rest.len());
        Ok(Bytes::from_static(rest.get(..length).unwrap_or_default()))
    }
}

/// Headers that name a virus or a block.
const NAMES: [&str; 9] = [
    "x-virus-id",
    "x-virus-name",
    "x-infection-found",
    "x-violations-found",
    "x-block-reason",
    "x-blocked-reason",
    "x-blocked",
    "x-fsecure-infection-name",
    "x-fsecure-scan-result",
];

/// Values of these headers that report no finding.
const NOTHING: [&str; 8] = ["", "0", "no", "none", "false", "clean", "no threat", "no threats"];

/// Returns whether a head has a header that names a finding.
fn names_finding(response: &[u8]) -> bool {
    has_line(response, is_finding)
}

/// Returns whether a head, up to the final one after "100 Continue", has such a line.
fn has_line(mut response: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    while let Some(end) = head_end(response) {
        let (head, rest) = response.split_at(end);
        if head.split(|byte| *byte == b'\n').any(&is_wanted) {
            return true;
        }
        if !is_continue(head) {
            break;
        }
        response = rest;
    }
    false
}

/// Parts of names that report something other than an infection.
const OTHER_NAMES: [&str; 6] =
    ["encrypted", "password", "exceeded", "heuristics", "violation", "type"];

/// Returns whether a line names an infection.
fn is_infection(line: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(line).to_lowercase();
    let is_name = ["x-virus-id:", "x-virus-name:", "x-infection-found:"]
        .iter()
        .any(|header| lower.starts_with(header));
    is_name && is_finding(line) && !OTHER_NAMES.iter().any(|part| lower.contains(part))
}

fn is_finding(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let is_equal = |word: &&str, bytes: &[u8]| word.as_bytes().eq_ignore_ascii_case(bytes);
    if is_equal(&"x-response-info", name) {
        return value.eq_ignore_ascii_case(b"blocked");
    }
    NAMES.iter().any(|word| is_equal(word, name))
        && !NOTHING.iter().any(|word| is_equal(word, value))
}

fn head_end(response: &[u8]) -> Option<usize> {
    response.windows(4).position(|end| end == b"\r\n\r\n").map(|start| start + 4)
}

fn is_continue(head: &[u8]) -> bool {
    head.starts_with(b"ICAP/1.") && head.get(8..12) == Some(b" 100")
}

fn is_unmodified(response: &[u8]) -> bool {
    response.windows(12).any(|line| line.starts_with(b"ICAP/1.") && line.ends_with(b" 204"))
}

/// Returns whether the response contains the bytes of the file in order, possibly with others in between.
fn contains_in_order(response: &[u8], media: &[u8]) -> bool {
    let mut response = response.iter();
    media.iter().all(|byte| response.any(|other| other == byte))
}

/// The server's side of one connection. It sends its response after it has received the request, or the preview. After
/// "100 Continue" it sends the rest after it has received the rest of the file.
struct ScriptedServer {
    response: Vec<u8>,
    sent: usize,
    /// Length of the part that is sent before the rest of the file is received.
    pause_at: usize,
    read_size: usize,
    write_limit: usize,
    flushes: usize,
    waker: Option<Waker>,
}

impl ScriptedServer {
    fn new(response: &[u8], behaviour: Behaviour, media: &[u8]) -> Self {
        let has_rest = behaviour.preview.is_some_and(|preview| preview < media.len() as u64);
        let pause_at = head_end(response).filter(|_| has_rest && is_continue(response));
        Self {
            response: response.to_vec(),
            sent: 0,
            pause_at: pause_at.unwrap_or(response.len()),
            read_size: behaviour.read_size,
            write_limit: behaviour.write_limit,
            flushes: 0,
            waker: None,
        }
    }

    /// Counts flushes of the client and wakes its reader.
    fn advance(&mut self, flushes: usize) {
        self.flushes = self.flushes.saturating_add(flushes);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for ScriptedServer {
    fn unread(&self) -> Unread {
        Unread::Nothing
    }
}

impl AsyncRead for ScriptedServer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = match self.flushes {
            0 => 0,
            1 => self.pause_at,
            _ => self.response.len(),
        };
        if self.sent == end && end < self.response.len() {
            self.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = self.read_size.min(buffer.remaining()).min(end - self.sent);
        let bytes = self.response.get(self.sent..self.sent + length).unwrap_or_default();
        buffer.put_slice(bytes);
        self.sent += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ScriptedServer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(self.write_limit);
        self.write_limit -= length;
        if length == 0 {
            self.advance(2);
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.advance(1);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("icap", check);
}
