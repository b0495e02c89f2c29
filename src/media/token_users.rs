//! Asks configured homeservers for the users of access tokens (Matrix client-server API, `GET
//! /_matrix/client/v3/account/whoami`), for the audit log. Each token is asked about once an hour. Stores no token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Url, header::HeaderValue};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use super::{
    counters::UserLookup,
    error::FetchError,
    expiring_cache::ExpiringCache,
    homeserver::Homeservers,
    http_util::read_small,
    id::is_server_name,
    outbound::OutboundReply,
    request::{MediaRequest, Origin, RequestSender, Requester},
};
use crate::chain::Chain;

const PATH: &str = "/_matrix/client/v3/account/whoami";

/// Maximum number of tokens whose users are known.
pub(crate) const CAPACITY: usize = 16_384;

/// Maximum memory of one of them, bytes: the key, the user ID and the entry of the table.
#[cfg(test)]
pub(crate) const ENTRY_BYTES: usize = 512;

/// Time for which the answer of a homeserver is used, also that the token is unknown.
const TTL: Duration = Duration::from_secs(3600);

/// Time after which a homeserver without a valid answer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Time limit of a question, including the wait for a slot.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of questions at a time.
const MAX_IN_FLIGHT: usize = 16;

/// Maximum size of a response, bytes.
const MAX_RESPONSE: usize = 16 << 10;

/// Maximum length of a user ID, bytes (Matrix specification, appendices, "User Identifiers").
const MAX_USER_ID: usize = 255;

type TokenDigest = [u8; 32];

/// The users of tokens. Survives reloads.
pub struct TokenUsers {
    users: ExpiringCache<TokenDigest, Option<Arc<str>>, Option<Arc<str>>>,
    slots: Semaphore,
    /// Whether the last question failed, so that a row of failures is logged once.
    is_failing: AtomicBool,
}

/// A question for the user of a token.
pub struct UserQuestion<'a> {
    key: TokenDigest,
    base: &'a Arc<Url>,
    requester: &'a Requester,
}

/// Reason why there is no user.
#[derive(Debug, thiserror::Error)]
enum UserLookupError {
    /// The homeserver does not accept the token.
    #[error("the homeserver does not accept the token")]
    Refused,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("status {0}")]
    Status(u16),
    #[error("the response contains no user ID")]
    NoUser,
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl<'a> UserQuestion<'a> {
    /// Returns `None` if no homeserver can be asked: the request has no access token, or an operator sent it, or no
    /// homeserver is configured for it.
    #[must_use]
    pub fn from_request(request: &'a MediaRequest) -> Option<Self> {
        let MediaRequest { origin: Origin::Configured(base), requester, .. } = request else {
            return None;
        };
        if requester.sender == RequestSender::Operator {
            return None;
        }
        let key = digest(base, bearer(requester.authorization.as_ref()?)?, requester);
        Some(Self { key, base, requester })
    }

    /// Returns the question with data of its own.
    #[must_use]
    pub fn into_owned(self) -> OwnedUserQuestion {
        let (base, requester) = (Arc::clone(self.base), self.requester.clone());
        OwnedUserQuestion { key: self.key, base, requester }
    }
}

/// A [`UserQuestion`] that does not borrow.
#[derive(Debug)]
pub struct OwnedUserQuestion {
    key: TokenDigest,
    base: Arc<Url>,
    requester: Requester,
}

impl Default for TokenUsers {
    fn default() -> Self {
        Self {
            users: ExpiringCache::new(CAPACITY),
            slots: Semaphore::new(MAX_IN_FLIGHT),
            is_failing: AtomicBool::new(false),
        }
    }
}

impl TokenUsers {
    /// Returns the answer to an earlier question, `Some(None)` if there was no user.
    #[must_use]
    pub fn known(&self, question: &UserQuestion<'_>) -> Option<Option<Arc<str>>> {
        self.users.get(&question.key)
    }

    /// Counts a question that is not asked.
    pub fn record_skipped(&self, homeservers: &Homeservers) {
        homeservers.counters.record_user_lookup(UserLookup::Skipped);
    }

    /// Asks the homeserver, or waits for the answer to the same question. Returns `None` without a valid answer within 5
    /// seconds.
    ///
    /// Cancellation safe.
    pub async fn find(
        &self,
        homeservers: &Homeservers,
        question: &OwnedUserQuestion,
    ) -> Option<Arc<str>> {
        let key = question.key;
        let work = async {
            // Another caller may have asked since this one has looked.
            if let Some(known) = self.users.get(&key) {
                return known;
            }
            let result = self.ask(homeservers, question).await;
            let (lookup, ttl) = match &result {
                Ok(_) => (UserLookup::Found, TTL),
                Err(UserLookupError::Refused) => (UserLookup::Refused, TTL),
                Err(_) => (UserLookup::Failed, RETRY_AFTER),
            };
            homeservers.counters.record_user_lookup(lookup);
            self.log(&question.base, &result);
            let user = result.ok();
            self.users.insert(key, user.clone(), ttl);
            user
        };
        self.users.in_flight.run(key, |_, _| true, work).await
    }

    async fn ask(
        &self,
        homeservers: &Homeservers,
        question: &OwnedUserQuestion,
    ) -> Result<Arc<str>, UserLookupError> {
        let deadline = Instant::now() + TIMEOUT;
        let _slot = timeout_at(deadline, self.slots.acquire())
            .await
            .map_err(|_| UserLookupError::TimedOut)?;
        // A slot may become free at the deadline.
        if Instant::now() >= deadline {
            return Err(UserLookupError::TimedOut);
        }
        let OwnedUserQuestion { base, requester, .. } = question;
        let reply = homeservers.get_as_requester(base, PATH, requester, deadline);
        let response = match reply.await? {
            OutboundReply::Response(response, _) => response,
            OutboundReply::NotFollowed(status) => {
                return Err(UserLookupError::Status(status.as_u16()));
            }
        };
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(UserLookupError::Refused),
            status => return Err(UserLookupError::Status(status)),
        }
        let body = read_small(response, MAX_RESPONSE, deadline).await;
        body.and_then(|body| parse(&body)).ok_or(UserLookupError::NoUser)
    }

    /// Logs the first of several failures, and the first answer after them.
    fn log(&self, base: &Url, result: &Result<Arc<str>, UserLookupError>) {
        let (homeserver, error) = match result {
            Ok(_) | Err(UserLookupError::Refused) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    info!(homeserver = %base, "users of access tokens are known again");
                }
                return;
            }
            Err(error) => (base, error),
        };
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let error = Chain(error);
            warn!(%homeserver, %error, "users of access tokens are unknown, audit lines lack them");
        }
    }
}

/// Returns the user ID in a response.
fn parse(body: &[u8]) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    struct WhoamiResponse {
        user_id: String,
    }
    let response: WhoamiResponse = serde_json::from_slice(body).ok()?;
    is_user_id(&response.user_id).then(|| response.user_id.into())
}

/// Returns whether a text is a user ID, historical ones included (Matrix specification, appendices, "User Identifiers"):
/// visible ASCII characters alone.
pub(crate) fn is_user_id(text: &str) -> bool {
    let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    let Some((localpart, server_name)) = parts else { return false };
    text.len() <= MAX_USER_ID
        && !localpart.is_empty()
        && localpart.bytes().all(|byte| byte.is_ascii_graphic())
        && is_server_name(server_name)
}

/// Returns the token of `Bearer TOKEN` (RFC 6750, section 2.1). Other schemes name no user.
fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let value = authorization.as_bytes().trim_ascii();
    let (scheme, token) = value.split_at(value.iter().position(u8::is_ascii_whitespace)?);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

/// Returns a digest of everything by which a homeserver may select the user. No token can be recovered from it.
fn digest(base: &Url, token: &[u8], requester: &Requester) -> TokenDigest {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(base.as_str().as_bytes());
    part(token);
    // One base URL may serve several homeservers by the forwarded `Host`.
    requester.feed_forwarded(&mut part);
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
