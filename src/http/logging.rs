//! One line a request, in a span that whatever is logged on its behalf carries. Knows what handlers
//! say of an answer, and counts it; never sees a token, a key or a query string.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    http::{Method, header},
    response::Response,
};
use tracing::{Instrument, info_span};

use super::error::Reason;
use crate::{
    media::MediaId,
    metrics::{CacheHit, Metrics},
    scan::{Answer, ScanError, Source, Timings},
};

/// Numbers requests, and counts their answers.
#[derive(Default)]
pub(super) struct Observer {
    ids: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { ids: AtomicU64::default(), metrics }
    }

    /// Waits for a request's answer in a span of its own, counts it and tells of it.
    pub(super) async fn observe(
        &self,
        route: &'static str,
        method: &Method,
        answer: impl Future<Output = (Response, Outcome)>,
    ) -> Response {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let span = info_span!("request", id, %method, route);
        async {
            let metrics = &*self.metrics;
            let _counted = metrics.request_begins();
            let mut unanswered =
                Unanswered { started: Instant::now(), route, metrics, answered: false };
            let (response, outcome) = answer.await;
            unanswered.answered = true;
            let total = unanswered.started.elapsed();
            count(metrics, route, method, &response, &outcome, total);
            write(&response, &outcome, total);
            response
        }
        .instrument(span)
        .await
    }
}

/// What a handler has to say of its answer to the log.
#[derive(Default)]
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
    pub(super) fn routine() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    pub(super) fn of_media(media: MediaId) -> Self {
        Self { media: Some(media), ..Self::default() }
    }

    pub(super) fn of_error(media: MediaId, error: &ScanError) -> Self {
        Self { media: Some(media), cause: Some(error.cause()), ..Self::default() }
    }

    pub(super) fn of_answer(media: MediaId, answer: &Answer) -> Self {
        Self {
            media: Some(media),
            verdict: Some(answer.verdict.name()),
            cause: None,
            source: Some(answer.source),
            timings: answer.timings,
            quiet: answer.source == Source::Memory,
        }
    }
}

fn count(
    metrics: &Metrics,
    route: &'static str,
    method: &Method,
    response: &Response,
    outcome: &Outcome,
    total: Duration,
) {
    let reason = response.extensions().get::<Reason>().map_or("", |reason| reason.as_str());
    metrics.answered(route, method.as_str(), response.status().as_u16(), reason, total);
    let Outcome { verdict, cause, source, .. } = outcome;
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

fn write(response: &Response, outcome: &Outcome, total: Duration) {
    let Outcome { media, verdict, timings, quiet, .. } = outcome;
    let reason = response.extensions().get::<Reason>();
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
    if *quiet { line!(debug) } else { line!(info) }
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
