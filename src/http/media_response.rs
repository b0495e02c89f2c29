//! Builds the response for clean media: generated headers, conditional requests, a single range (RFC 9110) and
//! the scanned bytes. The caller has checked the verdict.

use std::{io, ops::Range, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures_util::{Stream, stream};
use mime::Mime;

use super::{
    error::ApiError,
    range::{RequestedRange, requested_range},
    request_error::RequestError,
    response,
};
use crate::{
    media::{self, disposition::content_disposition, spool::SpooledFile},
    scan::Media,
};

/// Bytes read from the spool at a time.
const CHUNK_SIZE: u64 = 512 * 1024;

const OCTET_STREAM: &str = "application/octet-stream";

/// Headers that prevent active content in media (Matrix specification, client-server API, "Content
/// repository"). The policy is that of the Python scanner.
pub(super) const FIXED_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
             style-src 'unsafe-inline'; media-src 'self'; object-src 'self';",
        ),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400")),
    (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
];

/// Builds the response to `request`; `file_name` is the one in the request path.
pub(super) fn build(request: &Parts, media: &Media, file_name: Option<&str>) -> Response {
    let length = media.body.len();
    let etag = format!("\"{}\"", media::hex(&media.body_hash));
    let mut headers = media_headers(media, file_name);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }

    let is_get = request.method == Method::GET;
    if (is_get || request.method == Method::HEAD) && matches_etag(&request.headers, &etag) {
        // The length of the cached representation (RFC 9110, section 8.6); hyper would send 0.
        headers.insert(header::CONTENT_LENGTH, length.into());
        return response::build(StatusCode::NOT_MODIFIED, headers, Body::empty());
    }

    // RFC 9110, section 14.2: a range applies to GET only.
    let requested =
        if is_get { select_range(&request.headers, &etag, length) } else { RequestedRange::Whole };
    let (status, part) = match requested {
        RequestedRange::Whole => (StatusCode::OK, 0..length),
        RequestedRange::Part(part) => {
            let value = format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1));
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            (StatusCode::PARTIAL_CONTENT, part)
        }
        RequestedRange::Unsatisfiable => {
            return ApiError::from(RequestError::RangeNotSatisfiable { length }).into_response();
        }
    };
    headers.insert(header::CONTENT_LENGTH, part.end.saturating_sub(part.start).into());
    let body = if request.method == Method::HEAD { Body::empty() } else { body(&media.body, part) };
    response::build(status, headers, body)
}

fn media_headers(media: &Media, file_name: Option<&str>) -> HeaderMap {
    let declared =
        media.content_type.as_ref().filter(|_| !media.encrypted).and_then(parse_media_type);
    let (content_type, essence) = declared.map_or_else(
        || (HeaderValue::from_static(OCTET_STREAM), OCTET_STREAM.to_owned()),
        |(value, mime)| (value.clone(), mime.essence_str().to_owned()),
    );
    // Capacity for the headers that every response gets later.
    let mut headers = HeaderMap::with_capacity(20);
    headers.extend(FIXED_HEADERS.map(|(name, value)| (Some(name), value)));
    let disposition = content_disposition(media.disposition.as_ref(), &essence, file_name);
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers
}

/// Parses a value that is a single media type without wildcards.
fn parse_media_type(value: &HeaderValue) -> Option<(&HeaderValue, Mime)> {
    let mime: Mime = value.to_str().ok()?.parse().ok()?;
    let concrete = mime.type_() != mime::STAR && mime.subtype() != mime::STAR;
    concrete.then_some((value, mime))
}

/// Evaluates `If-None-Match` with weak comparison (RFC 9110, section 13.1.2).
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        // Splitting at a comma within a tag is harmless: generated tags contain no comma.
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn select_range(headers: &HeaderMap, etag: &str, length: u64) -> RequestedRange {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(value), None) = (ranges.next(), ranges.next()) else { return RequestedRange::Whole };
    // Strong comparison (section 13.1.5). A date never matches: responses have no Last-Modified.
    if headers.get_all(header::IF_RANGE).iter().any(|condition| condition != etag) {
        return RequestedRange::Whole;
    }
    value.to_str().map_or(RequestedRange::Whole, |value| requested_range(value, length))
}

fn body(body: &media::Body, part: Range<u64>) -> Body {
    match body {
        media::Body::Memory(bytes) => {
            let index = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Body::from(bytes.slice(index(part.start)..index(part.end)))
        }
        media::Body::File(file) => Body::from_stream(chunks(Arc::clone(file), part)),
    }
}

/// Streams the file in chunks. The next chunk is read when the connection has consumed the last one, and reuses
/// its memory if possible. A read error ends the stream with an error, which aborts the connection, so that
/// a client cannot mistake a part for the whole.
fn chunks(file: Arc<SpooledFile>, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, part, Bytes::new()), |(file, part, last)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        // Yields so that Tokio polls the I/O driver; otherwise it does so only every 61 task polls, which at 250 µs
        // a chunk delays other requests by 15 ms.
        tokio::task::yield_now().await;
        let read = tokio::task::spawn_blocking(move || {
            // Fails if the connection still holds a part of the last chunk.
            let chunk = read_chunk(&file, &part, last.try_into_mut().unwrap_or_default());
            (file, part, chunk)
        });
        let (file, part, chunk) = read.await.map_err(io::Error::other)?;
        let chunk =
            chunk.inspect_err(|error| tracing::warn!(%error, "reading a spooled body failed"))?;
        let next = part.start.saturating_add(chunk.len() as u64)..part.end;
        Ok(Some((chunk.clone(), (file, next, chunk))))
    })
}

fn read_chunk(file: &SpooledFile, part: &Range<u64>, mut buffer: BytesMut) -> io::Result<Bytes> {
    let size = part.end.saturating_sub(part.start).min(CHUNK_SIZE);
    // Zeroes only the bytes beyond the current length.
    buffer.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
    let length = loop {
        match file.read_at(&mut buffer, part.start) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(length);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::Request;
    use futures_util::TryStreamExt;
    use http_body_util::BodyExt;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::media::{
        ingest::{Ingest, IngestOptions, ScriptFile},
        run_directory::RunDirectory,
        spool::Spool,
    };

    fn media(bytes: &'static [u8]) -> Media {
        Media {
            body: media::Body::Memory(Bytes::from_static(bytes)),
            body_hash: Sha256::digest(bytes).into(),
            content_type: Some(HeaderValue::from_static("image/png")),
            disposition: None,
            encrypted: false,
        }
    }

    fn spooled_media(bytes: &[u8]) -> Media {
        ingest(bytes, None)
    }

    fn run_directory() -> Arc<RunDirectory> {
        Arc::new(RunDirectory::create(&std::env::temp_dir(), false).unwrap())
    }

    fn ingest(bytes: &[u8], script_file: Option<ScriptFile>) -> Media {
        let spool = Spool::new(run_directory(), u64::MAX, u64::MAX);
        let plan = IngestOptions {
            account: spool.unlimited_account(),
            max_size: u64::MAX,
            memory_limit: 0,
            keep_large: true,
            decryption: None,
            script_file,
        };
        let mut ingest = Ingest::new(&spool, plan, None).unwrap();
        ingest.write(bytes).unwrap();
        let ingested = ingest.finish().unwrap();
        let body = ingested.body.unwrap();
        assert!(matches!(body, media::Body::File(_)));
        Media { body, body_hash: ingested.body_hash, ..media(b"") }
    }

    fn request(method: Method, headers: &[(&str, &str)], media: &Media) -> Response {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        build(&request.body(()).unwrap().into_parts().0, media, None)
    }

    fn get(headers: &[(&str, &str)], media: &Media) -> Response {
        request(Method::GET, headers, media)
    }

    async fn body_bytes(response: Response) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn response_has_generated_headers() {
        let response = get(&[], &media(b"0123456789"));
        assert_eq!(response.status(), StatusCode::OK);
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                "accept-ranges: bytes",
                "cache-control: private, max-age=86400",
                "content-disposition: inline",
                "content-length: 10",
                "content-security-policy: sandbox; default-src 'none'; script-src 'none'; \
                 plugin-types application/pdf; style-src 'unsafe-inline'; media-src 'self'; \
                 object-src 'self';",
                "content-type: image/png",
                "cross-origin-resource-policy: cross-origin",
                "etag: \"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882\"",
                "referrer-policy: no-referrer",
                "x-content-type-options: nosniff",
            ]
        );
        assert_eq!(body_bytes(response).await, "0123456789");
    }

    #[test]
    fn serves_only_a_single_concrete_media_type() {
        for (declared, served) in [
            (Some(&b"text/html; charset=utf-8"[..]), "text/html; charset=utf-8"),
            (Some(b"image/png, text/html"), OCTET_STREAM),
            (Some(b"*/*"), OCTET_STREAM),
            (Some(b"image/*"), OCTET_STREAM),
            (Some(b"png"), OCTET_STREAM),
            (Some(b""), OCTET_STREAM),
            (Some(b"image/\xff"), OCTET_STREAM),
            (None, OCTET_STREAM),
        ] {
            let content_type = declared.map(|value| HeaderValue::from_bytes(value).unwrap());
            let media = Media { content_type, ..media(b"") };
            assert_eq!(get(&[], &media).headers()["content-type"], served, "{declared:?}");
        }
        let encrypted = Media { encrypted: true, ..media(b"") };
        let response = get(&[], &encrypted);
        assert_eq!(response.headers()["content-type"], OCTET_STREAM);
        assert_eq!(response.headers()["content-disposition"], "attachment");
    }

    #[tokio::test]
    async fn serves_a_single_range() {
        let media = media(b"0123456789");
        let response = get(&[("range", "bytes=2-4")], &media);
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(response.headers()["content-range"], "bytes 2-4/10");
        assert_eq!(response.headers()["content-length"], "3");
        assert_eq!(body_bytes(response).await, "234");

        let response = get(&[("range", "bytes=10-")], &media);
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()["content-range"], "bytes */10");

        let etag = get(&[], &media).headers()["etag"].to_str().unwrap().to_owned();
        for (headers, status) in [
            (vec![("range", "bytes=0-1"), ("range", "bytes=2-3")], 200),
            (vec![("range", "bytes=0-1,3-4")], 200),
            (vec![("range", "bytes=0-1"), ("if-range", &etag)], 206),
            (vec![("range", "bytes=0-1"), ("if-range", "\"other\"")], 200),
            (vec![("range", "bytes=0-1"), ("if-range", "Wed, 21 Oct 2015 07:28:00 GMT")], 200),
        ] {
            assert_eq!(get(&headers, &media).status(), status, "{headers:?}");
        }
        for method in [Method::HEAD, Method::POST] {
            let response = request(method, &[("range", "bytes=0-1")], &media);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-length"], "10");
        }
    }

    #[test]
    fn responds_304_to_matching_if_none_match() {
        let media = media(b"0123456789");
        let etag = get(&[], &media).headers()["etag"].to_str().unwrap().to_owned();
        let weak = format!("W/\"x\", W/{etag}");
        for (tag, status) in [
            (&*etag, 304),
            (&*weak, 304),
            ("*", 304),
            ("\"x\"", 200),
            (etag.trim_matches('"'), 200),
        ] {
            assert_eq!(get(&[("if-none-match", tag)], &media).status(), status, "{tag}");
        }
        let both = [("if-none-match", &*etag), ("range", "bytes=99-")];
        let response = get(&both, &media);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()["etag"], etag);
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(request(Method::POST, &both, &media).status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn chunk_reuses_memory_of_released_chunk() {
        let bytes: Vec<u8> =
            (0..4 * CHUNK_SIZE).map(|i| (i / CHUNK_SIZE).to_le_bytes()[0]).collect();
        let media::Body::File(file) = spooled_media(&bytes).body else { panic!("in memory") };
        let mut chunks = Box::pin(chunks(file, 0..4 * CHUNK_SIZE));
        let mut next = async || chunks.try_next().await.unwrap().unwrap();
        let first = next().await;
        let address = first.as_ptr();
        drop(first);
        let second = next().await;
        assert_eq!(second.as_ptr(), address);
        let third = next().await;
        assert_ne!(third.as_ptr(), address);
        let fourth = next().await;
        for (number, chunk) in (1..).zip([second, third, fourth]) {
            assert_eq!(chunk.len() as u64, CHUNK_SIZE);
            assert!(chunk.iter().all(|byte| *byte == number), "{number}");
        }
    }

    #[tokio::test]
    async fn truncated_spool_file_aborts_the_body() {
        let file = tempfile::tempfile().unwrap();
        let duplicate = file.try_clone().unwrap();
        let script_file = Some(ScriptFile { file, tamper_proof: true });
        let media = ingest(&vec![7; 700_001], script_file);
        duplicate.set_len(600_000).unwrap();
        let response = get(&[], &media);
        assert_eq!(response.headers()["content-length"], "700001");
        response.into_body().collect().await.unwrap_err();
    }

    #[tokio::test]
    async fn serves_spooled_body_completely_and_in_part() {
        let bytes: Vec<u8> = (0..700_001_u32).map(|i| i.to_le_bytes()[(i % 4) as usize]).collect();
        let media = spooled_media(&bytes);
        assert!(body_bytes(get(&[], &media)).await == bytes);
        let part = get(&[("range", "bytes=262143-524289")], &media);
        assert!(body_bytes(part).await == bytes[262_143..=524_289]);
    }
}
