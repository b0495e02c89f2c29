//! Request to the scanner.

use std::sync::Arc;

use crate::media::{MediaRequest, decrypt::Decryption};

/// A request for the verdict on media, or for the media itself.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The media, its homeserver and its requester.
    pub fetch: MediaRequest,
    /// How end-to-end encrypted media is decrypted; `None` for plain media.
    pub decryption: Option<Arc<Decryption>>,
    /// Whether the response needs the body.
    pub wants: Wants,
}

/// What a requester wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// The verdict alone (the scan routes).
    Verdict,
    /// The media, if it is clean (the download routes).
    Media,
    /// A verdict by the present engines. Clean media takes no place in memory, because no client asked for it.
    Rescan,
}

#[cfg(test)]
impl ScanRequest {
    /// Returns a request for the verdict on plain media of `server`.
    pub(super) fn for_test(server: &str, token: Option<&'static str>) -> Self {
        use reqwest::header::HeaderValue;

        use crate::{
            media::{MediaId, Origin, Requester, Variant},
            tenancy::{Tenant, TenantGroup},
        };

        let hash = |text: &str| {
            text.bytes().fold(1, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte))
        };
        let fetch = MediaRequest {
            media: MediaId::parse(server, "abc").unwrap(),
            variant: Variant::Original,
            timeout_ms: None,
            origin: Origin::Discovered,
            requester: Requester {
                authorization: token.map(HeaderValue::from_static),
                // An accepted token, or the server's name as the group of all other requests.
                tenant: match token {
                    Some(token) => TenantGroup { tenant: Tenant::Token(hash(token)), group: 0 },
                    None => TenantGroup { tenant: Tenant::Local, group: hash(server) },
                },
                ..Requester::default()
            },
        };
        Self { fetch, decryption: None, wants: Wants::Verdict }
    }
}
