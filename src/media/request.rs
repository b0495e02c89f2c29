//! Requests for media.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{id::MediaId, spool};
use crate::tenancy::TenantGroup;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The original or a thumbnail. Different thumbnail parameters denote different media.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// The media as uploaded.
    Original,
    /// A thumbnail that the homeserver generates.
    Thumbnail(Thumbnail),
}

/// Thumbnail parameters. Typed, so that equal parameters in different spellings denote the same media. Absent parameters
/// are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thumbnail {
    /// Desired width, pixels.
    pub width: Option<u32>,
    /// Desired height, pixels.
    pub height: Option<u32>,
    pub method: Option<ThumbnailMethod>,
    /// Whether the thumbnail may be animated.
    pub animated: Option<bool>,
}

/// How a thumbnail is fitted into its size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThumbnailMethod {
    Crop,
    Scale,
}

impl ThumbnailMethod {
    /// Returns the value of the query parameter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Scale => "scale",
        }
    }
}

/// Server that a request's media is downloaded from. Selected by the request's `Host`, never by the media's name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A homeserver from the configuration. Access tokens are sent to these homeservers only. The path of the URL has
    /// no trailing slash.
    Configured(Arc<Url>),
    /// The server in the media's name, since none is configured. Receives no access token.
    Discovered,
}

/// Parts of the client's request that are sent to a configured homeserver.
#[derive(Clone, Default)]
pub struct Requester {
    /// The `Authorization` header, unchanged and marked as sensitive. Absent unless the request has exactly one.
    pub authorization: Option<HeaderValue>,
    /// The headers of `headers_to_forward`, and `X-Forwarded-For` if configured.
    pub forwarded: HeaderMap,
    /// Ids of the request for the homeserver's log. Not compared: each request has its own.
    pub trace: HeaderMap,
    /// The tenant that the request's usage is counted against.
    pub(crate) tenant: TenantGroup,
    /// For the audit log. Not compared.
    pub sender: RequestSender,
}

/// Sender of a request to this service. The homeserver learns the address only from `forwarded`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestSender {
    /// A client, and its address, if it has one.
    Client(Option<IpAddr>),
    /// An operator, with an access token for one download.
    Operator,
}

impl Default for RequestSender {
    fn default() -> Self {
        Self::Client(None)
    }
}

/// A request for one file, from one homeserver, with the credentials of one requester.
#[derive(Clone, Debug)]
pub struct MediaRequest {
    pub media: MediaId,
    pub variant: Variant,
    /// `timeout_ms` of the client. Forwarded, but not part of any cache key.
    pub timeout_ms: Option<u64>,
    pub origin: Origin,
    pub requester: Requester,
}

impl MediaRequest {
    /// Returns a spool account for the body.
    pub(crate) fn account(&self, spool: &spool::Spool) -> spool::Account {
        spool.account(self.requester.tenant.tenant)
    }

    /// Passes everything that identifies the media to `write`, for a digest: the homeserver, the forwarded `Host` (one
    /// base URL may serve several homeservers), the name and the variant. The credentials and `timeout_ms` are not
    /// included.
    ///
    /// Each part is preceded by its length, so different requests never produce the same bytes. Server names are
    /// written unchanged, since Matrix compares them case-sensitively.
    pub(crate) fn feed_key(&self, mut write: impl FnMut(&[u8])) {
        let mut part = |bytes: Option<&[u8]>| match bytes {
            None => write(&[0]),
            Some(bytes) => {
                write(&[1]);
                write(&(bytes.len() as u64).to_le_bytes());
                write(bytes);
            }
        };
        match &self.origin {
            // A discovered homeserver never receives the client's `Host`.
            Origin::Discovered => {
                part(None);
                part(None);
            }
            Origin::Configured(url) => {
                part(Some(url.as_str().as_bytes()));
                part(self.requester.forwarded.get(header::HOST).map(HeaderValue::as_bytes));
            }
        }
        part(Some(self.media.server_name().as_bytes()));
        part(Some(self.media.media_id().as_bytes()));
        match &self.variant {
            Variant::Original => part(None),
            Variant::Thumbnail(thumbnail) => {
                part(Some(b"thumbnail"));
                for (_, value) in thumbnail.parameters() {
                    part(value.as_deref().map(str::as_bytes));
                }
            }
        }
    }
}

impl Thumbnail {
    /// Returns all query parameters in a fixed order, with their values in canonical form.
    pub(crate) fn parameters(&self) -> [(&'static str, Option<Cow<'static, str>>); 4] {
        let number = |value: Option<u32>| value.map(|value| Cow::Owned(value.to_string()));
        let animated = self.animated.map(|animated| if animated { "true" } else { "false" });
        [
            ("width", number(self.width)),
            ("height", number(self.height)),
            ("method", self.method.map(|method| Cow::Borrowed(method.as_str()))),
            ("animated", animated.map(Cow::Borrowed)),
        ]
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Forwarded headers may be cookies, so only their names are logged.
        let names: Vec<_> = self.forwarded.keys().collect();
        let token = if self.authorization.is_some() { ".." } else { "none" };
        f.debug_struct("Requester")
            .field("authorization", &token)
            .field("forwarded", &names)
            .field("trace", &self.trace)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl Requester {
    /// Returns whether a homeserver cannot distinguish the two requesters, so that it answers both alike.
    #[must_use]
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.authorization == other.authorization && self.forwarded == other.forwarded
    }

    /// Passes the forwarded headers to `write`, for a digest; without the client's address, which does not change what a
    /// token may access.
    pub(super) fn feed_forwarded(&self, mut write: impl FnMut(&[u8])) {
        for (name, value) in self.forwarded.iter().filter(|(name, _)| *name != X_FORWARDED_FOR) {
            write(name.as_str().as_bytes());
            write(value.as_bytes());
        }
    }
}
