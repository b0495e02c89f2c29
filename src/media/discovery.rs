//! Where the media of a server is, when no homeserver is configured: its own word in
//! `.well-known/matrix/client`, else its name taken for an address. No token ever comes here.
//! Matrix specification, client-server API, "Well-known URIs" (server discovery).

use std::{sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use reqwest::{StatusCode, Url, header::HeaderMap};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    FetchError, MediaId,
    exits::{Exits, Question, Reached, base_url, read_small, within, without_credentials},
};
use crate::chain::Chain;

/// Server names remembered.
const CAPACITY: usize = 1000;
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Where there was no usable answer: it may only be down.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(300);
/// From the question to the end of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;

/// What was found, by server name.
pub(super) struct Discovery {
    known: Cache<String, Known>,
}

#[derive(Clone)]
struct Known {
    base: Arc<Url>,
    until: Instant,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: Homeserver,
}

#[derive(Deserialize)]
struct Homeserver {
    base_url: String,
}

impl Discovery {
    pub(super) fn new() -> Self {
        Self { known: Cache::new(CAPACITY) }
    }

    /// The server's base URL. One question at a time for each server name; a name that no URL can
    /// have (`1.2.3.4.5`) is nobody's.
    pub(super) async fn base_url(
        &self,
        media: &MediaId,
        exits: &Exits,
        deadline: Instant,
    ) -> Result<Arc<Url>, FetchError> {
        let name = media.server_name();
        let fallback = Url::parse(&format!("https://{name}")).map_err(|_| FetchError::NotFound)?;
        loop {
            let waiting = self.known.get_value_or_guard_async(name);
            let found = timeout_at(deadline, waiting)
                .await
                .map_err(|_| FetchError::TimedOut("no answer to discovery"))?;
            match found {
                Ok(known) if Instant::now() < known.until => return Ok(known.base),
                Ok(_) => {
                    self.known.remove_if(name, |known| known.until <= Instant::now());
                }
                Err(guard) => {
                    // An IP address is asked too: the rule makes no exception, and it is one request.
                    let found = ask(media.host(), exits, deadline).await;
                    let (base, lasts) = match found {
                        Some(base) => (base_url(&base), REMEMBERED),
                        None => (base_url(&fallback), FAILURE_REMEMBERED),
                    };
                    // Fails only if the entry was removed meanwhile: then it is asked again.
                    let _ = guard
                        .insert(Known { base: Arc::clone(&base), until: Instant::now() + lasts });
                    return Ok(base);
                }
            }
        }
    }
}

/// The base URL that the host's `.well-known` names, if it is a usable one.
async fn ask(host: &str, exits: &Exits, deadline: Instant) -> Option<Url> {
    let deadline = within(PATIENCE, deadline);
    let url = Url::parse(&format!("https://{host}/.well-known/matrix/client")).ok()?;
    let question =
        Question { headers: HeaderMap::new(), leave_origin: true, patience: PATIENCE, deadline };
    let response = match exits.walk(url, question).await {
        Ok(Reached::Answer(response, _)) if response.status() == StatusCode::OK => response,
        Ok(_) => return None,
        Err(error) => {
            tracing::debug!(host, error = %Chain(&error), "discovery failed");
            return None;
        }
    };
    let body = read_small(response, MAX_ANSWER, deadline).await?;
    parse(&body)
}

/// Its address is judged when it is used, like any other.
fn parse(body: &[u8]) -> Option<Url> {
    let well_known: WellKnown = serde_json::from_slice(body).ok()?;
    let url = Url::parse(&well_known.homeserver.base_url).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then(|| without_credentials(url))
}

#[cfg(test)]
mod tests;
