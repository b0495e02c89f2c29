//! One connection: hyper's HTTP/1 on a socket that is bounded in time. Knows requests only as
//! begun and ended.
//!
//! hyper's own header timer, which is off, starts when the last answer ends, so it cannot tell a
//! connection that rests between two requests (fine for `idle_timeout`) from a header that drips in
//! (`header_timeout`). [`TimedIo`] sees the bytes and can. It lets a client wait in silence for as
//! long as its request is being answered.

use std::{
    convert::Infallible,
    io, mem,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures_util::TryFutureExt;
use http_body::{Frame, SizeHint};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::Watcher};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    chain::Chain,
    media::pace::{Pace, TooSlow, WINDOW},
    metrics::Metrics,
};

/// Bytes of a request's header, and of an answer that hyper gathers before it writes. hyper's
/// default is 400 KiB; tokens are a few KiB, and there may be thousands of connections.
const MAX_BUFFER: usize = 64 * 1024;

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// An IPv4-mapped address as IPv4.
    Address(IpAddr),
    /// A process on this machine, through a unix socket.
    Local,
}

/// How long a connection may take over what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a header's first byte (of the first one: from the connection's start) to its last.
    pub header: Duration,
    /// Without a request, and without the client taking a byte of an answer.
    pub idle: Duration,
    /// Bytes a second of an answer that the client takes, judged over 30 s of waiting for it; 0
    /// judges nothing.
    pub min_rate: u64,
}

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    io: I,
    routes: S,
    limits: Limits,
    watcher: Watcher,
    metrics: &Arc<Metrics>,
) where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let requests = Arc::new(Requests::new(metrics));
    let io = TimedIo::new(io, limits, Arc::clone(&requests));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let underway = Underway::begin(&requests);
        let answer = routes.call(request.map(|body| {
            // Nearly all requests: it need not be put into a box.
            if body.is_end_stream() { Body::empty() } else { Body::new(body) }
        }));
        answer.map_ok(|response| response.map(|body| AnswerBody { body, underway }))
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %Chain(&error), "the connection broke");
    }
}

/// The requests of one connection, one at a time (HTTP/1), and where their bytes are counted.
struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Requests {
    fn new(metrics: &Arc<Metrics>) -> Self {
        let (begun, ended) = Default::default();
        Self { begun, ended, metrics: Arc::clone(metrics) }
    }
}

/// A request from its whole header to its answer's last byte, or to its cancellation.
struct Underway(Arc<Requests>);

impl Underway {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(requests))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body, whose end ends the request.
struct AnswerBody {
    body: Body,
    underway: Underway,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.underway.0.metrics.sent(bytes.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that fails with [`io::ErrorKind::TimedOut`] when its peer takes too long.
struct TimedIo<I> {
    inner: I,
    limits: Limits,
    requests: Arc<Requests>,
    /// How many requests had begun when `awaited` was last brought up to date.
    seen: u64,
    /// None while a request is under way.
    awaited: Option<Awaited>,
    /// While bytes wait to be written and the peer takes none.
    stall: Option<Stall>,
    alarm: Alarm,
    pace: Pace,
    /// The last wait for the peer, and the bytes that it has taken since.
    waited: Duration,
    taken: usize,
}

/// A wait for the peer to take bytes.
struct Stall {
    since: Instant,
    until: Instant,
}

/// A request that is awaited from the peer.
struct Awaited {
    /// Whether its header must be whole by then, or its first byte be here.
    whole_header: bool,
    by: Instant,
}

/// Wakes a task for limits that are moved with each request, and hardly ever reached. Its timer is set anew
/// only where it would ring too late, or has rung too early: set with each request it would have all
/// connections wait for the runtime's one list of timers.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once it is so late; wakes the task no later.
    fn poll(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if sleep.deadline() > by {
            sleep.as_mut().reset(by);
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() == by {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(by);
        sleep.as_mut().poll(cx)
    }
}

impl<I> TimedIo<I> {
    fn new(inner: I, limits: Limits, requests: Arc<Requests>) -> Self {
        Self {
            inner,
            limits,
            requests,
            seen: 0,
            awaited: None,
            stall: None,
            alarm: Alarm::default(),
            pace: Pace::new(limits.min_rate, WINDOW),
            waited: Duration::ZERO,
            taken: 0,
        }
    }

    /// Fails once the peer is late with a request.
    fn check_awaited(&mut self, cx: &mut Context<'_>, got_bytes: bool) -> io::Result<()> {
        let begun = self.requests.begun.load(Ordering::Relaxed);
        if begun != self.seen {
            self.seen = begun;
            self.awaited = None;
        }
        if begun != self.requests.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Who has just connected has something to ask: the first header is awaited from the start.
        let whole_header = got_bytes || begun == 0;
        let awaited = match &mut self.awaited {
            Some(awaited) if awaited.whole_header || !whole_header => awaited,
            stale => {
                let time = if whole_header { self.limits.header } else { self.limits.idle };
                stale.insert(Awaited { whole_header, by: Instant::now() + time })
            }
        };
        // With the bytes that have come the header may be whole. If it is not, the next read has to wait.
        let in_time = if got_bytes {
            Instant::now() < awaited.by
        } else {
            self.alarm.poll(awaited.by, cx).is_pending()
        };
        if in_time {
            return Ok(());
        }
        Err(late(if awaited.whole_header {
            "the request's header took too long"
        } else {
            "the connection was idle for too long"
        }))
    }

    /// Passes a write's outcome on; fails once the peer has taken nothing for too long, or little for
    /// long.
    fn check_stall(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            if let Some(Stall { since, .. }) = self.stall.take() {
                self.waited = since.elapsed();
            }
            let taken = *outcome.as_ref().unwrap_or(&0);
            self.taken = self.taken.saturating_add(taken);
            // The last bytes of an answer leave after its request has ended: as long as they move,
            // the connection is not idle.
            if let Some(Awaited { whole_header: false, by }) = &mut self.awaited
                && taken > 0
            {
                *by = Instant::now() + self.limits.idle;
            }
            return Poll::Ready(outcome);
        }
        let stall = match &mut self.stall {
            Some(stall) => stall,
            none => {
                // The kernel takes bytes in bursts, each after a wait: one is over only now.
                let (waited, taken) = (mem::take(&mut self.waited), mem::take(&mut self.taken));
                self.pace
                    .count(waited, taken)
                    .map_err(|TooSlow| late("the client takes too few bytes"))?;
                let since = Instant::now();
                none.insert(Stall { since, until: since + self.limits.idle })
            }
        };
        self.alarm.poll(stall.until, cx).map(|()| Err(late("the client takes no bytes")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<I: AsyncRead + Unpin> AsyncRead for TimedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        let got_bytes = buf.filled().len() > before;
        if outcome.is_pending() || got_bytes {
            self.check_awaited(cx, got_bytes)?;
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TimedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_stall(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.check_stall(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        ready!(self.check_stall(cx, outcome.map_ok(|()| 0)))?;
        // With an answer's last byte the wait for the next request begins: hyper, which waited for the peer while
        // it answered, need not read again. A header that came meanwhile may be whole, and is looked at next.
        let begun = self.requests.begun.load(Ordering::Relaxed);
        let came = self.awaited.as_ref().is_some_and(|awaited| awaited.whole_header);
        Poll::Ready(if came && begun == self.seen { Ok(()) } else { self.check_awaited(cx, false) })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.check_stall(cx, outcome.map_ok(|()| 0)).map_ok(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::{io::AsyncWriteExt, time::sleep};

    use super::*;

    const RATE: u64 = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    /// A peer that takes so many bytes after so long, again and again; nothing else.
    struct Peer {
        takes: VecDeque<(Duration, usize)>,
        wait: Option<Pin<Box<Sleep>>>,
        left: usize,
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.left == 0 {
                let Some(&(after, bytes)) = self.takes.front() else { return Poll::Pending };
                let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(after)));
                ready!(wait.as_mut().poll(cx));
                self.takes.pop_front();
                (self.wait, self.left) = (None, bytes);
            }
            let taken = buf.len().min(self.left).min(1000);
            self.left -= taken;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes until the peer takes no more, or is given up: the error, and when.
    async fn write_to(min_rate: u64, takes: Vec<(Duration, usize)>) -> (String, Duration) {
        let limits = Limits { header: 60 * SECOND, idle: 60 * SECOND, min_rate };
        let peer = Peer { takes: takes.into(), wait: None, left: 0 };
        let mut io = TimedIo::new(peer, limits, Arc::new(Requests::new(&Arc::default())));
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = io.write_all(&[0; 4096]).await {
                break error;
            }
        };
        (error.to_string(), begun.elapsed())
    }

    const GAVE_UP: &str = "the client takes too few bytes";
    const SILENT: &str = "the client takes no bytes";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_given_up() {
        let (error, after) = write_to(RATE, vec![(5 * SECOND, 1); 1000]).await;
        assert_eq!((&*error, after), (GAVE_UP, 30 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_what_is_due_in_rare_bursts_may_go_on() {
        let takes = vec![(40 * SECOND, 40 * 1000); 20];
        let all = 20 * 40 * SECOND;
        assert_eq!(write_to(RATE, takes.clone()).await, (SILENT.to_owned(), all + 60 * SECOND));
        assert_eq!(write_to(RATE + 1, takes).await, (GAVE_UP.to_owned(), 40 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_0_judges_nothing() {
        let (error, after) = write_to(0, vec![(50 * SECOND, 1); 100]).await;
        assert_eq!((&*error, after), (SILENT, (100 * 50 + 60) * SECOND));
    }
}
