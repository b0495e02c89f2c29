//! Networks that the usage of clients without an accepted token is counted against.

use std::net::{IpAddr, Ipv6Addr};

/// Network of one client: an IPv4 address, or the /64 of an IPv6 address, since a single client usually has a whole /64
/// (RFC 6177).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ClientNetwork(IpAddr);

/// Bits of an IPv6 address that identify the host within its /64.
const HOST_BITS_V6: u32 = 64;

impl ClientNetwork {
    /// Returns the network of an address. An IPv4-mapped address counts as IPv4.
    #[must_use]
    pub(crate) fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() >> HOST_BITS_V6 << HOST_BITS_V6).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_of_one_64_are_one_client() {
        let network = |address: &str| ClientNetwork::new(address.parse().unwrap());
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(network(one) == network(other), same, "{one} {other}");
        }
    }
}
