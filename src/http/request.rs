//! From an HTTP request to a [`ScanRequest`]: path, query, token, forwarded headers and body, each
//! parsed once. From here on nothing is judged again. Knows nothing of what becomes of a request.

use axum::{
    body::Body,
    http::{Uri, request::Parts},
};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::{AppState, body, client::Client, encrypted_file, forward};
use crate::{
    keys::OpenError,
    media::{MediaId, MediaRequest, Thumbnail, Variant},
    scan::{ScanRequest, Wants},
};

/// Below it are all routes.
pub(super) const PREFIX: &str = "/_matrix/media_proxy/unstable";

/// Why a request is refused before the scanner hears of it. One row of the contract's table each.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body, or what was sealed in it, is not what it should be. Never quotes it.
    #[error("malformed body: {what}")]
    MalformedJson {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The body is over `web.max_body_size`.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// The body was not whole in time.
    #[error("the body took too long")]
    BodyTimedOut,
    /// The client broke off, or framed its body wrongly.
    #[error("the body broke off")]
    BodyBroken(#[source] axum::Error),
    /// A field of the key is a string that is not base64, or has a wrong length.
    #[error("{field} is not base64 of the right length")]
    Undecodable {
        /// Its name.
        field: &'static str,
    },
    /// An `encrypted_body` object that lacks a part, or that holds no text.
    #[error("bad encrypted body: {what}")]
    BadDecryption {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An `encrypted_body` that is not for our key, or damaged.
    #[error("the encrypted body does not open")]
    Unopened(#[source] OpenError),
    /// More than one `Authorization` header: it is not for us to choose whose request it is.
    #[error("several Authorization headers")]
    SeveralTokens,
    /// A segment of the path is empty: no route of ours.
    #[error("a segment of the path is missing")]
    MissingSegment,
    /// The name in the path cannot be a media's.
    #[error("the path names no possible media")]
    ImpossibleName,
    /// No homeserver is configured for the request's Host.
    #[error("no homeserver for the request's Host")]
    NoHomeserver,
    /// A range that lies outside the media.
    #[error("the range lies outside the media's {length} bytes")]
    RangeNotSatisfiable {
        /// Bytes of the media.
        length: u64,
    },
}

/// The media that a path names, and the file name after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) media: MediaId,
    pub(super) file_name: Option<String>,
}

/// What a GET route asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plain {
    Download,
    Thumbnail,
    Scan,
}

/// The request of a GET route.
pub(super) fn plain(
    state: &AppState,
    parts: &Parts,
    media: MediaId,
    what: Plain,
) -> Result<ScanRequest, RequestError> {
    let mut query = Query::of(&parts.uri);
    let timeout_ms = query.timeout_ms.take();
    let variant = match what {
        Plain::Thumbnail => Variant::Thumbnail(query.thumbnail),
        Plain::Download | Plain::Scan => Variant::Original,
    };
    let wants = match what {
        Plain::Download | Plain::Thumbnail => Wants::Media,
        Plain::Scan => Wants::Verdict,
    };
    let fetch = media_request(state, parts, media, variant, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: None, wants })
}

/// The request of a POST route.
pub(super) async fn encrypted(
    state: &AppState,
    parts: &Parts,
    body: Body,
    wants: Wants,
) -> Result<ScanRequest, RequestError> {
    let settings = &state.settings;
    let body =
        body::read(body, &parts.headers, settings.max_body_size, settings.body_timeout).await?;
    // Some 100 µs of curve arithmetic: less than handing it to another thread and back is worth.
    let parsed = encrypted_file::parse(&body, |ciphertext, mac, ephemeral| {
        state.keys.open(ciphertext, mac, ephemeral)
    })?;
    let timeout_ms = Query::of(&parts.uri).timeout_ms;
    let fetch = media_request(state, parts, parsed.media, Variant::Original, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: Some(parsed.decryption), wants })
}

fn media_request(
    state: &AppState,
    parts: &Parts,
    media: MediaId,
    variant: Variant,
    timeout_ms: Option<String>,
) -> Result<MediaRequest, RequestError> {
    let settings = &state.settings;
    let client = Client::of(parts, &settings.trusted_proxies);
    let told = client.address.filter(|_| settings.forward_client_address);
    let requester = forward::requester(
        &parts.headers,
        &settings.headers_to_forward,
        client.host.as_deref(),
        told,
    )?;
    let origin =
        state.homeservers.choose(client.host.as_deref()).ok_or(RequestError::NoHomeserver)?;
    Ok(MediaRequest { media, variant, timeout_ms, origin, requester })
}

/// Reads `/{route}/{serverName}/{mediaId}[/{fileName}]` below the prefix.
///
/// From the path as it was sent: decoding before splitting would turn `%2f` into a separator.
pub(super) fn named(path: &str) -> Result<Named, RequestError> {
    let below = path.strip_prefix(PREFIX).ok_or(RequestError::ImpossibleName)?;
    let mut segments = below.trim_matches('/').split('/').skip(1).map(decode);
    let mut segment = || segments.next().transpose();
    let (Some(server_name), Some(media_id), file_name, None) =
        (segment()?, segment()?, segment()?, segment()?)
    else {
        return Err(RequestError::ImpossibleName);
    };
    let media =
        MediaId::parse(&server_name, &media_id).map_err(|_| RequestError::ImpossibleName)?;
    Ok(Named { media, file_name })
}

fn decode(segment: &str) -> Result<String, RequestError> {
    if segment.is_empty() {
        return Err(RequestError::MissingSegment);
    }
    let decoded =
        percent_decode_str(segment).decode_utf8().map_err(|_| RequestError::ImpossibleName)?;
    let escapes = decoded == "." || decoded == "..";
    if escapes || decoded.contains(['/', '\\', '\0']) {
        return Err(RequestError::ImpossibleName);
    }
    Ok(decoded.into_owned())
}

/// The query parameters that are passed on; the others are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Query {
    thumbnail: Thumbnail,
    timeout_ms: Option<String>,
}

impl Query {
    /// Of a repeated parameter the first counts.
    fn of(uri: &Uri) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let field = match &*name {
                "width" => &mut query.thumbnail.width,
                "height" => &mut query.thumbnail.height,
                "method" => &mut query.thumbnail.method,
                "animated" => &mut query.thumbnail.animated,
                "timeout_ms" => &mut query.timeout_ms,
                _ => continue,
            };
            field.get_or_insert_with(|| value.into_owned());
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn below(path: &str) -> Result<Named, RequestError> {
        named(&format!("{PREFIX}/{path}"))
    }

    #[test]
    fn a_path_names_a_media_and_perhaps_a_file() {
        let plain = below("download/example.org:8448/abc_-9").unwrap();
        assert_eq!(plain.media.to_string(), "mxc://example.org:8448/abc_-9");
        assert_eq!(plain.file_name, None);
        let with_file = below("download/%65xample.org/abc/na%C3%AFve%20name.png/").unwrap();
        assert_eq!(with_file.media.to_string(), "mxc://example.org/abc");
        assert_eq!(with_file.file_name.as_deref(), Some("naïve name.png"));
    }

    #[test]
    fn a_hostile_path_names_nothing() {
        for path in [
            "scan/../abc",
            "scan/%2e%2e/abc",
            "scan/example.org/..",
            "scan/example.org/%2e%2e",
            "scan/example.org/a%2fb",
            "scan/example.org%2fa/b",
            "scan/example.org/%00",
            "scan/example.org/%ff",
            "scan/%C3%28/abc",
            "scan/user@example.org/abc",
            "scan/example..org/abc",
            "scan/example.org/a b",
            "scan/example.org/a%20b",
            "download/example.org/abc/a%2fb",
            "download/example.org/abc/..",
            "download/example.org/abc/%00",
            "download/example.org/abc/%ff",
            "download/example.org/abc/a/b",
            "download/example.org",
        ] {
            assert!(matches!(below(path), Err(RequestError::ImpossibleName)), "{path}");
        }
    }

    #[test]
    fn of_a_repeated_parameter_the_first_counts_and_unknown_ones_are_ignored() {
        let uri =
            "/x?width=1&width=2&allow_redirect=true&method=sc%61le&timeout_ms=20&access_token=s";
        let query = Query::of(&uri.parse().unwrap());
        let thumbnail = Thumbnail {
            width: Some("1".to_owned()),
            method: Some("scale".to_owned()),
            ..Thumbnail::default()
        };
        assert_eq!(query, Query { thumbnail, timeout_ms: Some("20".to_owned()) });
        assert_eq!(
            Query::of(&"/x?%ff=%ff&width=%zz".parse().unwrap()).thumbnail.width.as_deref(),
            Some("%zz")
        );
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in "\\PC{0,60}") {
            let _ = named(&path);
            let _ = below(&path);
        }

        #[test]
        fn any_bytes_in_a_name_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let encoded = percent_encode(&bytes, NON_ALPHANUMERIC);
            if let Ok(named) = below(&format!("download/{encoded}/{encoded}")) {
                prop_assert_eq!(named.media.media_id().as_bytes(), &*bytes);
            }
        }
    }
}
