//! Validity, policies and bounds of entries.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use mcs_filetype::MediaType;
use mcs_store::{FileStore, SecretRing, StoreSecret, StoreSettings};
use reqwest::header::HeaderValue;

use super::*;
use crate::{
    config::Config,
    media::{Head, MAX_HEADER_VALUE, MediaId},
    memory_bounds::{assert_table_memory, row_bytes},
    scan::{
        cached_media::MediaHeaders,
        engines::{
            ContentPolicy, EngineFailure, EngineFingerprint, Outcome, OversizePolicy, SkipPolicy,
        },
        verdict::Verdict,
    },
};

mod observed;
mod operators;
mod rotation;
mod shared;
mod simulation;

const KEY: ContentKey = ContentKey { content: [1; 32], engines_fingerprint: EngineFingerprint(2) };
const VERSIONS: Versions = Versions::new(3, true);
const RECORDS: RecordSettings = RecordSettings {
    not_clean_ttl: Duration::from_secs(60),
    program: [1; 32],
    wait: Duration::ZERO,
};
const OTHERS: Versions = Versions::new(4, true);

fn settings() -> Settings {
    Settings {
        max_size: 100,
        ttl: Duration::from_secs(3600),
        max_file_size: 0,
        max_total_size: 0,
        failure_ttl: Duration::ZERO,
        ..Config::for_test().result_cache
    }
}

fn policies() -> Policies {
    Policies::for_test(ContentPolicy::Refuse, OversizePolicy::Fail, SkipPolicy::Fail)
}

fn clean(at: SystemTime) -> FileOutcome {
    FileOutcome::clean(at, Some(255))
}

fn store(cache: &ResultCache, outcome: FileOutcome) {
    store_as(cache, KEY, outcome);
}

fn store_as(cache: &ResultCache, key: ContentKey, outcome: FileOutcome) {
    store_under(cache, key, outcome, VERSIONS, cache.generation());
}

/// Stores an outcome in memory and in a file, which takes no time.
fn store_under(
    cache: &ResultCache,
    key: ContentKey,
    outcome: FileOutcome,
    versions: Versions,
    generation: CacheGeneration,
) {
    let policies = policies();
    let stored = cache.store_outcome(key, outcome, versions, &policies, generation);
    assert!(stored.now_or_never().unwrap().is_none());
}

fn keep_media(cache: &ResultCache, key: MediaKey, value: &Arc<CachedMedia>) {
    let source = MediaSource::original(MediaId::parse("example.org", "abc").unwrap());
    cache.store_media(key, value, &source, cache.generation());
}

fn read(cache: &ResultCache, versions: Versions) -> Option<CachedVerdict> {
    Some(cache.scanned(&KEY, &versions, &policies())?.verdict)
}

#[test]
fn returns_verdicts_as_stored() {
    let cache = ResultCache::new(settings());
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    store(&cache, clean(at));
    assert_eq!(read(&cache, VERSIONS).unwrap().unwrap(), Verdict::Clean { at });
    let others = ContentKey { engines_fingerprint: EngineFingerprint(4), ..KEY };
    assert!(cache.scanned(&others, &VERSIONS, &policies()).is_none(), "other engines");
    let ignoring = cache.with_settings(Settings { exit_codes_to_ignore: vec![255], ..settings() });
    assert!(read(&ignoring, VERSIONS).is_none());
}

/// Each outcome: whether the verdict is valid with other versions, and whether it outlives `failure_ttl`.
#[test]
fn validity_follows_from_the_outcome() {
    let error = || Err(ScanError::Engine("clamd", EngineFailure::TimedOut));
    let name = || "name".into();
    for (outcome, with_other_versions, outlives_failures) in [
        (Ok(Outcome::Clean), false, true),
        (Ok(Outcome::Infected(name())), true, true),
        (Ok(Outcome::Refused(name())), true, true),
        (Ok(Outcome::Encrypted(name())), false, true),
        (Ok(Outcome::Limit(name())), false, true),
        (Ok(Outcome::Unreadable(name())), false, true),
        (Ok(Outcome::Inconsistent(name())), false, true),
        (Ok(Outcome::TooLarge), false, true),
        (error(), true, false),
    ] {
        let label = format!("{outcome:?}");
        // A time to live of 0 for failures: they are never valid.
        let short = ResultCache::new(settings());
        let failure_ttl = Duration::from_secs(60);
        let long = short.with_settings(Settings { failure_ttl, ..settings() });
        store(&short, FileOutcome::for_test([("clamd", outcome)]));
        assert!(read(&long, VERSIONS).is_some(), "{label}");
        assert_eq!(read(&short, VERSIONS).is_some(), outlives_failures, "{label}");
        if outlives_failures {
            assert_eq!(read(&long, OTHERS).is_some(), with_other_versions, "{label}");
        }
    }
}

#[test]
fn policies_apply_to_stored_outcomes() {
    let cache = ResultCache::new(settings());
    store(&cache, FileOutcome::for_test([("clamd", Ok(Outcome::Limit("x".into())))]));
    for (policy, expected) in [
        (ContentPolicy::Refuse, "not_clean"),
        (ContentPolicy::Fail, "limit"),
        (ContentPolicy::Pass, "clean"),
        (ContentPolicy::Refuse, "not_clean"),
    ] {
        let policies = Policies::for_test(policy, OversizePolicy::Fail, SkipPolicy::Fail);
        let found = match cache.scanned(&KEY, &VERSIONS, &policies).unwrap().verdict {
            Ok(verdict) => verdict.name(),
            Err(error) => error.cause().as_str(),
        };
        assert_eq!(found, expected, "{policy:?}");
    }
}

/// Returns an entry with three header values of this length.
fn media(length: usize) -> Arc<CachedMedia> {
    let value = || Some(HeaderValue::from_bytes(&vec![b'x'; length]).unwrap());
    let head =
        Head { content_type: value(), disposition: value(), etag: value(), ..Head::default() };
    let detected = MediaType::from_name("text/plain");
    Arc::new(CachedMedia::new([1; 32], 1, detected, MediaHeaders::from_head(&head)))
}

/// Returns a different digest for each number.
fn digest(number: u32) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    digest
}

fn content_key(number: u32) -> ContentKey {
    ContentKey { content: digest(number), ..KEY }
}

#[test]
fn entries_are_bounded_in_number_and_in_bytes() {
    let cache = ResultCache::new(Settings { max_size: 1000, ..settings() });
    let capacity = cache.settings.entries_capacity();
    assert_eq!(capacity, 768_000);
    let (small, large) = (media(30), media(MAX_HEADER_VALUE));
    for number in 0..3000 {
        keep_media(&cache, MediaKey::from_digest(digest(number)), &small);
        store_as(&cache, content_key(number), clean(SystemTime::now()));
    }
    let sizes = cache.sizes();
    assert!((900..=1000).contains(&sizes.media), "{sizes:?}");
    assert!((900..=1000).contains(&sizes.verdicts), "{sizes:?}");
    let cache = ResultCache::new(Settings { max_size: 1000, ..settings() });
    let finding = Outcome::Infected("x".repeat(4096).into());
    for number in 3000..6000 {
        keep_media(&cache, MediaKey::from_digest(digest(number)), &large);
        store_as(
            &cache,
            content_key(number),
            FileOutcome::for_test([("clamd", Ok(finding.clone()))]),
        );
    }
    let sizes = cache.sizes();
    assert!(sizes.media_bytes <= capacity && sizes.verdict_bytes <= capacity, "{sizes:?}");
    // Each entry weighs its headers or its finding at least.
    let media_bytes = sizes.media as u64 * 3 * MAX_HEADER_VALUE as u64;
    assert!(sizes.media > 100 && media_bytes < capacity, "{sizes:?}");
    let verdict_bytes = sizes.verdicts as u64 * 4096;
    assert!(sizes.verdicts > 50 && verdict_bytes < capacity, "{sizes:?}");
    for number in 6000..9000 {
        cache.store_failure(content_key(number), Arc::new(ScanError::Panicked));
    }
    assert!(cache.sizes().verdict_bytes <= capacity, "{:?}", cache.sizes());
}

#[test]
fn age_counts_from_the_time_of_storing() {
    let cache = ResultCache::new(settings());
    store(&cache, clean(SystemTime::now()));
    assert!(read(&cache, VERSIONS).is_some());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
    let shorter = Settings { ttl: Duration::from_millis(2), ..settings() };
    assert!(read(&cache.with_settings(shorter), VERSIONS).is_none());
    assert!(read(&cache, VERSIONS).is_none(), "expired entries are removed");
}

/// More entries than fit.
const MANY: u32 = 150_000;

fn default_cache() -> ResultCache {
    ResultCache::new(Settings { max_size: 100_000, ..settings() })
}

/// Stores entries with headers like those of `first` until the table is full.
fn fill_with_media(first: &CachedMedia) -> ResultCache {
    let cache = default_cache();
    for number in 0..MANY {
        let head = Head {
            content_type: first.headers.content_type.clone(),
            disposition: first.headers.disposition.clone(),
            etag: first.headers.etag.clone(),
            ..Head::default()
        };
        let headers = MediaHeaders::from_head(&head);
        // A value that was sent takes more memory: its first clone allocates a reference count.
        let _sent = [&headers.content_type, &headers.disposition, &headers.etag].map(Clone::clone);
        let entry = CachedMedia::new(digest(number), 1, first.detected.clone(), headers);
        keep_media(&cache, MediaKey::from_digest(digest(number)), &Arc::new(entry));
    }
    assert!(cache.sizes().media_bytes > cache.settings.entries_capacity() / 10 * 9);
    cache
}

#[test]
fn media_entries_with_the_longest_headers_stay_within_their_memory() {
    let test = "media_entries_with_the_longest_headers_stay_within_their_memory";
    // Outside of the measured part, because the names of all types take memory.
    let first = media(MAX_HEADER_VALUE);
    let fill = || fill_with_media(&first);
    assert_table_memory(module_path!(), test, row_bytes("media entries"), fill);
}

#[test]
fn media_entries_without_headers_stay_within_their_memory() {
    let test = "media_entries_without_headers_stay_within_their_memory";
    let first = media(0);
    let fill = || fill_with_media(&first);
    assert_table_memory(module_path!(), test, row_bytes("media entries"), fill);
}

#[test]
fn verdicts_and_failures_stay_within_their_memory() {
    let test = "verdicts_and_failures_stay_within_their_memory";
    assert_table_memory(module_path!(), test, row_bytes("verdicts and failures"), || {
        let cache = default_cache();
        for number in 0..MANY {
            let key = content_key(number);
            match number % 3 {
                0 => store_as(&cache, key, clean(SystemTime::now())),
                1 => {
                    let finding = Outcome::Infected("x".repeat(1024).into());
                    store_as(&cache, key, FileOutcome::for_test([("clamd", Ok(finding))]));
                }
                _ => {
                    let cause = EngineFailure::Reported("x".repeat(512));
                    cache.store_failure(key, Arc::new(ScanError::Engine("clamd", cause)));
                }
            }
        }
        assert!(cache.sizes().verdict_bytes > cache.settings.entries_capacity() / 10 * 9);
        cache
    });
}

/// A cache above a file in a directory, as after a start.
fn restarted(directory: &Path, settings: Settings) -> ResultCache {
    restarted_with(directory, settings, StoreSecret::derive(b"secret").into())
}

fn restarted_with(directory: &Path, settings: Settings, secrets: SecretRing) -> ResultCache {
    let opened = FileStore::open(&directory.join("store.db"), secrets, StoreSettings::default());
    let (file, report) = opened.unwrap();
    assert_eq!(report.set_aside, None);
    let records = VerdictRecords::in_file(file, RECORDS);
    ResultCache::with_records(settings, Some(records))
}

async fn close(cache: &ResultCache) {
    cache.records().unwrap().close().await;
}

fn stored_entries(cache: &ResultCache) -> u64 {
    cache.records().unwrap().file_counters().unwrap().entries
}

async fn recalled(cache: &ResultCache, versions: Versions) -> Option<Verdict> {
    assert!(read(cache, versions).is_none(), "not in memory");
    let scanned = cache.recall(&KEY, versions, &policies()).await?;
    Some(scanned.verdict.unwrap())
}

#[tokio::test]
async fn outcomes_are_recalled_under_the_versions_that_they_are_valid_for() {
    for (outcome, with_other_versions) in [
        (Outcome::Clean, false),
        (Outcome::Encrypted("name".into()), false),
        (Outcome::Refused("name".into()), false),
        (Outcome::Infected("name".into()), true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let cache = restarted(directory.path(), settings());
        store(&cache, FileOutcome::for_test([("clamd", Ok(outcome.clone()))]));
        let expected = read(&cache, VERSIONS).unwrap().unwrap();
        close(&cache).await;
        drop(cache);
        let cache = restarted(directory.path(), settings());
        let other = recalled(&cache, OTHERS).await;
        assert_eq!(other.is_some(), with_other_versions, "{outcome:?}");
        drop(cache);
        let cache = restarted(directory.path(), settings());
        let found = recalled(&cache, VERSIONS).await.unwrap();
        assert_eq!(found.name(), expected.name(), "{outcome:?}");
        assert!(read(&cache, VERSIONS).is_some(), "{outcome:?}: in memory");
    }
}

#[tokio::test]
async fn failures_and_ignored_exit_codes_are_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let ignoring = Settings { exit_codes_to_ignore: vec![3], ..settings() };
    let cache = restarted(directory.path(), ignoring);
    store(&cache, FileOutcome::clean(SystemTime::now(), Some(3)));
    let error = Err(ScanError::Engine("clamd", EngineFailure::TimedOut));
    store(&cache, FileOutcome::for_test([("clamd", error)]));
    close(&cache).await;
    assert_eq!(stored_entries(&cache), 0);
}

#[tokio::test]
async fn invalidated_verdicts_are_not_recalled() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, clean(SystemTime::now()));
    let before = cache.generation();
    cache.invalidate_verdicts();
    // Before the file has removed anything.
    assert!(recalled(&cache, VERSIONS).await.is_none());
    assert!(cache.records().unwrap().has_pending_removal());
    // The result of a scan that began before.
    let outcome = clean(SystemTime::now());
    store_under(&cache, KEY, outcome, VERSIONS, before);
    while cache.records().unwrap().has_pending_removal() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(recalled(&cache, VERSIONS).await.is_none());
    store(&cache, clean(SystemTime::now()));
    close(&cache).await;
    drop(cache);
    let cache = restarted(directory.path(), settings());
    assert!(recalled(&cache, VERSIONS).await.is_some(), "later verdicts are stored");
}

#[tokio::test]
async fn recalled_entries_are_as_old_as_their_records() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    let key = MediaKey::from_digest(digest(1));
    keep_media(&cache, key, &media(30));
    store(&cache, clean(SystemTime::now()));
    close(&cache).await;
    drop(cache);
    let expired = Settings { ttl: Duration::ZERO, ..settings() };
    let cache = restarted(directory.path(), expired);
    assert!(cache.recall_media(&key).await.is_none());
    assert!(recalled(&cache, VERSIONS).await.is_none());
    drop(cache);
    let cache = restarted(directory.path(), settings());
    let media = cache.recall_media(&key).await.unwrap();
    assert_eq!(media.media().content, [1; 32]);
    assert!(cache.cached_media(&key).is_none(), "only after an authorisation");
    cache.admit_media(key, media);
    assert!(cache.cached_media(&key).is_some());
}

#[tokio::test]
async fn verdicts_of_unknown_versions_are_not_stored() {
    const UNKNOWN: Versions = Versions::new(3, false);
    for (outcome, is_stored) in [
        (Outcome::Clean, false),
        (Outcome::Encrypted("name".into()), false),
        (Outcome::Infected("name".into()), true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let cache = restarted(directory.path(), settings());
        let found = FileOutcome::for_test([("clamd", Ok(outcome.clone()))]);
        store_under(&cache, KEY, found, UNKNOWN, cache.generation());
        close(&cache).await;
        drop(cache);
        let cache = restarted(directory.path(), settings());
        assert_eq!(recalled(&cache, UNKNOWN).await.is_some(), is_stored, "{outcome:?}");
    }
}

#[tokio::test]
async fn infection_removes_earlier_outcomes() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, clean(SystemTime::now()));
    let infected = Outcome::Infected("name".into());
    store(&cache, FileOutcome::for_test([("clamd", Ok(infected))]));
    close(&cache).await;
    assert_eq!(stored_entries(&cache), 1);
    drop(cache);
    let cache = restarted(directory.path(), settings());
    assert_eq!(recalled(&cache, VERSIONS).await.unwrap().name(), "not_clean");
}

#[tokio::test]
async fn outcomes_from_the_future_are_not_recalled() {
    let hour = Duration::from_secs(3600);
    for (ahead, is_recalled) in [(hour / 120, true), (hour, false)] {
        let directory = tempfile::tempdir().unwrap();
        let cache = restarted(directory.path(), settings());
        store(&cache, clean(SystemTime::now() + ahead));
        close(&cache).await;
        drop(cache);
        let cache = restarted(directory.path(), settings());
        assert_eq!(recalled(&cache, VERSIONS).await.is_some(), is_recalled, "{ahead:?}");
    }
}

#[tokio::test]
async fn stopped_records_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, clean(SystemTime::now()));
    cache.records().unwrap().stop();
    let others = ContentKey { content: [2; 32], ..KEY };
    store_as(&cache, others, clean(SystemTime::now()));
    close(&cache).await;
    assert_eq!(stored_entries(&cache), 1);
}

/// As if the disk had been full since the canary found a wrong result.
#[tokio::test]
async fn file_with_invalidated_verdicts_is_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, clean(SystemTime::now()));
    // The removal runs in a task, which this one does not wait for.
    cache.invalidate_verdicts();
    close(&cache).await;
    assert!(!directory.path().join("store.db").exists());
    drop(cache);
    // The task finds the file closed, and releases it.
    tokio::task::yield_now().await;
    let cache = restarted(directory.path(), settings());
    assert!(recalled(&cache, VERSIONS).await.is_none());
}
