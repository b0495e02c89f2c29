//! Ids by which a request is found in the logs of reverse proxies, of this service and of the homeserver: `X-Request-Id`, and
//! `traceparent` of <https://www.w3.org/TR/trace-context/>. Those of other peers than trusted proxies are replaced, because
//! clients could choose the ids of others.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Maximum length of an accepted id, bytes.
const MAX_LENGTH: usize = 64;

/// Ids of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RequestIds {
    pub(super) request_id: String,
    pub(super) traceparent: Option<String>,
}

/// Creates ids that differ from those of other processes.
pub(super) struct RequestIdSource(u64);

impl Default for RequestIdSource {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl RequestIdSource {
    /// Takes the ids from the headers of a trusted proxy. Otherwise, and without a valid `X-Request-Id`, the id of the request
    /// consists of a random number of this process and the number of the request.
    pub(super) fn ids(&self, headers: &HeaderMap, is_trusted: bool, number: u64) -> RequestIds {
        let accepted = |name| accepted_id(headers, &name).filter(|_| is_trusted).map(str::to_owned);
        RequestIds {
            request_id: accepted(X_REQUEST_ID)
                .unwrap_or_else(|| format!("{:016x}-{number:x}", self.0)),
            traceparent: accepted(TRACEPARENT),
        }
    }
}

impl RequestIds {
    /// Returns the headers for a configured homeserver.
    pub(super) fn headers(parts: &Parts) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(Self { request_id, traceparent }) = parts.extensions.get() {
            let ids = [(X_REQUEST_ID, Some(request_id)), (TRACEPARENT, traceparent.as_ref())];
            for (name, id) in ids {
                if let Some(Ok(id)) = id.map(|id| HeaderValue::try_from(id.as_str())) {
                    headers.insert(name, id);
                }
            }
        }
        headers
    }
}

/// Returns the value of a header that occurs once, if it is a valid id.
fn accepted_id<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let id = values.next()?.to_str().ok()?;
    let is_valid = (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (is_valid && values.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&HeaderName, &[u8])]) -> HeaderMap {
        pairs.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
            headers
        })
    }

    #[test]
    fn ids_of_trusted_proxies_are_accepted() {
        let source = RequestIdSource::default();
        let longest = "a".repeat(MAX_LENGTH);
        for id in ["a", "Az09._-", &longest] {
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let pairs = [(&X_REQUEST_ID, id.as_bytes()), (&TRACEPARENT, trace.as_bytes())];
            let ids = source.ids(&headers(&pairs), true, 7);
            assert_eq!((&*ids.request_id, ids.traceparent.as_deref()), (id, Some(trace)));
        }
    }

    #[test]
    fn other_ids_are_generated() {
        let source = RequestIdSource::default();
        let generated = source.ids(&HeaderMap::new(), true, 0x1f);
        assert!(generated.request_id.ends_with("-1f") && generated.traceparent.is_none());
        assert!(
            accepted_id(
                &headers(&[(&X_REQUEST_ID, generated.request_id.as_bytes())]),
                &X_REQUEST_ID
            )
            .is_some()
        );
        assert_eq!(source.ids(&headers(&[(&X_REQUEST_ID, b"a")]), false, 0x1f), generated);
        let too_long = "a".repeat(MAX_LENGTH + 1);
        let invalid: [&[u8]; 9] = [
            b"",
            b"a b",
            b"a\tb",
            b"a,b",
            b"a\"b",
            b"<a>",
            b"\xc3\xa4",
            b"a=b",
            too_long.as_bytes(),
        ];
        for id in invalid {
            let pairs = [(&X_REQUEST_ID, id), (&TRACEPARENT, id)];
            assert_eq!(source.ids(&headers(&pairs), true, 0x1f), generated, "{id:?}");
        }
        let twice = headers(&[
            (&X_REQUEST_ID, b"a"),
            (&X_REQUEST_ID, b"a"),
            (&TRACEPARENT, b"a"),
            (&TRACEPARENT, b"b"),
        ]);
        assert_eq!(source.ids(&twice, true, 0x1f), generated);
        assert_ne!(source.ids(&HeaderMap::new(), true, 0x20), generated);
    }
}
