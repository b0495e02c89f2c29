//! Who asks, and under which name they reached us: the client's address and the effective Host,
//! with what trusted proxies say of both. Knows no routes and no homeservers.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use ipnet::IpNet;

use super::{Network, connection::Peer};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The client of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Client {
    /// None for a client of a unix socket of whom no proxy says more.
    pub(super) address: Option<IpAddr>,
    /// Lower case; with the port if the client wrote one.
    pub(super) host: Option<String>,
}

impl Client {
    pub(super) fn of(request: &Parts, peer: Peer, trusted: &[Network]) -> Self {
        let peer_is_trusted = match peer {
            Peer::Address(address) => is_trusted(address, trusted),
            // Only a proxy on this machine is given a unix socket.
            Peer::Local => true,
        };
        let direct = match peer {
            Peer::Address(address) => Some(address),
            Peer::Local => None,
        };
        let mut address = direct;
        let mut host = None;
        if peer_is_trusted {
            address = forwarded_address(&request.headers, trusted).or(direct);
            host = forwarded_host(&request.headers);
        }
        let host = host.or_else(|| own_host(&request.uri, &request.headers));
        Self { address, host: host.map(str::to_ascii_lowercase) }
    }
}

/// From the right, each proxy names whom it served: the first who is no trusted proxy is the
/// client. What stands left of that, or of an entry that is no address, anyone may have written.
fn forwarded_address(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
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

/// Some proxies add the port, and then brackets around IPv6.
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

/// RFC 9112, section 3.2.2: an absolute request target outdoes the Host header.
fn own_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return authority.as_str().rsplit('@').next();
    }
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().ok(),
        // Of two, a proxy in front may have judged the other.
        _ => None,
    }
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

impl Network {
    /// Whether the address lies in the network. An IPv4-mapped address is an IPv4 address.
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

    fn network(address: &str, prefix: u8) -> Network {
        Network { address: address.parse().unwrap(), prefix }
    }

    fn client(peer: Peer, trusted: &[Network], headers: &[(&str, &str)]) -> Client {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Client::of(&request.body(()).unwrap().into_parts().0, peer, trusted)
    }

    fn at(address: &str) -> Peer {
        Peer::Address(address.parse().unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
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
    fn strangers_forwarding_headers_are_not_believed() {
        let headers = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "evil.example"),
            ("host", "Scan.Example:8080"),
        ];
        let client = client(at("198.51.100.1"), &[network("10.0.0.0", 8)], &headers);
        assert_eq!(client.address, Some(address("198.51.100.1")));
        assert_eq!(client.host.as_deref(), Some("scan.example:8080"));
    }

    #[test]
    fn the_client_is_the_first_from_the_right_who_is_no_trusted_proxy() {
        let trusted = [network("10.0.0.0", 8)];
        let of =
            |value: &str| client(at("10.0.0.1"), &trusted, &[("x-forwarded-for", value)]).address;
        assert_eq!(of("1.1.1.1, 203.0.113.9, 10.0.0.2"), Some(address("203.0.113.9")));
        assert_eq!(of("10.0.0.3,10.0.0.2"), Some(address("10.0.0.3")));
        assert_eq!(of("unknown, 10.0.0.2"), Some(address("10.0.0.2")));
        assert_eq!(of("garbage"), Some(address("10.0.0.1")));
        assert_eq!(of("203.0.113.9:4711"), Some(address("203.0.113.9")));
        assert_eq!(of("[2001:db8::7]:4711"), Some(address("2001:db8::7")));
        assert_eq!(of("2001:db8::7"), Some(address("2001:db8::7")));
        let two = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "203.0.113.2")];
        assert_eq!(client(at("10.0.0.1"), &trusted, &two).address, Some(address("203.0.113.2")));
    }

    #[test]
    fn a_proxy_on_a_unix_socket_is_trusted() {
        let headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "a.example, b")];
        let client = client(Peer::Local, &[], &headers);
        assert_eq!(client.address, Some(address("203.0.113.9")));
        assert_eq!(client.host.as_deref(), Some("a.example"));
    }

    #[test]
    fn two_host_headers_are_none() {
        let headers = [("host", "a.example"), ("host", "b.example")];
        assert_eq!(client(at("192.0.2.1"), &[], &headers).host, None);
    }
}
