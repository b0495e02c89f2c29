//! `[download]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};

use super::{headers::is_never_sent, prelude::*};
use crate::config::problem::InvalidValue;

settings! {
    /// The validated `[download]` section. Has no `Debug` implementation, since the proxy's URL and the operator's headers
    /// may contain secrets.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Settings {
        /// Homeserver for all requests whose `Host` is not in `homeservers`.
        pub base_homeserver_url: Option<Url> = optional(Key::new(base_url, format_url)),
        /// Pairs of a request `Host` (lower case; has a port only if the operator configured one) and a base URL.
        pub homeservers: Vec<(String, Url)> = homeservers(),
        /// `http` or `https` proxy for all outbound requests. The proxy resolves host names, so only literal addresses
        /// are checked by this service; the proxy decides which other addresses are reachable.
        pub proxy: Option<Url> = optional(Key::new(proxy, format_url)),
        /// Headers added to all requests to configured homeservers.
        pub additional_headers: HeaderMap = additional_headers(),
        /// Names of request headers that are forwarded, in lower case. Contains no hop-by-hop header.
        pub headers_to_forward: Vec<HeaderName> = headers_to_forward(),
        /// Whether the client's address is forwarded in `X-Forwarded-For`.
        pub forward_client_address: bool = boolean(),
        /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Host` are honoured.
        pub trusted_proxies: Vec<TrustedNetwork> = list(network()),
        /// Maximum size of a body as served, in bytes.
        pub max_size: u64 = size(1..=PEBIBYTE),
        /// Time limit for establishing a connection.
        pub connect_timeout: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Time limit between two chunks of a body, and from an outbound request to its response headers, including
        /// connecting. A client's `timeout_ms` does not extend it.
        pub idle_timeout: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Time limit for one download, from the first outbound request to the last byte.
        pub total_timeout: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Minimum rate in bytes per second, measured over 30 s; 0 for no minimum.
        pub min_rate: u64 = size(0..=1 << 30),
        /// Whether discovered homeservers may have addresses that are not globally reachable.
        pub allow_private_addresses: bool = boolean(),
        /// PEM file of certificates that are trusted in addition to the system's.
        pub ca_certificates: Option<PathBuf> = optional(paths::key(paths::file)),
        /// Time to live of cached grants. If zero, each client request is authorised by a homeserver request that is
        /// sent after the client request arrived.
        pub authorisation_ttl: Duration = duration(Duration::ZERO..=MAX_DURATION),
    }
    check check
}

/// Network in CIDR notation; a single address has the longest prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrustedNetwork {
    /// Network address, host bits zero.
    pub address: IpAddr,
    /// Prefix length, 0..=32 for IPv4 or 0..=128 for IPv6.
    pub prefix: u8,
}

impl Settings {
    /// Returns the base URL of the homeserver, if there is one only, or one for all hosts that have none of their own.
    #[must_use]
    pub fn main_homeserver(&self) -> Option<&Url> {
        let mut urls = self.homeservers.iter().map(|(_, url)| url);
        self.base_homeserver_url.as_ref().or_else(|| {
            let first = urls.next()?;
            urls.all(|url| url == first).then_some(first)
        })
    }
}

fn check(mut settings: Settings, download: &mut Section<'_, '_>) -> Settings {
    let forwarded = &mut settings.headers_to_forward;
    if forwarded.contains(&AUTHORIZATION) {
        download.warn(Warning::AlwaysForwarded("Authorization"));
        forwarded.retain(|name| *name != AUTHORIZATION);
    }
    if settings.forward_client_address && forwarded.iter().any(|name| name == "x-forwarded-for") {
        download.conflict(
            "forward_client_address",
            "found beside X-Forwarded-For in headers_to_forward, expected one of the two",
        );
    }
    for network in settings.trusted_proxies.iter().filter(|network| network.prefix == 0) {
        let network = format!("{}/{}", network.address, network.prefix);
        download.warn(Warning::TrustsAllAddresses(network));
    }
    for pair in settings.homeservers.windows(2) {
        if let [(first, _), (second, _)] = pair
            && first == second
        {
            download.conflict("homeservers", format!("found {first} twice, expected it once"));
        }
    }
    settings
}

/// Parses a base URL, with any path, and removes trailing slashes: routes are appended to it.
pub(super) fn base_url(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str = "an http or https URL without query, fragment or password, like \
                            \"https://matrix.example.org\"";
    let Ok(mut url) = http_url(value) else {
        let expected = value.text().and_then(corrected);
        return value.invalid_url(expected.unwrap_or_else(|| EXPECTED.to_owned()));
    };
    if has_query_or_fragment(&url) || has_credentials(&url) {
        return value.invalid_url(EXPECTED);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Returns what is expected in place of a base URL with a typing error.
fn corrected(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let with_scheme = format!("https://{trimmed}");
    let candidates = [trimmed.to_owned(), with_scheme, trimmed.replacen(":/", "://", 1)];
    let is_usable = |text: &String| {
        let url = Url::parse(text).ok();
        let has_scheme = text.starts_with("http://") || text.starts_with("https://");
        has_scheme
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "@\\".contains(c))
            && url.is_some_and(|url| url.host_str().is_some_and(|host| host.contains('.')))
            && text.matches("//").count() == 1
    };
    if let Some(better) = candidates.iter().find(|text| is_usable(text)) {
        return Some(format!("{}?", format::quoted(better)));
    }
    let port = trimmed.rsplit_once(':').filter(|(before, _)| before.contains("//"));
    let port = port.and_then(|(_, port)| port.trim_end_matches('/').parse::<u64>().ok());
    port.filter(|port| *port > u64::from(u16::MAX)).map(|_| "a port from 1 to 65535".to_owned())
}

/// Parses a proxy URL. Errors hide the value, since it may contain a password.
fn proxy(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str = "an http or https URL without path, like \"http://proxy:3128\"";
    match http_url(value) {
        Ok(url) if !has_query_or_fragment(&url) && url.path() == "/" => Ok(url),
        _ => value.invalid_secret(EXPECTED),
    }
}

pub(super) fn http_url(value: RawValue<'_>) -> Result<Url, ()> {
    let text = value.text().ok_or(())?;
    // `Url` corrects `https:example.org` and whitespace; here both are rejected as typing errors.
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    if !has_scheme || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(());
    }
    Url::parse(text).ok().filter(Url::has_host).ok_or(())
}

fn has_query_or_fragment(url: &Url) -> bool {
    url.query().is_some() || url.fragment().is_some()
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Formats a URL without a trailing slash and without the password.
pub(super) fn format_url(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() && url.set_password(Some(format::SECRET)).is_err() {
        return format::quoted(format::SECRET);
    }
    format::quoted(url.as_str().trim_end_matches('/'))
}

/// Sorted by host.
fn homeservers() -> Key<Vec<(String, Url)>> {
    let parse = |value: RawValue<'_>| {
        let entry = |host: &str, value: RawValue<'_>| Ok((request_host(host)?, base_url(value)?));
        let mut homeservers = parse_table(value, entry)?;
        homeservers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(homeservers)
    };
    Key::new(parse, |homeservers: &Vec<(String, Url)>| {
        format::table(homeservers.iter().map(|(host, base)| (host, format_url(base))))
    })
}

/// Parses the value of a `Host` header: lower case, with an optional port.
fn request_host(host: &str) -> ParseResult<String> {
    let lower = host.to_ascii_lowercase();
    let url = Url::parse(&format!("http://{lower}/")).ok().filter(|url| {
        // Rejects text that `Url` parsed as another component, or corrected.
        url.path() == "/"
            && !has_query_or_fragment(url)
            && !has_credentials(url)
            && !lower.contains(['/', '?', '#', '@', '\\'])
    });
    match url {
        Some(_) if !lower.contains(|c: char| c.is_whitespace() || c.is_control()) => Ok(lower),
        _ => Err(InvalidValue::single(
            format::quoted(host),
            "a host as in a Host header, like \"media.example.org\" or \"[::1]:8080\"",
        )),
    }
}

/// Parses a header. The value is marked sensitive and is never printed.
fn header(name: &str, value: RawValue<'_>) -> ParseResult<(HeaderName, HeaderValue)> {
    let name = match header_name(name) {
        Some(name) if !is_never_sent(&name) => name,
        Some(_) => return value.invalid_secret("another header: the service sets this one"),
        None => {
            let expected = "a header name of letters, digits and hyphens";
            return Err(InvalidValue::single(format::quoted(name), expected));
        }
    };
    if name == AUTHORIZATION {
        return value.invalid_secret("another header: this one is the requester's");
    }
    let text = parse_secret(value)?;
    let Ok(mut header) = HeaderValue::try_from(text) else {
        return value.invalid_secret("a header value without line breaks");
    };
    header.set_sensitive(true);
    Ok((name, header))
}

/// Displayed without the values.
fn additional_headers() -> Key<HeaderMap> {
    Key::new(
        |value| parse_table(value, header).map(HeaderMap::from_iter),
        |headers| format::table(headers.keys().map(|name| (name, format::quoted(format::SECRET)))),
    )
}

/// Sorted, each once.
fn headers_to_forward() -> Key<Vec<HeaderName>> {
    let name = Key::new(header_to_forward, |name| format::quoted(name.as_str()));
    list(name).map(|mut names| {
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    })
}

fn header_to_forward(value: RawValue<'_>) -> ParseResult<HeaderName> {
    match value.text().and_then(header_name) {
        Some(name) if !is_never_sent(&name) => Ok(name),
        Some(_) => value.invalid("another header: this one is never forwarded"),
        None => value.invalid("a header name"),
    }
}

fn header_name(name: &str) -> Option<HeaderName> {
    HeaderName::try_from(name).ok()
}

fn network() -> Key<TrustedNetwork> {
    let parse =
        |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    Key::new(
        move |value| match value.text().and_then(parse) {
            Some(net) => Ok(TrustedNetwork { address: net.network(), prefix: net.prefix_len() }),
            None => value.invalid("a network like \"10.0.0.0/8\", or an address"),
        },
        |network: &TrustedNetwork| {
            format::quoted(&format!("{}/{}", network.address, network.prefix))
        },
    )
}
