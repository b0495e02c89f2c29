//! What operators see and have forgotten.

use super::*;
use crate::scan::engines::EngineIdentity;

const ENGINES: EngineIdentity = EngineIdentity::for_test(KEY.engines_fingerprint, VERSIONS);

fn infected() -> FileOutcome {
    FileOutcome::for_test([("clamd", Ok(Outcome::Infected("Name".into())))])
}

fn mxc(id: &str) -> MediaId {
    MediaId::parse("example.org", id).unwrap()
}

/// Stores a media entry of a URI with a content.
fn store_media(cache: &ResultCache, id: &str, variant: u32, content: u32) -> MediaKey {
    let key = MediaKey::new(&mxc(id), digest(variant));
    let headers = MediaHeaders::from_head(&Head::default());
    let value = Arc::new(CachedMedia::new(digest(content), 1, None, headers));
    cache.store_media(key, &value, &MediaSource::original(mxc(id)), cache.generation());
    key
}

fn filter() -> VerdictFilter {
    VerdictFilter { not_clean: false, since: None, limit: 100 }
}

async fn list(cache: &ResultCache, filter: VerdictFilter) -> VerdictList {
    cache.known_verdicts(filter, &ENGINES, &policies()).await.unwrap()
}

fn report(verdicts: usize, media: usize) -> ForgetReport {
    ForgetReport { verdicts, media, is_pending: false }
}

#[tokio::test]
async fn forgotten_contents_are_not_in_memory() {
    let cache = ResultCache::new(settings());
    store(&cache, infected());
    let before = cache.generation();
    assert_eq!(cache.forget_content(KEY.content, &ENGINES).await, Ok(report(1, 0)));
    assert!(read(&cache, VERSIONS).is_none());
    assert_eq!(cache.forget_content(KEY.content, &ENGINES).await, Ok(report(0, 0)));
    // A scan that began before ends.
    store_under(&cache, KEY, infected(), VERSIONS, before);
    assert!(read(&cache, VERSIONS).is_none());
    let others = content_key(9);
    store_under(&cache, others, infected(), VERSIONS, before);
    assert!(cache.scanned(&others, &VERSIONS, &policies()).is_some());
    assert!(cache.is_current(before), "the scan itself is valid");
    store(&cache, clean(SystemTime::now()));
    assert!(read(&cache, VERSIONS).is_some(), "a later scan");
}

#[tokio::test]
async fn forgotten_contents_are_not_in_the_store() {
    let directory = tempfile::tempdir().unwrap();
    for outcome in [infected(), clean(SystemTime::now())] {
        let cache = restarted(directory.path(), settings());
        store(&cache, outcome);
        close(&cache).await;
        drop(cache);
        let cache = restarted(directory.path(), settings());
        let before = cache.generation();
        assert_eq!(cache.forget_content(KEY.content, &ENGINES).await, Ok(report(1, 0)));
        assert!(recalled(&cache, VERSIONS).await.is_none());
        store_under(&cache, KEY, infected(), VERSIONS, before);
        close(&cache).await;
        drop(cache);
        let cache = restarted(directory.path(), settings());
        assert!(recalled(&cache, VERSIONS).await.is_none());
        let known = cache.known_content(KEY.content, &ENGINES, &policies()).await.unwrap();
        assert!(known.verdicts.is_empty() && known.forgotten.is_some(), "{known:?}");
    }
}

#[tokio::test]
async fn all_variants_of_media_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let keys = {
        let cache = restarted(directory.path(), settings());
        let keys = [("a", 1, 1), ("a", 2, 2), ("b", 3, 3)]
            .map(|(id, variant, content)| store_media(&cache, id, variant, content));
        (1..=3).for_each(|content| store_as(&cache, content_key(content), infected()));
        close(&cache).await;
        keys
    };
    let cache = restarted(directory.path(), settings());
    let known = cache.known_media(&mxc("a")).await.unwrap();
    let mut contents: Vec<_> = known.iter().map(|media| media.content).collect();
    contents.sort_unstable();
    assert_eq!(contents, [digest(1), digest(2)]);
    assert!(known.iter().all(|media| media.mxc.as_deref() == Some("mxc://example.org/a")));
    assert_eq!(cache.forget_media(&mxc("a"), &ENGINES).await, Ok(report(2, 2)));
    assert_eq!(cache.forget_media(&mxc("a"), &ENGINES).await, Ok(report(0, 0)));
    close(&cache).await;
    drop(cache);
    let cache = restarted(directory.path(), settings());
    for (key, content, is_known) in [(0, 1, false), (1, 2, false), (2, 3, true)] {
        assert_eq!(cache.recall_media(&keys[key]).await.is_some(), is_known);
        let recalled = cache.recall(&content_key(content), VERSIONS, &policies()).await;
        assert_eq!(recalled.is_some(), is_known);
    }
}

#[tokio::test]
async fn media_is_forgotten_in_memory() {
    let cache = ResultCache::new(settings());
    let (first, other) = (store_media(&cache, "a", 1, 1), store_media(&cache, "b", 2, 2));
    (1..=2).for_each(|content| store_as(&cache, content_key(content), infected()));
    let before = cache.generation().for_media(&first);
    assert_eq!(cache.known_media(&mxc("a")).await.unwrap().len(), 1);
    assert_eq!(cache.forget_media(&mxc("a"), &ENGINES).await, Ok(report(1, 1)));
    assert!(cache.cached_media(&first).is_none() && cache.cached_media(&other).is_some());
    assert_eq!(list(&cache, filter()).await.verdicts.len(), 1);
    // A job for the media that began before ends. Its content was not known.
    let value = media(0);
    cache.store_media(first, &value, &MediaSource::original(mxc("a")), before);
    store_outcome_of(&cache, content_key(7), before);
    assert!(cache.cached_media(&first).is_none());
    assert_eq!(list(&cache, filter()).await.verdicts.len(), 1);
}

fn store_outcome_of(cache: &ResultCache, key: ContentKey, generation: CacheGeneration) {
    store_under(cache, key, infected(), VERSIONS, generation);
}

#[tokio::test]
async fn everything_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    let key = store_media(&cache, "a", 1, 1);
    store(&cache, infected());
    assert_eq!(cache.forget_all().await, Ok(report(1, 1)));
    assert!(recalled(&cache, VERSIONS).await.is_none());
    assert!(cache.cached_media(&key).is_none() && cache.recall_media(&key).await.is_none());
    assert_eq!(stored_entries(&cache), 0);
}

#[tokio::test]
async fn lists_are_filtered_and_state_validity() {
    let directory = tempfile::tempdir().unwrap();
    // Stored times are whole milliseconds.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start = UNIX_EPOCH + Duration::from_secs(elapsed.as_secs());
    let mut cache = restarted(directory.path(), settings());
    for number in 1..=20_u32 {
        let at = start + Duration::from_millis(number.into());
        let mut outcome = if number % 10 == 0 { infected() } else { clean(at) };
        outcome.scanned = at;
        store_as(&cache, content_key(number), outcome);
    }
    store_media(&cache, "a", 1, 10);
    for is_restarted in [false, true] {
        if is_restarted {
            close(&cache).await;
            drop(cache);
            cache = restarted(directory.path(), settings());
        }
        let all = list(&cache, filter()).await;
        let contents: Vec<_> = all.verdicts.iter().map(|verdict| verdict.content).collect();
        let expected: Vec<_> = (1..=20).rev().map(|number| Some(digest(number))).collect();
        assert_eq!(contents, expected);
        assert!(all.is_complete && all.verdicts.iter().all(|verdict| verdict.is_valid));
        assert!(all.verdicts.iter().all(|verdict| verdict.is_stored == is_restarted));
        let not_clean = list(&cache, VerdictFilter { not_clean: true, ..filter() }).await;
        assert_eq!(not_clean.verdicts.len(), 2);
        assert!(not_clean.verdicts.iter().all(|verdict| verdict.engine == Some("clamd")));
        let few = list(&cache, VerdictFilter { limit: 3, ..filter() }).await;
        assert!(few.verdicts.len() == 3 && !few.is_complete);
        let since = Some(start + Duration::from_millis(16));
        assert_eq!(list(&cache, VerdictFilter { since, ..filter() }).await.verdicts.len(), 5);
        let others = EngineIdentity::for_test(KEY.engines_fingerprint, OTHERS);
        let all = cache.known_verdicts(filter(), &others, &policies()).await.unwrap();
        let valid = all.verdicts.iter().filter(|verdict| verdict.is_valid);
        assert_eq!(valid.count(), 2, "findings are valid for other versions");
        let known = cache.known_content(digest(10), &ENGINES, &policies()).await.unwrap();
        assert!(known.verdicts.iter().all(|verdict| verdict.is_valid), "{known:?}");
        let contents = std::collections::HashSet::from([digest(10), digest(11)]);
        let (media, is_complete) = cache.media_of_contents(&contents).await.unwrap();
        assert!(is_complete && media.len() == 1 && media[&digest(10)].len() == 1, "{media:?}");
    }
}

/// Failures and outcomes without an engine are kept for requests, but are no reason to leave out a rescan.
#[tokio::test]
async fn outcomes_without_an_engine_do_not_count() {
    let skipping =
        Policies::for_test(ContentPolicy::Refuse, OversizePolicy::Fail, SkipPolicy::Skip);
    let failed = || Err(ScanError::Engine("icap", EngineFailure::TimedOut));
    let infected = || Ok(Outcome::Infected("Name".into()));
    let cache = ResultCache::new(Settings { failure_ttl: Duration::from_secs(5), ..settings() });
    let has_outcome = async || cache.has_outcome(&KEY, VERSIONS, &skipping).await;
    for (outcomes, expected) in [
        ([("clamd", Ok(Outcome::Clean)), ("icap", failed())], false),
        ([("clamd", Ok(Outcome::Clean)), ("icap", Ok(Outcome::Clean))], true),
        ([("clamd", failed()), ("icap", failed())], false),
        ([("clamd", infected()), ("icap", failed())], true),
    ] {
        let label = format!("{outcomes:?}");
        let outcome = FileOutcome::for_test(outcomes);
        cache.store_outcome(KEY, outcome, VERSIONS, &skipping, cache.generation()).await;
        assert!(cache.scanned(&KEY, &VERSIONS, &skipping).is_some(), "{label}");
        assert_eq!(has_outcome().await, expected, "{label}");
    }
    cache.store_failure(KEY, Arc::new(ScanError::NoEngine));
    assert!(cache.scanned(&KEY, &VERSIONS, &skipping).is_some());
    assert!(!has_outcome().await, "a failure");
}
