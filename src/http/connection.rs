//! One connection: hyper's HTTP/1 on a socket that is bounded in time. Knows requests only as
//! begun and ended.
//!
//! hyper's own header timer starts when the last answer ends, so it cannot tell a connection that
//! rests between two requests (fine for `idle_timeout`) from a header that drips in
//! (`header_timeout`). [`TimedIo`] sees the bytes and can. It lets a client wait in silence for as
//! long as its request is being answered.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::Watcher,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tower::ServiceExt;

/// Bytes of a request's header, and of an answer that hyper gathers before it writes. hyper's
/// default is 400 KiB; tokens are a few KiB, and there may be thousands of connections.
const MAX_BUFFER: usize = 64 * 1024;

/// Who is at the other end; an extension of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// An IPv4-mapped address as IPv4.
    Address(IpAddr),
    /// A process on this machine, through a unix socket.
    Local,
}

/// How long a connection may take over what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From a header's first byte (of the first one: from the connection's start) to its last.
    pub(super) header: Duration,
    /// Without a request, and without the client taking a byte of an answer.
    pub(super) idle: Duration,
}

/// Serves one connection to its end.
pub(super) async fn serve<I>(io: I, peer: Peer, router: Router, limits: Limits, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let requests = Arc::new(Requests::default());
    let io = TimedIo::new(io, limits, Arc::clone(&requests));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let underway = Underway::begin(&requests);
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request);
        async move {
            let Ok(response) = answer.await;
            Ok::<_, Infallible>(response.map(|body| AnswerBody { body, _underway: underway }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A second line behind `TimedIo`, for a header whose first bytes came with the last
        // request: it runs from the end of the last answer, so it holds both limits.
        .header_read_timeout(limits.idle.saturating_add(limits.header))
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "the connection broke");
    }
}

/// The requests of one connection, one at a time (HTTP/1).
#[derive(Default)]
struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
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
    _underway: Underway,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    /// Runs while bytes wait to be written and the peer takes none.
    stall: Option<Pin<Box<Sleep>>>,
}

/// A request that is awaited from the peer.
struct Awaited {
    /// Whether its header must be whole by then, or its first byte be here.
    whole_header: bool,
    by: Pin<Box<Sleep>>,
}

impl<I> TimedIo<I> {
    fn new(inner: I, limits: Limits, requests: Arc<Requests>) -> Self {
        Self { inner, limits, requests, seen: 0, awaited: None, stall: None }
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
                stale.insert(Awaited { whole_header, by: Box::pin(sleep(time)) })
            }
        };
        if awaited.by.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        Err(late(if awaited.whole_header {
            "the request's header took too long"
        } else {
            "the connection was idle for too long"
        }))
    }

    /// Passes a write's outcome on; fails once the peer has taken nothing for too long.
    fn check_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            // The last bytes of an answer leave after its request has ended: as long as they move,
            // the connection is not idle.
            if let Some(Awaited { whole_header: false, by }) = &mut self.awaited {
                by.as_mut().reset(Instant::now() + self.limits.idle);
                let _ = by.as_mut().poll(cx);
            }
            return outcome;
        }
        let idle = self.limits.idle;
        let timer = self.stall.get_or_insert_with(|| Box::pin(sleep(idle)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(late("the client takes no bytes"))),
            Poll::Pending => Poll::Pending,
        }
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
        self.check_stall(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.check_stall(cx, outcome)
    }
}
