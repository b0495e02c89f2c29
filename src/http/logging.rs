//! One line a request, in a span that whatever is logged on its behalf carries. Knows what handlers
//! leave on an answer, and counts it; never sees a token, a key or a query string.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, info_span};

use super::{error::Reason, request::PREFIX};
use crate::{
    media::MediaId,
    metrics::{CacheHit, Metrics},
    scan::{Answer, ScanError, Source, Timings},
};

/// The contract's routes by their first segment, as the log and the metrics name them.
const ROUTES: [&str; 6] =
    ["download", "thumbnail", "scan", "download_encrypted", "scan_encrypted", "public_key"];

/// Numbers the requests of a router, and counts their answers.
#[derive(Clone, Default)]
pub(super) struct Observer {
    ids: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { ids: Arc::default(), metrics }
    }
}

/// What a handler leaves on its answer for the log; an extension of the response.
#[derive(Clone, Default)]
pub(super) struct Outcome {
    media: Option<MediaId>,
    verdict: Option<&'static str>,
    /// Why there is no verdict.
    cause: Option<&'static str>,
    source: Option<Source>,
    timings: Timings,
    /// Not worth a line among those that an operator reads.
    quiet: bool,
}

impl Outcome {
    pub(super) fn routine(response: Response) -> Response {
        Self { quiet: true, ..Self::default() }.on(response)
    }

    pub(super) fn of_media(media: MediaId, response: Response) -> Response {
        Self { media: Some(media), ..Self::default() }.on(response)
    }

    pub(super) fn of_error(media: MediaId, error: &ScanError, response: Response) -> Response {
        Self { media: Some(media), cause: Some(error.cause()), ..Self::default() }.on(response)
    }

    pub(super) fn of_answer(media: MediaId, answer: &Answer, response: Response) -> Response {
        Self {
            media: Some(media),
            verdict: Some(answer.verdict.name()),
            cause: None,
            source: Some(answer.source),
            timings: answer.timings,
            quiet: answer.source == Source::Memory,
        }
        .on(response)
    }

    fn on(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer.
pub(super) async fn line(
    State(observer): State<Observer>,
    request: Request,
    next: Next,
) -> Response {
    let id = observer.ids.fetch_add(1, Ordering::Relaxed);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| path.as_str().strip_prefix(PREFIX)?.split('/').nth(1))
        .and_then(|first| ROUTES.into_iter().find(|route| *route == first))
        .unwrap_or("unknown");
    let method = request.method().clone();
    let span = info_span!("request", id, %method, route);
    async move {
        let Observer { metrics, .. } = observer;
        let _counted = metrics.request_begins();
        let mut unanswered =
            Unanswered { started: Instant::now(), route, metrics: &metrics, answered: false };
        let response = next.run(request).await;
        unanswered.answered = true;
        let total = unanswered.started.elapsed();
        count(&metrics, route, &method, &response, total);
        write(&response, total);
        response
    }
    .instrument(span)
    .await
}

fn count(
    metrics: &Metrics,
    route: &'static str,
    method: &Method,
    response: &Response,
    total: Duration,
) {
    let extensions = response.extensions();
    let reason = extensions.get::<Reason>().map_or("", |reason| reason.as_str());
    metrics.answered(route, method.as_str(), response.status().as_u16(), reason, total);
    let Some(Outcome { verdict, cause, source, .. }) = extensions.get() else { return };
    if let Some(verdict) = verdict {
        metrics.verdict(verdict);
    }
    if let Some(cause) = cause {
        metrics.scan_error(cause);
    }
    match source {
        Some(Source::Memory) => metrics.cache_hit(CacheHit::Answer),
        Some(Source::Flight) => metrics.cache_hit(CacheHit::Flight),
        Some(Source::Job) | None => {}
    }
}

fn write(response: &Response, total: Duration) {
    let extensions = response.extensions();
    let outcome = extensions.get::<Outcome>().cloned().unwrap_or_default();
    let Outcome { media, verdict, timings, quiet, .. } = outcome;
    let reason = extensions.get::<Reason>();
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let bytes = length.and_then(|length| length.parse::<u64>().ok());
    // Of the same fields, one line at one of two levels: tracing's levels are constants.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
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
    if quiet { line!(debug) } else { line!(info) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Says so when a request is dropped before its answer is there: its client has gone, or the server's
/// grace time is over.
struct Unanswered<'a> {
    started: Instant,
    route: &'static str,
    metrics: &'a Metrics,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.unanswered(self.route);
            tracing::info!(total_ms = millis(self.started.elapsed()), "ended without an answer");
        }
    }
}
