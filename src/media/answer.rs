//! What a homeserver's refusal means: the contract's table, read from status and errcode. Knows
//! nothing of how the answer came. Matrix specification, client-server API, "Standard error
//! response".

use std::time::Duration;

use reqwest::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    FetchError,
    exits::{read_small, within},
    routes::Route,
};

/// An error body is a few dozen bytes; more than this is not one.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(10);

/// An answer with a status of 400 or more.
pub(super) struct Refusal {
    status: StatusCode,
    errcode: Option<String>,
    retry_after: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct StandardError {
    errcode: String,
}

impl Refusal {
    /// Reads the errcode, if the body has one.
    pub(super) async fn read(response: Response, deadline: Instant) -> Self {
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        let until = within(ERROR_BODY_PATIENCE, deadline);
        let errcode = read_small(response, MAX_ERROR_BODY, until)
            .await
            .and_then(|body| serde_json::from_slice::<StandardError>(&body).ok())
            .map(|error| error.errcode);
        Self { status, errcode, retry_after }
    }

    /// Whether the next route is to be tried. From the authenticated one only where the homeserver
    /// is too old to know it: a 404 there is the homeserver's word on the media.
    pub(super) fn leads_on(&self, from: Route) -> bool {
        self.has("M_UNRECOGNIZED") || (from == Route::V3 && self.status == StatusCode::NOT_FOUND)
    }

    /// The table's row. A gateway's 504 is a 5xx like the others: what timed out is not us.
    ///
    /// `token`: whether the one who answers was sent a token, or none if it is nobody whose word on
    /// tokens counts: a stranger must not make clients believe that they are logged out.
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
            // A proxy's, about us: nothing that the client could do anything about.
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

    fn refusal(status: u16, errcode: Option<&str>) -> Refusal {
        Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.map(str::to_owned),
            retry_after: Some(HeaderValue::from_static("7")),
        }
    }

    #[test]
    fn each_refusal_has_its_row() {
        let row = |status, errcode, token_sent| {
            format!("{:?}", refusal(status, errcode).into_error(Some(token_sent)))
        };
        for errcode in [None, Some("M_UNKNOWN_TOKEN"), Some("M_MISSING_TOKEN")] {
            let stranger = refusal(401, errcode).into_error(None);
            assert!(matches!(stranger, FetchError::MissingToken));
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
    fn only_a_route_that_is_not_known_leads_to_the_next() {
        assert!(refusal(404, Some("M_UNRECOGNIZED")).leads_on(Route::Authenticated));
        assert!(refusal(500, Some("M_UNRECOGNIZED")).leads_on(Route::Authenticated));
        assert!(!refusal(404, Some("M_NOT_FOUND")).leads_on(Route::Authenticated));
        assert!(!refusal(404, None).leads_on(Route::Authenticated));
        assert!(refusal(404, None).leads_on(Route::V3));
        assert!(refusal(405, Some("M_UNRECOGNIZED")).leads_on(Route::V3));
        assert!(!refusal(405, None).leads_on(Route::V3));
        assert!(!refusal(401, None).leads_on(Route::V3));
    }
}
