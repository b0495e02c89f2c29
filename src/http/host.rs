//! Checks the host of a request (RFC 9112, section 3.2). A proxy in front and the service must not derive different
//! hosts from one request, because the host selects the homeserver.

use std::net::Ipv6Addr;

use axum::http::{Request, Version, header, uri::Scheme};

use crate::media::split_port;

/// Maximum length of a host without its port, in bytes (RFC 1035, section 2.3.4).
const MAX_LENGTH: usize = 255;

/// Returns what is wrong with the host, if anything.
///
/// HTTP/1.1 requires exactly one `Host`, and earlier versions permit one. A host in the request target must be the
/// same: section 3.2.2 gives it precedence, but not all proxies do. An absent port is the default port of the target's
/// scheme (RFC 9110, section 4.2.3).
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let host = match (values.next(), values.next()) {
        (_, Some(_)) => return Err("several Host headers"),
        (None, None) if request.version() >= Version::HTTP_11 => return Err("no Host header"),
        (None, None) => None,
        (Some(host), None) => {
            let host = host.to_str().ok().filter(|host| is_valid(host));
            Some(host.ok_or("invalid Host header")?)
        }
    };
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    let authority = authority.as_str();
    if !is_valid(authority) {
        return Err("invalid host in the request target");
    }
    match host {
        Some(host) if !is_same(host, authority, default_port(request.uri().scheme())) => {
            Err("Host differs from the request target")
        }
        _ => Ok(()),
    }
}

/// Returns whether two valid values denote the same host and port.
fn is_same(one: &str, other: &str, default_port: Option<u16>) -> bool {
    let ((one, one_port), (other, other_port)) = (split_port(one), split_port(other));
    // The port may be empty.
    let port = |text: Option<&str>| text.and_then(|text| text.parse().ok()).or(default_port);
    one.eq_ignore_ascii_case(other) && port(one_port) == port(other_port)
}

fn default_port(scheme: Option<&Scheme>) -> Option<u16> {
    match scheme {
        Some(scheme) if *scheme == Scheme::HTTP => Some(80),
        Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
        _ => None,
    }
}

/// Returns whether the value is `host[:port]`: a name, an IPv4 address or `[IPv6]`. Stricter than RFC 3986, section
/// 3.2.2, where names without percent-encoding and `sub-delims` are concerned. Accepts underscores, which names of
/// containers have.
fn is_valid(value: &str) -> bool {
    let (host, port) = match value.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => return address.parse::<Ipv6Addr>().is_ok(),
        Some((address, port)) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            let Some(port) = port.strip_prefix(':') else { return false };
            return is_port(port);
        }
        None => value.split_once(':').unwrap_or((value, "")),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !host.is_empty() && host.len() <= MAX_LENGTH && host.bytes().all(is_name) && is_port(port)
}

/// The grammar permits an empty port.
fn is_port(port: &str) -> bool {
    port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check_request(version: Version, uri: &str, hosts: &[&[u8]]) -> Result<(), &'static str> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header("host", HeaderValue::from_bytes(host).unwrap());
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn requires_one_host() {
        let (v10, v11) = (Version::HTTP_10, Version::HTTP_11);
        for (version, uri, hosts, expected) in [
            (v11, "/", &["a"][..], Ok(())),
            (v10, "/", &["a"], Ok(())),
            (v10, "/", &[], Ok(())),
            (v11, "/", &[], Err("no Host header")),
            (v11, "http://a/", &[], Err("no Host header")),
            (v11, "/", &["a", "a"], Err("several Host headers")),
            (v10, "/", &["a", "b"], Err("several Host headers")),
            (v11, "http://a:1/", &["A:1"], Ok(())),
            (v10, "http://a/", &[], Ok(())),
            (v11, "http://a/", &["b"], Err("Host differs from the request target")),
            (v11, "http://a:1/", &["a"], Err("Host differs from the request target")),
            (v11, "http://u@a/", &["a"], Err("invalid host in the request target")),
            (v11, "http://a:80/", &["a"], Ok(())),
            (v11, "http://a/", &["A:80"], Ok(())),
            (v11, "http://a:/", &["a"], Ok(())),
            (v11, "http://a:/", &["a:80"], Ok(())),
            (v11, "http://a:8080/", &["a:08080"], Ok(())),
            (v11, "https://a:443/", &["a"], Ok(())),
            (v11, "http://[::1]:80/", &["[::1]"], Ok(())),
            (v11, "http://[::1]/", &["[::1]"], Ok(())),
            (v11, "http://a:443/", &["a"], Err("Host differs from the request target")),
            (v11, "https://a:80/", &["a"], Err("Host differs from the request target")),
            (v11, "http://a:80/", &["a:8080"], Err("Host differs from the request target")),
            (v11, "http://a:80/", &["b"], Err("Host differs from the request target")),
            (v11, "http://[::1]:80/", &["[::2]"], Err("Host differs from the request target")),
        ] {
            let hosts: Vec<_> = hosts.iter().map(|host| host.as_bytes()).collect();
            assert_eq!(
                check_request(version, uri, &hosts),
                expected,
                "{version:?} {uri} {hosts:?}"
            );
        }
    }

    #[test]
    fn accepts_hosts_and_rejects_anything_else() {
        let long = "a".repeat(MAX_LENGTH);
        for host in [
            "a",
            "a.example",
            "a.example.",
            "A-1.example:8080",
            "a:",
            "content_scanner:80",
            "192.0.2.1",
            "[2001:db8::1]",
            "[::1]:8080",
            "[::1]:",
            "xn--a",
            &long,
        ] {
            assert_eq!(check_request(Version::HTTP_11, "/", &[host.as_bytes()]), Ok(()), "{host}");
        }
        let too_long = "a".repeat(MAX_LENGTH + 1);
        for host in [
            "", " ", ":80", "a b", "a/b", "a@b", "u:p@a", "a,b", "a:b", "a:65536", "a:+1", "a:1:2",
            "a?b", "a#b", "a\\b", "a%2eb", "http://a", "[::1", "[::1]x", "[a]", "[]", "::1", "a\t",
            &too_long,
        ] {
            let result = check_request(Version::HTTP_11, "/", &[host.as_bytes()]);
            assert_eq!(result, Err("invalid Host header"), "{host:?}");
        }
        let result = check_request(Version::HTTP_11, "/", &["é".as_bytes()]);
        assert_eq!(result, Err("invalid Host header"));
    }
}
