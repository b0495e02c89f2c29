//! Interprets error responses of homeservers by status and `errcode`. Matrix specification, client-server API, section
//! "Standard error response".

use std::time::{Duration, SystemTime};

use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    error::FetchError,
    http_util::{read_small, within},
    retry_after::retry_after,
    routes::UpstreamRoute,
};

/// Maximum size of an error body, in bytes. Valid ones have a few dozen.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Response with a status of 400 or more.
pub(super) struct UpstreamRefusal {
    status: StatusCode,
    errcode: Option<String>,
    retry_after: Option<Duration>,
}

/// Sender of a refusal, which decides which of its statements are passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RefusalSender {
    /// A configured homeserver.
    Configured {
        /// Whether the request contained the client's token.
        received_token: bool,
    },
    /// A homeserver named by the media. Its statements about tokens are not passed on: it must not be able to log
    /// clients out.
    Discovered,
    /// Another origin, after a redirect: the homeserver itself has not refused the request.
    Redirected,
}

/// Fields of any type, so that one invalid field does not hide the others.
#[derive(Deserialize, Default)]
struct StandardError {
    #[serde(default)]
    errcode: Value,
    #[serde(default)]
    retry_after_ms: Value,
}

impl UpstreamRefusal {
    /// Reads `errcode` and `retry_after_ms` from the body, if the body has them.
    pub(super) async fn read(response: Response, deadline: Instant) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        let until = within(ERROR_BODY_TIMEOUT, deadline);
        let error = read_small(response, MAX_ERROR_BODY, until)
            .await
            .and_then(|body| serde_json::from_slice::<StandardError>(&body).ok())
            .unwrap_or_default();
        let errcode = error.errcode.as_str().map(str::to_owned);
        let retry_after = retry_after(&headers, error.retry_after_ms.as_f64(), SystemTime::now());
        Self { status, errcode, retry_after }
    }

    /// Returns whether to try the next route. A 404 on the authenticated route means that the media is absent, unless
    /// the homeserver is too old to support that route.
    pub(super) fn should_try_next_route(&self, from: UpstreamRoute) -> bool {
        self.has("M_UNRECOGNIZED")
            || (from == UpstreamRoute::V3 && self.status == StatusCode::NOT_FOUND)
    }

    /// Returns whether the server does not support the route: a homeserver that is too old, or a server that is no
    /// homeserver, whose 404 has no `errcode`.
    pub(super) fn is_of_unknown_route(&self) -> bool {
        self.has("M_UNRECOGNIZED")
            || (self.status == StatusCode::NOT_FOUND && self.errcode.is_none())
    }

    /// Converts the response to an error. A gateway's 504 is treated like any other 5xx: this service did not time out.
    pub(super) fn into_error(self, sender: RefusalSender) -> FetchError {
        let status = self.status.as_u16();
        let retry_after = self.retry_after.filter(|_| matches!(status, 429 | 503));
        if self.has("M_UNRECOGNIZED") {
            return FetchError::NotFound;
        }
        if sender == RefusalSender::Redirected && status != 404 {
            return FetchError::Upstream { status, retry_after };
        }
        if self.has("M_NOT_YET_UPLOADED") {
            return FetchError::NotYetUploaded;
        }
        match status {
            401 => match sender {
                RefusalSender::Configured { .. } if self.has("M_UNKNOWN_TOKEN") => {
                    FetchError::UnknownToken
                }
                RefusalSender::Configured { received_token: true }
                    if !self.has("M_MISSING_TOKEN") =>
                {
                    FetchError::UnknownToken
                }
                _ => FetchError::MissingToken,
            },
            404 => FetchError::NotFound,
            // A proxy requires this service to authenticate; the client cannot fix that.
            407 => FetchError::Upstream { status, retry_after },
            400..=499 => FetchError::Refused { status, retry_after },
            _ => FetchError::Upstream { status, retry_after },
        }
    }

    fn has(&self, errcode: &str) -> bool {
        self.errcode.as_deref() == Some(errcode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, errcode: Option<&str>) -> UpstreamRefusal {
        UpstreamRefusal {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.map(str::to_owned),
            retry_after: Some(Duration::from_secs(7)),
        }
    }

    const TOKEN_SENT: RefusalSender = RefusalSender::Configured { received_token: true };

    #[test]
    fn maps_status_and_errcode_to_error() {
        let row = |status, errcode, token_sent| {
            let sender = RefusalSender::Configured { received_token: token_sent };
            format!("{:?}", refusal(status, errcode).into_error(sender))
        };
        for errcode in [None, Some("M_UNKNOWN_TOKEN"), Some("M_MISSING_TOKEN")] {
            let untrusted = refusal(401, errcode).into_error(RefusalSender::Discovered);
            assert!(matches!(untrusted, FetchError::MissingToken));
        }
        assert_eq!(row(401, Some("M_MISSING_TOKEN"), true), "MissingToken");
        assert_eq!(row(401, Some("M_UNKNOWN_TOKEN"), false), "UnknownToken");
        assert_eq!(row(401, Some("M_OTHER"), true), "UnknownToken");
        assert_eq!(row(401, None, true), "UnknownToken");
        assert_eq!(row(401, None, false), "MissingToken");
        assert_eq!(row(404, None, true), "NotFound");
        assert_eq!(row(404, Some("M_NOT_FOUND"), true), "NotFound");
        for status in [400, 404, 405, 500] {
            assert_eq!(row(status, Some("M_UNRECOGNIZED"), true), "NotFound");
        }
        for status in [404, 504] {
            assert_eq!(row(status, Some("M_NOT_YET_UPLOADED"), true), "NotYetUploaded");
        }
        assert_eq!(row(403, None, true), "Refused { status: 403, retry_after: None }");
        assert_eq!(
            row(413, Some("M_TOO_LARGE"), true),
            "Refused { status: 413, retry_after: None }"
        );
        assert_eq!(row(429, None, true), "Refused { status: 429, retry_after: Some(7s) }");
        for status in [407, 500, 502, 504, 599, 600, 999] {
            let expected = format!("Upstream {{ status: {status}, retry_after: None }}");
            assert_eq!(row(status, None, true), expected);
        }
        assert_eq!(row(503, None, true), "Upstream { status: 503, retry_after: Some(7s) }");
    }

    #[test]
    fn refusal_of_another_origin_is_an_upstream_failure() {
        for (status, errcode, expected) in [
            (400, None, "Upstream { status: 400, retry_after: None }"),
            (401, Some("M_UNKNOWN_TOKEN"), "Upstream { status: 401, retry_after: None }"),
            (403, Some("M_FORBIDDEN"), "Upstream { status: 403, retry_after: None }"),
            (410, None, "Upstream { status: 410, retry_after: None }"),
            (429, None, "Upstream { status: 429, retry_after: Some(7s) }"),
            (500, Some("M_NOT_YET_UPLOADED"), "Upstream { status: 500, retry_after: None }"),
            (503, None, "Upstream { status: 503, retry_after: Some(7s) }"),
            // A 404 means absent media, regardless of the sender.
            (404, None, "NotFound"),
        ] {
            let error = refusal(status, errcode).into_error(RefusalSender::Redirected);
            assert_eq!(format!("{error:?}"), expected);
        }
        let error = refusal(403, None).into_error(TOKEN_SENT);
        assert_eq!(format!("{error:?}"), "Refused { status: 403, retry_after: None }");
    }

    #[test]
    fn tries_next_route_only_if_route_is_unsupported() {
        assert!(
            refusal(404, Some("M_UNRECOGNIZED"))
                .should_try_next_route(UpstreamRoute::Authenticated)
        );
        assert!(
            refusal(500, Some("M_UNRECOGNIZED"))
                .should_try_next_route(UpstreamRoute::Authenticated)
        );
        assert!(
            !refusal(404, Some("M_NOT_FOUND")).should_try_next_route(UpstreamRoute::Authenticated)
        );
        assert!(!refusal(404, None).should_try_next_route(UpstreamRoute::Authenticated));
        assert!(refusal(404, None).should_try_next_route(UpstreamRoute::V3));
        assert!(refusal(405, Some("M_UNRECOGNIZED")).should_try_next_route(UpstreamRoute::V3));
        assert!(!refusal(405, None).should_try_next_route(UpstreamRoute::V3));
        assert!(!refusal(401, None).should_try_next_route(UpstreamRoute::V3));
    }
}
