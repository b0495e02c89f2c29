//! Homeservers: selects the one for a request and requests media over the routes that it supports. Access tokens are
//! sent to configured homeservers only. `outbound` enforces the rules for addresses and redirects. Contract, section
//! "Destination of tokens".

mod reachability;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    answer::{RefusalSender, UpstreamRefusal},
    counters::FetchCounters,
    discovery::Discovery,
    error::FetchError,
    http_util::base_url,
    id::{MediaId, split_port},
    outbound::{
        HttpClients, OutboundReply, OutboundRequest, RedirectPolicy, Responder, keeps_method,
    },
    rate,
    request::{MediaRequest, Origin, Requester},
    routes::UpstreamRoute,
    setup_error::OutboundSetupError,
};
use crate::{
    config::sections::download::Settings,
    tenancy::{SentToken, TenantGroup, TenantTable},
};

/// All homeservers that media is downloaded from.
pub struct Homeservers {
    base: Option<Arc<Url>>,
    by_host: HashMap<String, Arc<Url>>,
    additional_headers: HeaderMap,
    http_clients: HttpClients,
    discovery: Discovery,
    pub(super) limits: DownloadLimits,
    pub(super) counters: Arc<FetchCounters>,
    /// One permit per processor. Hashing and decrypting more bodies concurrently would not be faster, and would delay
    /// all other work.
    pub(super) cpu_slots: Arc<Semaphore>,
    /// The tokens that these homeservers have accepted.
    tenants: Arc<TenantTable>,
}

/// Limits of one download.
#[derive(Clone, Copy, Debug)]
pub(super) struct DownloadLimits {
    pub(super) max_size: u64,
    pub(super) idle_timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) min_rate: u64,
    pub(super) rate_window: Duration,
}

impl Homeservers {
    /// Sets up TLS and the HTTP clients. Blocking: reads the system's certificates.
    pub fn new(
        settings: &Settings,
        counters: Arc<FetchCounters>,
    ) -> Result<Self, OutboundSetupError> {
        let configured = settings
            .base_homeserver_url
            .iter()
            .chain(settings.homeservers.iter().map(|(_, url)| url));
        for url in configured.clone() {
            if !url.username().is_empty() || url.password().is_some() {
                let host = url.host_str().unwrap_or_default();
                return Err(OutboundSetupError::Credentials(host.to_owned()));
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
            http_clients: HttpClients::new(settings, configured, Arc::clone(&counters))?,
            discovery: Discovery::new(),
            limits: DownloadLimits {
                max_size: settings.max_size,
                idle_timeout: settings.idle_timeout,
                total_timeout: settings.total_timeout,
                min_rate: settings.min_rate,
                rate_window: rate::WINDOW,
            },
            counters,
            tenants: Arc::new(TenantTable::new()),
            cpu_slots: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
        })
    }

    /// Returns these homeservers with the accepted tokens of those that they replace after a reload.
    #[must_use]
    pub fn with_tenants_of(self, previous: &Self) -> Self {
        Self { tenants: Arc::clone(&previous.tenants), ..self }
    }

    /// Returns the tenant of a request for media of `media` with this `Authorization` header, from this address.
    pub(crate) fn tenant(
        &self,
        origin: &Origin,
        authorization: Option<&HeaderValue>,
        address: Option<IpAddr>,
        media: &MediaId,
    ) -> TenantGroup {
        self.tenants.tenant(sent_token(origin, authorization), address, media.host())
    }

    /// Returns the origin for a request's `Host`, with or without a port. Returns `None` if homeservers are configured
    /// per host, but neither they nor a base URL cover this one: with discovery as the fallback, a service meant for
    /// some hosts would be an open relay.
    #[must_use]
    pub fn origin_for_host(&self, host: Option<&str>) -> Option<Origin> {
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

    /// Returns the base URL of the homeserver, if there is one only, or one for all hosts that have none of their own.
    #[must_use]
    pub fn main_homeserver(&self) -> Option<Arc<Url>> {
        let mut urls = self.by_host.values();
        self.base.clone().or_else(|| {
            let first = urls.next()?;
            urls.all(|url| url == first).then(|| Arc::clone(first))
        })
    }

    /// Sends a GET request for the media over the first route that the homeserver supports.
    ///
    /// # Errors
    /// Includes every status of 400 or more. The caller interprets all other statuses.
    pub(super) async fn request_media(
        &self,
        request: &MediaRequest,
        condition: Option<&HeaderValue>,
        redirects: RedirectPolicy,
        deadline: Instant,
    ) -> Result<OutboundReply, FetchError> {
        let base = match &request.origin {
            Origin::Configured(base) => Arc::clone(base),
            Origin::Discovered => {
                self.discovery.base_url(&request.media, &self.http_clients, deadline).await?
            }
        };
        let mut route = UpstreamRoute::first(request);
        loop {
            let outbound_request = OutboundRequest {
                headers: self.headers(route, request, condition),
                redirects,
                per_hop_timeout: self.limits.idle_timeout,
                deadline,
            };
            let url = route.url(&base, request);
            let reply = self.http_clients.get_following_redirects(url, outbound_request).await?;
            let (response, responder) = match reply {
                OutboundReply::Response(response, responder)
                    if response.status().as_u16() >= 400 =>
                {
                    (response, responder)
                }
                reply => {
                    self.record_route(request, route, true);
                    // The other routes need no token. A login page in front of the homeserver accepts none.
                    let is_accepted = route == UpstreamRoute::Authenticated && grants(&reply);
                    let token =
                        sent_token(&request.origin, request.requester.authorization.as_ref());
                    if let Some(token) = token.filter(|_| is_accepted) {
                        self.tenants.accept(token);
                    }
                    return Ok(reply);
                }
            };
            let refusal = UpstreamRefusal::read(response, deadline).await;
            self.record_route(request, route, !refusal.is_of_unknown_route());
            match route.next() {
                Some(next) if refusal.should_try_next_route(route) => route = next,
                _ => {
                    return Err(refusal.into_error(refusal_sender(request, responder, route)));
                }
            }
        }
    }

    /// Returns the headers of a request for media. A discovered homeserver receives none of the requester's.
    fn headers(
        &self,
        route: UpstreamRoute,
        request: &MediaRequest,
        condition: Option<&HeaderValue>,
    ) -> HeaderMap {
        let mut headers = match &request.origin {
            Origin::Configured(_) => route.headers(&self.additional_headers, &request.requester),
            Origin::Discovered => HeaderMap::new(),
        };
        if let Some(etag) = condition {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
        headers
    }

    /// Records whether a configured homeserver supports a route.
    fn record_route(&self, request: &MediaRequest, route: UpstreamRoute, is_recognized: bool) {
        if let Origin::Configured(base) = &request.origin
            && let Some(status) = self.http_clients.status(base)
        {
            status.record_route(route, is_recognized);
        }
    }

    /// Sends a GET request with the token and the headers of a requester to a path of a configured homeserver. The token
    /// does not leave the origin of the base URL.
    pub(super) async fn get_as_requester(
        &self,
        base: &Url,
        path: &str,
        requester: &Requester,
        deadline: Instant,
    ) -> Result<OutboundReply, FetchError> {
        let mut url = base.clone();
        url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
        let request = OutboundRequest {
            headers: UpstreamRoute::Authenticated.headers(&self.additional_headers, requester),
            redirects: RedirectPolicy::Authorise,
            per_hop_timeout: self.limits.idle_timeout,
            deadline,
        };
        self.http_clients.get_following_redirects(url, request).await
    }

    /// Returns the deadline of a download that starts now.
    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        // A timeout beyond the clock's range: one day is as good.
        now.checked_add(self.limits.total_timeout).unwrap_or(now + Duration::from_secs(86_400))
    }
}

/// Returns the sender of a refusal.
fn refusal_sender(
    request: &MediaRequest,
    responder: Responder,
    route: UpstreamRoute,
) -> RefusalSender {
    match (&request.origin, responder) {
        (_, Responder::Redirected | Responder::Unverified) => RefusalSender::Redirected,
        (Origin::Discovered, _) => RefusalSender::Discovered,
        (Origin::Configured(_), _) => {
            RefusalSender::Configured { received_token: route == UpstreamRoute::Authenticated }
        }
    }
}

/// Returns the token that a request sends to a homeserver. A discovered homeserver receives none.
fn sent_token<'a>(
    origin: &'a Origin,
    authorization: Option<&'a HeaderValue>,
) -> Option<SentToken<'a>> {
    match (origin, authorization) {
        (Origin::Configured(url), Some(authorization)) => {
            Some(SentToken { homeserver: url.as_str(), authorization: authorization.as_bytes() })
        }
        _ => None,
    }
}

/// Maximum length of a stored header value, in bytes. Media types, tags and most file names are far shorter. The cache
/// holds three values for each entry.
pub const MAX_HEADER_VALUE: usize = 512;

/// Maximum length of a `Content-Disposition` from which the file name is taken, in bytes.
pub(super) const MAX_DISPOSITION: usize = 4096;

/// Returns the value of a header. None if it is absent, occurs more than once or has more than `limit` bytes.
pub(super) fn single_value(
    headers: &HeaderMap,
    name: &header::HeaderName,
    limit: usize,
) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| value.len() <= limit)?;
    if values.next().is_some() {
        return None;
    }
    // Copied, since a clone is a slice of hyper's read buffer and would keep the whole buffer in memory for as long as
    // the media is cached.
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

/// Returns whether a reply shows that the homeserver itself grants the request.
fn grants(reply: &OutboundReply) -> bool {
    match reply {
        OutboundReply::NotFollowed(status) => keeps_method(*status),
        OutboundReply::Response(response, responder) => {
            let status = response.status();
            let is_granted = status.is_success() || status == StatusCode::NOT_MODIFIED;
            is_granted && matches!(responder, Responder::Requested)
        }
    }
}

#[cfg(test)]
mod tests;
