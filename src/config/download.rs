//! `[download]`, except for the keys about incoming requests (see `web`).

use std::time::Duration;

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{
    format, paths,
    problem::{InvalidValue, Warning},
    reader::{Reader, Section},
    types::{self, MAX_DURATION, boolean, duration, size},
    value::{ParseResult, RawValue},
};
use crate::media::{Settings, is_never_sent};

const MILLISECOND: Duration = Duration::from_millis(1);
const PEBIBYTE: u64 = 1 << 50;

pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let mut download = reader.section("download");
    let connect_timeout = download.read("connect_timeout", duration(MILLISECOND..=MAX_DURATION));
    let idle_timeout = download.read("idle_timeout", duration(MILLISECOND..=MAX_DURATION));
    let total_timeout = download.read("total_timeout", duration(MILLISECOND..=MAX_DURATION));
    let ttl = download.read("authorisation_ttl", duration(Duration::ZERO..=MAX_DURATION));
    let headers_to_forward = headers_to_forward(&mut download);
    let forward_client_address =
        download.read("forward_client_address", boolean).unwrap_or_default();
    if forward_client_address && headers_to_forward.iter().any(|name| name == "x-forwarded-for") {
        download.conflict(
            "forward_client_address",
            "found beside X-Forwarded-For in headers_to_forward, expected one of the two",
        );
    }
    Settings {
        base_homeserver_url: download.read("base_homeserver_url", base_url),
        homeservers: homeservers(&mut download),
        proxy: download.read("proxy", proxy),
        additional_headers: download
            .read("additional_headers", types::table(header))
            .map(HeaderMap::from_iter)
            .unwrap_or_default(),
        headers_to_forward,
        forward_client_address,
        max_size: download.read("max_size", size(1..=PEBIBYTE)).unwrap_or(256 << 20),
        connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(10)),
        idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(30)),
        total_timeout: total_timeout.unwrap_or(Duration::from_secs(5 * 60)),
        min_rate: download.read("min_rate", size(0..=1 << 30)).unwrap_or(1 << 10),
        allow_private_addresses: download
            .read("allow_private_addresses", boolean)
            .unwrap_or_default(),
        ca_certificates: download.read("ca_certificates", paths::file),
        authorisation_ttl: ttl.unwrap_or(Duration::from_secs(5)),
    }
}

/// Parses a base URL, with any path, and removes trailing slashes: routes are appended to it.
fn base_url(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str = "an http or https URL without query, fragment or password, like \
                            \"https://matrix.example.org\"";
    let mut url = http_url(value).or_else(|()| value.invalid(EXPECTED))?;
    if has_query_or_fragment(&url) || has_credentials(&url) {
        // Hides the value, since it may contain a password.
        return value.invalid_secret(EXPECTED);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Parses a proxy URL. Errors hide the value, since it may contain a password.
fn proxy(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str = "an http or https URL without path, like \"http://proxy:3128\"";
    match http_url(value) {
        Ok(url) if !has_query_or_fragment(&url) && url.path() == "/" => Ok(url),
        _ => value.invalid_secret(EXPECTED),
    }
}

fn http_url(value: RawValue<'_>) -> Result<Url, ()> {
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

fn homeservers(download: &mut Section<'_, '_>) -> Vec<(String, Url)> {
    let mut homeservers = download
        .read(
            "homeservers",
            types::table(|host, value| Ok((request_host(host)?, base_url(value)?))),
        )
        .unwrap_or_default();
    homeservers.sort_by(|(a, _), (b, _)| a.cmp(b));
    for pair in homeservers.windows(2) {
        if let [(first, _), (second, _)] = pair
            && first == second
        {
            download.conflict("homeservers", format!("found {first} twice, expected it once"));
        }
    }
    homeservers
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
        None => return value.invalid_secret("a header name"),
    };
    if name == reqwest::header::AUTHORIZATION {
        return value.invalid_secret("another header: this one is the requester's");
    }
    let text = types::secret(value)?;
    let Ok(mut header) = HeaderValue::try_from(text) else {
        return value.invalid_secret("a header value without line breaks");
    };
    header.set_sensitive(true);
    Ok((name, header))
}

fn headers_to_forward(download: &mut Section<'_, '_>) -> Vec<HeaderName> {
    let mut names =
        download.read("headers_to_forward", types::list(header_to_forward)).unwrap_or_default();
    if names.contains(&reqwest::header::AUTHORIZATION) {
        download.warn(Warning::AlwaysForwarded("Authorization"));
        names.retain(|name| name != reqwest::header::AUTHORIZATION);
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
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
