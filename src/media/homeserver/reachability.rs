//! Whether the configured homeservers are reachable. The requests of clients show it; while there are none, a check does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Url;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Homeservers;
use crate::media::{
    error::FetchError,
    homeserver_status::{HomeserverStatus, ReachabilityChange},
    http_util::read_small,
    routes::operator_headers,
};

/// Time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Every homeserver has this route, without a token. Client-server API, section "API versions".
const VERSIONS: &str = "_matrix/client/versions";

/// Maximum length of the list of versions that is read so that the connection can be used again, bytes.
const MAX_VERSIONS: usize = 64 << 10;

impl Homeservers {
    /// Returns the status of each configured homeserver, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<Arc<HomeserverStatus>> {
        self.base_urls().into_values().map(|(_, status)| status).collect()
    }

    /// Asks the configured homeservers that have not answered within `idle`, and logs which are not reachable. Any response
    /// counts, also that of a proxy in front of the homeserver.
    pub async fn check_reachability(&self, idle: Duration) {
        let servers = self.base_urls();
        let idle_servers = servers.values().filter(|(_, status)| status.is_idle(idle));
        join_all(idle_servers.map(|(base, status)| self.check(base, status))).await;
        for (_, status) in servers.values() {
            let homeserver = status.name();
            match status.take_change() {
                Some(ReachabilityChange::Lost(cause)) => {
                    warn!(homeserver, cause, "homeserver not reachable");
                }
                Some(ReachabilityChange::Regained) => {
                    info!(homeserver, "homeserver reachable again");
                }
                None => {}
            }
        }
    }

    async fn check(&self, base: &Url, status: &HomeserverStatus) {
        let mut url = base.clone();
        url.set_path(&format!("{}/{VERSIONS}", base.path().trim_end_matches('/')));
        let headers = operator_headers(&self.additional_headers);
        let until = Instant::now() + CHECK_TIMEOUT;
        match timeout_at(until, self.http_clients.get(url, headers)).await {
            Ok(Ok(response)) => {
                status.record_response();
                read_small(response, MAX_VERSIONS, until).await;
            }
            Ok(Err(error)) => status.record_failure(&error),
            Err(_elapsed) => status.record_failure(&FetchError::TimedOut("no response headers")),
        }
    }

    /// Returns one base URL of each homeserver, by name: two of them may differ in their paths alone.
    fn base_urls(&self) -> BTreeMap<String, (&Url, Arc<HomeserverStatus>)> {
        let urls = self.base.iter().chain(self.by_host.values());
        let servers = urls.map(|url| {
            let status = self.counters.homeservers.get(url);
            (status.name().to_owned(), (&**url, status))
        });
        servers.collect()
    }
}

#[cfg(test)]
mod tests;
