//! The two ways out of this service, and the rules at each: one to what the operator configured,
//! one to everything else, which leads to globally reachable addresses only. Redirects are walked
//! here by hand, because each hop is judged anew and no secret crosses to another origin. Knows URLs
//! and headers; knows nothing of media or errcodes.

use std::{
    collections::HashSet,
    error::Error,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client, Method, Proxy, Request, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{self, HeaderMap, HeaderValue},
    redirect,
};
use rustls::RootCertStore;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use url::{Host, Origin};

use super::{FetchError, Settings, address::is_global, homeserver::SetupError, tls};
use crate::metrics::Metrics;

/// Redirects followed for one question.
const MAX_REDIRECTS: usize = 5;

/// How long a connection to a host that is not configured waits for its next use.
const STRANGERS_IDLE: Duration = Duration::from_secs(10);

/// Both clients and what decides between them.
pub(super) struct Exits {
    configured: Client,
    checked: Client,
    /// Origins of configured base URLs: exempt from the address rules, as first hop and later.
    exempt: HashSet<Origin>,
    allow_private: bool,
    /// Why https cannot be had, if it cannot.
    no_https: Option<&'static str>,
    proxy_is_https: bool,
    metrics: Arc<Metrics>,
}

/// What is asked, apart from the address.
pub(super) struct Question {
    /// For the first origin only: tokens, the operator's headers, forwarded ones.
    pub(super) headers: HeaderMap,
    /// Whether a redirect to another origin is followed (without `headers`).
    pub(super) leave_origin: bool,
    /// For each hop until its headers are in.
    pub(super) patience: Duration,
    /// For all hops together.
    pub(super) deadline: Instant,
}

/// How a walk ended.
pub(super) enum Reached {
    /// An answer that is no redirect to follow, and whether the first origin gave it.
    Answer(Response, Giver),
    /// A redirect to another origin that was not followed.
    Elsewhere,
}

/// Who gave an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Giver {
    /// The origin that was asked, with its headers.
    Asked,
    /// Another, without them, after a redirect.
    Stranger,
}

impl Exits {
    /// Blocking: reads the system's certificates.
    pub(super) fn new<'a>(
        settings: &Settings,
        configured: impl Iterator<Item = &'a Url> + Clone,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let roots = tls::roots(settings.ca_certificates.as_deref())?;
        Self::with_roots(settings, configured, roots, metrics)
    }

    fn with_roots<'a>(
        settings: &Settings,
        configured: impl Iterator<Item = &'a Url> + Clone,
        roots: RootCertStore,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let no_https = roots.is_empty().then_some(tls::NO_ROOTS);
        let proxy_is_https = settings.proxy.as_ref().is_some_and(|url| url.scheme() == "https");
        if let Some(why) = no_https
            && (proxy_is_https || configured.clone().any(|url| url.scheme() == "https"))
        {
            return Err(SetupError::NoRoots(why));
        }

        let tls = tls::client_config(roots)?;
        let builder = || -> Result<reqwest::ClientBuilder, SetupError> {
            let identity = HeaderValue::from_static("identity");
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(redirect::Policy::none())
                .referer(false)
                // The environment's variables; a configured proxy is added below.
                .no_proxy()
                .connect_timeout(settings.connect_timeout)
                .user_agent(concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION")))
                .default_headers(HeaderMap::from_iter([(header::ACCEPT_ENCODING, identity)]));
            Ok(match &settings.proxy {
                None => builder,
                Some(url) => builder.proxy(Proxy::all(url.clone()).map_err(SetupError::client)?),
            })
        };
        // Behind a proxy the only name resolved here is the proxy's own, which is exempt.
        let filter = !settings.allow_private_addresses && settings.proxy.is_none();
        // Anybody may name a thousand hosts in a minute: connections to them are not kept for long.
        let checked = builder()?.pool_max_idle_per_host(2).pool_idle_timeout(STRANGERS_IDLE);
        let checked = if filter {
            checked.dns_resolver(GlobalOnly { turns: Arc::new(Semaphore::new(MAX_LOOKUPS)) })
        } else {
            checked
        };
        Ok(Self {
            configured: builder()?.build().map_err(SetupError::client)?,
            checked: checked.build().map_err(SetupError::client)?,
            exempt: configured.map(Url::origin).collect(),
            allow_private: settings.allow_private_addresses,
            no_https,
            proxy_is_https,
            metrics,
        })
    }

    /// GETs `url` and follows redirects.
    pub(super) async fn walk(&self, url: Url, question: Question) -> Result<Reached, FetchError> {
        let Question { mut headers, leave_origin, patience, deadline } = question;
        let (mut url, mut giver) = (url, Giver::Asked);
        for _ in 0..=MAX_REDIRECTS {
            let until = within(patience, deadline);
            let answered = timeout_at(until, self.hop(url.clone(), headers.clone()))
                .await
                .map_err(|_| FetchError::TimedOut("no answer to the request"))
                .flatten();
            match &answered {
                Ok(response) => self.metrics.upstream(Some(response.status().as_u16())),
                // Nobody was asked.
                Err(FetchError::ForbiddenAddress(_)) => {}
                Err(_) => self.metrics.upstream(None),
            }
            let response = answered?;
            if !is_redirect(response.status()) {
                return Ok(Reached::Answer(response, giver));
            }
            let target = target(&url, &response)?;
            if target.origin() != url.origin() {
                if !leave_origin {
                    return Ok(Reached::Elsewhere);
                }
                // For good: a later redirect back cannot win them again.
                headers.clear();
                giver = Giver::Stranger;
            }
            if !matches!(target.scheme(), "http" | "https") {
                return Err(FetchError::NotMedia("a redirect to another scheme than http".into()));
            }
            url = target;
        }
        Err(FetchError::NotMedia(format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn hop(&self, url: Url, headers: HeaderMap) -> Result<Response, FetchError> {
        if let Some(why) = self.no_https
            && (url.scheme() == "https" || self.proxy_is_https)
        {
            return Err(FetchError::Unreachable(why.into()));
        }
        let client = if self.exempt.contains(&url.origin()) {
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
            // A kept connection that the other side closed just as it was used again: asking once
            // more does no harm, and without it every server with a short keep-alive time would
            // fail now and then.
            Err(error) if closed_early(&error) => client.execute(request()).await,
            done => done,
        }
        .map_err(send_error)
    }

    /// An address in the URL itself is never resolved, so the resolver would not see it. `url` has
    /// read every spelling of it (`2130706433`, `0x7f.1`) by now.
    fn check_literal(&self, url: &Url) -> Result<(), FetchError> {
        let literal: IpAddr = match url.host() {
            Some(Host::Ipv4(v4)) => v4.into(),
            Some(Host::Ipv6(v6)) => v6.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(FetchError::NotMedia("an address without a host".into())),
        };
        if self.allow_private || is_global(literal) {
            Ok(())
        } else {
            Err(FetchError::ForbiddenAddress(literal.to_string()))
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    // 300 leaves the choice to a person, 304 answers a condition, 305 and 306 are withdrawn.
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, without credentials: reqwest would send them.
fn target(from: &Url, response: &Response) -> Result<Url, FetchError> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
        .and_then(|value| from.join(value).ok())
        .ok_or_else(|| FetchError::NotMedia("a redirect that leads nowhere".into()))?;
    Ok(without_credentials(location))
}

/// Takes `user:password@` out of a URL that somebody else wrote.
pub(super) fn without_credentials(mut url: Url) -> Url {
    // Fails for URLs without a host only, which have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Whether the connection stood and ended before a byte of the answer.
fn closed_early(error: &reqwest::Error) -> bool {
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

/// Before the headers. The URL may hold what a client wrote in a query, so it goes.
fn send_error(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    if let Some(NotGlobal(name)) = causes(&error).find_map(|cause| cause.downcast_ref()) {
        return FetchError::ForbiddenAddress(name.clone());
    }
    if error.is_timeout() {
        FetchError::TimedOut("no connection")
    } else {
        FetchError::Unreachable(error.into())
    }
}

/// Resolves names and lets only globally reachable addresses through: a name is checked where it
/// becomes an address, so there is no moment between check and use for it to change.
struct GlobalOnly {
    /// Lookups take a blocking thread each, for as long as a nameserver likes.
    turns: Arc<Semaphore>,
}

/// Lookups at a time: far fewer than blocking threads, which have files to write too.
const MAX_LOOKUPS: usize = 64;

#[derive(Debug, thiserror::Error)]
#[error("{0} has no globally reachable address")]
struct NotGlobal(String);

impl Resolve for GlobalOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            // None only once it is closed, which nobody does.
            let turn = turns.acquire_owned().await.ok();
            let found = spawn_blocking(move || {
                // Over when the thread is free again: whoever waits for it may have gone by then.
                let _turn = turn;
                // Port 0: the connector puts in the URL's.
                let found = (name.as_str(), 0).to_socket_addrs()?;
                let global: Vec<SocketAddr> = found.filter(|found| is_global(found.ip())).collect();
                if global.is_empty() {
                    return Err(NotGlobal(name.as_str().to_owned()).into());
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(global)
            });
            Ok(Box::new(found.await??.into_iter()) as Addrs)
        })
    }
}

/// The end of a wait that begins now.
pub(super) fn within(patience: Duration, deadline: Instant) -> Instant {
    // A wait too long for the clock ends with all else.
    Instant::now().checked_add(patience).map_or(deadline, |until| until.min(deadline))
}

/// Reads a small body to its end; none if it is larger than `limit`, broken or late.
pub(super) async fn read_small(
    mut response: Response,
    limit: usize,
    until: Instant,
) -> Option<Vec<u8>> {
    let whole = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > limit {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        Some(body)
    };
    timeout_at(until, whole).await.ok().flatten()
}

/// Shared so that a clone of a URL is a count.
pub(super) fn base_url(url: &Url) -> Arc<Url> {
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    if let Ok(mut path) = base.path_segments_mut() {
        path.pop_if_empty();
    }
    Arc::new(base)
}

#[cfg(test)]
mod tests;
