//! Determines the tenant of a request.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;

use super::{ClientNetwork, Tenant, TenantGroup, registrable_domain};

/// Period for which an accepted token identifies a tenant.
const ACCEPTED_FOR: Duration = Duration::from_secs(3600);

/// Maximum number of accepted tokens, about 6 MiB. The tokens that were used longest ago are forgotten first; their
/// users count by address until the homeserver accepts the token again.
pub(crate) const CAPACITY: usize = 65_536;
/// Memory of one of them at most, bytes: the entry, its links and its places in the table.
#[cfg(test)]
pub(crate) const TOKEN_BYTES: usize = 96;

/// The access tokens that configured homeservers have accepted, as keyed hashes. The key is random for each process.
pub(crate) struct TenantTable {
    hasher: RandomState,
    /// When each token was accepted.
    accepted: Cache<u64, Instant>,
}

/// A token, and the homeserver that receives the token.
#[derive(Clone, Copy)]
pub(crate) struct SentToken<'a> {
    /// Base URL of a configured homeserver.
    pub(crate) homeserver: &'a str,
    /// Value of the `Authorization` header.
    pub(crate) authorization: &'a [u8],
}

impl TenantTable {
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), accepted: Cache::new(CAPACITY) }
    }

    /// Records that the homeserver accepted the token: a download or an authorisation with the token succeeded.
    pub(crate) fn accept(&self, token: SentToken<'_>) {
        self.accepted.insert(self.token_hash(token), Instant::now());
    }

    /// Returns the tenant of a request: its token if the homeserver has accepted the token within the last hour,
    /// otherwise the network of the client. `host` is the host of the media's server, without a port.
    #[must_use]
    pub(crate) fn tenant(
        &self,
        token: Option<SentToken<'_>>,
        address: Option<IpAddr>,
        host: &str,
    ) -> TenantGroup {
        let token = token.map(|token| self.token_hash(token));
        if let Some(token) = token
            && self.accepted.get(&token).is_some_and(|at| at.elapsed() < ACCEPTED_FOR)
        {
            return TenantGroup { tenant: Tenant::Token(token), group: 0 };
        }
        let group = token.unwrap_or_else(|| self.hasher.hash_one(registrable_domain(host)));
        let network = address.map(ClientNetwork::new);
        TenantGroup { tenant: network.map_or(Tenant::Local, Tenant::Network), group }
    }

    /// Spellings of the header that denote the same token have the same hash.
    fn token_hash(&self, token: SentToken<'_>) -> u64 {
        let SentToken { homeserver, authorization } = token;
        let trimmed = authorization.trim_ascii();
        let end = trimmed.iter().position(u8::is_ascii_whitespace).unwrap_or(trimmed.len());
        let (scheme, credentials) = trimmed.split_at(end);
        let token = if scheme.eq_ignore_ascii_case(b"bearer") {
            credentials.trim_ascii_start()
        } else {
            trimmed
        };
        self.hasher.hash_one((homeserver, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "https://home.example";

    fn token(authorization: &str) -> SentToken<'_> {
        SentToken { homeserver: HOME, authorization: authorization.as_bytes() }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_an_accepted_token_is_a_tenant() {
        let table = TenantTable::new();
        let tenant = |sent, from| table.tenant(sent, Some(address(from)), "a.example").tenant;
        let network = tenant(None, "192.0.2.1");
        for number in 0..100 {
            let random = format!("Bearer random{number}");
            let random =
                table.tenant(Some(token(&random)), Some(address("192.0.2.1")), "a.example");
            assert_eq!(random.tenant, network);
        }
        table.accept(token("Bearer good"));
        let good = tenant(Some(token("Bearer good")), "192.0.2.1");
        assert!(matches!(good, Tenant::Token(_)));
        assert_eq!(tenant(Some(token("Bearer good")), "198.51.100.7"), good);
        assert_eq!(tenant(Some(token("bearer  good")), "192.0.2.1"), good, "another spelling");
        let elsewhere = SentToken { homeserver: "https://other.example", ..token("Bearer good") };
        assert_eq!(tenant(Some(elsewhere), "192.0.2.1"), network, "another homeserver");
    }

    #[test]
    fn table_of_accepted_tokens_is_bounded() {
        let table = TenantTable::new();
        for number in 0..2 * CAPACITY {
            table.accept(token(&format!("Bearer {number}")));
        }
        assert!(table.accepted.len() <= CAPACITY);
        let used = table.accepted.memory_used().total();
        assert!(used <= CAPACITY * TOKEN_BYTES, "{used}");
    }

    #[test]
    fn clients_without_a_token_count_by_network() {
        let table = TenantTable::new();
        let tenant = |from: &str| table.tenant(None, Some(address(from)), "a.example").tenant;
        assert_eq!(tenant("2001:db8::1"), tenant("2001:db8::ffff:0:1"));
        assert_ne!(tenant("2001:db8::1"), tenant("2001:db8:0:1::1"));
        assert_ne!(tenant("192.0.2.1"), tenant("192.0.2.2"));
        assert_eq!(table.tenant(None, None, "a.example").tenant, Tenant::Local);
    }

    #[test]
    fn requests_of_one_network_are_grouped_by_registrable_domain() {
        let table = TenantTable::new();
        let group = |host| table.tenant(None, Some(address("192.0.2.1")), host).group;
        for (one, other, same) in [
            ("a.flood.example", "b.c.FLOOD.example", true),
            ("flood.example", "other.example", false),
            ("a.flood.example", "flood.example.", true),
            ("a.example.co.uk", "b.example.co.uk", true),
            ("one.co.uk", "two.co.uk", false),
            ("one.github.io", "two.github.io", false),
            ("192.0.2.1", "198.51.2.1", false),
            ("[2001:db8::1]", "[2001:db8::2]", false),
            ("localhost", "localhost", true),
        ] {
            assert_eq!(group(one) == group(other), same, "{one} {other}");
        }
    }
}
