//! Asks the homeserver whether a requester may have media that is cached or being fetched: anew for each requester,
//! with its own token. A grant is cached for a short time. Stores no token. Contract, section "Authorisation".

use std::{sync::Arc, time::Duration};

use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::{
    counters::AccessCheck,
    error::FetchError,
    expiring_cache::ExpiringCache,
    homeserver::Homeservers,
    outbound::{OutboundReply, RedirectPolicy, keeps_method},
    request::{MediaRequest, Origin},
};
use crate::{
    single_flight::{Accepts, Started},
    tenancy::fair_slots::FairSlots,
};

/// Maximum number of cached grants, about 8 MiB. Homeservers give far fewer within a `ttl` of seconds.
pub(crate) const CAPACITY: usize = 65_536;

/// Authorises requesters.
pub struct Authoriser {
    homeservers: Arc<Homeservers>,
    ttl: Duration,
    /// Cached grants, by a digest of homeserver, media and token. Concurrent callers share the result of one request:
    /// whether the homeserver granted access.
    granted: ExpiringCache<GrantKey, (), AuthorisationAnswer>,
    in_flight: FairSlots,
}

/// Maximum number of concurrent authorisation requests, besides as many that were demoted for other tenants. Each needs a
/// connection, and any client may request any cached media.
const MAX_IN_FLIGHT: usize = 64;

type GrantKey = [u8; 32];

/// The answer to an authorisation request.
type AuthorisationAnswer = Result<(), Arc<FetchError>>;

impl Authoriser {
    /// Creates an authoriser whose grants are valid for `ttl`; with zero, only a request
    /// that is sent after a caller arrived authorises it.
    #[must_use]
    pub fn new(homeservers: Arc<Homeservers>, ttl: Duration) -> Self {
        Self {
            homeservers,
            ttl,
            granted: ExpiringCache::new(CAPACITY),
            in_flight: FairSlots::new(MAX_IN_FLIGHT),
        }
    }

    /// Returns whether the homeserver lets this requester have this media now. `etag` is the homeserver's own, from
    /// when the media was fetched.
    ///
    /// One request at a time is in progress for each requester and media. Its result answers all callers that arrived
    /// before it was sent, so a caller waits for at most two requests; callers are answered in order of arrival. Callers
    /// that arrived later share a grant while grants are cached. A 429 may concern the address of one client and answers
    /// its own caller alone.
    ///
    /// # Errors
    /// The homeserver's refusal, or the reason why it could not be asked.
    pub async fn check(
        &self,
        request: &MediaRequest,
        etag: Option<&HeaderValue>,
    ) -> Result<(), Arc<FetchError>> {
        let key = key(request);
        // The common case: sets no timer and waits for no other caller.
        if self.granted.get(&key).is_some() {
            self.homeservers.counters.record_access_check(AccessCheck::Cached);
            return Ok(());
        }
        let deadline = self.homeservers.deadline();
        let accepts: Accepts<AuthorisationAnswer> =
            if self.ttl.is_zero() { accepts_without_cache } else { accepts_with_cache };
        let mut sent = false;
        let work = async {
            if self.granted.get(&key).is_some() {
                return Ok(());
            }
            sent = true;
            // Boxed: every answer from memory would otherwise copy this future's memory from layer to layer.
            let result = Box::pin(self.request_grant(request, etag, deadline)).await;
            if result.is_ok() {
                self.granted.insert(key, (), self.ttl);
            }
            result.map_err(Arc::new)
        };
        let result = timeout_at(deadline, self.granted.in_flight.run(key, accepts, work))
            .await
            .unwrap_or_else(|_| {
                Err(Arc::new(FetchError::TimedOut("authorisation did not finish")))
            });
        self.homeservers.counters.record_access_check(match &result {
            Ok(()) if sent => AccessCheck::Granted,
            Ok(()) => AccessCheck::Cached,
            Err(_) => AccessCheck::Refused,
        });
        result
    }

    /// Caches the grant that a download with this requester's token implies.
    pub fn grant(&self, request: &MediaRequest) {
        self.granted.insert(key(request), (), self.ttl);
    }

    /// Sends the authorisation request. The headers decide: returning closes the connection, so that the body, which
    /// may be the whole file, is not read.
    async fn request_grant(
        &self,
        request: &MediaRequest,
        etag: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        // Demotable from its start, because the request only waits for the network.
        let slot = self.in_flight.acquire(&request.requester.tenant, true);
        let _slot = timeout_at(deadline, slot)
            .await
            .map_err(|_| FetchError::TimedOut("too many concurrent authorisation requests"))?;
        let redirects = RedirectPolicy::Authorise;
        match self.homeservers.request_media(request, etag, redirects, deadline).await? {
            // A homeserver that redirects so to another origin has granted the request.
            OutboundReply::NotFollowed(status) if keeps_method(status) => Ok(()),
            // For example to the login page of a proxy in front.
            OutboundReply::NotFollowed(status) => {
                Err(FetchError::NotMedia(format!("redirect with status {}", status.as_u16())))
            }
            OutboundReply::Response(response, _) => match response.status().as_u16() {
                200..=299 | 304 => Ok(()),
                status => Err(FetchError::NotMedia(format!("status {status}"))),
            },
        }
    }
}

/// Returns whether the answer to another caller's request applies to a caller, if grants are not cached: the request
/// must have been sent after the caller arrived.
fn accepts_without_cache(answer: &AuthorisationAnswer, started: Started) -> bool {
    let is_rate_limit = answer.as_ref().is_err_and(|error| error.is_rate_limit());
    started == Started::AfterCall && !is_rate_limit
}

/// Like [`accepts_without_cache`], if grants are cached: a grant applies as if the caller had arrived later.
fn accepts_with_cache(answer: &AuthorisationAnswer, started: Started) -> bool {
    answer.is_ok() || accepts_without_cache(answer, started)
}

/// Returns a digest of everything by which a homeserver may distinguish requesters. No token can be recovered from it.
fn key(request: &MediaRequest) -> GrantKey {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    request.feed_key(&mut part);
    // A discovered homeserver receives no token, so its answer holds for every requester.
    if let Origin::Configured(_) = request.origin {
        let authorization = request.requester.authorization.as_ref();
        part(authorization.map_or(&[], HeaderValue::as_bytes));
        request.requester.feed_forwarded(&mut part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
