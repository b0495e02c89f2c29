//! What is fetched, from whom, and for whom. Knows homeservers and bytes; knows nothing of verdicts,
//! scripts or the HTTP server in front. Sources: Matrix specification v1.11 and later, client-server
//! API, sections "Content repository" and "Sending encrypted attachments".

mod address;
mod answer;
pub mod authorise;
pub mod decrypt;
mod discovery;
pub mod download;
mod exits;
#[cfg(test)]
mod fake;
pub mod homeserver;
pub mod id;
pub mod intake;
pub(crate) mod pace;
mod pump;
mod routes;
pub mod spool;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod turns;

pub use authorise::Authoriser;
pub use download::Opened;
pub use homeserver::{Homeservers, SetupError};
pub use id::{InvalidMediaId, MediaId};
pub use routes::is_never_sent;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderValue},
};

use intake::IntakeError;

/// Which rendering of a media. Different thumbnail parameters are different media.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// The media as uploaded.
    Original,
    /// A thumbnail made by the homeserver.
    Thumbnail(Thumbnail),
}

/// Thumbnail parameters as the client wrote them; the homeserver judges their values. Absent ones
/// are not sent at all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the Matrix specification")]
pub struct Thumbnail {
    pub width: Option<String>,
    pub height: Option<String>,
    pub method: Option<String>,
    pub animated: Option<String>,
}

/// Where a request's media is fetched: chosen by the request's Host, never by the media's name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A homeserver that the operator configured; tokens go here and nowhere else. The URL has no
    /// trailing slash in its path.
    Configured(Arc<Url>),
    /// None is configured: the server named in the media's name is asked, without tokens.
    Discovered,
}

/// Who asks: what of the client's request goes along to a configured homeserver.
#[derive(Clone, Default)]
pub struct Requester {
    /// The one `Authorization` header as it came, marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// `headers_to_forward`, and `X-Forwarded-For` where the operator asks for it.
    pub forwarded: HeaderMap,
}

/// One media, through one homeserver, for one requester.
#[derive(Clone, Debug)]
pub struct MediaRequest {
    /// Which media.
    pub media: MediaId,
    /// Which rendering of it.
    pub variant: Variant,
    /// `timeout_ms` as the client wrote it: passed on, part of no key.
    pub timeout_ms: Option<String>,
    /// Through whom.
    pub origin: Origin,
    /// For whom.
    pub requester: Requester,
}

/// What of a homeserver's answer is kept, header values unchanged.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `Content-Type`, if there was exactly one.
    pub content_type: Option<HeaderValue>,
    /// `Content-Disposition`, if there was exactly one.
    pub disposition: Option<HeaderValue>,
    /// `ETag` as the homeserver gave it: quoted or not, for asking again.
    pub etag: Option<HeaderValue>,
    /// `Content-Length`, bytes, within `max_size`; of the encoded body where it is gzip.
    pub length: Option<u64>,
    /// Whether the body comes as gzip and is decoded on its way in: then it is longer than
    /// `length` as a rule.
    pub gzip: bool,
}

/// The bytes served for a media: those that were hashed. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Body {
    /// Small enough to be kept.
    Memory(Bytes),
    /// On the spool, in a file that nobody else can write.
    File(Arc<spool::SpooledFile>),
}

impl Body {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives all bytes, in order, in pieces; blocking.
    pub(crate) fn read_all(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), IntakeError>,
    ) -> Result<(), IntakeError> {
        let file = match self {
            Self::Memory(bytes) => return take(bytes),
            Self::File(file) => file,
        };
        let mut buffer = vec![0; 256 * 1024];
        let mut offset = 0;
        while offset < file.len() {
            let n = file.read_at(&mut buffer, offset).map_err(IntakeError::Disk)?;
            if n == 0 {
                return Err(IntakeError::Disk(std::io::ErrorKind::UnexpectedEof.into()));
            }
            take(buffer.get(..n).unwrap_or_default())?;
            offset += n as u64;
        }
        Ok(())
    }

    /// All bytes in memory, for a body that is known to be small; blocking.
    pub(crate) fn into_memory(self) -> Result<Bytes, IntakeError> {
        if let Self::Memory(bytes) = self {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        self.read_all(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes.into())
    }
}

/// Why a media could not be fetched. One row of the contract's table each.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum FetchError {
    #[error("the homeserver asks for an access token")]
    MissingToken,
    #[error("the homeserver refused the access token")]
    UnknownToken,
    #[error("the homeserver does not have the media")]
    NotFound,
    #[error("the homeserver refused with status {status}")]
    Refused {
        /// 400..=499, other than 401 and 404.
        status: u16,
        /// `Retry-After` of a 429.
        retry_after: Option<HeaderValue>,
    },
    #[error("the media is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the homeserver could not be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the address is not one that media is fetched from: {0}")]
    ForbiddenAddress(String),
    #[error("the homeserver answered with status {status}")]
    Upstream { status: u16 },
    #[error("the homeserver broke off the body")]
    BrokenOff(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the homeserver sent what is not media: {0}")]
    NotMedia(String),
    #[error("the media is not yet uploaded")]
    NotYetUploaded,
    #[error("the homeserver took too long: {0}")]
    TimedOut(&'static str),
    #[error("the bytes could not be taken in")]
    Intake(#[from] IntakeError),
}

impl FetchError {
    /// One word for it, of a fixed list; for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::UnknownToken => "unknown_token",
            Self::NotFound => "not_found",
            Self::Refused { .. } => "refused",
            Self::TooLarge { .. } | Self::Intake(IntakeError::TooLarge { .. }) => "too_large",
            Self::Unreachable(_) => "unreachable",
            Self::ForbiddenAddress(_) => "forbidden_address",
            Self::Upstream { .. } => "upstream",
            Self::BrokenOff(_) => "broken_off",
            Self::NotMedia(_) => "not_media",
            Self::NotYetUploaded => "not_yet_uploaded",
            Self::TimedOut(_) => "timed_out",
            Self::Intake(IntakeError::SpoolFull) => "spool_full",
            Self::Intake(IntakeError::Disk(_)) => "disk",
            Self::Intake(IntakeError::HashMismatch) => "hash_mismatch",
            Self::Intake(IntakeError::CounterWraps { .. }) => "counter_wraps",
        }
    }
}

/// `[download]`, checked: final types, nothing is checked again. No `Debug`: the proxy's URL and the
/// operator's headers may be secrets.
#[derive(Clone)]
pub struct Settings {
    /// Where all media is fetched, unless `homeservers` names the request's Host.
    pub base_homeserver_url: Option<Url>,
    /// Request Host (lower case, without port unless the operator wrote one) to base URL.
    pub homeservers: Vec<(String, Url)>,
    /// A proxy for every request that leaves, `http` or `https`. It resolves names, so only
    /// literal addresses are checked here: what else may be reached is the proxy's to decide.
    pub proxy: Option<Url>,
    /// Sent to configured homeservers with every request.
    pub additional_headers: HeaderMap,
    /// Names of request headers that are copied, lower case, never hop-by-hop ones.
    pub headers_to_forward: Vec<header::HeaderName>,
    /// Whether the client's address goes along as `X-Forwarded-For`.
    pub forward_client_address: bool,
    /// Largest media, bytes, of the body as served.
    pub max_size: u64,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Between two pieces of a body, and for one question until its headers are in, connecting
    /// included. A client's `timeout_ms` does not prolong it.
    pub idle_timeout: Duration,
    /// For one media from the first question to its last byte.
    pub total_timeout: Duration,
    /// Bytes a second, judged over 30 s; 0 judges nothing.
    pub min_rate: u64,
    /// Whether discovered homeservers may have addresses that are not globally reachable.
    pub allow_private_addresses: bool,
    /// Certificates (PEM) trusted beside the system's.
    pub ca_certificates: Option<std::path::PathBuf>,
    /// How long a homeserver's "yes" to a requester holds; zero asks every time.
    pub authorisation_ttl: Duration,
}

/// A digest as people read it.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(2 * digest.len());
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

impl MediaRequest {
    /// The account of this request's body: of its server, whatever the port, and of its token. A token
    /// that no homeserver is shown is anybody's invention and counts for nothing.
    pub(crate) fn account(&self, spool: &spool::Spool) -> spool::Account {
        let token = match self.origin {
            Origin::Configured(_) => self.requester.authorization.as_ref(),
            Origin::Discovered => None,
        };
        spool.account(self.media.host(), token.map(HeaderValue::as_bytes))
    }

    /// What distinguishes one media from another, for a digest: the homeserver, the forwarded Host
    /// (one base URL may serve several), the name and the variant. Each part is preceded by its
    /// length, so no two requests feed the same bytes. Neither the requester nor `timeout_ms` is in
    /// it. Server names are fed as written: Matrix compares them by case.
    pub(crate) fn feed_key(&self, mut take: impl FnMut(&[u8])) {
        let mut part = |bytes: Option<&[u8]>| match bytes {
            None => take(&[0]),
            Some(bytes) => {
                take(&[1]);
                take(&(bytes.len() as u64).to_le_bytes());
                take(bytes);
            }
        };
        match &self.origin {
            // The Host that a discovered homeserver sees is never the client's.
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
                    part(value.map(str::as_bytes));
                }
            }
        }
    }
}

impl Thumbnail {
    /// All parameters in a fixed order, with their names on the wire.
    pub(crate) fn parameters(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("width", self.width.as_deref()),
            ("height", self.height.as_deref()),
            ("method", self.method.as_deref()),
            ("animated", self.animated.as_deref()),
        ]
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Forwarded headers may be cookies: their names are enough for a log.
        let names: Vec<_> = self.forwarded.keys().collect();
        let token = if self.authorization.is_some() { ".." } else { "none" };
        f.debug_struct("Requester")
            .field("authorization", &token)
            .field("forwarded", &names)
            .finish()
    }
}

impl Requester {
    /// Whether the homeserver would see the same person: a refusal of one is a refusal of the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.authorization == other.authorization && self.forwarded == other.forwarded
    }
}
