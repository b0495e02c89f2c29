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
pub(super) const RELOAD_APPLIED: &str = "applied";
pub(super) const RELOAD_REJECTED: &str = "rejected";

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
