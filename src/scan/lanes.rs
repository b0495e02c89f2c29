//! Whom a job is counted against: the server that its media is named after, and the token that asks.
//! Knows no job and no worker; `queue` says what the numbers mean.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use crate::media::{MediaRequest, Requester};

/// One of those against whom jobs are counted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Lane {
    /// A host in lower case: another port, or other letters, may be the same server.
    Server(Arc<str>),
    /// By a keyed hash: tokens are not kept.
    Token(u64),
}

/// The lanes of one job.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    pub(super) server: Lane,
    /// None where it is asked for without one.
    pub(super) token: Option<Lane>,
}

impl Lanes {
    pub(super) fn of(request: &MediaRequest, hasher: &RandomState) -> Self {
        Self {
            server: Lane::Server(request.media.host().to_ascii_lowercase().into()),
            token: token_of(&request.requester, hasher),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.server).chain(&self.token)
    }
}

/// The lane of a requester's token.
pub(super) fn token_of(requester: &Requester, hasher: &RandomState) -> Option<Lane> {
    requester.authorization.as_ref().map(|token| Lane::Token(hasher.hash_one(token)))
}

/// Jobs in one lane.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Load {
    /// In the queue.
    pub(super) waiting: usize,
    /// With a worker.
    pub(super) busy: usize,
}

/// Jobs in every lane; lanes without any take no place.
#[derive(Debug, Default)]
pub(super) struct Loads(HashMap<Lane, Load>);

impl Loads {
    pub(super) fn of(&self, lane: &Lane) -> Load {
        self.0.get(lane).copied().unwrap_or_default()
    }

    /// No token is a lane that is always empty.
    pub(super) fn of_token(&self, token: Option<&Lane>) -> Load {
        token.map(|token| self.of(token)).unwrap_or_default()
    }

    /// Changes the count of each of a job's lanes.
    pub(super) fn change(&mut self, lanes: &Lanes, change: impl Fn(&mut Load)) {
        for lane in lanes.iter() {
            let load = self.0.entry(lane.clone()).or_default();
            change(load);
            if *load == Load::default() {
                self.0.remove(lane);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
