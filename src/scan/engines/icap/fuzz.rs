//! Any bytes as a server's answer, and what holds whatever they are. `fuzz/` looks for bytes that break it;
//! those that it has kept are tried by each run of the tests.

#![expect(clippy::expect_used, reason = "a panic is how an input is told to break something")]

use std::{
    io,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

use super::{
    super::{EngineFailure, Finding, specimen::Specimen},
    exchange::{Connection, Method, Told},
};

const MEDIA: &[u8] = b"some media, not small and not large";

/// How a server behaves, beside what it says.
#[derive(Clone, Copy)]
struct Manner {
    method: Method,
    preview: Option<u64>,
    /// Bytes that come at a time.
    pieces: usize,
    /// Bytes of the request that it takes before it closes that direction.
    takes: usize,
}

/// Tries an input: what its first four bytes say of a server, and that server's answer.
///
/// # Panics
/// Where something does not hold.
pub fn answer(input: &[u8]) {
    let Some(([flags, preview, pieces, takes], answer)) = input.split_first_chunk::<4>() else {
        return;
    };
    let media = if flags & 1 == 0 { MEDIA } else { b"" };
    let manner = Manner {
        method: if flags & 2 == 0 { Method::Respmod } else { Method::Reqmod },
        preview: (flags & 4 != 0).then_some((*preview).into()),
        pieces: usize::from(*pieces).max(1),
        takes: if flags & 8 == 0 { usize::MAX } else { 4 * usize::from(*takes) },
    };
    let in_pieces = scanned(media, answer, manner);
    let at_once = scanned(media, answer, Manner { pieces: usize::MAX, ..manner });
    for result in [&in_pieces, &at_once] {
        let unheard = matches!(result, Err(EngineFailure::CutShort(_)));
        assert!(!unheard || !names_a_finding(answer), "what was found was said, and not heard");
    }
    for told in [&in_pieces, &at_once].into_iter().flatten() {
        let is_clean = told.finding == Finding::Clean;
        assert!(!told.reusable || is_clean, "kept after an answer that was not read to its end");
        assert!(!is_clean || !names_a_finding(answer), "clean, and what was found has a name");
        assert!(!is_clean || says_unchanged(answer) || is_within(media, answer), "clean unseen");
    }
    // How the network cuts an answer up decides nothing, but that more behind it may be seen or not.
    match (in_pieces, at_once) {
        (Ok(one), Ok(other)) => assert_eq!(one.finding, other.finding),
        (Err(_), Err(_)) => {}
        (Ok(told), Err(failure)) | (Err(failure), Ok(told)) => {
            let of_more = matches!(failure, EngineFailure::NoSense(_));
            assert!(told.finding == Finding::Clean && of_more, "{:?}, {failure}", told.finding);
        }
    }
    let options = asked(media, answer, manner, async |connection, _| {
        connection.options("icap://a/b", "a", manner.method).await
    });
    let preview = options.ok().and_then(|(options, _)| options.preview);
    assert!(preview.is_none_or(|it| it <= 64 * 1024), "a preview of {preview:?} bytes");
}

fn scanned(media: &'static [u8], answer: &[u8], manner: Manner) -> Result<Told, EngineFailure> {
    let Manner { method, preview, .. } = manner;
    asked(media, answer, manner, async |connection, specimen| {
        connection.scan("icap://a/b", "a", method, preview, specimen).await
    })
}

/// What comes of asking a server of this manner.
fn asked<T>(
    media: &'static [u8],
    answer: &[u8],
    manner: Manner,
    ask: impl AsyncFnOnce(&mut Connection, &Specimen) -> T,
) -> T {
    static MADE: OnceLock<(Runtime, [Specimen; 2])> = OnceLock::new();
    let (runtime, [empty, whole]) = MADE.get_or_init(|| {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        (runtime, [b"".as_slice(), MEDIA].map(specimen))
    });
    let script = Scripted::of(answer, manner, media);
    let mut connection = Connection::new(Box::new(script));
    let specimen = if media.is_empty() { empty } else { whole };
    runtime.block_on(ask(&mut connection, specimen))
}

fn specimen(bytes: &[u8]) -> Specimen {
    let mut file = tempfile::tempfile().expect("a file");
    io::Write::write_all(&mut file, bytes).expect("written");
    Specimen::of(&file).expect("a specimen")
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

/// Values of these that say that nothing was found.
const NOTHING: [&str; 8] = ["", "0", "no", "none", "false", "clean", "no threat", "no threats"];

/// Whether a head up to the answer's own, that of "continue" among them, has a header that names what was found.
fn names_a_finding(mut answer: &[u8]) -> bool {
    while let Some(end) = head_end(answer) {
        let (head, behind) = answer.split_at(end);
        if head.split(|it| *it == b'\n').any(is_finding) {
            return true;
        }
        if !says_continue(head) {
            break;
        }
        answer = behind;
    }
    false
}

fn is_finding(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|it| *it == b':') else { return false };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let is = |one: &&str, other: &[u8]| one.as_bytes().eq_ignore_ascii_case(other);
    if is(&"x-response-info", name) {
        return value.eq_ignore_ascii_case(b"blocked");
    }
    NAMES.iter().any(|it| is(it, name)) && !NOTHING.iter().any(|it| is(it, value))
}

fn head_end(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4)
}

fn says_continue(head: &[u8]) -> bool {
    head.starts_with(b"ICAP/1.") && head.get(8..12) == Some(b" 100")
}

fn says_unchanged(answer: &[u8]) -> bool {
    answer.windows(12).any(|it| it.starts_with(b"ICAP/1.") && it.ends_with(b" 204"))
}

/// Whether the media's bytes are in the answer, in their order.
fn is_within(media: &[u8], answer: &[u8]) -> bool {
    let mut answer = answer.iter();
    media.iter().all(|byte| answer.any(|it| it == byte))
}

/// A server's side of one connection. It says nothing before it has what it is asked about, or the preview of it; and
/// after "continue" nothing before it has the rest.
struct Scripted {
    answer: Vec<u8>,
    said: usize,
    /// Where it waits for the rest.
    pause: usize,
    pieces: usize,
    takes: usize,
    flushes: usize,
    waiting: Option<Waker>,
}

impl Scripted {
    fn of(answer: &[u8], manner: Manner, media: &[u8]) -> Self {
        let in_part = manner.preview.is_some_and(|preview| preview < media.len() as u64);
        let pause = head_end(answer).filter(|_| in_part && says_continue(answer));
        Self {
            answer: answer.to_vec(),
            said: 0,
            pause: pause.unwrap_or(answer.len()),
            pieces: manner.pieces,
            takes: manner.takes,
            flushes: 0,
            waiting: None,
        }
    }

    fn goes_on(&mut self, flushes: usize) {
        self.flushes = self.flushes.saturating_add(flushes);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = match self.flushes {
            0 => 0,
            1 => self.pause,
            _ => self.answer.len(),
        };
        if self.said == end && end < self.answer.len() {
            self.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = self.pieces.min(buffer.remaining()).min(end - self.said);
        let piece = self.answer.get(self.said..self.said + length).unwrap_or_default();
        buffer.put_slice(piece);
        self.said += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(self.takes);
        self.takes -= length;
        if length == 0 {
            self.goes_on(2);
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(1);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[test]
fn what_was_found_by_fuzzing_is_answered_as_it_should_be() {
    super::super::fake::each_of_corpus("icap", answer);
}
