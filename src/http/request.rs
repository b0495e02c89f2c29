//! From an HTTP request to a [`ScanRequest`]: path, query, token, forwarded headers and body, each
//! parsed once. From here on nothing is judged again. Knows nothing of what becomes of a request.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{Uri, request::Parts},
};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::{AppState, body, client::Client, connection::Peer, encrypted_file, forward};
use crate::{
    keys::OpenError,
    media::{MediaId, MediaRequest, Thumbnail, Variant},
    scan::{ScanRequest, Wants},
};

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

/// `{serverName}/{mediaId}[/{fileName}]`, as it was sent, and none of them empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Path<'path> {
    server_name: &'path str,
    media_id: &'path str,
    pub(super) file_name: Option<&'path str>,
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
    client: Peer,
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
    let fetch = media_request(state, client, parts, media, variant, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: None, wants })
}

/// The request of a POST route.
pub(super) async fn encrypted(
    state: &AppState,
    client: Peer,
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
    let fetch = media_request(state, client, parts, parsed.media, Variant::Original, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: Some(parsed.decryption), wants })
}

fn media_request(
    state: &AppState,
    client: Peer,
    parts: &Parts,
    media: MediaId,
    variant: Variant,
    timeout_ms: Option<String>,
) -> Result<MediaRequest, RequestError> {
    let settings = &state.settings;
    let client = Client::of(parts, client, &settings.trusted_proxies);
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

impl<'path> Path<'path> {
    /// Before anything is decoded: that would turn `%2f` into a separator.
    pub(super) fn of(path: &'path str) -> Option<Self> {
        let mut segments = path.split('/');
        let (server_name, media_id, file_name) =
            (segments.next()?, segments.next()?, segments.next());
        let all = [Some(server_name), Some(media_id), file_name];
        let whole = segments.next().is_none() && all.into_iter().flatten().all(|it| !it.is_empty());
        whole.then_some(Self { server_name, media_id, file_name })
    }

    /// The media that it names, and the file name after it.
    pub(super) fn decode(self) -> Result<(MediaId, Option<String>), RequestError> {
        let (server_name, media_id) = (decode(self.server_name)?, decode(self.media_id)?);
        let media =
            MediaId::parse(&server_name, &media_id).map_err(|_| RequestError::ImpossibleName)?;
        Ok((media, self.file_name.map(|name| decode(name).map(Cow::into_owned)).transpose()?))
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, RequestError> {
    let decoded =
        percent_decode_str(segment).decode_utf8().map_err(|_| RequestError::ImpossibleName)?;
    let escapes = decoded == "." || decoded == "..";
    if escapes || decoded.contains(['/', '\\', '\0']) {
        return Err(RequestError::ImpossibleName);
    }
    Ok(decoded)
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

    fn named(path: &str) -> Result<(MediaId, Option<String>), RequestError> {
        Path::of(path).unwrap().decode()
    }

    #[test]
    fn a_path_names_a_media_and_perhaps_a_file() {
        let (media, file_name) = named("example.org:8448/abc_-9").unwrap();
        assert_eq!((&*media.to_string(), file_name), ("mxc://example.org:8448/abc_-9", None));
        let (media, file_name) = named("%65xample.org/abc/na%C3%AFve%20name.png").unwrap();
        assert_eq!(media.to_string(), "mxc://example.org/abc");
        assert_eq!(file_name.as_deref(), Some("naïve name.png"));
    }

    #[test]
    fn a_hostile_path_names_nothing() {
        for path in [
            "../abc",
            "%2e%2e/abc",
            "example.org/..",
            "example.org/%2e%2e",
            "example.org/a%2fb",
            "example.org%2fa/b",
            "example.org/%00",
            "example.org/%ff",
            "%C3%28/abc",
            "user@example.org/abc",
            "example..org/abc",
            "example.org/a b",
            "example.org/a%20b",
            "example.org/abc/a%2fb",
            "example.org/abc/..",
            "example.org/abc/%00",
            "example.org/abc/%ff",
        ] {
            assert!(matches!(named(path), Err(RequestError::ImpossibleName)), "{path}");
        }
        for path in
            ["", "/", "example.org", "example.org/", "/abc", "example.org//x", "a/b/", "a/b/c/d"]
        {
            assert_eq!(Path::of(path), None, "{path}");
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
            let _ = Path::of(&path).map(Path::decode);
        }

        #[test]
        fn any_bytes_in_a_name_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let encoded = percent_encode(&bytes, NON_ALPHANUMERIC);
            if let Ok((media, _)) = named(&format!("{encoded}/{encoded}")) {
                prop_assert_eq!(media.media_id().as_bytes(), &*bytes);
            }
        }
    }
}
