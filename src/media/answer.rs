//! Interprets error responses of homeservers: the contract's table, by status and `errcode`. Matrix specification,
//! client-server API, section "Standard error response".

use std::time::Duration;

use reqwest::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    error::FetchError,
    http_util::{read_small, within},
    routes::UpstreamRoute,
};

/// Maximum size of an error body, in bytes. Valid ones have a few dozen.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Response with a status of 400 or more.
pub(super) struct UpstreamRefusal {
    status: StatusCode,
    errcode: Option<String>,
    retry_after: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct StandardError {
    errcode: String,
}

impl UpstreamRefusal {
    /// Reads the `errcode` from the body, if the body has one.
    pub(super) async fn read(response: Response, deadline: Instant) -> Self {
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        let until = within(ERROR_BODY_TIMEOUT, deadline);
        let errcode = read_small(response, MAX_ERROR_BODY, until)
            .await
            .and_then(|body| serde_json::from_slice::<StandardError>(&body).ok())
            .map(|error| error.errcode);
        Self { status, errcode, retry_after }
    }

    /// Returns whether to try the next route. A 404 on the authenticated route means that the media is absent, unless
    /// the homeserver is too old to support that route.
    pub(super) fn should_try_next_route(&self, from: UpstreamRoute) -> bool {
        self.has("M_UNRECOGNIZED")
            || (from == UpstreamRoute::V3 && self.status == StatusCode::NOT_FOUND)
    }

    /// Converts the response to the error of the contract's table. A gateway's 504 is treated like any other 5xx: this
    /// service did not time out.
    ///
    /// `token`: whether the responder received a token. None if statements of the responder about tokens are not
    /// trusted: after a redirect, another server must not be able to log clients out.
    pub(super) fn into_error(self, token: Option<bool>) -> FetchError {
        if self.has("M_UNRECOGNIZED") {
            return FetchError::NotFound;
        }
        if self.has("M_NOT_YET_UPLOADED") {
            return FetchError::NotYetUploaded;
        }
        match self.status.as_u16() {
            401 => match token {
                Some(_) if self.has("M_UNKNOWN_TOKEN") => FetchError::UnknownToken,
                Some(true) if !self.has("M_MISSING_TOKEN") => FetchError::UnknownToken,
                _ => FetchError::MissingToken,
            },
            404 => FetchError::NotFound,
            // A proxy requires this service to authenticate; the client cannot fix that.
            407 => FetchError::Upstream { status: 407 },
            status @ 400..=499 => {
                let retry_after = self.retry_after.filter(|_| status == 429);
                FetchError::Refused { status, retry_after }
            }
            status => FetchError::Upstream { status },
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
            retry_after: Some(HeaderValue::from_static("7")),
        }
    }

    #[test]
    fn maps_status_and_errcode_to_error() {
        let row = |status, errcode, token_sent| {
            format!("{:?}", refusal(status, errcode).into_error(Some(token_sent)))
        };
        for errcode in [None, Some("M_UNKNOWN_TOKEN"), Some("M_MISSING_TOKEN")] {
            let untrusted = refusal(401, errcode).into_error(None);
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
        assert_eq!(row(429, None, true), r#"Refused { status: 429, retry_after: Some("7") }"#);
        for status in [407, 500, 502, 503, 504, 599, 600, 999] {
            assert_eq!(row(status, None, true), format!("Upstream {{ status: {status} }}"));
        }
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
