//! Whether a requester may have a media that is here already: the homeserver is asked anew for each
//! of them, with their own token, and its "yes" is remembered for a moment. Knows no verdicts; keeps
//! no token. Contract: "Cached media is authorised anew for each requester".

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use quick_cache::sync::Cache;
use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::{
    FetchError, Homeservers, MediaRequest, Origin, Requester, exits::Reached, turns::Turns,
};
use crate::metrics::Authorisation;

/// Remembered answers: far more than homeservers give within a `ttl` of seconds, about 8 MiB.
const CAPACITY: usize = 65_536;

/// Asks homeservers whether requesters may have media.
pub struct Authoriser {
    homeservers: Arc<Homeservers>,
    ttl: Duration,
    /// Until when a "yes" holds, by a digest of homeserver, media and token. Past their time entries
    /// stay until others need the place.
    yes: Cache<Key, Instant>,
    questions: Turns,
    hasher: RandomState,
}

/// Questions at a time. Each is a connection, and anybody may ask for anything that is here.
const MAX_QUESTIONS: usize = 64;

/// Of these, about the media of one server, and of one token: a server that takes its time to answer
/// must not keep others from theirs.
const MAX_OF_ONE: usize = MAX_QUESTIONS / 4;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

type Key = [u8; 32];

impl Authoriser {
    /// `ttl`: how long a "yes" holds; zero asks every time.
    #[must_use]
    pub fn new(homeservers: Arc<Homeservers>, ttl: Duration) -> Self {
        Self {
            homeservers,
            ttl,
            yes: Cache::new(CAPACITY),
            questions: Turns::new(MAX_QUESTIONS, MAX_OF_ONE),
            hasher: RandomState::new(),
        }
    }

    /// Whether the homeserver lets this requester have this media now. `etag`: the homeserver's own,
    /// from when the media was fetched. One question at a time for each requester and media; those
    /// who wait share a "yes", and after anything else ask for themselves.
    pub async fn check(
        &self,
        request: &MediaRequest,
        etag: Option<&HeaderValue>,
    ) -> Result<(), FetchError> {
        let key = key(request);
        // Nearly always: no timer is set, nobody stands in line.
        if self.yes.get(&key).is_some_and(|until| Instant::now() < until) {
            self.homeservers.metrics.authorisation(Authorisation::Remembered);
            return Ok(());
        }
        let deadline = self.homeservers.deadline();
        loop {
            let waiting = timeout_at(deadline, self.yes.get_value_or_guard_async(&key));
            let known = waiting
                .await
                .map_err(|_| FetchError::TimedOut("no answer to the authorisation"))?;
            match known {
                Ok(until) if Instant::now() < until => {
                    self.homeservers.metrics.authorisation(Authorisation::Remembered);
                    return Ok(());
                }
                Ok(_) => {
                    self.yes.remove_if(&key, |until| *until <= Instant::now());
                }
                // Dropped without a value (an error, a requester gone), it wakes the next in line.
                Err(guard) => {
                    // Boxed: every answer from memory would carry its place along, from layer to layer.
                    let asked = Box::pin(self.ask(request, etag, deadline)).await;
                    let result = match asked {
                        Ok(()) => Authorisation::Granted,
                        Err(_) => Authorisation::Refused,
                    };
                    self.homeservers.metrics.authorisation(result);
                    asked?;
                    if let Some(until) = self.until() {
                        // Fails only if the place was taken meanwhile: then it is asked again.
                        let _ = guard.insert(until);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Remembers a "yes" that came as a download with this requester's token.
    pub fn grant(&self, request: &MediaRequest) {
        if let Some(until) = self.until() {
            self.yes.insert(key(request), until);
        }
    }

    /// The server that the media is named after, whatever its port, and the token, where it is shown to
    /// somebody.
    fn lanes(&self, request: &MediaRequest) -> impl Iterator<Item = u64> + use<> {
        let server = ("server", request.media.host().to_ascii_lowercase());
        let token = match request.origin {
            Origin::Configured(_) => request.requester.authorization.as_ref(),
            Origin::Discovered => None,
        };
        let token = token.map(|token| self.hasher.hash_one(("token", token)));
        std::iter::once(self.hasher.hash_one(server)).chain(token)
    }

    fn until(&self) -> Option<Instant> {
        Instant::now().checked_add(self.ttl).filter(|_| !self.ttl.is_zero())
    }

    /// A whole media may follow the headers: returning closes the connection before it does.
    async fn ask(
        &self,
        request: &MediaRequest,
        etag: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        let turn = timeout_at(deadline, self.questions.take(self.lanes(request))).await;
        let _turn = turn.map_err(|_| FetchError::TimedOut("no turn to ask for authorisation"))?;
        match self.homeservers.ask(request, etag, false, deadline).await? {
            // To give out another origin's address is to say yes.
            Reached::Elsewhere => Ok(()),
            Reached::Answer(answer, _) => match answer.status().as_u16() {
                200..=299 | 304 => Ok(()),
                status => Err(FetchError::NotMedia(format!("status {status}"))),
            },
        }
    }
}

/// All by which a homeserver may tell requesters apart: no token can be read back from it.
fn key(request: &MediaRequest) -> Key {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    request.feed_key(&mut part);
    // A discovered homeserver is told of nobody, so its word is for everybody.
    if let Origin::Configured(_) = request.origin {
        let Requester { authorization, forwarded } = &request.requester;
        part(authorization.as_ref().map_or(&[], HeaderValue::as_bytes));
        // Where one walks about, the same token has the same rights.
        for (name, value) in forwarded.iter().filter(|(name, _)| *name != X_FORWARDED_FOR) {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
