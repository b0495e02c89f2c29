//! Converts an HTTP request to a [`ScanRequest`]: path, query, token, forwarded headers and body are each
//! validated here, once.

use std::{borrow::Cow, str::FromStr};

use axum::{
    body::Body,
    http::{Uri, request::Parts},
};
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    AppState, body, client::Client, connection::Peer, encrypted_file, forward,
    request_error::RequestError, request_id::RequestIds,
};
use crate::{
    media::{MediaId, MediaRequest, RequestSender, Thumbnail, ThumbnailMethod, Variant},
    scan::{ScanRequest, Wants},
};

/// Segments `{serverName}/{mediaId}[/{fileName}]` of a path, percent-decoded.
#[derive(Deserialize)]
pub(super) struct MediaPath {
    server_name: String,
    media_id: String,
    file_name: Option<String>,
}

/// GET routes that name media in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MediaRoute {
    Download,
    Thumbnail,
    Scan,
}

/// Builds the scan request of a GET route.
pub(super) fn parse_unencrypted(
    state: &AppState,
    peer: Peer,
    parts: &Parts,
    media: MediaId,
    route: MediaRoute,
) -> Result<ScanRequest, RequestError> {
    let query = Query::parse(&parts.uri);
    let timeout_ms = query.timeout_ms()?;
    let variant = match route {
        MediaRoute::Thumbnail => Variant::Thumbnail(query.thumbnail()?),
        MediaRoute::Download | MediaRoute::Scan => Variant::Original,
    };
    let wants = match route {
        MediaRoute::Download | MediaRoute::Thumbnail => Wants::Media,
        MediaRoute::Scan => Wants::Verdict,
    };
    let fetch = media_request(state, peer, parts, media, variant, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: None, wants })
}

/// Reads the body and builds the scan request of a POST route.
pub(super) async fn parse_encrypted(
    state: &AppState,
    peer: Peer,
    parts: &Parts,
    body: Body,
    wants: Wants,
) -> Result<ScanRequest, RequestError> {
    let settings = &state.settings;
    let body =
        body::read(body, &parts.headers, settings.max_body_size, settings.body_timeout).await?;
    // Decryption takes about 100 µs: too short to be worth a transfer to another thread.
    let parsed = encrypted_file::parse(&body, |ciphertext, mac, ephemeral| {
        state.keys.open(ciphertext, mac, ephemeral)
    })?;
    let timeout_ms = Query::parse(&parts.uri).timeout_ms()?;
    let fetch = media_request(state, peer, parts, parsed.media, Variant::Original, timeout_ms)?;
    Ok(ScanRequest { fetch, decryption: Some(parsed.decryption), wants })
}

fn media_request(
    state: &AppState,
    peer: Peer,
    parts: &Parts,
    media: MediaId,
    variant: Variant,
    timeout_ms: Option<u64>,
) -> Result<MediaRequest, RequestError> {
    let settings = &state.settings;
    let client = Client::from_request(parts, peer, &settings.trusted_proxies);
    let forwarded_address = client.address.filter(|_| settings.forward_client_address);
    let mut requester = forward::requester(
        &parts.headers,
        &settings.headers_to_forward,
        client.host.as_deref(),
        forwarded_address,
    )?;
    requester.trace = RequestIds::headers(parts);
    requester.sender = RequestSender::Client(client.address);
    let origin = state
        .homeservers
        .origin_for_host(client.host.as_deref())
        .ok_or(RequestError::NoHomeserver)?;
    let authorization = requester.authorization.as_ref();
    requester.tenant = state.homeservers.tenant(&origin, authorization, client.address, &media);
    Ok(MediaRequest { media, variant, timeout_ms, origin, requester })
}

impl MediaPath {
    /// Validates the media ID and the file name.
    pub(super) fn validate(self) -> Result<(MediaId, Option<String>), RequestError> {
        let Self { server_name, media_id, file_name } = self;
        let is_file_path = file_name.as_deref().is_some_and(is_path);
        if is_file_path || is_path(&server_name) || is_path(&media_id) {
            return Err(RequestError::InvalidMediaId);
        }
        let media = MediaId::parse(&server_name, &media_id);
        Ok((media.map_err(|_| RequestError::InvalidMediaId)?, file_name))
    }
}

/// Returns whether a decoded segment has a meaning in a path.
fn is_path(segment: &str) -> bool {
    segment == "." || segment == ".." || segment.contains(['/', '\\', '\0'])
}

/// Values of the query parameters that are passed on to the homeserver, decoded; all others are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Query<'uri> {
    width: Option<Cow<'uri, str>>,
    height: Option<Cow<'uri, str>>,
    method: Option<Cow<'uri, str>>,
    animated: Option<Cow<'uri, str>>,
    timeout_ms: Option<Cow<'uri, str>>,
}

impl<'uri> Query<'uri> {
    /// Splits the query; the first occurrence of a repeated parameter wins.
    fn parse(uri: &'uri Uri) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let field = match &*name {
                "width" => &mut query.width,
                "height" => &mut query.height,
                "method" => &mut query.method,
                "animated" => &mut query.animated,
                "timeout_ms" => &mut query.timeout_ms,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        query
    }

    /// Converts the parameters of a thumbnail. Matrix specification, client-server API, "GET
    /// /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}".
    fn thumbnail(&self) -> Result<Thumbnail, RequestError> {
        let method = match self.method.as_deref() {
            None => None,
            Some("crop") => Some(ThumbnailMethod::Crop),
            Some("scale") => Some(ThumbnailMethod::Scale),
            Some(_) => return Err(RequestError::InvalidParameter("method")),
        };
        let animated = match self.animated.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(RequestError::InvalidParameter("animated")),
        };
        let (width, height) =
            (number("width", self.width.as_deref())?, number("height", self.height.as_deref())?);
        Ok(Thumbnail { width, height, method, animated })
    }

    fn timeout_ms(&self) -> Result<Option<u64>, RequestError> {
        number("timeout_ms", self.timeout_ms.as_deref())
    }
}

/// Parses a number of decimal digits, with an optional plus sign. An unescaped plus sign arrives as a space: it is the
/// form encoding of one.
fn number<T: FromStr>(name: &'static str, value: Option<&str>) -> Result<Option<T>, RequestError> {
    let Some(value) = value else { return Ok(None) };
    let digits = value.strip_prefix(['+', ' ']).unwrap_or(value);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number);
    number.map(Some).ok_or(RequestError::InvalidParameter(name))
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        extract::{Path, Request, rejection::PathRejection},
        routing::get,
    };
    use futures_util::FutureExt;
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;

    /// Matches and decodes a path like the route of downloads. Returns `None` if no route matches.
    fn parse_path(path: &str) -> Option<Result<(MediaId, Option<String>), RequestError>> {
        let (sender, results) = std::sync::mpsc::channel();
        let handler = async move |path: Result<Path<MediaPath>, PathRejection>| {
            let path = path.map_err(|_| RequestError::InvalidMediaId);
            sender.send(path.and_then(|Path(path)| path.validate())).unwrap();
        };
        let router = Router::new()
            .route("/{server_name}/{media_id}", get(handler.clone()))
            .route("/{server_name}/{media_id}/{file_name}", get(handler));
        let request = Request::builder().uri(format!("/{path}")).body(Body::empty()).unwrap();
        router.oneshot(request).now_or_never().unwrap().unwrap();
        results.recv().ok()
    }

    #[test]
    fn parses_path_with_and_without_file_name() {
        let (media, file_name) = parse_path("example.org:8448/abc_-9").unwrap().unwrap();
        assert_eq!((&*media.to_string(), file_name), ("mxc://example.org:8448/abc_-9", None));
        let (media, file_name) =
            parse_path("%65xample.org/abc/na%C3%AFve%20name.png").unwrap().unwrap();
        assert_eq!(media.to_string(), "mxc://example.org/abc");
        assert_eq!(file_name.as_deref(), Some("naïve name.png"));
    }

    #[test]
    fn rejects_hostile_paths() {
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
            "example.org/a%20b",
            "example.org/abc/a%2fb",
            "example.org/abc/..",
            "example.org/abc/%00",
            "example.org/abc/%ff",
        ] {
            assert!(matches!(parse_path(path), Some(Err(RequestError::InvalidMediaId))), "{path}");
        }
        for path in
            ["", "/", "example.org", "example.org/", "/abc", "example.org//x", "a/b/", "a/b/c/d"]
        {
            assert!(!matches!(parse_path(path), Some(Ok(_))), "{path}");
        }
    }

    #[test]
    fn query_keeps_first_value_and_ignores_unknown_parameters() {
        let uri =
            "/x?width=1&width=2&allow_redirect=true&method=sc%61le&timeout_ms=20&access_token=s";
        let uri = uri.parse().unwrap();
        let query = Query::parse(&uri);
        let thumbnail = Thumbnail {
            width: Some(1),
            method: Some(ThumbnailMethod::Scale),
            ..Thumbnail::default()
        };
        assert_eq!(query.thumbnail().unwrap(), thumbnail);
        assert_eq!(query.timeout_ms().unwrap(), Some(20));
        let uri = "/x?%ff=%ff&width=%zz".parse().unwrap();
        assert_eq!(Query::parse(&uri).width.as_deref(), Some("%zz"));
    }

    #[test]
    fn thumbnail_parameters_are_canonical_or_rejected() {
        let parse = |query: &str| {
            let uri = format!("/x?{query}").parse().unwrap();
            Query::parse(&uri).thumbnail()
        };
        let ten = parse("width=10&height=0").unwrap();
        for spelling in ["010", "+10", "%2B10", "0000000000000000000010", "1%30"] {
            assert_eq!(parse(&format!("width={spelling}&height=000")).unwrap(), ten, "{spelling}");
        }
        let values = ten.parameters().map(|(_, value)| value);
        assert_eq!(values, [Some("10".into()), Some("0".into()), None, None]);
        assert_eq!(parse("width=4294967295").unwrap().width, Some(u32::MAX));
        for (name, value) in [
            ("width", "99999999999999999999"),
            ("width", "4294967296"),
            ("width", "-1"),
            ("width", ""),
            ("width", "+"),
            ("width", "++1"),
            ("width", "1_0"),
            ("width", "%D9%A1"),
            ("height", "1.0"),
            ("height", "x"),
            ("method", "Crop"),
            ("method", ""),
            ("animated", "1"),
            ("animated", "True"),
        ] {
            let error = parse(&format!("{name}={value}&{name}=1")).unwrap_err();
            assert!(
                matches!(error, RequestError::InvalidParameter(found) if found == name),
                "{name}={value}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_path_is_parsed_or_rejected(path in "\\PC{0,60}") {
            if format!("/{path}").parse::<Uri>().is_ok() {
                let _ = parse_path(&path);
            }
        }

        #[test]
        fn arbitrary_bytes_in_path_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let encoded = percent_encode(&bytes, NON_ALPHANUMERIC);
            if let Some(Ok((media, _))) = parse_path(&format!("{encoded}/{encoded}")) {
                prop_assert_eq!(media.media_id().as_bytes(), &*bytes);
            }
        }
    }
}
