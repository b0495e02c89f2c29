//! Fuzz target: parses any text as a media identifier. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use std::net::Ipv6Addr;

use url::Url;

use super::MediaId;

/// Checks one input: an mxc URI without its scheme.
///
/// # Panics
/// If an identifier is accepted that does not follow the grammar, has two spellings, or could change the host, the path
/// or the query of a URL; or if a valid identifier is rejected.
pub fn media_id(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let uri = format!("mxc://{text}");
    let parsed = MediaId::from_mxc(&uri);
    let parts = text.split_once('/');
    let is_valid = parts.is_some_and(|(server, id)| is_server_name(server) && is_media_id(id));
    assert_eq!(parsed.is_ok(), is_valid, "{text:?}: {parsed:?}");
    let (server, id) = parts.unwrap_or((&text, ""));
    assert_eq!(MediaId::parse(server, id).is_ok(), is_valid, "{server:?} and {id:?}");
    let Ok(media) = parsed else { return };
    assert_eq!(media.to_string(), uri);
    assert_eq!(format!("{}/{}", media.server_name(), media.media_id()), text);
    let port = media.server_name().strip_prefix(media.host()).expect("begins with the host");
    let has_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    assert!(port.is_empty() || has_port, "port {port:?}");
    // The names have the same meaning in a URL.
    let url = format!("https://a.example/{}/{}?x", media.server_name(), media.media_id());
    let url = Url::parse(&url).expect("a URL");
    let segments: Vec<_> = url.path_segments().expect("a path").collect();
    assert_eq!(segments, [media.server_name(), media.media_id()], "{url}");
    assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("a.example"), Some("x"), None));
    if let Ok(url) = Url::parse(&format!("https://{}/", media.server_name())) {
        assert_eq!((url.username(), url.password(), url.path()), ("", None, "/"), "{url}");
        assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
    }
}

/// Follows the grammar of the specification: `hostname [ ":" port ]`, at most 255 bytes.
fn is_server_name(text: &str) -> bool {
    let end = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => address.len() + 2,
            _ => return false,
        },
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let is_name = host.starts_with('[')
        || host.bytes().all(is_name_byte) && !host.split('.').any(str::is_empty);
    let digits = port.strip_prefix(':').unwrap_or("0");
    let is_port = port.is_empty() || port.starts_with(':');
    let is_number = (1..=5).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u32>().is_ok_and(|port| port < 1 << 16);
    text.len() <= 255 && is_name && is_port && is_number
}

fn is_media_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("media_id", media_id);
}
