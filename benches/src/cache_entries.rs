//! Memory and lookup time of cache entries. Runs in a separate process so that only the cache's memory is measured.

use std::{collections::HashMap, fs, hint::black_box, sync::Arc, time::Instant};

use futures_util::FutureExt as _;
use matrix_content_scanner::{
    config::Config,
    media::{Head, MediaId},
    scan::{
        cache::{ContentKey, MediaKey, MediaSource, ResultCache, Settings},
        cached_media::{CachedMedia, MediaHeaders},
        engines::{EngineFingerprint, FileOutcome, Policies, Versions},
    },
};
use mcs_filetype::MediaType;

/// Prints, for a cache of `count` entries: bytes per entry, nanoseconds per lookup, and nanoseconds per lookup in plain
/// maps with entries of the same size, without expiry, size limit or locking.
pub(crate) fn measure(count: u64) {
    // Kept alive, because the cache would reuse its freed memory, which would not be counted.
    // Shared by all entries of this type.
    let detected = MediaType::from_name("image/png");
    let required =
        [("MCS_SCAN__SCRIPT", "/bin/true"), ("MCS_CRYPTO__REQUEST_SECRET_PATH", "/nowhere")];
    let variables = required.map(|(name, value)| (name.into(), value.into()));
    let (config, _) = Config::load(None, variables.into_iter()).unwrap();
    let cache = ResultCache::new(Settings {
        max_size: usize::try_from(count).unwrap(),
        max_file_size: 0,
        max_total_size: 0,
        ..config.result_cache
    });
    let outcome = FileOutcome::clean(std::time::SystemTime::now(), Some(0));
    let policies = Policies::new(&config.scan, std::iter::empty());
    let versions = Versions::new(1, true);
    let source = MediaSource::original(MediaId::parse("example.org", "abc").unwrap());
    let before = resident();
    for number in 0..count {
        // Headers as sent by Synapse.
        let head = Head {
            content_type: Some("image/png".parse().unwrap()),
            disposition: Some(format!("inline; filename=\"{number}.png\"").parse().unwrap()),
            etag: Some("1".parse().unwrap()),
            ..Head::default()
        };
        let headers = MediaHeaders::from_head(&head);
        let media = CachedMedia::new(hash(number), number, detected.clone(), headers);
        let (media, generation) = (Arc::new(media), cache.generation());
        cache.store_media(media_key(number), &media, &source, generation);
        let (key, outcome) = (content_key(number), outcome.clone());
        let stored = cache.store_outcome(key, outcome, versions, &policies, cache.generation());
        // Without a shared store, there is nothing to wait for.
        assert!(stored.now_or_never().is_some());
    }
    let sizes = cache.sizes();
    let bytes = (resident() - before) / sizes.media.min(sizes.verdicts) as f64;
    let lookup = measure_lookups(count, |number| {
        let _found = black_box(cache.cached_media(&media_key(number)));
        let _found = black_box(cache.scanned(&content_key(number), &versions, &policies));
    });
    // Half of an entry's size: each entry is in both maps.
    let half = [0_u8; 150];
    let media: HashMap<_, _> = (0..count).map(|number| (media_key(number), half)).collect();
    let verdicts: HashMap<_, _> = (0..count).map(|number| (content_key(number), half)).collect();
    let plain = measure_lookups(count, |number| {
        let _found = black_box(media.get(&media_key(number)).copied());
        let _found = black_box(verdicts.get(&content_key(number)).copied());
    });
    println!("{bytes} {lookup} {plain}");
}

/// Returns nanoseconds per lookup.
fn measure_lookups(count: u64, look_up: impl Fn(u64)) -> f64 {
    let begin = Instant::now();
    let lookups = 1_000_000;
    for number in 0..lookups {
        // Scattered, so that consecutive lookups use different cache lines.
        look_up(number * 7_919 % count);
    }
    begin.elapsed().as_nanos() as f64 / lookups as f64
}

fn media_key(number: u64) -> MediaKey {
    MediaKey::from_digest(hash(number))
}

fn content_key(number: u64) -> ContentKey {
    ContentKey { content: hash(number), engines_fingerprint: EngineFingerprint(7) }
}

/// Returns pseudo-random bytes, like a cryptographic hash.
fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    for (index, part) in hash.chunks_exact_mut(8).enumerate() {
        let mixed = (number ^ (index as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(
            &(mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes(),
        );
    }
    hash
}

/// Resident memory in bytes.
fn resident() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}
