//! The homeserver's media routes and the order in which they are tried. Knows how a media's name
//! becomes a URL and which headers of a requester go along; sends nothing. Matrix specification
//! v1.11, client-server API, "Content repository".

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderName},
};

use super::{MediaRequest, Origin, Requester, Variant};

/// One of the three ways to the same media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// `/_matrix/client/v1/media/…`, with the requester's token.
    Authenticated,
    /// `/_matrix/media/v3/…`, without one.
    V3,
    /// `/_matrix/media/r0/…`, for homeservers older than v3.
    R0,
}

impl Route {
    /// Where a request begins. A token goes to a configured homeserver or nowhere.
    pub(super) fn first(request: &MediaRequest) -> Self {
        match (&request.origin, &request.requester.authorization) {
            (Origin::Configured(_), Some(_)) => Self::Authenticated,
            _ => Self::V3,
        }
    }

    /// Where it goes on when the homeserver does not know this route.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Authenticated => Some(Self::V3),
            Self::V3 => Some(Self::R0),
            Self::R0 => None,
        }
    }

    /// The media's address below `base`, whose path may have a prefix.
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
        let server = utf8_percent_encode(request.media.server_name(), OUTSIDE_SEGMENTS);
        let media = utf8_percent_encode(request.media.media_id(), OUTSIDE_SEGMENTS);

        let mut url = base.clone();
        url.set_path(&format!("{prefix}/{route}/{kind}/{server}/{media}"));
        url.set_query(None);
        url.set_fragment(None);
        let thumbnail = match &request.variant {
            Variant::Original => None,
            Variant::Thumbnail(thumbnail) => Some(thumbnail.parameters()),
        };
        let given = thumbnail
            .into_iter()
            .flatten()
            .chain([("timeout_ms", request.timeout_ms.as_deref())])
            .filter_map(|(name, value)| Some((name, value?)));
        // Even an empty list would leave a question mark behind.
        let mut given = given.peekable();
        if given.peek().is_some() {
            url.query_pairs_mut().extend_pairs(given);
        }
        url
    }

    /// What goes along to a configured homeserver, later ones replacing earlier ones: the
    /// operator's headers, the requester's, the token.
    pub(super) fn headers(self, additional: &HeaderMap, requester: &Requester) -> HeaderMap {
        let mut headers = HeaderMap::new();
        lay_over(&mut headers, additional, |name| !is_never_sent(name));
        // The client's token travels in its own field, on its own route, or not at all.
        lay_over(&mut headers, &requester.forwarded, |name| {
            !is_never_sent(name) && name != header::AUTHORIZATION
        });
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

/// Copies what is wanted, all values of a name, in place of what was there.
fn lay_over(headers: &mut HeaderMap, from: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
    for name in from.keys().filter(|name| wanted(name)) {
        headers.remove(name);
        for value in from.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}

/// RFC 3986's unreserved characters and the colon of a port stay as they are.
const OUTSIDE_SEGMENTS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Headers that never go to a homeserver, whatever the operator lists: of the connection (RFC 9110,
/// section 7.6.1), of our own request's framing and coding, and what changes which answer comes: a
/// copied condition or range would make a 200 into a 304 or 206. A client's token is a field of its own.
#[must_use]
pub fn is_never_sent(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 21] = [
        header::ACCEPT_ENCODING,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        HeaderName::from_static("keep-alive"),
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("proxy-connection"),
        header::RANGE,
        header::REFERER,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    NEVER.contains(name)
}
