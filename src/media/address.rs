//! Decides which IP addresses are globally reachable, by IANA's special-purpose address registries (RFC 6890 and its
//! successors).
//!
//! Stricter than the registries where no media servers are: rejects anycast services within the protocol assignments,
//! and all IPv6 addresses outside the allocated unicast space.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Returns whether the address is globally reachable.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|net| net.contains(&address))
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    // A translator or tunnel in the local network may deliver packets to the embedded IPv4 address.
    if V4_MAPPED.contains(&address) || V4_COMPATIBLE.contains(&address) || NAT64.contains(&address)
    {
        return is_global_v4(v4_at::<12>(address));
    }
    if SIX_TO_FOUR.contains(&address) {
        return is_global_v4(v4_at::<2>(address));
    }
    if TEREDO.contains(&address) {
        // RFC 4380, section 4: contains the server's address, and the client's with all bits inverted.
        let client = Ipv4Addr::from_bits(!v4_at::<12>(address).to_bits());
        return is_global_v4(v4_at::<4>(address)) && is_global_v4(client);
    }
    UNICAST_V6.contains(&address) && !SPECIAL_V6.iter().any(|net| net.contains(&address))
}

/// Returns the IPv4 address at byte `OFFSET`.
fn v4_at<const OFFSET: u32>(address: Ipv6Addr) -> Ipv4Addr {
    const { assert!(OFFSET <= 12) }
    #[expect(clippy::cast_possible_truncation, reason = "the shift leaves the four bytes last")]
    Ipv4Addr::from_bits((address.to_bits() >> (8 * (12 - OFFSET))) as u32)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Creates a network from the first four groups of its address; the other groups are zero.
const fn v6(a: u16, b: u16, c: u16, d: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

const SPECIAL_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),       // "this network", RFC 791
    v4(10, 0, 0, 0, 8),      // private, RFC 1918
    v4(100, 64, 0, 0, 10),   // shared by carrier-grade NAT, RFC 6598
    v4(127, 0, 0, 0, 8),     // loopback, RFC 1122
    v4(169, 254, 0, 0, 16),  // link-local, RFC 3927; includes the metadata services of clouds
    v4(172, 16, 0, 0, 12),   // private, RFC 1918
    v4(192, 0, 0, 0, 24),    // protocol assignments, RFC 6890
    v4(192, 0, 2, 0, 24),    // documentation, RFC 5737
    v4(192, 31, 196, 0, 24), // AS112, RFC 7535: the nearest of many name servers
    v4(192, 52, 193, 0, 24), // automatic multicast tunneling, RFC 7450
    v4(192, 88, 99, 0, 24),  // 6to4 relays, RFC 7526
    v4(192, 168, 0, 0, 16),  // private, RFC 1918
    v4(192, 175, 48, 0, 24), // AS112, RFC 7534
    v4(198, 18, 0, 0, 15),   // benchmarks, RFC 2544
    v4(198, 51, 100, 0, 24), // documentation, RFC 5737
    v4(203, 0, 113, 0, 24),  // documentation, RFC 5737
    v4(224, 0, 0, 0, 3),     // multicast, reserved and broadcast, RFC 1112
];

const V4_MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const V4_COMPATIBLE: Ipv6Net = v6(0, 0, 0, 0, 96);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 0, 96);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 0, 16);
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 0, 32);

/// Global unicast space allocated by IANA. Excludes loopback, local-use NAT64 (`64:ff9b:1::/48`), discard-only, segment
/// routing, unique-local, link-local, site-local and multicast addresses.
const UNICAST_V6: Ipv6Net = v6(0x2000, 0, 0, 0, 3);

const SPECIAL_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 0, 0, 23), // protocol assignments, RFC 2928; Teredo is checked before
    v6(0x2001, 0xdb8, 0, 0, 32), // documentation, RFC 3849
    v6(0x2620, 0x4f, 0x8000, 0, 48), // AS112, RFC 7534
    v6(0x3fff, 0, 0, 0, 20), // documentation, RFC 9637
];

#[cfg(test)]
mod tests {
    use super::*;

    // Parts of a Teredo address: server, flags, port, inverted client.
    const GLOBAL: &[&str] = &[
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.114.0",
        "223.255.255.255",
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2001:0:0808:0808:0:0:f7f7:f7f7",
        "2001:200::1",
        "2001:db7::1",
        "2001:db9::1",
        "2001:4860:4860::8888",
        "2002:808:808::1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "3fff:1000::1",
    ];

    const NOT_GLOBAL: &[&str] = &[
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::ffff:169.254.169.254",
        "::ffff:0:8.8.8.8",
        "64:ff9b::192.168.1.1",
        "64:ff9b:0:0:0:1:808:808",
        "64:ff9b:1::8.8.8.8",
        "64:ff9b:1:a00:1:100::",
        "100::1",
        "1fff:ffff::1",
        "2001:0:0808:0808:0:0:80ff:fffe",
        "2001:0:7f00:1:0:0:f7f7:f7f7",
        "2001:1::1",
        "2001:2::1",
        "2001:4:112::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2620:4f:8000::1",
        "3fff::1",
        "3fff:fff:ffff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ];

    #[test]
    fn rejects_special_ranges_and_accepts_adjacent_addresses() {
        for address in GLOBAL {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
        for address in NOT_GLOBAL {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
    }
}
