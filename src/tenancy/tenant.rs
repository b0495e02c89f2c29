//! The parties that usage is counted against.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
};

use super::ClientNetwork;

/// A party that usage is counted against. For requests, determined by what a client cannot choose freely: never by the
/// name of the media's server, an `X-Matrix` origin or a `Host`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Tenant {
    /// An access token that a configured homeserver has accepted, as a keyed hash, so that no token is stored.
    Token(u64),
    /// The network of a client without an accepted token.
    Network(ClientNetwork),
    /// The registrable domain of a looked-up name, as a keyed hash. For name lookups alone, which have no requester: one
    /// lookup may serve many.
    Domain(u64),
    /// All clients without an address, and the service itself.
    #[default]
    Local,
    /// Work of the service that no client waits for. Its jobs start only while no other job waits and a worker stays free.
    Background,
}

/// A tenant, and one group of the tenant's requests. Usage is shared between tenants first, then between the groups of
/// each tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct TenantGroup {
    pub(crate) tenant: Tenant,
    /// Keyed hash of what distinguishes requests of one network: the token, if one is sent to a configured homeserver
    /// that has not accepted the token yet, otherwise the registrable domain of the media's server. Zero for a tenant
    /// whose requests form one group.
    pub(crate) group: u64,
}

impl TenantGroup {
    /// Returns the group of all work that no client waits for.
    #[must_use]
    pub(crate) fn background() -> Self {
        Self { tenant: Tenant::Background, group: 0 }
    }

    pub(super) fn is_background(&self) -> bool {
        self.tenant == Tenant::Background
    }
}

/// Name of a tenant for operators: 32 bits of a keyed hash, so that it reveals neither a token nor an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TenantName(u32);

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Names tenants. The key is random for each process.
#[derive(Default, Debug)]
pub(crate) struct TenantNames(RandomState);

impl TenantNames {
    #[must_use]
    pub(crate) fn name(&self, tenant: &Tenant) -> TenantName {
        let [a, b, c, d, ..] = self.0.hash_one(tenant).to_le_bytes();
        TenantName(u32::from_le_bytes([a, b, c, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_tenant_and_by_process() {
        let (names, others) = (TenantNames::default(), TenantNames::default());
        let (first, second) = (Tenant::Token(1), Tenant::Token(2));
        assert_eq!(names.name(&first), names.name(&first));
        assert_ne!(names.name(&first), names.name(&second));
        assert_ne!(names.name(&first), others.name(&first), "the key is random");
        assert_eq!(names.name(&Tenant::Local).to_string().len(), 8);
    }
}
