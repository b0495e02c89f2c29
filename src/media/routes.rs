//! Routes of the homeserver's content repository: their order, the URL of a file and the headers of a request. Sends
//! nothing. Matrix specification v1.11, client-server API, section "Content repository".

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderName},
};

use super::request::{MediaRequest, Origin, Requester, Variant};
use crate::config::sections::headers::is_never_sent;

/// One of three routes to the same media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UpstreamRoute {
    /// `/_matrix/client/v1/media/…`, with the requester's access token.
    Authenticated,
    /// `/_matrix/media/v3/…`, without an access token.
    V3,
    /// `/_matrix/media/r0/…`, for homeservers that do not support v3.
    R0,
}

impl UpstreamRoute {
    /// Returns the route to try first. Only a configured homeserver receives the token.
    pub(super) fn first(request: &MediaRequest) -> Self {
        match (&request.origin, &request.requester.authorization) {
            (Origin::Configured(_), Some(_)) => Self::Authenticated,
            _ => Self::V3,
        }
    }

    /// Returns the route to try if the homeserver does not support this one.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Authenticated => Some(Self::V3),
            Self::V3 => Some(Self::R0),
            Self::R0 => None,
        }
    }

    /// Returns the URL of the media. The path of `base` is kept as a prefix.
    pub(super) fn url(self, base: &Url, request: &MediaRequest) -> Url {
        let prefix = base.path().trim_end_matches('/');
        let route = match self {
            Self::Authenticated => "_matrix/client/v1/media",
            Self::V3 => "_matrix/media/v3",
            Self::R0 => "_matrix/media/r0",
        };
        let kind = match request.variant {
            Variant::Original => "download",
            Variant::Thumbnail(_) => "thumbnail",
        };
        let server = utf8_percent_encode(request.media.server_name(), ENCODED_IN_SEGMENT);
        let media = utf8_percent_encode(request.media.media_id(), ENCODED_IN_SEGMENT);

        let mut url = base.clone();
        url.set_path(&format!("{prefix}/{route}/{kind}/{server}/{media}"));
        url.set_query(None);
        url.set_fragment(None);
        let thumbnail = match &request.variant {
            Variant::Original => None,
            Variant::Thumbnail(thumbnail) => Some(thumbnail.parameters()),
        };
        let timeout_ms = request.timeout_ms.map(|timeout_ms| timeout_ms.to_string().into());
        let parameters = thumbnail
            .into_iter()
            .flatten()
            .chain([("timeout_ms", timeout_ms)])
            .filter_map(|(name, value)| Some((name, value?)));
        // An empty list would append a question mark.
        let mut parameters = parameters.peekable();
        if parameters.peek().is_some() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }

    /// Returns the headers of a request to a configured homeserver: `additional`, the forwarded ones, the ids and the token.
    /// Later ones replace earlier ones of the same name.
    pub(super) fn headers(self, additional: &HeaderMap, requester: &Requester) -> HeaderMap {
        let mut headers = HeaderMap::new();
        replace_headers(&mut headers, additional, |name| !is_never_sent(name));
        // The token is sent on the authenticated route only, from its own field.
        replace_headers(&mut headers, &requester.forwarded, |name| {
            !is_never_sent(name) && name != header::AUTHORIZATION
        });
        replace_headers(&mut headers, &requester.trace, |_| true);
        if self == Self::Authenticated
            && let Some(token) = &requester.authorization
        {
            let mut token = token.clone();
            token.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, token);
        }
        headers
    }
}

/// Returns the headers of `download.additional_headers`, for a request that no client has made.
pub(super) fn operator_headers(additional: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    replace_headers(&mut headers, additional, |name| !is_never_sent(name));
    headers
}

/// Copies all values of the headers whose name matches `filter`, replacing existing values.
fn replace_headers(
    headers: &mut HeaderMap,
    from: &HeaderMap,
    filter: impl Fn(&HeaderName) -> bool,
) {
    for name in from.keys().filter(|name| filter(name)) {
        headers.remove(name);
        for value in from.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}

/// Characters to percent-encode in a path segment: all except the unreserved ones (RFC 3986, section 2.3) and the colon
/// of a port.
const ENCODED_IN_SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
