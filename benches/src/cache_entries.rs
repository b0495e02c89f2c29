//! What one remembered media takes, and how long it is looked for. In a process that does nothing else: its memory grows by
//! that alone.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use matrix_content_scanner::{
    media::{Head, MediaId, MediaRequest, Origin, Requester, Variant},
    scan::{
        ScanRequest, Verdict, Wants,
        cache::{ContentKey, MediaKey, ResultCache, Settings},
        engines::{Fingerprint, Judgement, Versions},
        filetype::Detector,
        holding::{HoldingParts, KeptHeaders},
    },
};

/// Prints bytes an entry and nanoseconds a lookup, of so many entries; and nanoseconds of the same lookups in plain maps of
/// entries as large, which know no age, no bound and no other thread.
pub(crate) fn measure(count: u64) {
    // Kept: what it gave back would be filled first, and not be counted.
    let detector = Detector::new().unwrap();
    // Shared by all that are of it.
    let detected = detector.detect_bytes(b"\x89PNG\r\n\x1a\n");
    let cache = ResultCache::new(Settings {
        max_size: usize::try_from(count).unwrap(),
        ttl: Duration::from_secs(86_400),
        max_file_size: 0,
        max_total_size: 0,
        exit_codes_to_ignore: vec![],
        failure_ttl: Duration::from_secs(5),
    });
    let judgement = Judgement {
        verdict: Verdict::Clean { at: std::time::SystemTime::now() },
        exit_code: Some(0),
        first_line: String::new(),
        without_some: false,
    };
    let versions = Versions(1);
    let before = resident();
    for number in 0..count {
        // As Synapse answers.
        let head = Head {
            content_type: Some("image/png".parse().unwrap()),
            disposition: Some(format!("inline; filename=\"{number}.png\"").parse().unwrap()),
            etag: Some("1".parse().unwrap()),
            ..Head::default()
        };
        let parts = HoldingParts {
            content: hash(number),
            size: number,
            detected: detected.clone(),
            headers: KeptHeaders::of(&head),
        };
        cache.remember_holding(media_key(number), parts.into());
        cache.remember_verdict(content_key(number), &judgement, versions, cache.trust());
    }
    let sizes = cache.sizes();
    let bytes = (resident() - before) / sizes.media.min(sizes.verdicts) as f64;
    let each = lookups(count, |number| {
        let _found = black_box(cache.holding(&media_key(number)));
        let _found = black_box(cache.word(&content_key(number), &versions));
    });
    let half = [0_u8; 150];
    let holdings: HashMap<_, _> = (0..count).map(|number| (media_key(number), half)).collect();
    let words: HashMap<_, _> = (0..count).map(|number| (content_key(number), half)).collect();
    let plain = lookups(count, |number| {
        let _found = black_box(holdings.get(&media_key(number)).copied());
        let _found = black_box(words.get(&content_key(number)).copied());
    });
    println!("{bytes} {each} {plain}");
}

/// Nanoseconds of each.
fn lookups(count: u64, look_up: impl Fn(u64)) -> f64 {
    let begin = Instant::now();
    let lookups = 1_000_000;
    for number in 0..lookups {
        // Scattered, so that no cache line is looked for twice in a row.
        look_up(number * 7_919 % count);
    }
    begin.elapsed().as_nanos() as f64 / lookups as f64
}

fn media_key(number: u64) -> MediaKey {
    MediaKey::of(&ScanRequest {
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

fn content_key(number: u64) -> ContentKey {
    ContentKey { content: hash(number), judges: Fingerprint(7) }
}

/// As even as a hash, and cheaper.
fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    for (place, part) in hash.chunks_exact_mut(8).enumerate() {
        let mixed = (number ^ (place as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(
            &(mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes(),
        );
    }
    hash
}

fn resident() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}
