//! Counters of requests to homeservers. `metrics` exports them.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::homeserver_status::HomeserverStatuses;

/// Counters of requests to homeservers.
#[derive(Debug)]
pub struct FetchCounters {
    /// Bytes of response bodies.
    pub(crate) received_bytes: Counter,
    /// Responses by status; `none` for a request without a response.
    pub(crate) responses: Family<[(&'static str, &'static str); 1], Counter>,
    /// Access checks for cached media by result.
    pub(crate) authorisations: Family<[(&'static str, &'static str); 1], Counter>,
    /// What requests to the configured homeservers have shown.
    pub(super) homeservers: HomeserverStatuses,
    /// Questions for the user of an access token by result.
    pub(crate) user_lookups: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Result of asking a homeserver for the user of an access token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UserLookup {
    /// The homeserver named the user.
    Found,
    /// The homeserver does not accept the token.
    Refused,
    /// There was no valid answer.
    Failed,
    /// The homeserver was not asked, because too many audit lines wait for an answer.
    Skipped,
}

/// Result of checking whether a requester may access cached media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AccessCheck {
    /// A recent check of the homeserver granted access.
    Cached,
    /// The homeserver granted access.
    Granted,
    /// The homeserver refused access or did not respond.
    Refused,
}

impl Default for FetchCounters {
    fn default() -> Self {
        let counters = Self {
            received_bytes: Counter::default(),
            responses: Family::default(),
            authorisations: Family::default(),
            homeservers: HomeserverStatuses::default(),
            user_lookups: Family::default(),
        };
        // `rate()` misses the first event of a series that appears with it.
        for result in [AccessCheck::Cached, AccessCheck::Granted, AccessCheck::Refused] {
            drop(counters.authorisations.get_or_create(&result.labels()));
        }
        for result in
            [UserLookup::Found, UserLookup::Refused, UserLookup::Failed, UserLookup::Skipped]
        {
            drop(counters.user_lookups.get_or_create(&result.labels()));
        }
        counters
    }
}

impl FetchCounters {
    pub(super) fn record_bytes(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    /// Records the status of a response, or `None` for a request without a response.
    pub(crate) fn record_response(&self, status: Option<u16>) {
        let status = status.map_or("none", status_label);
        self.responses.get_or_create(&[("status", status)]).inc();
    }

    pub(super) fn record_access_check(&self, result: AccessCheck) {
        self.authorisations.get_or_create(&result.labels()).inc();
    }

    pub(super) fn record_user_lookup(&self, result: UserLookup) {
        self.user_lookups.get_or_create(&result.labels()).inc();
    }
}

impl UserLookup {
    fn labels(self) -> [(&'static str, &'static str); 1] {
        let result = match self {
            Self::Found => "found",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        };
        [("result", result)]
    }
}

impl AccessCheck {
    fn labels(self) -> [(&'static str, &'static str); 1] {
        let result = match self {
            Self::Cached => "remembered",
            Self::Granted => "granted",
            Self::Refused => "refused",
        };
        [("result", result)]
    }
}

/// Returns the label of a status; the class for unusual ones, since homeservers can send any number.
pub(crate) fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        206 => "206",
        302 => "302",
        304 => "304",
        307 => "307",
        308 => "308",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        416 => "416",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        100..=199 => "1xx",
        201..=299 => "2xx",
        300..=399 => "3xx",
        402..=499 => "4xx",
        501..=599 => "5xx",
        _ => "other",
    }
}
