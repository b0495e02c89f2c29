//! A clean media as an answer: headers of our own making, conditions and one range (RFC 9110), and
//! the bytes that were hashed. Knows nothing of verdicts: who calls this has one.

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
    answer, disposition,
    error::ApiError,
    range::{self, Requested},
    request::RequestError,
};
use crate::{
    media::{self, spool::SpooledFile},
    scan::Media,
};

/// Bytes read from the spool at a time.
const PIECE: u64 = 512 * 1024;

const OCTET_STREAM: &str = "application/octet-stream";

/// Against media that tries to act in a page (Matrix specification, client-server API, "Content
/// repository"); the first scanner's policy, which clients know.
const FIXED: [(HeaderName, HeaderValue); 6] = [
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

/// Answers `request` with the media; `file_name` is the one that its path asks for.
pub(super) fn of(request: &Parts, media: &Media, file_name: Option<&str>) -> Response {
    let length = media.body.len();
    let etag = format!("\"{}\"", media::hex(&media.body_hash));
    let mut headers = describe(media, file_name);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }

    let is_get = request.method == Method::GET;
    if (is_get || request.method == Method::HEAD) && is_known(&request.headers, &etag) {
        // The length of what the client has (RFC 9110, section 8.6): axum would say 0, that of this body.
        headers.insert(header::CONTENT_LENGTH, length.into());
        return answer::with(StatusCode::NOT_MODIFIED, headers, Body::empty());
    }

    // RFC 9110, section 14.2: a range means something in a GET alone.
    let requested =
        if is_get { requested(&request.headers, &etag, length) } else { Requested::Whole };
    let (status, part) = match requested {
        Requested::Whole => (StatusCode::OK, 0..length),
        Requested::Part(part) => {
            let value = format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1));
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            (StatusCode::PARTIAL_CONTENT, part)
        }
        Requested::Outside => {
            return ApiError::from(RequestError::RangeNotSatisfiable { length }).into_response();
        }
    };
    headers.insert(header::CONTENT_LENGTH, part.end.saturating_sub(part.start).into());
    let body = if request.method == Method::HEAD { Body::empty() } else { body(&media.body, part) };
    answer::with(status, headers, body)
}

fn describe(media: &Media, file_name: Option<&str>) -> HeaderMap {
    let declared = media.content_type.as_ref().filter(|_| !media.encrypted).and_then(one_type);
    let (content_type, essence) = declared.map_or_else(
        || (HeaderValue::from_static(OCTET_STREAM), OCTET_STREAM.to_owned()),
        |(value, mime)| (value.clone(), mime.essence_str().to_owned()),
    );
    // With what every answer gets after these.
    let mut headers = HeaderMap::with_capacity(20);
    headers.extend(FIXED.map(|(name, value)| (Some(name), value)));
    let disposition = disposition::of(media.disposition.as_ref(), &essence, file_name);
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers
}

/// A value that is one media type, with its parse.
fn one_type(value: &HeaderValue) -> Option<(&HeaderValue, Mime)> {
    let mime: Mime = value.to_str().ok()?.parse().ok()?;
    let concrete = mime.type_() != mime::STAR && mime.subtype() != mime::STAR;
    concrete.then_some((value, mime))
}

/// `If-None-Match`, compared weakly (section 13.1.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        // A comma within a tag splits it into two that match nothing: ours has none.
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn requested(headers: &HeaderMap, etag: &str, length: u64) -> Requested {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(value), None) = (ranges.next(), ranges.next()) else { return Requested::Whole };
    // Compared strongly (section 13.1.5); a date matches nothing, as we give none.
    if headers.get_all(header::IF_RANGE).iter().any(|condition| condition != etag) {
        return Requested::Whole;
    }
    value.to_str().map_or(Requested::Whole, |value| range::requested(value, length))
}

fn body(body: &media::Body, part: Range<u64>) -> Body {
    match body {
        media::Body::Memory(bytes) => {
            let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Body::from(bytes.slice(at(part.start)..at(part.end)))
        }
        media::Body::File(file) => Body::from_stream(pieces(Arc::clone(file), part)),
    }
}

/// One piece at a time: the next is read when the connection has taken this one, and into the same
/// memory. A piece that cannot be read ends the stream with an error, which breaks the connection
/// off: a client must never take a part for the whole.
fn pieces(file: Arc<SpooledFile>, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, part, Bytes::new()), |(file, part, last)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        // Before who has yielded has another turn, the runtime looks for who has asked meanwhile; before others it does only
        // after 61 turns, and with a piece in each, they would be 15 ms.
        tokio::task::yield_now().await;
        let read = tokio::task::spawn_blocking(move || {
            // It is the connection's, still, where that has kept an end of it.
            let piece = read_piece(&file, &part, last.try_into_mut().unwrap_or_default());
            (file, part, piece)
        });
        let (file, part, piece) = read.await.map_err(io::Error::other)?;
        let piece = piece.inspect_err(|error| tracing::warn!(%error, "a body broke off"))?;
        let next = part.start.saturating_add(piece.len() as u64)..part.end;
        Ok(Some((piece.clone(), (file, next, piece))))
    })
}

fn read_piece(file: &SpooledFile, part: &Range<u64>, mut buffer: BytesMut) -> io::Result<Bytes> {
    let wanted = part.end.saturating_sub(part.start).min(PIECE);
    // What is there already is not set to zero again.
    buffer.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
    let length = loop {
        match file.read_at(&mut buffer, part.start) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome?,
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
    use std::sync::LazyLock;

    use axum::http::Request;
    use futures_util::TryStreamExt;
    use http_body_util::BodyExt;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        media::{
            intake::{Intake, Plan, ScriptFile},
            spool::Spool,
        },
        scan::filetype::{Detector, MediaType},
    };

    /// Some type: nothing here asks for it. Reading the rules takes most of a second.
    static DETECTED: LazyLock<MediaType> = LazyLock::new(|| {
        let empty = tempfile::tempfile().unwrap();
        Detector::new().unwrap().detect(&empty).unwrap()
    });

    fn media(bytes: &'static [u8]) -> Media {
        Media {
            body: media::Body::Memory(Bytes::from_static(bytes)),
            body_hash: Sha256::digest(bytes).into(),
            content_type: Some(HeaderValue::from_static("image/png")),
            disposition: None,
            detected: DETECTED.clone(),
            encrypted: false,
        }
    }

    fn spooled(bytes: &[u8]) -> Media {
        taken_in(bytes, None)
    }

    fn taken_in(bytes: &[u8], script_file: Option<ScriptFile>) -> Media {
        let spool = Spool::new(std::env::temp_dir(), u64::MAX, u64::MAX);
        let plan = Plan {
            account: spool.own_account(),
            max_size: u64::MAX,
            memory_limit: 0,
            keep_large: true,
            decryption: None,
            script_file,
        };
        let mut intake = Intake::begin(&spool, plan, None).unwrap();
        intake.write(bytes).unwrap();
        let taken = intake.finish().unwrap();
        let body = taken.body.unwrap();
        assert!(matches!(body, media::Body::File(_)));
        Media { body, body_hash: taken.body_hash, ..media(b"") }
    }

    fn ask(method: Method, headers: &[(&str, &str)], media: &Media) -> Response {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        of(&request.body(()).unwrap().into_parts().0, media, None)
    }

    fn get(headers: &[(&str, &str)], media: &Media) -> Response {
        ask(Method::GET, headers, media)
    }

    async fn body_of(response: Response) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_media_comes_with_headers_of_our_own_making() {
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
        assert_eq!(body_of(response).await, "0123456789");
    }

    #[test]
    fn only_one_media_type_is_passed_on() {
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
    async fn a_part_comes_where_one_is_asked_for() {
        let media = media(b"0123456789");
        let response = get(&[("range", "bytes=2-4")], &media);
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(response.headers()["content-range"], "bytes 2-4/10");
        assert_eq!(response.headers()["content-length"], "3");
        assert_eq!(body_of(response).await, "234");

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
            let response = ask(method, &[("range", "bytes=0-1")], &media);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-length"], "10");
        }
    }

    #[test]
    fn a_client_that_has_the_media_is_told_so() {
        let media = media(b"0123456789");
        let etag = get(&[], &media).headers()["etag"].to_str().unwrap().to_owned();
        let weak = format!("W/\"x\", W/{etag}");
        for (known, status) in [
            (&*etag, 304),
            (&*weak, 304),
            ("*", 304),
            ("\"x\"", 200),
            (etag.trim_matches('"'), 200),
        ] {
            assert_eq!(get(&[("if-none-match", known)], &media).status(), status, "{known}");
        }
        let both = [("if-none-match", &*etag), ("range", "bytes=99-")];
        let response = get(&both, &media);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()["etag"], etag);
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(ask(Method::POST, &both, &media).status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_piece_takes_the_memory_of_the_last_one_unless_that_is_still_held() {
        let bytes: Vec<u8> = (0..4 * PIECE).map(|i| (i / PIECE).to_le_bytes()[0]).collect();
        let media::Body::File(file) = spooled(&bytes).body else { panic!("in memory") };
        let mut pieces = Box::pin(pieces(file, 0..4 * PIECE));
        let mut next = async || pieces.try_next().await.unwrap().unwrap();
        let first = next().await;
        let place = first.as_ptr();
        drop(first);
        let second = next().await;
        assert_eq!(second.as_ptr(), place);
        let third = next().await;
        assert_ne!(third.as_ptr(), place);
        let fourth = next().await;
        for (number, piece) in (1..).zip([second, third, fourth]) {
            assert_eq!(piece.len() as u64, PIECE);
            assert!(piece.iter().all(|byte| *byte == number), "{number}");
        }
    }

    #[tokio::test]
    async fn a_body_whose_file_is_cut_short_breaks_off() {
        let file = tempfile::tempfile().unwrap();
        let same = file.try_clone().unwrap();
        let script_file = Some(ScriptFile { file, tamper_proof: true });
        let media = taken_in(&vec![7; 700_001], script_file);
        same.set_len(600_000).unwrap();
        let answer = get(&[], &media);
        assert_eq!(answer.headers()["content-length"], "700001");
        answer.into_body().collect().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_body_on_the_spool_comes_in_pieces_and_whole() {
        let bytes: Vec<u8> = (0..700_001_u32).map(|i| i.to_le_bytes()[(i % 4) as usize]).collect();
        let media = spooled(&bytes);
        assert!(body_of(get(&[], &media)).await == bytes);
        let part = get(&[("range", "bytes=262143-524289")], &media);
        assert!(body_of(part).await == bytes[262_143..=524_289]);
    }
}
