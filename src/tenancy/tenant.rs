//! The parties that usage is counted against.

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
