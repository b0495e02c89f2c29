//! The parties that usage is counted against.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// A party that usage is counted against.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Tenant {
    /// The host of the server that the media is named after, in lower case and without its port: other spellings and
    /// other ports may denote the same server.
    Server(Arc<str>),
    /// An access token, as a keyed hash, so that no token is stored.
    Token(u64),
}

impl Tenant {
    /// Returns the tenant of a server. `host` has no port; its case does not matter.
    #[must_use]
    pub(crate) fn from_host(host: &str) -> Self {
        Self::Server(host.to_ascii_lowercase().into())
    }
}

/// Hashes access tokens into tenants, with a random key for each process.
#[derive(Clone, Default, Debug)]
pub(crate) struct TenantHasher(RandomState);

impl TenantHasher {
    /// Returns the tenant of an access token.
    #[must_use]
    pub(crate) fn token(&self, token: &[u8]) -> Tenant {
        Tenant::Token(self.0.hash_one(token))
    }
}

/// The tenants of one job.
#[derive(Clone, Debug)]
pub(crate) struct Tenants {
    /// Always [`Tenant::Server`].
    pub(crate) server: Tenant,
    /// [`Tenant::Token`]; absent for a request without a token.
    pub(crate) token: Option<Tenant>,
}

impl Tenants {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tenant> {
        std::iter::once(&self.server).chain(&self.token)
    }
}

/// Jobs of one tenant.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct JobCounts {
    /// Jobs in the queue.
    pub(super) waiting: usize,
    /// Jobs that a worker has taken.
    pub(super) busy: usize,
}

/// Job counts by tenant. A tenant without jobs takes no memory.
#[derive(Debug, Default)]
pub(super) struct TenantCounts(HashMap<Tenant, JobCounts>);

impl TenantCounts {
    pub(super) fn get(&self, tenant: &Tenant) -> JobCounts {
        self.0.get(tenant).copied().unwrap_or_default()
    }

    /// Returns zero counts where there is no token: such jobs are limited by their server alone.
    pub(super) fn get_token(&self, token: Option<&Tenant>) -> JobCounts {
        token.map(|token| self.get(token)).unwrap_or_default()
    }

    /// Applies `change` to the counts of each of a job's tenants.
    pub(super) fn update(&mut self, tenants: &Tenants, change: impl Fn(&mut JobCounts)) {
        for tenant in tenants.iter() {
            let counts = self.0.entry(tenant.clone()).or_default();
            change(counts);
            if *counts == JobCounts::default() {
                self.0.remove(tenant);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
