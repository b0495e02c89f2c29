//! Scans one media file again.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, Url, header::HeaderMap};
use tracing::{Instrument as _, info_span};
use zeroize::Zeroizing;

use super::{
    end::{PauseCause, RescanEnd, RescanResult},
    source::RescanSource,
};
use crate::{
    chain::Chain,
    incident::{secret_source::SecretSource, seen::SeenMedia},
    media::{
        FetchError, Homeservers, MediaId, MediaRequest, Origin, Requester, Variant,
        service_client::{ServiceClient, ServiceRequest, bearer, below},
    },
    scan::{ContentState, Phase, ScanError, ScanRequest, Scanner, Verdict, Wants, job::JobOutcome},
    tenancy::TenantGroup,
};

/// Pause after a 429 that names none.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Returns the present scanner and homeservers, which a reload replaces.
pub type CurrentScanner = Arc<dyn Fn() -> (Scanner, Arc<Homeservers>) + Send + Sync>;

/// Scans media again. Cheap to clone.
#[derive(Clone)]
pub(super) struct RescanFetcher {
    pub(super) current: CurrentScanner,
    pub(super) token: SecretSource,
    /// Asks the homeserver about itself and the token.
    pub(super) client: ServiceClient,
}

/// A homeserver, and the token for it.
struct TokenHolder {
    url: Arc<Url>,
    token: Zeroizing<String>,
}

impl RescanFetcher {
    pub(super) fn into_source(self) -> RescanSource {
        let [engines, working, content, fetch, local] = [(); 5].map(|()| self.clone());
        RescanSource {
            engines: Box::new(move |()| {
                let (scanner, _) = (engines.current)();
                Box::pin(async move { scanner.engine_state().await })
            }),
            engines_work: Box::new(move |()| {
                let (scanner, _) = (working.current)();
                Box::pin(async move { scanner.engines_work().await })
            }),
            content: Box::new(move |digest| {
                let (scanner, _) = (content.current)();
                Box::pin(async move { scanner.content_state(&digest).await })
            }),
            fetch: Box::new(move |media| {
                let fetcher = fetch.clone();
                Box::pin(async move { fetcher.fetch(media).await })
            }),
            is_local: Box::new(move |media| local.homeserver_of(media).is_some()),
        }
    }

    /// Returns the homeserver that the token is for, if media is of it.
    fn homeserver_of(&self, media: &SeenMedia) -> Option<Arc<Url>> {
        let url = (self.current)().1.main_homeserver()?;
        (media.base_url.as_deref() == Some(url.as_str())).then_some(url)
    }

    async fn fetch(&self, media: SeenMedia) -> RescanEnd {
        let id = MediaId::from_mxc(&media.mxc).ok();
        let Some((url, id)) = self.homeserver_of(&media).zip(id) else {
            return RescanEnd::Done(RescanResult::Elsewhere);
        };
        let token = match self.token.read().await {
            Ok(token) => token,
            Err(error) => return RescanEnd::pause(PauseCause::Token, error),
        };
        let homeserver = TokenHolder { url, token };
        let variant = media.thumbnail.map_or(Variant::Original, Variant::Thumbnail);
        let request = homeserver.request(id, variant);
        let (scanner, _) = (self.current)();
        let span = info_span!("rescan", mxc = media.mxc);
        match scanner.rescan(&request).instrument(span).await {
            Ok(JobOutcome { verdict: Ok(Verdict::Clean { .. }), media, .. }) => {
                let end = RescanEnd::Verdict(RescanResult::Clean, media.content);
                // The outcome does not count if an engine was skipped because it failed.
                if scanner.content_state(&media.content).await != ContentState::Unknown {
                    return end;
                }
                unless_engines_fail(&scanner, end, "an engine is skipped").await
            }
            Ok(JobOutcome { verdict: Ok(_), media, .. }) => {
                RescanEnd::Verdict(RescanResult::NotClean, media.content)
            }
            Ok(JobOutcome { verdict: Err(error), .. }) | Err(error) => {
                self.failure(&scanner, &homeserver, &error).await
            }
        }
    }

    /// Returns what follows from a failure.
    async fn failure(
        &self,
        scanner: &Scanner,
        homeserver: &TokenHolder,
        error: &ScanError,
    ) -> RescanEnd {
        let detail = Chain(error).to_string();
        match error {
            ScanError::Fetch(error) => self.fetch_failure(homeserver, error, detail).await,
            ScanError::Authorisation(error) => self.fetch_failure(homeserver, error, detail).await,
            ScanError::Deadline(Phase::Downloading) => {
                self.homeserver_failure(homeserver, detail).await
            }
            ScanError::Overloaded
            | ScanError::SpoolFull
            | ScanError::Deadline(Phase::Queued)
            | ScanError::Stopping => RescanEnd::pause(PauseCause::Busy, detail),
            ScanError::NotReady => RescanEnd::pause(PauseCause::Engines, detail),
            ScanError::HashMismatch
            | ScanError::CounterWraps { .. }
            | ScanError::Encrypted(_)
            | ScanError::Limit(_)
            | ScanError::Unreadable(_)
            | ScanError::Inconsistent(_)
            | ScanError::Oversize(_) => RescanEnd::Done(RescanResult::NoVerdict),
            ScanError::Script(_)
            | ScanError::Engine(..)
            | ScanError::Inspection(_)
            | ScanError::NoEngine
            | ScanError::Sandbox(_)
            | ScanError::Disk(_)
            | ScanError::Panicked
            | ScanError::Deadline(Phase::Scanning) => {
                let end = RescanEnd::Done(RescanResult::NoVerdict);
                unless_engines_fail(scanner, end, &detail).await
            }
        }
    }

    async fn fetch_failure(
        &self,
        homeserver: &TokenHolder,
        error: &FetchError,
        detail: String,
    ) -> RescanEnd {
        match error {
            FetchError::MissingToken | FetchError::UnknownToken => {
                RescanEnd::pause(PauseCause::Token, detail)
            }
            FetchError::Refused { status: 429, retry_after } => RescanEnd::Pause {
                cause: PauseCause::RateLimit,
                detail,
                delay: Some(retry_after.unwrap_or(DEFAULT_WAIT)),
            },
            // Of the media, or of the user.
            FetchError::Refused { status: 403, .. } => {
                if self.responds(homeserver, &["v3", "account", "whoami"], true).await {
                    RescanEnd::Done(RescanResult::NoVerdict)
                } else {
                    RescanEnd::pause(PauseCause::Token, detail)
                }
            }
            FetchError::NotFound | FetchError::NotYetUploaded => {
                // A proxy may respond in place of a homeserver that is down.
                if self.responds(homeserver, &["versions"], false).await {
                    RescanEnd::Done(RescanResult::Gone)
                } else {
                    RescanEnd::pause(PauseCause::Homeserver, detail)
                }
            }
            FetchError::Refused { .. } | FetchError::TooLarge { .. } => {
                RescanEnd::Done(RescanResult::NoVerdict)
            }
            FetchError::Upstream { retry_after: Some(delay), .. } => {
                RescanEnd::Pause { cause: PauseCause::Homeserver, detail, delay: Some(*delay) }
            }
            FetchError::Upstream { .. }
            | FetchError::Unreachable(_)
            | FetchError::Unresolved(_)
            | FetchError::ForbiddenAddress(_)
            | FetchError::TruncatedBody(_)
            | FetchError::NotMedia(_)
            | FetchError::TimedOut(_)
            | FetchError::Ingest(_) => self.homeserver_failure(homeserver, detail).await,
        }
    }

    /// Returns a failure of this media if the homeserver responds to another request.
    async fn homeserver_failure(&self, homeserver: &TokenHolder, detail: String) -> RescanEnd {
        if self.responds(homeserver, &["versions"], false).await {
            RescanEnd::Transient(detail)
        } else {
            RescanEnd::pause(PauseCause::Homeserver, detail)
        }
    }

    /// Returns whether the homeserver responds with 200.
    async fn responds(&self, homeserver: &TokenHolder, path: &[&str], with_token: bool) -> bool {
        let headers = if with_token { bearer(&homeserver.token) } else { HeaderMap::new() };
        let url = below(&homeserver.url, &[&["_matrix", "client"], path].concat());
        let request = ServiceRequest { method: Method::GET, url, headers, body: None };
        self.client.send(request).await.is_ok_and(|response| response.status == 200)
    }
}

impl TokenHolder {
    fn request(&self, media: MediaId, variant: Variant) -> ScanRequest {
        let requester = Requester {
            authorization: bearer(&self.token).remove(reqwest::header::AUTHORIZATION),
            tenant: TenantGroup::background(),
            ..Requester::default()
        };
        let origin = Origin::Configured(Arc::clone(&self.url));
        let fetch = MediaRequest { media, variant, timeout_ms: None, origin, requester };
        ScanRequest { fetch, decryption: None, wants: Wants::Rescan }
    }
}

/// Returns the end of a scan, unless the engines fail with any content.
async fn unless_engines_fail(scanner: &Scanner, end: RescanEnd, detail: &str) -> RescanEnd {
    if scanner.engines_work().await { end } else { RescanEnd::EnginesFail(detail.to_owned()) }
}
