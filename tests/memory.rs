//! Grows the table of cached media beyond its bound, and compares the memory with the bound. A process of its own,
//! with one test, so that only the table's memory is measured.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail by panicking"
)]

use std::{fs, time::Duration};

use matrix_content_scanner::{
    media::{Head, MAX_HEADER_VALUE, MediaId, MediaRequest, Origin, Requester, Variant},
    scan::{
        ScanRequest, Wants,
        cache::{MediaKey, ResultCache, Settings},
        cached_media::{CachedMedia, CachedMediaParts, MediaHeaders},
    },
};
use mcs_filetype::{Detector, MediaType};
use reqwest::header::HeaderValue;

/// Resident memory, bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn key(number: u64) -> MediaKey {
    MediaKey::from_request(&ScanRequest {
        fetch: MediaRequest {
            media: MediaId::parse("example.org", &number.to_string()).unwrap(),
            variant: Variant::Original,
            timeout_ms: None,
            origin: Origin::Discovered,
            requester: Requester::default(),
        },
        decryption: None,
        wants: Wants::Verdict,
    })
}

/// Returns an entry with three header values of `length` bytes.
fn media(detected: &MediaType, length: usize) -> CachedMedia {
    let value = || Some(HeaderValue::from_bytes(&vec![b'x'; length]).unwrap());
    let head =
        Head { content_type: value(), disposition: value(), etag: value(), ..Head::default() };
    CachedMedia::from(CachedMediaParts {
        content: [1; 32],
        size: 1,
        detected: detected.clone(),
        headers: MediaHeaders::from_head(&head),
    })
}

#[test]
fn cached_media_stays_within_its_bound_in_bytes() {
    let detected = Detector::new().unwrap().detect_bytes(b"text");
    let settings = Settings {
        max_size: 50_000,
        ttl: Duration::from_secs(86_400),
        max_file_size: 0,
        max_total_size: 0,
        exit_codes_to_ignore: Vec::new(),
        failure_ttl: Duration::from_secs(5),
    };
    let bound = settings.entries_capacity();
    for length in [MAX_HEADER_VALUE, 100, 0] {
        let before = resident();
        let cache = ResultCache::new(settings.clone());
        for number in 0..150_000 {
            cache.store_media(key(number), media(&detected, length));
        }
        let (grown, sizes) = (resident().saturating_sub(before), cache.sizes());
        // The cache is full, or limited by its number of entries.
        assert!(sizes.media_bytes > bound / 10 * 9, "{length}: {sizes:?}");
        assert!(grown <= bound + bound / 20, "{length}: {grown} of {bound} bytes, {sizes:?}");
    }
}
