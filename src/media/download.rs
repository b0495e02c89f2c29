//! A media on its way in. Opens it (only a 200 is media), then streams its body into an `Intake`
//! under every limit there is: size, idle time, total time, rate. Writing is done off the async
//! threads, a batch at a time, so memory is two batches whatever the media's size. Contract: "What
//! comes from a homeserver is hostile too".

use std::{fmt, sync::Arc};

use reqwest::{Response, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

use super::{
    FetchError, Head, Homeservers, MediaRequest,
    exits::{Reached, within},
    homeserver::{Limits, single},
    intake::{Intake, IntakeError},
    pace::{Pace, TooSlow},
    pump::Pump,
};
use crate::metrics::Metrics;

/// Bytes that go to the blocking threads at once: one batch is written while the next is collected.
const BATCH: usize = 512 * 1024;

/// A media whose headers are in. Dropped, it closes its connection.
pub struct Opened {
    /// What is kept of the answer.
    pub head: Head,
    response: Response,
    limits: Limits,
    deadline: Instant,
    crunching: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Homeservers {
    /// Asks for a media, follows redirects, and stops once the headers are in. Each question may
    /// take `idle_timeout`, all of them and the body `total_timeout`.
    pub async fn open(&self, request: &MediaRequest) -> Result<Opened, FetchError> {
        let deadline = self.deadline();
        match self.ask(request, None, true, deadline).await? {
            Reached::Answer(response, _) => Opened::new(response, self, deadline),
            Reached::Elsewhere => Err(FetchError::NotMedia("a redirect".into())),
        }
    }
}

impl Opened {
    fn new(
        response: Response,
        homeservers: &Homeservers,
        deadline: Instant,
    ) -> Result<Self, FetchError> {
        let limits = homeservers.limits;
        if response.status() != 200 {
            return Err(FetchError::NotMedia(format!("status {}", response.status().as_u16())));
        }
        let gzip = is_gzip(&response)?;
        // What hyper goes by, which is none for a chunked body whatever its headers say.
        let length = response.content_length();
        if length.is_some_and(|length| length > limits.max_size) {
            return Err(FetchError::TooLarge { limit: limits.max_size });
        }
        let head = Head {
            content_type: single(&response, &header::CONTENT_TYPE),
            disposition: single(&response, &header::CONTENT_DISPOSITION),
            etag: single(&response, &header::ETAG),
            length,
            gzip,
        };
        Ok(Self {
            head,
            response,
            limits,
            deadline,
            crunching: Arc::clone(&homeservers.crunching),
            metrics: Arc::clone(&homeservers.metrics),
        })
    }

    /// Moves the body through `intake` to its end, which is left to `finish`, on the thread that wrote the
    /// last of it. Dropping the future closes the connection; a batch that is being written is written to
    /// its end.
    pub async fn stream<R: Send + 'static>(
        self,
        intake: Intake,
        finish: impl FnOnce(Intake) -> Result<R, IntakeError> + Send + 'static,
    ) -> Result<R, FetchError> {
        self.stream_into(intake, Intake::write, finish).await
    }

    pub(super) async fn stream_into<T: Send + 'static, R: Send + 'static>(
        mut self,
        target: T,
        write: fn(&mut T, &[u8]) -> Result<(), IntakeError>,
        finish: impl FnOnce(T) -> Result<R, IntakeError> + Send + 'static,
    ) -> Result<R, FetchError> {
        let pump = Pump::new(target, write, self.limits.max_size, self.head.gzip);
        let mut writer = Writer::Idle(pump, Vec::new());
        let mut batch = Vec::new();
        let mut pace = Pace::new(self.limits.min_rate, self.limits.rate_window);
        let mut received: u64 = 0;
        // A small media needs no more than its length.
        let needed = self.head.length.and_then(|length| usize::try_from(length).ok());
        let needed = needed.map_or(BATCH, |length| length.min(BATCH));

        while let Some(chunk) = self.next_chunk(&mut pace).await? {
            received += chunk.len() as u64;
            self.metrics.fetched(chunk.len());
            if received > self.limits.max_size {
                return Err(FetchError::TooLarge { limit: self.limits.max_size });
            }
            let mut rest = &*chunk;
            if batch.capacity() < needed {
                batch.reserve_exact(needed);
            }
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(BATCH - batch.len()));
                batch.extend_from_slice(now);
                rest = later;
                if batch.len() == BATCH {
                    (writer, batch) = writer.write(batch, &self.crunching).await?;
                }
            }
        }
        // hyper sees to this as well; a media cut short must never pass for whole.
        if self.head.length.is_some_and(|length| length != received) {
            return Err(FetchError::BrokenOff("the body has not its Content-Length".into()));
        }
        let (mut pump, _) = writer.idle().await?;
        let turn = turn(&self.crunching).await;
        // One call: each takes a thread to be woken, which costs more than the rest of a small media.
        joined(spawn_blocking(move || {
            let _turn = turn;
            pump.push(&batch)?;
            Ok(finish(pump.finish()?)?)
        }))
        .await
    }

    async fn next_chunk(&mut self, pace: &mut Pace) -> Result<Option<bytes::Bytes>, FetchError> {
        let start = Instant::now();
        let until = within(self.limits.idle_timeout, self.deadline);
        let chunk = match timeout_at(until, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| FetchError::BrokenOff(e.without_url().into()))?,
            Err(_) if self.deadline <= Instant::now() => {
                return Err(FetchError::TimedOut("the whole took too long"));
            }
            Err(_) => return Err(FetchError::TimedOut("the body stopped coming")),
        };
        if let Some(chunk) = &chunk {
            // A slow disk of ours is not the homeserver's fault: the wait for it is not counted.
            pace.count(start.elapsed(), chunk.len())
                .map_err(|TooSlow| FetchError::TimedOut("the body came too slowly"))?;
            // A body that always has one more byte never waits, so it would never be late.
            if self.deadline <= Instant::now() {
                return Err(FetchError::TimedOut("the whole took too long"));
            }
        }
        Ok(chunk)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the response: its URL has the client's parameters.
        f.debug_struct("Opened").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Whether the body is to be unzipped. `identity` was asked for, but some proxies zip all the same.
fn is_gzip(response: &Response) -> Result<bool, FetchError> {
    let not_ours = || FetchError::NotMedia("an encoding that was not asked for".into());
    let mut gzip = false;
    for value in response.headers().get_all(header::CONTENT_ENCODING) {
        for coding in value.to_str().map_err(|_| not_ours())?.split(',').map(str::trim) {
            if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
                continue;
            }
            let known =
                coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip");
            // Twice zipped is a bomb's shape, not a proxy's.
            if gzip || !known {
                return Err(not_ours());
            }
            gzip = true;
        }
    }
    Ok(gzip)
}

type Written<T> = Result<(Pump<T>, Vec<u8>), FetchError>;

/// The pump and the buffer that is not being filled: here, or on a blocking thread.
enum Writer<T> {
    Idle(Pump<T>, Vec<u8>),
    Busy(JoinHandle<Written<T>>),
}

impl<T: Send + 'static> Writer<T> {
    /// Waits for the batch before, begins with this one, gives an empty buffer for the next.
    async fn write(
        self,
        batch: Vec<u8>,
        crunching: &Arc<Semaphore>,
    ) -> Result<(Self, Vec<u8>), FetchError> {
        let (mut pump, mut spare) = self.idle().await?;
        spare.clear();
        let turn = turn(crunching).await;
        let busy = spawn_blocking(move || {
            let _turn = turn;
            pump.push(&batch)?;
            Ok((pump, batch))
        });
        Ok((Self::Busy(busy), spare))
    }

    async fn idle(self) -> Written<T> {
        match self {
            Self::Idle(pump, spare) => Ok((pump, spare)),
            Self::Busy(busy) => joined(busy).await,
        }
    }
}

/// A turn at the processors. None only once there are none to be had, which nobody sees to.
async fn turn(crunching: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(crunching).acquire_owned().await.ok()
}

/// A panic over there is one here: whoever runs the job answers for it.
async fn joined<T>(handle: JoinHandle<Result<T, FetchError>>) -> Result<T, FetchError> {
    match handle.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is going down.
        Err(Err(cancelled)) => Err(FetchError::BrokenOff(cancelled.into())),
    }
}

#[cfg(test)]
mod tests;
