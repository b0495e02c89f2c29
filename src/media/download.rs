//! Downloads: opens a response (only status 200 is media), then streams its body into an [`Ingest`], within limits on
//! size, idle time, total time and rate. Batches are written on blocking threads, so the memory used is two batches
//! regardless of the size. Contract, section "Homeserver responses are untrusted".

use std::{fmt, sync::Arc};

use reqwest::{Response, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

use super::{
    counters::FetchCounters,
    decode::Decoder,
    disposition,
    error::{FetchError, IngestError},
    head::Head,
    homeserver::{DownloadLimits, Homeservers, MAX_DISPOSITION, MAX_HEADER_VALUE, single_value},
    http_util::within,
    ingest::Ingest,
    outbound::{OutboundReply, RedirectPolicy, Responder},
    rate::{MinRate, TooSlow},
    request::{MediaRequest, Origin},
};

/// Bytes written by one blocking task. One batch is written while the next is received.
const BATCH: usize = 512 * 1024;

/// A download whose response headers have been received. Closes its connection on drop.
pub struct Download {
    pub head: Head,
    /// Whether the homeserver itself answered, or redirected with a 307 or 308, so that the response shows that the
    /// requester has access. If not, which happens only for a discovered homeserver, the response is not kept.
    pub is_granted: bool,
    response: Response,
    limits: DownloadLimits,
    deadline: Instant,
    cpu_slots: Arc<Semaphore>,
    counters: Arc<FetchCounters>,
}

impl Homeservers {
    /// Requests media, follows redirects and returns when the response headers have been received. Each hop takes at
    /// most `idle_timeout`, and all hops together with the body at most `total_timeout`.
    pub async fn open(&self, request: &MediaRequest) -> Result<Download, FetchError> {
        let deadline = self.deadline();
        let redirects = match request.origin {
            Origin::Configured(_) => RedirectPolicy::KeepMethod,
            // Receives no token, and its answer is the same for every requester.
            Origin::Discovered => RedirectPolicy::Follow,
        };
        match self.request_media(request, None, redirects, deadline).await? {
            OutboundReply::Response(response, responder) => {
                let is_granted = responder != Responder::Unverified;
                Download::new(response, is_granted, self, deadline)
            }
            OutboundReply::NotFollowed(status) => {
                Err(FetchError::NotMedia(format!("redirect with status {}", status.as_u16())))
            }
        }
    }
}

impl Download {
    fn new(
        response: Response,
        is_granted: bool,
        homeservers: &Homeservers,
        deadline: Instant,
    ) -> Result<Self, FetchError> {
        let limits = homeservers.limits;
        if response.status() != 200 {
            return Err(FetchError::NotMedia(format!("status {}", response.status().as_u16())));
        }
        let gzip = is_gzip(&response)?;
        // The length that hyper enforces: none for a chunked body, even if there is a Content-Length.
        let length = response.content_length();
        if length.is_some_and(|length| length > limits.max_size) {
            return Err(FetchError::TooLarge { limit: limits.max_size });
        }
        let headers = response.headers();
        let disposition = single_value(headers, &header::CONTENT_DISPOSITION, MAX_DISPOSITION);
        let head = Head {
            content_type: single_value(headers, &header::CONTENT_TYPE, MAX_HEADER_VALUE),
            disposition: disposition.map(|value| disposition::shorten(value, MAX_HEADER_VALUE)),
            etag: single_value(headers, &header::ETAG, MAX_HEADER_VALUE),
            length,
            gzip,
        };
        Ok(Self {
            head,
            is_granted,
            response,
            limits,
            deadline,
            cpu_slots: Arc::clone(&homeservers.cpu_slots),
            counters: Arc::clone(&homeservers.counters),
        })
    }

    /// Writes the whole body to `ingest`, then calls `finish` on the thread that wrote the last batch.
    ///
    /// Cancellation safe: dropping the future closes the connection. A batch that is being written is completed.
    pub async fn stream<R: Send + 'static>(
        self,
        ingest: Ingest,
        finish: impl FnOnce(Ingest) -> Result<R, IngestError> + Send + 'static,
    ) -> Result<R, FetchError> {
        self.stream_into(ingest, Ingest::write, finish).await
    }

    pub(super) async fn stream_into<T: Send + 'static, R: Send + 'static>(
        mut self,
        target: T,
        write: fn(&mut T, &[u8]) -> Result<(), IngestError>,
        finish: impl FnOnce(T) -> Result<R, IngestError> + Send + 'static,
    ) -> Result<R, FetchError> {
        let decoder = Decoder::new(target, write, self.limits.max_size, self.head.gzip);
        let mut writer = Writer::Idle(decoder, Vec::new());
        let mut batch = Vec::new();
        let mut rate = MinRate::new(self.limits.min_rate, self.limits.rate_window);
        let mut received: u64 = 0;
        // A small file needs a buffer of its own length only.
        let needed = self.head.length.and_then(|length| usize::try_from(length).ok());
        let needed = needed.map_or(BATCH, |length| length.min(BATCH));

        while let Some(chunk) = self.next_chunk(&mut rate).await? {
            received += chunk.len() as u64;
            self.counters.record_bytes(chunk.len());
            if received > self.limits.max_size {
                return Err(FetchError::TooLarge { limit: self.limits.max_size });
            }
            let mut rest = &*chunk;
            if batch.capacity() < needed {
                batch.reserve_exact(needed);
            }
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(BATCH - batch.len()));
                batch.extend_from_slice(head);
                rest = tail;
                if batch.len() == BATCH {
                    (writer, batch) = writer.write(batch, &self.cpu_slots).await?;
                }
            }
        }
        // hyper checks the length as well. Checked again, since a truncated file must never be taken for a complete
        // one.
        if self.head.length.is_some_and(|length| length != received) {
            return Err(FetchError::TruncatedBody(
                "the body is shorter than its Content-Length".into(),
            ));
        }
        let (mut decoder, _) = writer.idle().await?;
        let permit = acquire(&self.cpu_slots).await;
        // A single task, since waking a blocking thread costs more than the remaining work for a small file.
        join(spawn_blocking(move || {
            let _permit = permit;
            decoder.push(&batch)?;
            Ok(finish(decoder.finish()?)?)
        }))
        .await
    }

    async fn next_chunk(&mut self, rate: &mut MinRate) -> Result<Option<bytes::Bytes>, FetchError> {
        let start = Instant::now();
        let until = within(self.limits.idle_timeout, self.deadline);
        let chunk = match timeout_at(until, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| FetchError::TruncatedBody(e.without_url().into()))?,
            Err(_) if self.deadline <= Instant::now() => {
                return Err(FetchError::TimedOut("download.total_timeout is over"));
            }
            Err(_) => return Err(FetchError::TimedOut("no data within download.idle_timeout")),
        };
        if let Some(chunk) = &chunk {
            // Counts the wait for the homeserver only, not the time for writing to disk.
            rate.record(start.elapsed(), chunk.len())
                .map_err(|TooSlow| FetchError::TimedOut("slower than download.min_rate"))?;
            // A body whose next chunk is always available never reaches the timeout above.
            if self.deadline <= Instant::now() {
                return Err(FetchError::TimedOut("download.total_timeout is over"));
            }
        }
        Ok(chunk)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the response, whose URL contains the client's parameters.
        f.debug_struct("Download").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Returns whether the body is gzip-encoded. Requests ask for `identity`, but some proxies compress regardless.
fn is_gzip(response: &Response) -> Result<bool, FetchError> {
    let unsupported = || FetchError::NotMedia("unsupported content encoding".into());
    let mut gzip = false;
    for value in response.headers().get_all(header::CONTENT_ENCODING) {
        for coding in value.to_str().map_err(|_| unsupported())?.split(',').map(str::trim) {
            if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
                continue;
            }
            let is_supported =
                coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip");
            // Rejects repeated gzip encoding: proxies do not apply it, decompression bombs do.
            if gzip || !is_supported {
                return Err(unsupported());
            }
            gzip = true;
        }
    }
    Ok(gzip)
}

type WriteResult<T> = Result<(Decoder<T>, Vec<u8>), FetchError>;

/// The decoder and the buffer that is not being filled, either here or on a blocking thread.
enum Writer<T> {
    Idle(Decoder<T>, Vec<u8>),
    Busy(JoinHandle<WriteResult<T>>),
}

impl<T: Send + 'static> Writer<T> {
    /// Waits for the previous batch, starts to write this one, and returns an empty buffer for the next.
    async fn write(
        self,
        batch: Vec<u8>,
        cpu_slots: &Arc<Semaphore>,
    ) -> Result<(Self, Vec<u8>), FetchError> {
        let (mut decoder, mut spare) = self.idle().await?;
        spare.clear();
        let permit = acquire(cpu_slots).await;
        let busy = spawn_blocking(move || {
            let _permit = permit;
            decoder.push(&batch)?;
            Ok((decoder, batch))
        });
        Ok((Self::Busy(busy), spare))
    }

    async fn idle(self) -> WriteResult<T> {
        match self {
            Self::Idle(decoder, spare) => Ok((decoder, spare)),
            Self::Busy(busy) => join(busy).await,
        }
    }
}

/// Waits for a permit. Returns `None` only if the semaphore is closed, which never happens.
async fn acquire(cpu_slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(cpu_slots).acquire_owned().await.ok()
}

/// Waits for a blocking task. Resumes its panic, which the caller's job handles.
async fn join<T>(handle: JoinHandle<Result<T, FetchError>>) -> Result<T, FetchError> {
    match handle.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down.
        Err(Err(cancelled)) => Err(FetchError::TruncatedBody(cancelled.into())),
    }
}

#[cfg(test)]
mod tests;
