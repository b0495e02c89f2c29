//! Outbound HTTP clients: one for configured homeservers, one for all other hosts, which connects to globally reachable
//! addresses only. Follows redirects itself, because each target is checked and no secret is sent to another origin.

use std::{collections::HashMap, error::Error, io, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Method, Proxy, Request, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
    redirect,
};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout_at};
use url::{Host, Origin};

use super::{
    address::is_global,
    counters::FetchCounters,
    error::FetchError,
    homeserver_status::HomeserverStatus,
    http_util::{within, without_credentials},
    resolver::{NameService, ResolutionError, Resolver},
    setup_error::OutboundSetupError,
    tls,
};
use crate::config::sections::download::Settings;

/// Maximum number of redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Time that an idle connection to a host that is not configured is kept.
const CHECKED_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The clients, and the rules that select one of them.
pub(super) struct HttpClients {
    /// Client for the origins in `exempt`.
    configured: Client,
    /// Client for all other origins; resolves names to globally reachable addresses only.
    checked: Client,
    /// Origins of configured base URLs, with the statuses of their homeservers: exempt from the address rules, also as
    /// redirect targets of each other.
    exempt: HashMap<Origin, Arc<HomeserverStatus>>,
    allow_private: bool,
    /// Reason why https is unavailable, if so.
    no_https: Option<&'static str>,
    proxy_is_https: bool,
    counters: Arc<FetchCounters>,
}

/// Parameters of a GET request.
pub(super) struct OutboundRequest {
    /// Sent to the first origin only: access token, the operator's headers, forwarded headers.
    pub(super) headers: HeaderMap,
    pub(super) redirects: RedirectPolicy,
    /// Time limit for each hop, until its response headers are received.
    pub(super) per_hop_timeout: Duration,
    /// End of the time limit for all hops together.
    pub(super) deadline: Instant,
}

/// Redirects that are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RedirectPolicy {
    /// All; to another origin without `headers`.
    Follow,
    /// 307 and 308; to another origin without `headers`. A login page in front of a homeserver uses the other statuses.
    KeepMethod,
    /// 307 and 308 within the origin. The 200 of a login page would look like a grant.
    Authorise,
}

/// Result of a request.
pub(super) enum OutboundReply {
    /// The response, which is not a redirect to follow, and its sender.
    Response(Response, Responder),
    /// A redirect that the policy does not follow, with its status.
    NotFollowed(StatusCode),
}

/// Sender of a response, in the order of decreasing authority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Responder {
    /// The origin of the request, which received `headers`.
    Requested,
    /// An origin reached by redirects that keep the method. `headers` were not sent to this origin.
    Redirected,
    /// Any origin, after a redirect that does not keep the method, which is no answer of the homeserver itself.
    Unverified,
}

impl HttpClients {
    /// Creates the clients. `configured` are the base URLs. Blocking: reads the system's certificates.
    pub(super) fn new<'a>(
        settings: &Settings,
        configured: impl Iterator<Item = &'a Url> + Clone,
        counters: Arc<FetchCounters>,
    ) -> Result<Self, OutboundSetupError> {
        let roots = tls::roots(settings.ca_certificates.as_deref())?;
        Self::with_roots(settings, configured, roots, counters)
    }

    fn with_roots<'a>(
        settings: &Settings,
        configured: impl Iterator<Item = &'a Url> + Clone,
        roots: RootCertStore,
        counters: Arc<FetchCounters>,
    ) -> Result<Self, OutboundSetupError> {
        Self::with_names(settings, configured, roots, &NameService::system(), counters)
    }

    pub(super) fn with_names<'a>(
        settings: &Settings,
        configured: impl Iterator<Item = &'a Url> + Clone,
        roots: RootCertStore,
        names: &NameService,
        counters: Arc<FetchCounters>,
    ) -> Result<Self, OutboundSetupError> {
        let no_https = roots.is_empty().then_some(tls::NO_ROOTS);
        let proxy_is_https = settings.proxy.as_ref().is_some_and(|url| url.scheme() == "https");
        if let Some(why) = no_https
            && (proxy_is_https || configured.clone().any(|url| url.scheme() == "https"))
        {
            return Err(OutboundSetupError::NoRoots(why));
        }

        let tls = tls::client_config(roots)?;
        let builder = || -> Result<reqwest::ClientBuilder, OutboundSetupError> {
            let identity = HeaderValue::from_static("identity");
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(redirect::Policy::none())
                .referer(false)
                // Ignores the proxy variables of the environment; a configured proxy is added below.
                .no_proxy()
                .connect_timeout(settings.connect_timeout)
                .user_agent(concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION")))
                .default_headers(HeaderMap::from_iter([(header::ACCEPT_ENCODING, identity)]));
            Ok(match &settings.proxy {
                None => builder,
                Some(url) => {
                    builder.proxy(Proxy::all(url.clone()).map_err(OutboundSetupError::client)?)
                }
            })
        };
        // If a proxy is configured, this process resolves only the proxy's name, which is exempt from the address
        // rules.
        let filter = !settings.allow_private_addresses && settings.proxy.is_none();
        // Clients may name thousands of hosts, so idle connections are closed early.
        let checked = builder()?.pool_max_idle_per_host(2).pool_idle_timeout(CHECKED_IDLE_TIMEOUT);
        let checked = checked.dns_resolver(Resolver::new(names.clone(), filter));
        let configured_client = builder()?.dns_resolver(Resolver::new(names.clone(), false));
        Ok(Self {
            configured: configured_client.build().map_err(OutboundSetupError::client)?,
            checked: checked.build().map_err(OutboundSetupError::client)?,
            exempt: configured.map(|url| (url.origin(), counters.homeservers.get(url))).collect(),
            allow_private: settings.allow_private_addresses,
            no_https,
            proxy_is_https,
            counters,
        })
    }

    /// Sends a GET request to `url` and follows redirects.
    pub(super) async fn get_following_redirects(
        &self,
        url: Url,
        request: OutboundRequest,
    ) -> Result<OutboundReply, FetchError> {
        let OutboundRequest { mut headers, redirects, per_hop_timeout, deadline } = request;
        let (mut url, mut responder) = (url, Responder::Requested);
        // After a hop to any other origin, a redirect may lead to a configured one at an attacker's choice.
        let mut exempt = true;
        for _ in 0..=MAX_REDIRECTS {
            let until = within(per_hop_timeout, deadline);
            let status = self.status(&url).filter(|_| exempt);
            exempt = status.is_some();
            let result = timeout_at(until, self.send(url.clone(), headers.clone(), exempt)).await;
            // A missing response is no sign of an outage: the homeserver may be waiting for media of another server.
            if let (Some(status), Ok(result)) = (status, &result) {
                match result {
                    Ok(_) => status.record_response(),
                    Err(error) => status.record_failure(error),
                }
            }
            let result = result.map_err(|_| FetchError::TimedOut("no response headers")).flatten();
            match &result {
                Ok(response) => {
                    self.counters.record_response(Some(response.status().as_u16()));
                }
                // No request was sent.
                Err(FetchError::ForbiddenAddress(_)) => {}
                Err(_) => self.counters.record_response(None),
            }
            let response = result?;
            check_transfer_coding(&response)?;
            let status = response.status();
            if !is_redirect(status) {
                return Ok(OutboundReply::Response(response, responder));
            }
            if redirects != RedirectPolicy::Follow && !keeps_method(status) {
                return Ok(OutboundReply::NotFollowed(status));
            }
            let target = redirect_target(&url, &response)?;
            if target.origin() != url.origin() {
                if redirects == RedirectPolicy::Authorise {
                    return Ok(OutboundReply::NotFollowed(status));
                }
                // Not restored by a later redirect back to the first origin.
                headers.clear();
                responder = responder.max(Responder::Redirected);
            }
            if !keeps_method(status) {
                responder = Responder::Unverified;
            }
            if !matches!(target.scheme(), "http" | "https") {
                return Err(FetchError::NotMedia(
                    "redirect to a scheme other than http and https".into(),
                ));
            }
            url = target;
        }
        Err(FetchError::NotMedia(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Returns the status of the homeserver with the origin of this URL, if it is configured.
    pub(super) fn status(&self, url: &Url) -> Option<&Arc<HomeserverStatus>> {
        self.exempt.get(&url.origin())
    }

    /// Sends a GET request to `url`, and returns redirects as responses.
    pub(super) async fn get(&self, url: Url, headers: HeaderMap) -> Result<Response, FetchError> {
        let exempt = self.status(&url).is_some();
        self.send(url, headers, exempt).await
    }

    /// Sends a request. `exempt`: whether the URL is exempt from the address rules.
    async fn send(
        &self,
        url: Url,
        headers: HeaderMap,
        exempt: bool,
    ) -> Result<Response, FetchError> {
        if let Some(why) = self.no_https
            && (url.scheme() == "https" || self.proxy_is_https)
        {
            return Err(FetchError::Unreachable(why.into()));
        }
        let client = if exempt {
            &self.configured
        } else {
            self.check_literal(&url)?;
            &self.checked
        };
        let request = || {
            let mut request = Request::new(Method::GET, url.clone());
            *request.headers_mut() = headers.clone();
            request
        };
        match client.execute(request()).await {
            // The server closed a pooled connection when it was reused. GET is safe to repeat, and without the retry
            // servers with a short keep-alive timeout would cause sporadic failures.
            Err(error) if is_closed_early(&error) => client.execute(request()).await,
            result => result,
        }
        .map_err(send_error)
    }

    /// Applies the address rules to a literal address, which does not pass the resolver. The `url` crate has already
    /// normalized alternative spellings (`2130706433`, `0x7f.1`).
    fn check_literal(&self, url: &Url) -> Result<(), FetchError> {
        let literal: IpAddr = match url.host() {
            Some(Host::Ipv4(v4)) => v4.into(),
            Some(Host::Ipv6(v6)) => v6.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(FetchError::NotMedia("URL without a host".into())),
        };
        if self.allow_private || is_global(literal) {
            Ok(())
        } else {
            Err(FetchError::ForbiddenAddress(literal.to_string()))
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    // 300 offers a choice, 304 answers a condition, 305 and 306 are deprecated.
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns whether a redirect keeps the method of the request. The Matrix specification lets media routes answer with
/// such redirects (client-server API, section "Content repository").
pub(super) fn keeps_method(status: StatusCode) -> bool {
    matches!(status.as_u16(), 307 | 308)
}

/// Rejects transfer codings other than `chunked`, which hyper ignores: the body would be taken for the media.
fn check_transfer_coding(response: &Response) -> Result<(), FetchError> {
    let mut codings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(FetchError::NotMedia("unsupported transfer coding".into())),
    }
}

/// Returns the target of a redirect, without credentials, which reqwest would send.
fn redirect_target(from: &Url, response: &Response) -> Result<Url, FetchError> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
        .and_then(|value| from.join(value).ok())
        .ok_or_else(|| FetchError::NotMedia("redirect without a valid Location".into()))?;
    Ok(without_credentials(location))
}

/// Returns whether an established connection was closed before the first byte of the response.
fn is_closed_early(error: &reqwest::Error) -> bool {
    let reset = |cause: &(dyn Error + 'static)| {
        cause
            .downcast_ref()
            .is_some_and(|io: &io::Error| io.kind() == io::ErrorKind::ConnectionReset)
    };
    let incomplete = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
    };
    !error.is_connect() && causes(error).any(|cause| incomplete(cause) || reset(cause))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Converts an error before the response headers. Removes the URL, whose query may contain client data.
fn send_error(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    if let Some(unresolved) =
        causes(&error).find_map(|cause| cause.downcast_ref::<ResolutionError>())
    {
        return unresolved.clone().into();
    }
    if error.is_timeout() {
        FetchError::TimedOut("no connection within download.connect_timeout")
    } else {
        FetchError::Unreachable(error.into())
    }
}

#[cfg(test)]
mod tests;
