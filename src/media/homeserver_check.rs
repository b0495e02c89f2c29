//! Asks each configured homeserver whether it is one, for `check-config` and `doctor`: the list of versions and a media
//! route. Sends no token. Names the mistake in the base URL, and what to write instead.

mod advice;
mod answer;
mod certificate;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue},
};
use tokio::time::{Instant, timeout_at};

use self::answer::{MEDIA, ServerAnswer, VERSIONS};
pub use self::certificate::certificate_end;
use super::{
    counters::FetchCounters, error::FetchError, http_util::base_url, outbound::HttpClients,
    routes::operator_headers, setup_error::OutboundSetupError,
};
use crate::config::sections::{download::Settings, listen::Listen};

/// Time limit for all requests together.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Download without access tokens, for homeservers older than Matrix 1.11. They ask no other server.
const OLD_MEDIA: &str = "_matrix/media/v3/download";

/// Route of a content scanner.
const SCANNER_KEY: &str = "_matrix/media_proxy/unstable/public_key";

const WELL_KNOWN: &str = ".well-known/matrix/client";

/// Result of the check of one base URL.
#[derive(Debug)]
pub struct HomeserverCheck {
    /// Path of the key in the configuration.
    pub key: String,
    /// The base URL; `None` if none is configured.
    pub url: Option<Url>,
    pub state: HomeserverFinding,
}

/// What was found at a base URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HomeserverFinding {
    /// A homeserver. Its value of the `Date` header, if there is one.
    Good { date: Option<String> },
    /// Nothing that can be judged, for this reason: the network or the homeserver may be down.
    Unreachable(String),
    /// Something else than a homeserver, with what to write instead.
    Wrong(String),
}

/// Returns the mistakes in the base URLs that are found without a request.
#[must_use]
pub fn homeserver_mistakes(settings: &Settings, own: &Listen) -> Vec<HomeserverCheck> {
    let mut checks = Vec::new();
    if settings.base_homeserver_url.is_none() && settings.homeservers.is_empty() {
        checks.push(HomeserverCheck {
            key: BASE_KEY.to_owned(),
            url: None,
            state: HomeserverFinding::Unreachable(advice::NO_URL.to_owned()),
        });
    }
    for (key, url) in base_urls(settings) {
        if let Some(text) = advice::mistake(&url, own) {
            checks.push(HomeserverCheck {
                key,
                url: Some(url),
                state: HomeserverFinding::Wrong(text),
            });
        }
    }
    checks
}

/// Asks all configured homeservers concurrently, for at most five seconds. Blocking in the beginning: reads the system's
/// certificates.
///
/// # Errors
/// If no HTTP client can be created.
pub async fn check_homeservers(
    settings: &Settings,
    own: &Listen,
) -> Result<Vec<HomeserverCheck>, OutboundSetupError> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut checks = homeserver_mistakes(settings, own);
    let is_known = |key: &String| checks.iter().any(|check| check.key == *key);
    let urls: Vec<_> = base_urls(settings).into_iter().filter(|(key, _)| !is_known(key)).collect();
    if urls.is_empty() {
        return Ok(checks);
    }
    let configured: Vec<_> = urls.iter().map(|(_, url)| url.clone()).collect();
    let alternatives = configured.iter().flat_map(advice::alternatives);
    let all: Vec<_> = configured.iter().cloned().chain(alternatives).collect();
    let counters = Arc::<FetchCounters>::default();
    // Without root certificates, the alternatives with https cannot be asked.
    let http_clients = HttpClients::new(settings, all.iter(), Arc::clone(&counters))
        .or_else(|_| HttpClients::new(settings, configured.iter(), counters))?;
    let headers = operator_headers(&settings.additional_headers);
    let prober = Prober { http_clients, headers, deadline };
    let states = join_all(urls.iter().map(|(_, url)| prober.state(url))).await;
    checks.extend(urls.into_iter().zip(states).map(|((key, url), state)| HomeserverCheck {
        key,
        url: Some(url),
        state,
    }));
    Ok(checks)
}

const BASE_KEY: &str = "download.base_homeserver_url";

/// Returns the base URLs with the paths of their keys.
fn base_urls(settings: &Settings) -> Vec<(String, Url)> {
    let base = settings.base_homeserver_url.iter().map(|url| (BASE_KEY.to_owned(), url.clone()));
    let by_host = settings.homeservers.iter();
    let by_host =
        by_host.map(|(host, url)| (format!("download.homeservers.\"{host}\""), url.clone()));
    base.chain(by_host).collect()
}

/// Sends the requests.
struct Prober {
    http_clients: HttpClients,
    /// Those of `download.additional_headers`, for configured base URLs.
    headers: HeaderMap,
    deadline: Instant,
}

impl Prober {
    async fn state(&self, base: &Url) -> HomeserverFinding {
        match self.get(base, VERSIONS, &self.headers).await {
            Ok((ServerAnswer::Versions, date)) => self.media_state(base, date).await,
            // A media repository of its own need not have the list of versions.
            Ok((answer @ ServerAnswer::MatrixError { .. }, date)) => {
                match self.media_state(base, date).await {
                    HomeserverFinding::Wrong(_) => self.wrong(base, &answer).await,
                    state => state,
                }
            }
            Ok((ServerAnswer::Unavailable { status }, _)) => {
                HomeserverFinding::Unreachable(advice::unavailable(status))
            }
            Ok((answer, _)) => self.wrong(base, &answer).await,
            Err(error) => match self.alternative(base).await {
                Some(better) => HomeserverFinding::Wrong(advice::unreachable_but(&error, &better)),
                None => HomeserverFinding::Unreachable(advice::unreachable(&error, base)),
            },
        }
    }

    /// Checks the media route of a homeserver.
    async fn media_state(&self, base: &Url, date: Option<String>) -> HomeserverFinding {
        let mut last = None;
        for route in [MEDIA, OLD_MEDIA] {
            let host = base.host_str().unwrap_or_default();
            let path = format!("{route}/{host}/mcs-check?allow_remote=false");
            match self.get(base, &path, &self.headers).await {
                Ok((answer, _)) if answer.is_supported_route() => {
                    return HomeserverFinding::Good { date };
                }
                Ok((ServerAnswer::Unavailable { status }, _)) => {
                    return HomeserverFinding::Unreachable(advice::unavailable(status));
                }
                Ok((answer, _)) => last = last.or(Some(answer)),
                Err(error) => {
                    return HomeserverFinding::Unreachable(advice::unreachable(&error, base));
                }
            }
        }
        HomeserverFinding::Wrong(match last {
            Some(ServerAnswer::Scanner) => advice::LOOP.to_owned(),
            answer => advice::no_media_route(answer.as_ref()),
        })
    }

    /// Describes a wrong answer to the request for the versions.
    async fn wrong(&self, base: &Url, answer: &ServerAnswer) -> HomeserverFinding {
        if self.is_scanner(base).await {
            return HomeserverFinding::Wrong(advice::LOOP.to_owned());
        }
        if let ServerAnswer::Redirect { target: Some(target), .. } = answer {
            return HomeserverFinding::Wrong(advice::redirected(answer, target));
        }
        let better = match self.alternative(base).await {
            Some(better) => Some(better),
            None => self.well_known(base).await,
        };
        HomeserverFinding::Wrong(advice::wrong_server(answer, better.as_ref()))
    }

    /// Returns the first similar URL at which a homeserver answers.
    async fn alternative(&self, base: &Url) -> Option<Url> {
        let urls = advice::alternatives(base);
        let none = HeaderMap::new();
        let answers = join_all(urls.iter().map(|url| self.get(url, VERSIONS, &none))).await;
        let is_homeserver =
            |answer: &Result<_, _>| matches!(answer, Ok((ServerAnswer::Versions, _)));
        let found = urls.into_iter().zip(answers).find(|(_, answer)| is_homeserver(answer));
        found.map(|(url, _)| url)
    }

    async fn is_scanner(&self, base: &Url) -> bool {
        let answer = self.get(base, SCANNER_KEY, &HeaderMap::new()).await;
        matches!(answer, Ok((ServerAnswer::Scanner, _)))
    }

    /// Returns the base URL that the host publishes for clients.
    async fn well_known(&self, base: &Url) -> Option<Url> {
        let answer = self.get(&advice::without_path(base), WELL_KNOWN, &HeaderMap::new()).await;
        let Ok((ServerAnswer::Other { body, .. }, _)) = answer else { return None };
        super::discovery::parse(&body).filter(|url| url != base)
    }

    /// Requests a path below the base URL. Follows redirects that the service follows with the access token.
    async fn get(
        &self,
        base: &Url,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(ServerAnswer, Option<String>), FetchError> {
        const MAX_HOPS: usize = 3;
        let base = base_url(base);
        let mut url = Url::parse(&format!("{}/{path}", base.as_str().trim_end_matches('/')))
            .map_err(|error| FetchError::Unreachable(error.into()))?;
        let mut last = None;
        for _ in 0..MAX_HOPS {
            let sent = self.http_clients.get(url.clone(), headers.clone());
            let response = timeout_at(self.deadline, sent)
                .await
                .map_err(|_| FetchError::TimedOut("no response within the time of this check"))??;
            let date = response.headers().get("date").and_then(as_text);
            let answer = ServerAnswer::read(&url, response, self.deadline).await;
            let next = match &answer {
                ServerAnswer::Redirect { status: 307 | 308, target: Some(target) }
                    if target.origin() == url.origin() =>
                {
                    target.clone()
                }
                _ => return Ok((answer, date)),
            };
            last = Some((answer, date));
            url = next;
        }
        last.ok_or(FetchError::TimedOut("too many redirects"))
    }
}

fn as_text(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().map(str::to_owned)
}
