//! Request log: one line for each request, in a span that all log events of the request share. Also records the
//! metrics of requests. Tokens, keys and query strings never reach this module.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::HttpBody,
    extract::Request,
    http::{Method, header},
    response::Response,
};
use tracing::{Instrument, info_span};

use super::{
    CurrentState,
    client::is_proxy,
    error::Reason,
    request_id::{RequestIdSource, RequestIds},
    route_name::route_name,
};
use crate::{
    cause::Cause,
    media::MediaId,
    metrics::{CacheHit, Metrics},
    scan::{ResponseSource, ScanError, ScanResponse, Timings},
};

/// Target of the lines about responses from memory, whose level `log.level` can set separately.
const FROM_MEMORY: &str = "from_memory";

/// Assigns request IDs, logs requests and records their metrics.
#[derive(Default)]
pub(super) struct RequestLog {
    numbers: AtomicU64,
    ids: RequestIdSource,
    /// Has the trusted proxies; `None` in tests, where there are none.
    current: Option<CurrentState>,
    metrics: Arc<Metrics>,
}

impl RequestLog {
    pub(super) fn new(current: CurrentState) -> Self {
        let metrics = Arc::clone(&current.load().metrics);
        Self { current: Some(current), metrics, ..Self::default() }
    }

    /// Calls `respond` in a span of the request, then logs the response and records its metrics. Not the `TraceLayer` of
    /// tower-http, which does not report a request that is dropped before its response.
    pub(super) async fn record<F: Future<Output = Response>>(
        &self,
        mut request: Request,
        respond: impl FnOnce(Request) -> F,
    ) -> Response {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let ids = self.ids.ids(request.headers(), self.is_from_proxy(&request), id);
        let (route, method) = (route_name(&request), request.method().clone());
        let RequestIds { request_id, traceparent } = &ids;
        let span = info_span!("request", id, request_id, traceparent, %method, route);
        request.extensions_mut().insert(ids);
        async {
            let metrics = &*self.metrics;
            let _in_flight = metrics.http.track_request();
            let mut guard =
                CancellationGuard { start: Instant::now(), route, metrics, completed: false };
            let mut response = respond(request).await;
            guard.completed = true;
            let total = guard.start.elapsed();
            let summary = response.extensions_mut().remove().unwrap_or_default();
            record_metrics(metrics, route, &method, &response, &summary, total);
            log_response(&response, &summary, total);
            response
        }
        .instrument(span)
        .await
    }
}

impl RequestLog {
    fn is_from_proxy(&self, request: &Request) -> bool {
        let (Some(current), Some(peer)) = (&self.current, request.extensions().get()) else {
            return false;
        };
        is_proxy(*peer, &current.load().settings.trusted_proxies)
    }
}

/// Facts about a response for the log and the metrics.
#[derive(Clone, Default)]
pub(super) struct ResponseSummary {
    media: Option<MediaId>,
    verdict: Option<&'static str>,
    /// Label of the error that prevented a verdict.
    cause: Option<Cause>,
    source: Option<ResponseSource>,
    timings: Timings,
    /// Whether to log at `debug` instead of `info`.
    quiet: bool,
}

impl ResponseSummary {
    /// Creates the summary of a request that is logged at `debug` only.
    pub(super) fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    pub(super) fn for_media(media: MediaId) -> Self {
        Self { media: Some(media), ..Self::default() }
    }

    pub(super) fn for_error(media: MediaId, error: &ScanError) -> Self {
        Self { media: Some(media), cause: Some(error.cause()), ..Self::default() }
    }

    pub(super) fn from_response(media: MediaId, response: &ScanResponse) -> Self {
        Self {
            media: Some(media),
            verdict: Some(response.verdict.name()),
            cause: None,
            source: Some(response.source),
            timings: response.timings,
            quiet: false,
        }
    }
}

fn record_metrics(
    metrics: &Metrics,
    route: &'static str,
    method: &Method,
    response: &Response,
    summary: &ResponseSummary,
    total: Duration,
) {
    let reason = response.extensions().get::<Reason>().map_or("", |reason| reason.as_str());
    metrics.http.record_response(route, method.as_str(), response.status().as_u16(), reason, total);
    let ResponseSummary { verdict, cause, source, .. } = summary;
    if let Some(verdict) = verdict {
        metrics.http.record_verdict(verdict);
    }
    if let Some(cause) = cause {
        metrics.http.record_scan_error(*cause);
    }
    match source {
        Some(ResponseSource::Cache) => metrics.http.record_cache_hit(CacheHit::Response),
        Some(ResponseSource::SharedJob) => metrics.http.record_cache_hit(CacheHit::InFlightScan),
        Some(ResponseSource::OwnJob) | None => {}
    }
}

fn log_response(response: &Response, summary: &ResponseSummary, total: Duration) {
    let ResponseSummary { media, verdict, timings, quiet, source, .. } = summary;
    let reason = response.extensions().get::<Reason>();
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    // The router adds the header to all other responses afterwards.
    let bytes = length.or_else(|| response.body().size_hint().exact());
    // A macro, since the level of a tracing event must be a constant.
    macro_rules! log {
        ($level:ident, $target:expr) => {
            tracing::$level!(
                target: $target,
                status = response.status().as_u16(),
                media = media.as_ref().map(tracing::field::display),
                verdict,
                reason = reason.map(|reason| reason.as_str()),
                bytes,
                queue_ms = timings.queue.map(millis),
                download_ms = timings.download.map(millis),
                scan_ms = timings.scan.map(millis),
                total_ms = millis(total),
                "answered"
            )
        };
    }
    match source {
        Some(ResponseSource::Cache) => log!(debug, FROM_MEMORY),
        _ if *quiet => log!(debug, module_path!()),
        _ => log!(info, module_path!()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Logs and counts a request that is dropped before its response: the client disconnected, or the grace period
/// of a shutdown ended.
struct CancellationGuard<'a> {
    start: Instant,
    route: &'static str,
    metrics: &'a Metrics,
    completed: bool,
}

impl Drop for CancellationGuard<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.metrics.http.record_unanswered(self.route);
            tracing::info!(total_ms = millis(self.start.elapsed()), "request cancelled");
        }
    }
}
