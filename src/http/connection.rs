//! Serves one connection: hyper's HTTP/1 on a socket with time limits.
//!
//! hyper's header timer is disabled. It starts when the previous response ends, so it cannot distinguish an
//! idle connection (`idle_timeout`) from a header that arrives slowly (`header_timeout`). [`TimedIo`]
//! observes the bytes and applies both limits. Neither limit runs while a request is being processed.

use std::{
    convert::Infallible,
    io, mem,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request, http::Method, response::Response};
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

use super::{
    activity::{Activity, RequestInFlight},
    framing::{self, FramingObserver},
    incoming_body::IncomingBody,
};
use crate::{
    chain::Chain,
    media::rate::{MinRate, TooSlow, WINDOW},
    tenancy::ClientNetwork,
};

/// Maximum size of a request header and of hyper's write buffer, in bytes. hyper's default is 400 KiB;
/// tokens are a few KiB, and there may be thousands of connections.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// Remote end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Address; an IPv4-mapped one is converted to IPv4.
    Address(IpAddr),
    /// Process on this machine, connected through a Unix socket.
    Local {
        /// User of the process that connected; `None` if it is unknown.
        uid: Option<u32>,
    },
}

impl Peer {
    /// Returns the network that its connections are counted by; `None` for a Unix socket.
    pub(super) fn network(self) -> Option<ClientNetwork> {
        match self {
            Self::Address(address) => Some(ClientNetwork::new(address)),
            Self::Local { .. } => None,
        }
    }
}

/// Time and rate limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Maximum time to receive a header, from its first byte; for the first header from the start of the
    /// connection.
    pub header: Duration,
    /// Maximum time without a request, and maximum time for which a write may block.
    pub idle: Duration,
    /// Minimum rate at which the client must read a response, in bytes per second, measured over 30 s of
    /// blocked writes. 0 disables the check.
    pub min_rate: u64,
}

/// Serves one connection until it closes.
pub(super) async fn serve<I, S>(
    io: I,
    routes: S,
    limits: ConnectionLimits,
    watcher: Watcher,
    activity: &Arc<Activity>,
) where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let io = TimedIo::new(io, limits, Arc::clone(activity));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let in_flight = RequestInFlight::start(activity);
        let mut request = request.map(|body| {
            // Most requests have no body: this avoids boxing it.
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(IncomingBody { body, activity: Arc::clone(activity) })
            }
        });
        let framing = in_flight.framing();
        // Nothing after a CONNECT is a request.
        let is_last = framing.is_some() || request.method() == Method::CONNECT;
        if let Some(framing) = framing {
            request.extensions_mut().insert(framing);
        }
        let response = routes.call(request);
        response.map_ok(move |mut response| {
            if is_last {
                framing::close_after(response.headers_mut());
            }
            response.map(|body| ResponseBody { body, in_flight })
        })
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %Chain(&error), "connection failed");
    }
}

/// Response body; dropping it finishes the request.
struct ResponseBody {
    body: Body,
    in_flight: RequestInFlight,
}

impl http_body::Body for ResponseBody {
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
            self.in_flight.activity().add_sent_bytes(bytes.len());
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

/// Socket that fails with [`io::ErrorKind::TimedOut`] when the peer exceeds a limit.
struct TimedIo<I> {
    inner: I,
    limits: ConnectionLimits,
    activity: Arc<Activity>,
    framing: FramingObserver,
    /// Value of [`Activity::started`] when `read_deadline` was last updated.
    seen: u64,
    /// `None` while a request is in flight.
    read_deadline: Option<ReadDeadline>,
    /// Set while a write is blocked.
    stall: Option<Stall>,
    timer: Timer,
    rate: MinRate,
    /// Duration of the last blocked write, and the bytes written since.
    blocked: Duration,
    written: usize,
}

/// Blocked write.
struct Stall {
    since: Instant,
    deadline: Instant,
}

/// Deadline for the next request.
struct ReadDeadline {
    /// Whether the complete header must arrive by the deadline, or only its first byte.
    whole_header: bool,
    deadline: Instant,
}

/// Timer for deadlines that move with each request and rarely expire. The underlying sleep is reset only if
/// it would fire too late or has fired too early: a reset for each request would contend for the runtime's
/// timer lock, which all connections share.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Completes at the deadline; wakes the task no later than that.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() == deadline {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(deadline);
        sleep.as_mut().poll(cx)
    }
}

impl<I> TimedIo<I> {
    fn new(inner: I, limits: ConnectionLimits, activity: Arc<Activity>) -> Self {
        Self {
            inner,
            limits,
            activity,
            framing: FramingObserver::default(),
            seen: 0,
            read_deadline: None,
            stall: None,
            timer: Timer::default(),
            rate: MinRate::new(limits.min_rate, WINDOW),
            blocked: Duration::ZERO,
            written: 0,
        }
    }

    /// Fails once the deadline for the next request has passed.
    fn check_read_deadline(&mut self, cx: &mut Context<'_>, got_bytes: bool) -> io::Result<()> {
        let started = self.activity.started();
        if started != self.seen {
            self.seen = started;
            self.read_deadline = None;
        }
        if self.activity.is_in_flight() {
            return Ok(());
        }
        if got_bytes {
            self.activity.bytes_received(self.framing.received(started));
        }
        // The first header is due from the start of the connection.
        let whole_header = got_bytes || started == 0;
        let read_deadline = match &mut self.read_deadline {
            Some(read_deadline) if read_deadline.whole_header || !whole_header => read_deadline,
            stale => {
                let time = if whole_header { self.limits.header } else { self.limits.idle };
                stale.insert(ReadDeadline { whole_header, deadline: Instant::now() + time })
            }
        };
        // The received bytes may complete the header. If they do not, the next read blocks and sets the timer.
        let in_time = if got_bytes {
            Instant::now() < read_deadline.deadline
        } else {
            self.timer.poll(read_deadline.deadline, cx).is_pending()
        };
        if in_time {
            return Ok(());
        }
        Err(timed_out(if read_deadline.whole_header {
            "timed out receiving the request header"
        } else {
            "connection was idle for too long"
        }))
    }

    /// Returns the result of a write. Fails once the write has been blocked for too long, or the peer reads too slowly.
    fn check_stall(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = result {
            if let Some(Stall { since, .. }) = self.stall.take() {
                self.blocked = since.elapsed();
            }
            let written = *result.as_ref().unwrap_or(&0);
            self.written = self.written.saturating_add(written);
            // The last bytes of a response are written after its request has finished: the connection is not
            // idle while they make progress.
            if let Some(ReadDeadline { whole_header: false, deadline }) = &mut self.read_deadline
                && written > 0
            {
                *deadline = Instant::now() + self.limits.idle;
            }
            return Poll::Ready(result);
        }
        let stall = match &mut self.stall {
            Some(stall) => stall,
            none => {
                // The kernel accepts bytes in bursts, each after a blocked write: a burst ends here.
                let (blocked, written) =
                    (mem::take(&mut self.blocked), mem::take(&mut self.written));
                self.rate
                    .record(blocked, written)
                    .map_err(|TooSlow| timed_out("client reads too slowly"))?;
                let since = Instant::now();
                none.insert(Stall { since, deadline: since + self.limits.idle })
            }
        };
        self.timer.poll(stall.deadline, cx).map(|()| Err(timed_out("client stopped reading")))
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<I: AsyncRead + Unpin> AsyncRead for TimedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let received = buf.filled().get(before..).unwrap_or_default();
        if let Some(finding) = self.framing.observe(received) {
            self.activity.set_framing(finding);
        }
        let got_bytes = !received.is_empty();
        if result.is_pending() || got_bytes {
            self.check_read_deadline(cx, got_bytes)?;
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TimedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_stall(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.check_stall(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        ready!(self.check_stall(cx, result.map_ok(|()| 0)))?;
        self.activity.flushed(self.framing.received(self.activity.started()));
        // The deadline for the next request starts with the last byte of a response: hyper has a read pending
        // since the request and need not poll it again. A header that arrived meanwhile may be complete; hyper
        // parses it next.
        let started = self.activity.started();
        let got_header_bytes =
            self.read_deadline.as_ref().is_some_and(|deadline| deadline.whole_header);
        Poll::Ready(if got_header_bytes && started == self.seen {
            Ok(())
        } else {
            self.check_read_deadline(cx, false)
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.check_stall(cx, result.map_ok(|()| 0)).map_ok(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::sleep,
    };

    use super::*;
    use crate::http::activity::ConnectionPhase;

    const RATE: u64 = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    /// Peer that reads the given numbers of bytes, each after the given delay.
    struct ScriptedPeer {
        reads: VecDeque<(Duration, usize)>,
        delay: Option<Pin<Box<Sleep>>>,
        left: usize,
    }

    impl AsyncWrite for ScriptedPeer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.left == 0 {
                let Some(&(after, bytes)) = self.reads.front() else { return Poll::Pending };
                let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(after)));
                ready!(delay.as_mut().poll(cx));
                self.reads.pop_front();
                (self.delay, self.left) = (None, bytes);
            }
            let accepted = buf.len().min(self.left).min(1000);
            self.left -= accepted;
            Poll::Ready(Ok(accepted))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes until a write fails; returns the error and the time until then.
    async fn write_to(min_rate: u64, reads: Vec<(Duration, usize)>) -> (String, Duration) {
        let limits = ConnectionLimits { header: 60 * SECOND, idle: 60 * SECOND, min_rate };
        let peer = ScriptedPeer { reads: reads.into(), delay: None, left: 0 };
        let mut io =
            TimedIo::new(peer, limits, Arc::new(Activity::new(Arc::default(), Arc::default())));
        let start = Instant::now();
        let error = loop {
            if let Err(error) = io.write_all(&[0; 4096]).await {
                break error;
            }
        };
        (error.to_string(), start.elapsed())
    }

    const TOO_SLOW: &str = "client reads too slowly";
    const STOPPED: &str = "client stopped reading";

    #[tokio::test(start_paused = true)]
    async fn closes_connection_of_slow_reader() {
        let (error, after) = write_to(RATE, vec![(5 * SECOND, 1); 1000]).await;
        assert_eq!((&*error, after), (TOO_SLOW, 30 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_reader_with_rare_bursts_at_the_minimum_rate() {
        let reads = vec![(40 * SECOND, 40 * 1000); 20];
        let all = 20 * 40 * SECOND;
        assert_eq!(write_to(RATE, reads.clone()).await, (STOPPED.to_owned(), all + 60 * SECOND));
        assert_eq!(write_to(RATE + 1, reads).await, (TOO_SLOW.to_owned(), 40 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn rate_of_0_disables_the_check() {
        let (error, after) = write_to(0, vec![(50 * SECOND, 1); 100]).await;
        assert_eq!((&*error, after), (STOPPED, (100 * 50 + 60) * SECOND));
    }

    #[tokio::test]
    async fn connection_with_a_pipelined_request_is_busy() {
        use ConnectionPhase::{Busy, Header, Idle};
        const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let activity = Arc::new(Activity::new(Arc::default(), Arc::default()));
        let (mut client, server) = duplex(4096);
        let limits = ConnectionLimits { header: 60 * SECOND, idle: 60 * SECOND, min_rate: 0 };
        let mut io = TimedIo::new(server, limits, Arc::clone(&activity));
        let phase = || activity.phase().0;
        for (received, after_read, after_responses) in [
            // As hyper buffers them: two requests and the beginning of a third.
            ([REQUEST, REQUEST, b"GET"].concat(), Busy, &[Busy, Header][..]),
            (REQUEST[3..10].to_vec(), Header, &[]),
            (REQUEST[10..].to_vec(), Busy, &[Idle]),
            ([REQUEST, REQUEST].concat(), Busy, &[Busy, Idle]),
        ] {
            client.write_all(&received).await.unwrap();
            io.read_exact(&mut vec![0; received.len()]).await.unwrap();
            assert_eq!(phase(), after_read);
            for &expected in after_responses {
                drop(RequestInFlight::start(&activity));
                io.flush().await.unwrap();
                assert_eq!(phase(), expected);
            }
        }
    }
}
