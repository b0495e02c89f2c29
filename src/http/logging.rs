//! One line a request, in a span that whatever is logged on its behalf carries. Knows what handlers
//! leave on an answer; never sees a token, a key or a query string.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, info_span};

use super::{error::Reason, request::PREFIX};
use crate::{
    media::MediaId,
    scan::{Answer, Timings, Verdict},
};

/// Numbers the requests of a router.
#[derive(Clone, Default)]
pub(super) struct RequestIds(Arc<AtomicU64>);

/// What a handler leaves on its answer for the log; an extension of the response.
#[derive(Clone, Default)]
pub(super) struct Outcome {
    media: Option<MediaId>,
    verdict: Option<&'static str>,
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

    pub(super) fn of_answer(media: MediaId, answer: &Answer, response: Response) -> Response {
        let verdict = match &answer.verdict {
            Verdict::Clean { .. } => "clean",
            Verdict::NotClean { .. } => "not clean",
            Verdict::TypeForbidden { .. } => "type forbidden",
        };
        Self {
            media: Some(media),
            verdict: Some(verdict),
            timings: answer.timings,
            quiet: answer.timings.from_cache(),
        }
        .on(response)
    }

    fn on(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer.
pub(super) async fn line(State(ids): State<RequestIds>, request: Request, next: Next) -> Response {
    let id = ids.0.fetch_add(1, Ordering::Relaxed);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| path.as_str().strip_prefix(PREFIX)?.split('/').nth(1))
        .unwrap_or("unknown")
        .to_owned();
    let span = info_span!("request", id, method = %request.method(), route);
    async move {
        let mut unanswered = Unanswered { started: Instant::now(), answered: false };
        let response = next.run(request).await;
        unanswered.answered = true;
        write(&response, unanswered.started.elapsed());
        response
    }
    .instrument(span)
    .await
}

fn write(response: &Response, total: Duration) {
    let extensions = response.extensions();
    let outcome = extensions.get::<Outcome>().cloned().unwrap_or_default();
    let Outcome { media, verdict, timings, quiet } = outcome;
    let reason = extensions.get::<Reason>();
    let bytes = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
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
struct Unanswered {
    started: Instant,
    answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answered {
            tracing::info!(total_ms = millis(self.started.elapsed()), "ended without an answer");
        }
    }
}
