//! A request's body, bounded in bytes and in time. Knows nothing of what is in it.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::request::RequestError;

/// Bytes beyond the limit that are read and thrown away. A client that is still sending when the
/// connection closes may lose the answer that says why.
const MAX_DISCARDED: usize = 1024 * 1024;

/// The whole body: it may hold keys, hence the zeroizing memory.
///
/// `limit` in bytes; `time` for all of it, so that dripping bytes gains nothing.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    time: Duration,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    // Such a client sends nothing until it is told to.
    let waits = headers.contains_key(header::EXPECT);
    let announced = body.size_hint().lower();
    if announced > limit as u64 && (waits || announced > (limit + MAX_DISCARDED) as u64) {
        return Err(RequestError::BodyTooLarge { limit });
    }
    match timeout(time, collect(body, limit)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(RequestError::BodyTimedOut),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    // With the announced room, no half-filled buffer is left behind in memory that is not zeroed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.min(limit)));
    let mut discarded = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(RequestError::BodyBroken)?;
        let Some(data) = frame.data_ref() else { continue };
        if discarded == 0 && bytes.len() + data.len() <= limit {
            bytes.extend_from_slice(data);
        } else {
            discarded += data.len();
            if discarded > MAX_DISCARDED {
                break;
            }
        }
    }
    if discarded == 0 { Ok(bytes) } else { Err(RequestError::BodyTooLarge { limit }) }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    async fn read_all(body: Body, limit: usize) -> Result<Vec<u8>, RequestError> {
        read(body, &HeaderMap::new(), limit, TIME).await.map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(read_all(Body::from("1234"), 4).await.unwrap(), b"1234");
        let refused = read_all(Body::from("12345"), 4).await;
        assert!(matches!(refused, Err(RequestError::BodyTooLarge { limit: 4 })));
    }

    #[tokio::test]
    async fn a_body_without_length_is_counted() {
        let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"123")));
        let refused = read_all(Body::from_stream(pieces), 4).await;
        assert!(matches!(refused, Err(RequestError::BodyTooLarge { limit: 4 })));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let outcome = read(never, &HeaderMap::new(), 4, Duration::from_millis(1)).await;
        assert!(matches!(outcome, Err(RequestError::BodyTimedOut)));
    }
}
