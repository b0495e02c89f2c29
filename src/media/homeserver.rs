//! The homeservers: which one a request belongs to, and asking it for a media over the routes it
//! knows. Decides where a token goes (to a configured homeserver, nowhere else); the rules for
//! addresses and redirects are `exits`'. Contract: "Whose token, and where it goes".

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{
    Response, Url,
    header::{self, HeaderMap, HeaderValue},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    FetchError, MediaRequest, Origin, Settings,
    answer::Refusal,
    discovery::Discovery,
    exits::{Exits, Giver, Question, Reached, base_url},
    id::split_port,
    pace,
    routes::Route,
};
use crate::metrics::Metrics;

/// What cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `download.ca_certificates`.
    #[error("the certificates in {path} cannot be used")]
    #[expect(missing_docs, reason = "the message says it")]
    Certificates {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A configured URL is https and nobody is trusted.
    #[error("https is configured, but {0}")]
    NoRoots(&'static str),
    /// A base URL with `user:password@`: it would stand in the way of the requesters' tokens.
    #[error("the base URL of {0} has a user name or password; use download.additional_headers")]
    Credentials(String),
    /// rustls refused its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// reqwest refused, the proxy above all.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl SetupError {
    /// A proxy's URL may hold a password.
    pub(super) fn client(error: reqwest::Error) -> Self {
        Self::Client(error.without_url())
    }
}

/// All homeservers that media may come from.
pub struct Homeservers {
    base: Option<Arc<Url>>,
    by_host: HashMap<String, Arc<Url>>,
    additional_headers: HeaderMap,
    exits: Exits,
    discovery: Discovery,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    /// One for each processor: hashing and decrypting many bodies at once would be no quicker, and
    /// would keep everything else waiting for a processor.
    pub(super) crunching: Arc<Semaphore>,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_size: u64,
    pub(super) idle_timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) min_rate: u64,
    pub(super) rate_window: Duration,
}

impl Homeservers {
    /// Sets up TLS and clients. Blocking (it reads the system's certificates); for the start.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, SetupError> {
        let configured = settings
            .base_homeserver_url
            .iter()
            .chain(settings.homeservers.iter().map(|(_, url)| url));
        for url in configured.clone() {
            if !url.username().is_empty() || url.password().is_some() {
                let host = url.host_str().unwrap_or_default();
                return Err(SetupError::Credentials(host.to_owned()));
            }
        }
        Ok(Self {
            base: settings.base_homeserver_url.as_ref().map(base_url),
            by_host: settings
                .homeservers
                .iter()
                .map(|(host, url)| (host.to_ascii_lowercase(), base_url(url)))
                .collect(),
            additional_headers: settings.additional_headers.clone(),
            exits: Exits::new(settings, configured, Arc::clone(&metrics))?,
            discovery: Discovery::new(),
            limits: Limits {
                max_size: settings.max_size,
                idle_timeout: settings.idle_timeout,
                total_timeout: settings.total_timeout,
                min_rate: settings.min_rate,
                rate_window: pace::WINDOW,
            },
            metrics,
            crunching: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
        })
    }

    /// The homeserver of whoever asks under this request Host (with or without a port). None where
    /// a map is configured and neither it nor a base URL covers this Host: falling back on
    /// discovery would make a relay for everybody of a service meant for some.
    #[must_use]
    pub fn choose(&self, host: Option<&str>) -> Option<Origin> {
        let host = host.filter(|_| !self.by_host.is_empty()).map(str::to_ascii_lowercase);
        let by_host = host.and_then(|host| {
            self.by_host.get(&host).or_else(|| self.by_host.get(split_port(&host).0))
        });
        match by_host.or(self.base.as_ref()) {
            Some(url) => Some(Origin::Configured(Arc::clone(url))),
            None if self.by_host.is_empty() => Some(Origin::Discovered),
            None => None,
        }
    }

    /// GETs the media over the first route that the homeserver knows. A status of 400 or more is an
    /// error here; what others mean is the caller's.
    pub(super) async fn ask(
        &self,
        request: &MediaRequest,
        condition: Option<&HeaderValue>,
        leave_origin: bool,
        deadline: Instant,
    ) -> Result<Reached, FetchError> {
        let base = match &request.origin {
            Origin::Configured(base) => Arc::clone(base),
            Origin::Discovered => {
                self.discovery.base_url(&request.media, &self.exits, deadline).await?
            }
        };
        let mut route = Route::first(request);
        loop {
            let mut headers = match &request.origin {
                Origin::Configured(_) => {
                    route.headers(&self.additional_headers, &request.requester)
                }
                Origin::Discovered => HeaderMap::new(),
            };
            if let Some(etag) = condition {
                headers.insert(header::IF_NONE_MATCH, etag.clone());
            }
            let question =
                Question { headers, leave_origin, patience: self.limits.idle_timeout, deadline };
            let reached = self.exits.walk(route.url(&base, request), question).await?;
            let (response, giver) = match reached {
                Reached::Answer(response, giver) if response.status().as_u16() >= 400 => {
                    (response, giver)
                }
                reached => return Ok(reached),
            };
            let refusal = Refusal::read(response, deadline).await;
            match route.next() {
                Some(next) if refusal.leads_on(route) => route = next,
                _ => {
                    let own = request.origin != Origin::Discovered && giver == Giver::Asked;
                    let token = own.then_some(route == Route::Authenticated);
                    return Err(refusal.into_error(token));
                }
            }
        }
    }

    /// The end of one media's time, from now.
    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        // A time limit too far for the clock is none; a day is as good.
        now.checked_add(self.limits.total_timeout).unwrap_or(now + Duration::from_secs(86_400))
    }
}

/// A remembered header's value is this long at the most, bytes: far more than a type or a file name takes.
const MAX_KEPT_HEADER: usize = 4096;

/// The one value of a header; none if it is absent, doubled or too long to keep.
pub(super) fn single(response: &Response, name: &header::HeaderName) -> Option<HeaderValue> {
    single_of(response.headers(), name)
}

fn single_of(headers: &HeaderMap, name: &header::HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| value.len() <= MAX_KEPT_HEADER)?;
    if values.next().is_some() {
        return None;
    }
    // A copy: a clone would be a slice of hyper's read buffer, and keep all of it for as long as the
    // media is remembered.
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
