//! Discovers the base URL of a server's media if no homeserver is configured: from the server's
//! `.well-known/matrix/client`, otherwise from the server name, used as an address. Sends no token. Matrix
//! specification, client-server API, section "Server discovery".

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, Url, header::HeaderMap};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    error::FetchError,
    expiring_cache::ExpiringCache,
    http_util::{base_url, read_small, within, without_credentials},
    id::MediaId,
    outbound::{HttpClients, OutboundReply, OutboundRequest, RedirectPolicy},
    resolver::{ResolutionError, ResolutionFailure},
};
use crate::{chain::Chain, exhaustion::is_exhaustion};

/// Maximum number of cached server names.
pub(crate) const CAPACITY: usize = 1000;
/// Maximum memory of one cached server name, bytes.
#[cfg(test)]
pub(crate) const ENTRY_BYTES: usize = 4096;
const TTL: Duration = Duration::from_secs(3600);
/// Time to live of the fallback address after `.well-known` gave no usable answer: the server may only be down.
const FAILURE_TTL: Duration = Duration::from_secs(300);
/// Time limit from the request to the end of its response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a `.well-known` document, bytes.
const MAX_DOCUMENT: usize = 64 * 1024;

/// Discovered base URLs, by server name.
pub(super) struct Discovery {
    known: ExpiringCache<String, Arc<Url>, Result<Arc<Url>, DiscoveryFailure>>,
}

/// Reason why discovery ended without a base URL, shared by all requests that waited for it. Never cached.
#[derive(Clone, Debug)]
enum DiscoveryFailure {
    /// The name would be resolved again for the media, with the same result and for as long.
    Resolution(ResolutionError),
    /// Descriptors or memory are exhausted, which is not a fault of the server.
    Exhaustion(Arc<FetchError>),
}

impl From<DiscoveryFailure> for FetchError {
    fn from(failure: DiscoveryFailure) -> Self {
        match failure {
            DiscoveryFailure::Resolution(error) => error.into(),
            DiscoveryFailure::Exhaustion(error) => Self::Unreachable(error.into()),
        }
    }
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: WellKnownHomeserver,
}

#[derive(Deserialize)]
struct WellKnownHomeserver {
    base_url: String,
}

impl Discovery {
    pub(super) fn new() -> Self {
        Self { known: ExpiringCache::new(CAPACITY) }
    }

    /// Returns the server's base URL. One discovery at a time is in progress for each server name.
    ///
    /// # Errors
    /// [`FetchError::NotFound`] for a name that no URL can have (`1.2.3.4.5`); [`FetchError::TimedOut`] at `deadline`;
    /// the error of its resolution for a name that cannot be resolved; [`FetchError::Unreachable`] for lack of resources.
    pub(super) async fn base_url(
        &self,
        media: &MediaId,
        http_clients: &HttpClients,
        deadline: Instant,
    ) -> Result<Arc<Url>, FetchError> {
        let name = media.server_name();
        let fallback = Url::parse(&format!("https://{name}")).map_err(|_| FetchError::NotFound)?;
        if let Some(base) = self.known.get(name) {
            return Ok(base);
        }
        let discover = async {
            // Another discovery may have ended since.
            if let Some(base) = self.known.get(name) {
                return Ok(base);
            }
            // `.well-known` is requested for IP addresses as well: the specification makes no exception.
            let well_known = request_well_known(media.host(), http_clients, deadline).await?;
            let (base, ttl) = match well_known {
                Some(base) => (base_url(&base), TTL),
                None => (base_url(&fallback), FAILURE_TTL),
            };
            self.known.insert(name.to_owned(), Arc::clone(&base), ttl);
            Ok(base)
        };
        let shared = self.known.in_flight.run(name.to_owned(), |_, _| true, discover);
        let base = timeout_at(deadline, shared)
            .await
            .map_err(|_| FetchError::TimedOut("discovery did not finish"))?;
        Ok(base?)
    }
}

/// Returns the base URL that the host's `.well-known` names, if it is usable.
///
/// # Errors
/// If the host itself cannot be resolved, or this machine lacks resources.
async fn request_well_known(
    host: &str,
    http_clients: &HttpClients,
    deadline: Instant,
) -> Result<Option<Url>, DiscoveryFailure> {
    let deadline = within(TIMEOUT, deadline);
    let Ok(url) = Url::parse(&format!("https://{host}/.well-known/matrix/client")) else {
        return Ok(None);
    };
    let outbound_request = OutboundRequest {
        headers: HeaderMap::new(),
        redirects: RedirectPolicy::Follow,
        per_hop_timeout: TIMEOUT,
        deadline,
    };
    let response = match http_clients.get_following_redirects(url, outbound_request).await {
        Ok(OutboundReply::Response(response, _)) if response.status() == StatusCode::OK => response,
        Ok(_) => return Ok(None),
        Err(error) => {
            tracing::debug!(host, error = %Chain(&error), "discovery failed");
            return discovery_failure(error, host).map_or(Ok(None), Err);
        }
    };
    let body = read_small(response, MAX_DOCUMENT, deadline).await;
    Ok(body.and_then(|body| parse(&body)))
}

/// Returns the failure if this machine lacks resources, or if this host could not be resolved, and not another one after
/// a redirect. Otherwise the fallback address applies.
fn discovery_failure(error: FetchError, host: &str) -> Option<DiscoveryFailure> {
    if is_exhaustion(&error) {
        return Some(DiscoveryFailure::Exhaustion(Arc::new(error)));
    }
    let error = match error {
        FetchError::Unresolved(error) => error,
        FetchError::ForbiddenAddress(name) => {
            ResolutionError { name, cause: ResolutionFailure::NotGlobal }
        }
        _ => return None,
    };
    error.name.eq_ignore_ascii_case(host).then_some(DiscoveryFailure::Resolution(error))
}

/// Maximum length of a discovered base URL, bytes.
pub(crate) const MAX_BASE_URL: usize = 2048;

/// Parses a `.well-known` document. The address rules apply when the URL is used.
pub(super) fn parse(body: &[u8]) -> Option<Url> {
    let well_known: WellKnown = serde_json::from_slice(body).ok()?;
    let url = Url::parse(&well_known.homeserver.base_url).ok()?;
    let is_usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    // The normalised URL may be longer than the text in the document.
    is_usable.then(|| without_credentials(url)).filter(|url| url.as_str().len() <= MAX_BASE_URL)
}

#[cfg(test)]
mod tests;
