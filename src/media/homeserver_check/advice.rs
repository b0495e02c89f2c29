//! Mistakes in base URLs, and what to write instead.

use std::net::IpAddr;

use reqwest::Url;

use super::answer::{AnswerContent, MEDIA, ServerAnswer, VERSIONS};
use crate::{chain::Chain, config::sections::listen::Listen, media::error::FetchError};

pub(super) const NO_URL: &str = "not set, so media is requested without access token from the server in its mxc URI, which current \
     homeservers refuse; write the address of your homeserver, like \"http://127.0.0.1:8008\"";

pub(super) const LOOP: &str = "a Matrix content scanner answers there, so requests would go in a circle; write the address of the \
     homeserver itself, like \"http://127.0.0.1:8008\", past the reverse proxy";

/// Returns the mistake in a base URL that is found without a request.
pub(super) fn mistake(url: &Url, own: &Listen) -> Option<String> {
    if let Listen::Tcp { host, port } = own
        && *port != 0
        && url.port_or_known_default() == Some(*port)
        && url.host_str().is_some_and(|name| is_own_host(name, host))
    {
        return Some(format!(
            "port {port} is of this service (web.port), so requests would go in a circle; write the address of \
             the homeserver, like \"http://127.0.0.1:8008\""
        ));
    }
    let has_matrix =
        url.path_segments().is_some_and(|mut parts| parts.any(|part| part == "_matrix"));
    has_matrix.then(|| {
        format!(
            "the service appends the path /_matrix itself; write \"{}\"",
            shown(&without_matrix(url))
        )
    })
}

/// Whether this host, in a URL, is this machine as the listener sees it.
fn is_own_host(host: &str, own: &str) -> bool {
    let literal = host.trim_matches(['[', ']']);
    let is_local = |text: &str| {
        let address = text.parse::<IpAddr>();
        text == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    literal.eq_ignore_ascii_case(own) || (is_local(literal) && is_local(own))
}

/// Returns similar URLs that may be meant: with the other scheme, and without path.
pub(super) fn alternatives(url: &Url) -> Vec<Url> {
    let other_scheme = if url.scheme() == "https" { "http" } else { "https" };
    let mut other = url.clone();
    // The default port of the other scheme is a different address.
    let port = url.port_or_known_default().filter(|_| url.port().is_some());
    let is_changed = other.set_scheme(other_scheme).is_ok() && other.set_port(port).is_ok();
    let bare = without_path(url);
    let urls = [(is_changed, other), (bare.path() != url.path(), bare)].into_iter();
    urls.filter(|(is_usable, _)| *is_usable).map(|(_, url)| url).collect()
}

/// Returns the URL without path.
pub(super) fn without_path(url: &Url) -> Url {
    let mut bare = url.clone();
    bare.set_path("");
    bare
}

fn without_matrix(url: &Url) -> Url {
    let kept: Vec<_> = url
        .path()
        .split('/')
        .take_while(|part| *part != "_matrix")
        .filter(|part| !part.is_empty())
        .collect();
    let mut bare = url.clone();
    bare.set_path(&kept.join("/"));
    bare
}

/// Describes an error of the network.
pub(super) fn unreachable(error: &FetchError, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let advice = match error {
        FetchError::Unresolved(_) => {
            format!("correct the name if it is misspelt; `getent hosts {host}` asks the same resolver")
        }
        FetchError::TimedOut(_) => {
            "check the address and port, and whether a firewall drops the packets".to_owned()
        }
        _ if Chain(error).to_string().contains("certificate") => {
            "correct the certificate, or the name in the URL; download.ca_certificates trusts an authority of \
             your own"
                .to_owned()
        }
        _ => "check the address and port, and that the homeserver runs".to_owned(),
    };
    format!("{}; {advice}", Chain(error))
}

/// Describes an error of the network beside a similar URL that works.
pub(super) fn unreachable_but(error: &FetchError, better: &Url) -> String {
    format!("{}; a homeserver answers at another URL: write \"{}\"", Chain(error), shown(better))
}

pub(super) fn unavailable(status: u16) -> String {
    format!(
        "status {status} from the reverse proxy; check that the homeserver behind it runs, or write the \
         homeserver's own address"
    )
}

pub(super) fn redirected(answer: &ServerAnswer, target: &Url) -> String {
    let path = target.path().trim_end_matches('/');
    let mut base = target.clone();
    base.set_query(None);
    base.set_fragment(None);
    match path.strip_suffix(VERSIONS) {
        Some(prefix) => {
            base.set_path(prefix);
            format!(
                "found {}, where access tokens are not sent; write \"{}\"",
                answer.describe(),
                shown(&base)
            )
        }
        None => format!(
            "found {}, which no homeserver sends; write the address of the homeserver itself, past the login \
             page or web site",
            answer.describe()
        ),
    }
}

/// Describes a server that is not a homeserver.
pub(super) fn wrong_server(answer: &ServerAnswer, better: Option<&Url>) -> String {
    let found = answer.describe();
    if let Some(better) = better {
        return format!("found {found}, not a homeserver; write \"{}\"", shown(better));
    }
    let advice = match answer {
        ServerAnswer::MatrixError { status: 404, .. } => {
            "a Matrix server without the API for clients, such as the port for federation (8448); write the \
             address for clients, like \"http://127.0.0.1:8008\""
        }
        ServerAnswer::Other { status: 401 | 403, .. } => {
            "a proxy that wants a login; write the homeserver's own address, or set \
             download.additional_headers"
        }
        ServerAnswer::Other { content: AnswerContent::Html, .. } => {
            "a web site, or a reverse proxy that does not pass /_matrix to the homeserver; write the \
             homeserver's own address, like \"http://127.0.0.1:8008\""
        }
        _ => "another service; write the address of the homeserver, like \"http://127.0.0.1:8008\"",
    };
    format!("found {found}, not a homeserver: {advice}")
}

/// Describes a homeserver without a media route.
pub(super) fn no_media_route(answer: Option<&ServerAnswer>) -> String {
    let found = answer.map_or_else(|| "no answer".to_owned(), ServerAnswer::describe);
    format!(
        "a homeserver, but its media routes cannot be used: found {found} at /{MEDIA}; pass /_matrix/client/v1/media \
         and /_matrix/media to the homeserver, or write the address of its media repository"
    )
}

/// Formats a URL without a slash at its end.
fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn names_own_address_and_path_without_request() {
        let own = |host: &str, port| Listen::Tcp { host: host.to_owned(), port };
        for (base, own, expected) in [
            ("http://127.0.0.1:8080", own("127.0.0.1", 8080), true),
            ("http://localhost:8080", own("127.0.0.1", 8080), true),
            ("http://[::1]:8080", own("::", 8080), true),
            ("http://10.0.0.7:8080", own("10.0.0.7", 8080), true),
            ("http://scanner.example", own("scanner.example", 80), true),
            ("https://localhost", own("0.0.0.0", 443), true),
            ("http://127.0.0.1:8008", own("127.0.0.1", 8080), false),
            ("http://10.0.0.7:8080", own("127.0.0.1", 8080), false),
            ("http://127.0.0.1", own("127.0.0.1", 0), false),
            ("http://127.0.0.1:8080", Listen::Unix("/run/s".into()), false),
        ] {
            let found = mistake(&url(base), &own).is_some_and(|text| text.contains("in a circle"));
            assert_eq!(found, expected, "{base} {own:?}");
        }
        for (base, better) in [
            ("https://m.example/_matrix", "write \"https://m.example\""),
            ("https://m.example/_matrix/client/v3", "write \"https://m.example\""),
            ("https://m.example/hs/_matrix/", "write \"https://m.example/hs\""),
        ] {
            let text = mistake(&url(base), &own("127.0.0.1", 8080)).unwrap();
            assert!(text.ends_with(better), "{text}");
        }
        assert_eq!(mistake(&url("https://m.example/hs"), &own("127.0.0.1", 8080)), None);
    }

    #[test]
    fn alternatives_differ_in_scheme_or_path() {
        let shown_all =
            |base: &str| -> Vec<_> { alternatives(&url(base)).iter().map(shown).collect() };
        assert_eq!(shown_all("https://m.example"), ["http://m.example"]);
        assert_eq!(shown_all("http://m.example:8448"), ["https://m.example:8448"]);
        assert_eq!(
            shown_all("https://m.example:8008/x"),
            ["http://m.example:8008/x", "https://m.example:8008"]
        );
    }
}
