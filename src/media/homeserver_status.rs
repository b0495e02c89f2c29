//! What requests to the configured homeservers have shown: whether each is reachable, and whether it supports the routes.
//! Kept when a reload replaces the homeservers. `telemetry` exports it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

use super::{error::FetchError, routes::UpstreamRoute};
use crate::{chain::Chain, exhaustion::is_exhaustion};

/// Interval of the checks of reachability, and time without a response after which a homeserver is asked.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Number of [`UpstreamRoute`]s.
const ROUTES: usize = 3;

/// The statuses of all homeservers that were configured since the start, by name.
#[derive(Default, Debug)]
pub(super) struct HomeserverStatuses(Mutex<BTreeMap<String, Arc<HomeserverStatus>>>);

/// What requests to one configured homeserver have shown.
#[derive(Debug)]
pub struct HomeserverStatus {
    name: String,
    state: Mutex<StatusState>,
}

#[derive(Default, Debug)]
struct StatusState {
    /// Result of the latest request; `None` before the first.
    reachable: Option<Result<(), String>>,
    /// Time of the latest response.
    answered: Option<Instant>,
    /// Whether the log has the outage.
    is_outage_logged: bool,
    /// Responses to requests for media, by route: recognized and unrecognized.
    responses: [MediaResponses; ROUTES],
}

/// Number of responses of a homeserver to requests for media over one route.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MediaResponses {
    /// Responses of a server that supports the route.
    pub recognized: u64,
    /// `M_UNRECOGNIZED`, or 404 without an error code of Matrix: the homeserver is too old, or the server is none.
    pub unrecognized: u64,
}

/// A change of reachability, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ReachabilityChange {
    /// The outage, with its cause.
    Lost(String),
    Regained,
}

impl HomeserverStatuses {
    /// Returns the status of the homeserver at this base URL.
    pub(super) fn get(&self, base: &Url) -> Arc<HomeserverStatus> {
        let name = display_name(base);
        let mut statuses = self.0.lock();
        let status = statuses
            .entry(name.clone())
            .or_insert_with(|| Arc::new(HomeserverStatus { name, state: Mutex::default() }));
        Arc::clone(status)
    }
}

impl HomeserverStatus {
    /// Returns the host of the base URL, with its port unless the port is 443.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the latest request got a response of any status; `None` before the first request.
    #[must_use]
    pub fn is_reachable(&self) -> Option<bool> {
        self.state.lock().reachable.as_ref().map(Result::is_ok)
    }

    /// Returns the number of responses to requests for media, with the names of the routes.
    #[must_use]
    pub fn media_responses(&self) -> [(&'static str, MediaResponses); ROUTES] {
        let [authenticated, v3, r0] = self.state.lock().responses;
        [("client_v1", authenticated), ("v3", v3), ("r0", r0)]
    }

    /// Records that a response was received, of any status.
    pub(super) fn record_response(&self) {
        let mut state = self.state.lock();
        state.reachable = Some(Ok(()));
        state.answered = Some(Instant::now());
    }

    /// Records that a request got no response. Exhausted resources of this machine say nothing about the homeserver.
    pub(super) fn record_failure(&self, error: &FetchError) {
        if !is_exhaustion(error) {
            self.state.lock().reachable = Some(Err(Chain(error).to_string()));
        }
    }

    /// Records whether the homeserver supports the route of a request for media that it has answered.
    pub(super) fn record_route(&self, route: UpstreamRoute, is_recognized: bool) {
        let [authenticated, v3, r0] = &mut self.state.lock().responses;
        let responses = match route {
            UpstreamRoute::Authenticated => authenticated,
            UpstreamRoute::V3 => v3,
            UpstreamRoute::R0 => r0,
        };
        if is_recognized {
            responses.recognized += 1;
        } else {
            responses.unrecognized += 1;
        }
    }

    /// Returns whether there was no response within `time`.
    pub(super) fn is_idle(&self, time: Duration) -> bool {
        self.state.lock().answered.is_none_or(|answered| answered.elapsed() >= time)
    }

    /// Returns the change of reachability since the previous call, if there is one.
    pub(super) fn take_change(&self) -> Option<ReachabilityChange> {
        let mut state = self.state.lock();
        let (change, is_outage) = match &state.reachable {
            Some(Err(cause)) => (ReachabilityChange::Lost(cause.clone()), true),
            Some(Ok(())) | None => (ReachabilityChange::Regained, false),
        };
        let was_outage = std::mem::replace(&mut state.is_outage_logged, is_outage);
        (was_outage != is_outage).then_some(change)
    }
}

/// Returns host and port. The port distinguishes servers on one host, and http from https.
fn display_name(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    match base.port_or_known_default() {
        Some(443) | None => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_neither_credentials_nor_path() {
        for (url, expected) in [
            ("https://user:secret@matrix.example.org/path?q#f", "matrix.example.org"),
            ("http://matrix.example.org", "matrix.example.org:80"),
            ("https://[::1]:8448/", "[::1]:8448"),
        ] {
            assert_eq!(display_name(&Url::parse(url).unwrap()), expected);
        }
    }

    #[test]
    fn outage_is_reported_once() {
        let statuses = HomeserverStatuses::default();
        let url = Url::parse("https://example.org").unwrap();
        let status = statuses.get(&url);
        assert_eq!((status.is_reachable(), status.take_change()), (None, None));
        let exhausted = std::io::Error::from_raw_os_error(nix::libc::EMFILE);
        status.record_failure(&FetchError::Unreachable(exhausted.into()));
        assert_eq!(status.is_reachable(), None);
        for _ in 0..2 {
            status.record_failure(&FetchError::Unreachable("refused".into()));
        }
        assert_eq!(status.is_reachable(), Some(false));
        let cause = "the homeserver could not be reached: refused".to_owned();
        assert_eq!(status.take_change(), Some(ReachabilityChange::Lost(cause)));
        assert_eq!(status.take_change(), None);
        statuses.get(&url).record_response();
        assert_eq!(status.is_reachable(), Some(true));
        assert_eq!(status.take_change(), Some(ReachabilityChange::Regained));
        assert_eq!(status.take_change(), None);
    }
}
