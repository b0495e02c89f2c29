//! Reads a request body, bounded in size and in time.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::request_error::RequestError;

/// Maximum number of bytes beyond the limit that are read and discarded. A client that is still sending when
/// the connection closes may not receive the error response.
const MAX_DISCARDED: usize = 1024 * 1024;

/// Reads the whole body of at most `limit` bytes into zeroizing memory, since it may contain keys.
///
/// `time` bounds the whole body, so that sending it slowly does not extend the time.
pub(crate) async fn read(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    time: Duration,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    // A client that sends `Expect: 100-continue` sends no body before it receives "100 Continue".
    let expects_continue = headers.contains_key(header::EXPECT);
    let announced = body.size_hint().lower();
    if announced > limit as u64 && (expects_continue || announced > (limit + MAX_DISCARDED) as u64)
    {
        return Err(RequestError::BodyTooLarge { limit });
    }
    match timeout(time, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(RequestError::BodyTimedOut),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    // Sufficient capacity from the start: growing would leave copies in memory that is not zeroed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.min(limit)));
    let mut discarded = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(RequestError::IncompleteBody)?;
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
    async fn rejects_body_above_limit() {
        assert_eq!(read_all(Body::from("1234"), 4).await.unwrap(), b"1234");
        let rejected = read_all(Body::from("12345"), 4).await;
        assert!(matches!(rejected, Err(RequestError::BodyTooLarge { limit: 4 })));
    }

    #[tokio::test]
    async fn rejects_streamed_body_above_limit() {
        let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"123")));
        let rejected = read_all(Body::from_stream(chunks), 4).await;
        assert!(matches!(rejected, Err(RequestError::BodyTooLarge { limit: 4 })));
    }

    #[tokio::test]
    async fn times_out_when_body_does_not_arrive() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let result = read(never, &HeaderMap::new(), 4, Duration::from_millis(1)).await;
        assert!(matches!(result, Err(RequestError::BodyTimedOut)));
    }
}
