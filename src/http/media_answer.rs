//! A clean media as an answer: headers of our own making, conditions and one range (RFC 9110), and
//! the bytes that were hashed. Knows nothing of verdicts: who calls this has one.

use std::{io, ops::Range, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use mime::Mime;

use super::{
    disposition,
    error::ApiError,
    range::{self, Requested},
    request::RequestError,
};
use crate::{
    media::{self, spool::SpooledFile},
    scan::Media,
};

/// Bytes read from the spool at a time.
const PIECE: u64 = 256 * 1024;

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
pub(super) fn answer(request: &Parts, media: &Media, file_name: Option<&str>) -> Response {
    let length = media.body.len();
    let etag = format!("\"{}\"", hex(&media.body_hash));
    let mut headers = describe(media, file_name);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }

    let is_get = request.method == Method::GET;
    if (is_get || request.method == Method::HEAD) && is_known(&request.headers, &etag) {
        // The length of what is not sent: otherwise axum would say 0 for it.
        headers.insert(header::CONTENT_LENGTH, length.into());
        return (StatusCode::NOT_MODIFIED, headers).into_response();
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
    (status, headers, body).into_response()
}

fn describe(media: &Media, file_name: Option<&str>) -> HeaderMap {
    let declared = media.content_type.as_ref().filter(|_| !media.encrypted).and_then(one_type);
    let (content_type, essence) = declared.map_or_else(
        || (HeaderValue::from_static(OCTET_STREAM), OCTET_STREAM.to_owned()),
        |(value, mime)| (value.clone(), mime.essence_str().to_owned()),
    );
    let mut headers: HeaderMap = FIXED.into_iter().collect();
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

/// One piece at a time: the next is read when the connection has taken this one. A piece that
/// cannot be read ends the stream with an error, which breaks the connection off: a client must
/// never take a part for the whole.
fn pieces(file: Arc<SpooledFile>, part: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, part), |(file, part)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&file, &part);
            (file, part, piece)
        });
        let (file, part, piece) = read.await.map_err(io::Error::other)?;
        let piece = piece.inspect_err(|error| tracing::warn!(%error, "a body broke off"))?;
        let next = part.start.saturating_add(piece.len() as u64)..part.end;
        Ok(Some((piece, (file, next))))
    })
}

fn read_piece(file: &SpooledFile, part: &Range<u64>) -> io::Result<Bytes> {
    let wanted = part.end.saturating_sub(part.start).min(PIECE);
    let mut buffer = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
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
    Ok(buffer.into())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
