//! The stored form of a media entry: JSON. Header values are in base64, because they can contain any bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use mcs_filetype::MediaType;
use reqwest::header::{HeaderValue, InvalidHeaderValue};
use serde::{Deserialize, Serialize};

use super::known::{KnownMedia, MediaSource};
use crate::scan::cached_media::{CachedMedia, MediaHeaders};

/// Reason why a record cannot be decoded as a media entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum MediaRecordError {
    #[error("a stored media entry cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("a stored media entry contains invalid base64")]
    Base64(#[from] DecodeError),
    #[error("a stored media entry contains an invalid header")]
    Header(#[from] InvalidHeaderValue),
    #[error("a stored media entry contains an invalid {0}")]
    Invalid(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaRecord {
    /// When the media was downloaded, and when a request was first answered, milliseconds since 1970.
    downloaded: u64,
    first_answer: u64,
    content: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// For operators.
    mxc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thumbnail: Option<String>,
    is_encrypted: bool,
}

/// Returns the stored form of an entry that is downloaded now.
pub(super) fn encode(
    media: &CachedMedia,
    source: &MediaSource,
    now: SystemTime,
) -> Option<Vec<u8>> {
    let header =
        |value: &Option<HeaderValue>| value.as_ref().map(|value| STANDARD_NO_PAD.encode(value));
    let MediaHeaders { content_type, disposition, etag } = &media.headers;
    let record = MediaRecord {
        downloaded: milliseconds(now)?,
        // The requests that wait for the media are about to be answered.
        first_answer: milliseconds(media.first_answer().unwrap_or(now))?,
        content: STANDARD_NO_PAD.encode(media.content),
        size: media.size,
        detected: media.detected.as_ref().map(ToString::to_string),
        content_type: header(content_type),
        disposition: header(disposition),
        etag: header(etag),
        mxc: source.mxc.to_string(),
        base_url: source.base_url(),
        thumbnail: source.thumbnail(),
        is_encrypted: source.is_encrypted,
    };
    serde_json::to_vec(&record).ok()
}

/// Reads the stored form. Returns the entry and when it was downloaded.
pub(super) fn decode(record: &[u8]) -> Result<(CachedMedia, SystemTime), MediaRecordError> {
    let record: MediaRecord = serde_json::from_slice(record)?;
    let header = |value: Option<String>| -> Result<Option<HeaderValue>, MediaRecordError> {
        let Some(value) = value else { return Ok(None) };
        Ok(Some(HeaderValue::from_bytes(&STANDARD_NO_PAD.decode(value)?)?))
    };
    let time = |milliseconds| UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    let content = STANDARD_NO_PAD.decode(record.content)?;
    let content = content.try_into().map_err(|_| MediaRecordError::Invalid("digest"))?;
    let detected = record
        .detected
        .map(|name| MediaType::from_name(&name).ok_or(MediaRecordError::Invalid("type")));
    let headers = MediaHeaders {
        content_type: header(record.content_type)?,
        disposition: header(record.disposition)?,
        etag: header(record.etag)?,
    };
    let media = CachedMedia::new(content, record.size, detected.transpose()?, headers);
    let times = time(record.first_answer).zip(time(record.downloaded));
    let (first_answer, downloaded) = times.ok_or(MediaRecordError::Invalid("time"))?;
    Ok((media.answered_since(first_answer), downloaded))
}

/// Reads what operators see of the stored form. `expires`: expiry of the record.
pub(super) fn decode_known(
    record: &[u8],
    expires: Option<SystemTime>,
) -> Result<KnownMedia, MediaRecordError> {
    let (media, downloaded) = decode(record)?;
    let record: MediaRecord = serde_json::from_slice(record)?;
    Ok(KnownMedia {
        mxc: Some(record.mxc),
        base_url: record.base_url,
        thumbnail: record.thumbnail,
        is_encrypted: Some(record.is_encrypted),
        content: media.content,
        size: media.size,
        detected: media.detected,
        downloaded: Some(downloaded),
        expires,
        is_stored: true,
    })
}

fn milliseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::MediaId;

    fn any_header() -> impl Strategy<Value = Option<HeaderValue>> {
        let value = proptest::collection::vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..50);
        proptest::option::of(value.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()))
    }

    proptest! {
        #[test]
        fn entry_is_read_as_it_was_stored(
            content in any::<[u8; 32]>(),
            size in any::<u64>(),
            is_known in any::<bool>(),
            headers in (any_header(), any_header(), any_header()),
        ) {
            let (content_type, disposition, etag) = headers;
            let headers = MediaHeaders { content_type, disposition, etag };
            let detected = is_known.then(|| MediaType::from_name("image/png").unwrap());
            let source = MediaSource::original(MediaId::parse("example.org", "abc").unwrap());
            let [first, now] = [1_000, 2_000].map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let media = CachedMedia::new(content, size, detected, headers).answered_since(first);
            let (read, downloaded) = decode(&encode(&media, &source, now).unwrap()).unwrap();
            prop_assert_eq!(downloaded, now);
            prop_assert_eq!(format!("{read:?}"), format!("{media:?}"));
        }

        #[test]
        fn other_bytes_are_an_error(bytes in any::<Vec<u8>>()) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
