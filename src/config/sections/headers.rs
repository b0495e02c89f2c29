//! Headers that have a fixed meaning in requests to homeservers.

use reqwest::header::{self, HeaderName};

/// Returns whether a header is never sent to a homeserver, even if the operator lists it: connection headers (RFC 9110,
/// section 7.6.1), headers that describe the framing and coding of the outbound request, and conditions and ranges,
/// which would change a 200 into a 304 or 206. A client's token has a field of its own.
#[must_use]
pub fn is_never_sent(name: &HeaderName) -> bool {
    const NEVER_SENT: [HeaderName; 21] = [
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
    NEVER_SENT.contains(name)
}
