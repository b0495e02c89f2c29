//! Selects what is forwarded from a client's request to the homeserver: the access token and the headers that
//! the operator lists. `media` keeps them from other origins.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{client::X_FORWARDED_FOR, request_error::RequestError};
use crate::{config::sections::headers::is_never_sent, media::Requester};

/// Collects the token and the headers to forward. `names` are the operator's `headers_to_forward`, `host` is
/// the effective host, `client` is the client's address if it is to be forwarded.
///
/// # Errors
/// [`RequestError::MultipleTokens`] if the request has more than one `Authorization` header.
pub(super) fn requester(
    headers: &HeaderMap,
    names: &[HeaderName],
    host: Option<&str>,
    client: Option<IpAddr>,
) -> Result<Requester, RequestError> {
    let mut forwarded = HeaderMap::new();
    for name in names.iter().filter(|name| !is_excluded(name, headers)) {
        for value in headers.get_all(name) {
            forwarded.append(name, value.clone());
        }
    }
    if forwarded.remove(header::HOST).is_some()
        && let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok())
    {
        // Forwards the host that selected the homeserver: a proxy in front may have replaced the `Host` header.
        forwarded.insert(header::HOST, host);
    }
    if let Some(client) = client {
        // Replaces the received value: homeservers use the leftmost address, which a client can forge.
        forwarded.remove(X_FORWARDED_FOR);
        if let Ok(value) = HeaderValue::try_from(client.to_string()) {
            forwarded.insert(X_FORWARDED_FOR, value);
        }
    }
    Ok(Requester { authorization: authorization(headers)?, forwarded, ..Requester::default() })
}

fn authorization(headers: &HeaderMap) -> Result<Option<HeaderValue>, RequestError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next().cloned();
    if values.next().is_some() {
        return Err(RequestError::MultipleTokens);
    }
    Ok(first.map(|mut token| {
        token.set_sensitive(true);
        token
    }))
}

fn is_excluded(name: &HeaderName, headers: &HeaderMap) -> bool {
    is_never_sent(name)
        // Forwarded separately, marked sensitive.
        || name == header::AUTHORIZATION
        || headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|nominated| nominated.trim().eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn names(names: &[&'static str]) -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    #[test]
    fn keeps_token_verbatim_and_out_of_debug_output() {
        let requester =
            requester(&headers(&[("authorization", "Odd s3cret")]), &[], None, None).unwrap();
        let token = requester.authorization.clone().unwrap();
        assert_eq!(token, "Odd s3cret");
        assert!(token.is_sensitive());
        assert!(!format!("{token:?} {requester:?}").contains("s3cret"));
    }

    #[test]
    fn rejects_two_tokens() {
        let two = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]);
        assert!(matches!(requester(&two, &[], None, None), Err(RequestError::MultipleTokens)));
    }

    #[test]
    fn forwards_only_listed_headers_without_hop_by_hop_ones() {
        let received = headers(&[
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("x-other", "3"),
            ("x-nominated", "4"),
            ("connection", "close, X-Nominated"),
            ("if-none-match", "*"),
            ("authorization", "Bearer a"),
        ]);
        let names = names(&[
            "x-kept",
            "x-absent",
            "x-nominated",
            "connection",
            "if-none-match",
            "authorization",
        ]);
        let requester = requester(&received, &names, None, None).unwrap();
        let forwarded: Vec<_> = requester.forwarded.iter().map(|(n, v)| (n.as_str(), v)).collect();
        assert_eq!(
            forwarded,
            [
                ("x-kept", &HeaderValue::from_static("1")),
                ("x-kept", &HeaderValue::from_static("2"))
            ]
        );
    }

    #[test]
    fn client_address_replaces_received_x_forwarded_for() {
        let received = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        let client = Some("203.0.113.9".parse().unwrap());
        let requester = requester(&received, &names(&["x-forwarded-for"]), None, client).unwrap();
        let all: Vec<_> = requester.forwarded.get_all(X_FORWARDED_FOR).iter().collect();
        assert_eq!(all, ["203.0.113.9"]);
    }

    #[test]
    fn forwards_effective_host() {
        let received = headers(&[("host", "scanner.internal")]);
        let host = |names: &[HeaderName], effective| {
            let requester = requester(&received, names, effective, None).unwrap();
            requester.forwarded.get("host").map(|host| host.to_str().unwrap().to_owned())
        };
        let named = names(&["host"]);
        assert_eq!(host(&named, Some("media.example")).as_deref(), Some("media.example"));
        assert_eq!(host(&named, None), None);
        assert_eq!(host(&[], Some("media.example")), None);
    }
}
