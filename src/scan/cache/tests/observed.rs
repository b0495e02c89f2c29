//! Findings that are only observed, in memory and in the store.

use super::*;

fn observing() -> Policies {
    policies().observing(&["clamd"], &[])
}

fn infected() -> FileOutcome {
    let clean = Ok(Outcome::Clean);
    FileOutcome::for_test([("clamd", Ok(Outcome::Infected("Eicar".into()))), ("icap", clean)])
}

fn scanned(cache: &ResultCache, versions: Versions, policies: &Policies) -> Option<&'static str> {
    let scanned = cache.scanned(&KEY, &versions, policies)?;
    Some(scanned.verdict.unwrap().name())
}

async fn recalled(
    cache: &ResultCache,
    versions: Versions,
    policies: &Policies,
) -> Option<&'static str> {
    let scanned = cache.recall(&KEY, versions, policies).await?;
    Some(scanned.verdict.unwrap().name())
}

#[test]
fn the_same_entry_refuses_when_the_mode_is_turned_off() {
    let cache = ResultCache::new(settings());
    store(&cache, infected());
    assert_eq!(scanned(&cache, VERSIONS, &observing()), Some("clean"));
    assert_eq!(scanned(&cache, VERSIONS, &policies()), Some("not_clean"));
    assert_eq!(scanned(&cache, VERSIONS, &observing()), Some("clean"));
    // Newer signatures of the other engines may find something.
    assert_eq!(scanned(&cache, OTHERS, &policies()), Some("not_clean"));
    assert_eq!(scanned(&cache, OTHERS, &observing()), None);
}

#[tokio::test]
async fn stored_infection_is_clean_only_for_the_versions_that_examined_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, infected());
    close(&cache).await;
    drop(cache);
    for (versions, policies, expected) in [
        (VERSIONS, policies(), Some("not_clean")),
        (VERSIONS, observing(), Some("clean")),
        (OTHERS, policies(), Some("not_clean")),
        (OTHERS, observing(), None),
        (Versions::new(3, false), observing(), None),
    ] {
        let cache = restarted(directory.path(), settings());
        assert_eq!(recalled(&cache, versions, &policies).await, expected, "{versions:?}");
        close(&cache).await;
    }
}

/// The failure is not part of the record.
#[tokio::test]
async fn stored_infection_beside_a_failed_engine_is_never_clean() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    let failed = || Err(ScanError::Engine("icap", EngineFailure::TimedOut));
    let found = || Ok(Outcome::Infected("Eicar".into()));
    let outcome = [("clamd", found()), ("icap", failed()), ("rules", Ok(Outcome::Clean))];
    store(&cache, FileOutcome::for_test(outcome));
    close(&cache).await;
    drop(cache);
    let cache = restarted(directory.path(), settings());
    assert_eq!(recalled(&cache, VERSIONS, &observing()).await, None);
    assert_eq!(recalled(&cache, VERSIONS, &policies()).await, Some("not_clean"));
    close(&cache).await;
}

#[tokio::test]
async fn record_of_the_first_version_is_scanned_again_if_its_finding_is_observed() {
    let mut outcome = infected();
    outcome = FileOutcome::from_record(
        format!(
            r#"{{"scanned":{},"has_finished":true,"finding":{{"is_infected":true,"text":{{"name":"Eicar"}},"engine":"clamd"}}}}"#,
            outcome.scanned.duration_since(UNIX_EPOCH).unwrap().as_millis()
        )
        .as_bytes(),
    )
    .unwrap()
    .outcome;
    let cache = ResultCache::new(settings());
    store(&cache, outcome);
    assert_eq!(scanned(&cache, VERSIONS, &observing()), None);
}
