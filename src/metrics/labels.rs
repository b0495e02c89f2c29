//! Values of labels.

/// Routes with their usual method. Other paths are labelled `unknown`.
pub(crate) const ROUTES: [(&str, &str); 6] = [
    ("download", "GET"),
    ("thumbnail", "GET"),
    ("scan", "GET"),
    ("download_encrypted", "POST"),
    ("scan_encrypted", "POST"),
    ("public_key", "GET"),
];

/// Values of [`crate::scan::ScanError::cause`] that indicate a fault of this service, which operators are alerted to.
pub(crate) const SERVER_FAULT_CAUSES: [&str; 11] = [
    "not_ready",
    "overloaded",
    "spool_full",
    "deadline_queued",
    "deadline_scanning",
    "script_timeout",
    "script_signal",
    "script_exit_code",
    "sandbox",
    "disk",
    "panicked",
];

/// Reason why work was avoided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheHit {
    /// The complete response was in memory.
    Response,
    /// A job for the same media was already in flight.
    InFlightScan,
    /// The media was fetched, and the verdict on its content was cached.
    Verdict,
}

impl CacheHit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Response => "answer",
            Self::InFlightScan => "flight",
            Self::Verdict => "verdict",
        }
    }
}

/// Result of checking whether a requester may access cached media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authorisation {
    /// A recent check of the homeserver granted access.
    Cached,
    /// The homeserver granted access.
    Granted,
    /// The homeserver refused access or did not respond.
    Refused,
}

impl Authorisation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cached => "remembered",
            Self::Granted => "granted",
            Self::Refused => "refused",
        }
    }
}

/// Result of writing an audit line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditLineResult {
    Written,
    Lost,
}

impl AuditLineResult {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Lost => "lost",
        }
    }
}

/// Label values of a reload's result.
pub(super) const RELOAD_APPLIED: &str = "taken_over";
pub(super) const RELOAD_REJECTED: &str = "refused";

/// Returns the label of a method; `other` for unusual ones, which clients can invent.
pub(super) fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Returns the label of a status; the class for unusual ones, since homeservers can send any number.
pub(super) fn status_label(status: u16) -> &'static str {
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
