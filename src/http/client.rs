//! Determines the client's address and the effective host of a request, honouring the forwarding headers of
//! trusted proxies.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use ipnet::IpNet;

use super::{TrustedNetwork, connection::Peer};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Client of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Client {
    /// `None` for a Unix socket connection without a usable `X-Forwarded-For`.
    pub(super) address: Option<IpAddr>,
    /// Lower case; includes the port if the client sent one.
    pub(super) host: Option<String>,
}

impl Client {
    pub(super) fn from_request(request: &Parts, peer: Peer, trusted: &[TrustedNetwork]) -> Self {
        let direct = match peer {
            Peer::Address(address) => Some(address),
            Peer::Local { .. } => None,
        };
        let mut address = direct;
        let mut host = None;
        if is_proxy(peer, trusted) {
            address = forwarded_address(&request.headers, trusted).or(direct);
            host = forwarded_host(&request.headers);
        }
        let host = host.or_else(|| direct_host(&request.uri, &request.headers));
        Self { address, host: host.map(str::to_ascii_lowercase) }
    }
}

/// Returns whether the peer is a trusted reverse proxy.
pub(super) fn is_proxy(peer: Peer, trusted: &[TrustedNetwork]) -> bool {
    match peer {
        Peer::Address(address) => is_trusted(address, trusted),
        // Only a proxy on this machine can reach the Unix socket.
        Peer::Local { .. } => true,
    }
}

/// Returns the client's address from `X-Forwarded-For`: the rightmost entry that is not a trusted proxy.
/// Entries to the left of that entry, or of one that is not an address, can be forged.
fn forwarded_address(headers: &HeaderMap, trusted: &[TrustedNetwork]) -> Option<IpAddr> {
    let mut nearest = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in value.to_str().ok()?.rsplit(',') {
            let Some(address) = parse_address(entry.trim()) else { return nearest };
            nearest = Some(address);
            if !is_trusted(address, trusted) {
                return nearest;
            }
        }
    }
    nearest
}

/// Accepts an address with an optional port; some proxies add one, with brackets around IPv6.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(X_FORWARDED_HOST)?.to_str().ok()?;
    value.split(',').next().map(str::trim).filter(|host| !host.is_empty())
}

/// Returns the host that the client sent. An absolute request target takes precedence over the `Host` header
/// (RFC 9112, section 3.2.2).
fn direct_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return authority.as_str().rsplit('@').next();
    }
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().ok(),
        // With two values, a proxy in front may have checked the other one.
        _ => None,
    }
}

fn is_trusted(address: IpAddr, trusted: &[TrustedNetwork]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

impl TrustedNetwork {
    /// Returns whether the network contains the address. An IPv4-mapped address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        IpNet::new(self.address, self.prefix)
            .is_ok_and(|network| network.contains(&address.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn network(address: &str, prefix: u8) -> TrustedNetwork {
        TrustedNetwork { address: address.parse().unwrap(), prefix }
    }

    fn client(peer: Peer, trusted: &[TrustedNetwork], headers: &[(&str, &str)]) -> Client {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Client::from_request(&request.body(()).unwrap().into_parts().0, peer, trusted)
    }

    fn peer(address: &str) -> Peer {
        Peer::Address(address.parse().unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_contains_only_its_addresses() {
        let ten = network("10.0.0.0", 8);
        assert!(ten.contains("10.255.0.1".parse().unwrap()));
        assert!(ten.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!ten.contains("11.0.0.0".parse().unwrap()));
        assert!(!ten.contains("::1".parse().unwrap()));
        assert!(network("0.0.0.0", 0).contains("203.0.113.9".parse().unwrap()));
        assert!(network("::", 0).contains("2001:db8::1".parse().unwrap()));
        assert!(network("2001:db8::1", 128).contains("2001:db8::1".parse().unwrap()));
        assert!(!network("2001:db8::1", 128).contains("2001:db8::2".parse().unwrap()));
    }

    #[test]
    fn ignores_forwarding_headers_of_untrusted_peers() {
        let headers = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "evil.example"),
            ("host", "Scan.Example:8080"),
        ];
        let client = client(peer("198.51.100.1"), &[network("10.0.0.0", 8)], &headers);
        assert_eq!(client.address, Some(address("198.51.100.1")));
        assert_eq!(client.host.as_deref(), Some("scan.example:8080"));
    }

    #[test]
    fn client_is_rightmost_untrusted_forwarded_address() {
        let trusted = [network("10.0.0.0", 8)];
        let forwarded =
            |value: &str| client(peer("10.0.0.1"), &trusted, &[("x-forwarded-for", value)]).address;
        assert_eq!(forwarded("1.1.1.1, 203.0.113.9, 10.0.0.2"), Some(address("203.0.113.9")));
        assert_eq!(forwarded("10.0.0.3,10.0.0.2"), Some(address("10.0.0.3")));
        assert_eq!(forwarded("unknown, 10.0.0.2"), Some(address("10.0.0.2")));
        assert_eq!(forwarded("garbage"), Some(address("10.0.0.1")));
        assert_eq!(forwarded("203.0.113.9:4711"), Some(address("203.0.113.9")));
        assert_eq!(forwarded("[2001:db8::7]:4711"), Some(address("2001:db8::7")));
        assert_eq!(forwarded("2001:db8::7"), Some(address("2001:db8::7")));
        let two = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "203.0.113.2")];
        assert_eq!(client(peer("10.0.0.1"), &trusted, &two).address, Some(address("203.0.113.2")));
    }

    #[test]
    fn trusts_proxy_on_unix_socket() {
        let headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "a.example, b")];
        let client = client(Peer::Local { uid: None }, &[], &headers);
        assert_eq!(client.address, Some(address("203.0.113.9")));
        assert_eq!(client.host.as_deref(), Some("a.example"));
    }

    #[test]
    fn rejects_repeated_host_header() {
        let headers = [("host", "a.example"), ("host", "b.example")];
        assert_eq!(client(peer("192.0.2.1"), &[], &headers).host, None);
    }
}
