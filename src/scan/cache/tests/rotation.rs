//! A new request key, from which the secret of the store is derived.

use mcs_store::SimulatedServer;
use tokio::time::sleep;

use super::{
    shared::{connected, infected, known_to_others, observing, only_observed, replica_with},
    *,
};
use crate::scan::{decisions::DecisionKeeper, engines::EngineIdentity};

const ENGINES: EngineIdentity = EngineIdentity::for_test(KEY.engines_fingerprint, VERSIONS);

fn secret(name: &str) -> StoreSecret {
    StoreSecret::derive(name.as_bytes())
}

/// Before the rotation.
fn old() -> SecretRing {
    secret("old").into()
}

/// After a reload with a new key.
fn rotated() -> SecretRing {
    let ring = old();
    ring.replace(secret("new"), vec![secret("old")]);
    ring
}

/// After the time to live of the old key, or a restart.
fn new() -> SecretRing {
    secret("new").into()
}

fn mxc() -> MediaId {
    MediaId::parse("example.org", "abc").unwrap()
}

/// Opens a file with these secrets, uses it, and closes it.
async fn with_file(directory: &Path, secrets: SecretRing, work: impl AsyncFnOnce(&ResultCache)) {
    let cache = restarted_with(directory, settings(), secrets);
    work(&cache).await;
    close(&cache).await;
}

async fn name_of_recalled(cache: &ResultCache) -> Option<&'static str> {
    recalled(cache, VERSIONS).await.map(|verdict| verdict.name())
}

#[tokio::test]
async fn records_of_the_former_secret_are_used_and_stored_again() {
    let directory = tempfile::tempdir().unwrap();
    let media_key = MediaKey::new(&mxc(), [5; 32]);
    for (outcome, name) in [(clean(SystemTime::now()), "clean"), (infected(), "not_clean")] {
        with_file(directory.path(), old(), async |cache| {
            store(cache, outcome);
            keep_media(cache, media_key, &media(0));
        })
        .await;
        with_file(directory.path(), rotated(), async |cache| {
            assert_eq!(name_of_recalled(cache).await, Some(name));
            assert!(cache.recall_media(&media_key).await.is_some());
            let listed = list(cache).await;
            assert!(!listed.is_empty() && listed.iter().all(|verdict| verdict.is_valid));
        })
        .await;
        with_file(directory.path(), new(), async |cache| {
            assert_eq!(name_of_recalled(cache).await, Some(name));
            assert!(cache.recall_media(&media_key).await.is_some());
            let known = cache.known_media(&mxc()).await.unwrap();
            assert_eq!(known.len(), 1, "has a reference");
        })
        .await;
    }
}

async fn list(cache: &ResultCache) -> Vec<KnownVerdict> {
    let filter = VerdictFilter { not_clean: false, since: None, limit: 100 };
    cache.known_verdicts(filter, &ENGINES, &policies()).await.unwrap().verdicts
}

#[tokio::test]
async fn infection_has_precedence_under_any_secret() {
    for (first, second) in [(old(), new()), (new(), old())] {
        let directory = tempfile::tempdir().unwrap();
        with_file(directory.path(), first, async |cache| store(cache, infected())).await;
        with_file(directory.path(), second, async |cache| store(cache, clean(SystemTime::now())))
            .await;
        with_file(directory.path(), rotated(), async |cache| {
            assert_eq!(name_of_recalled(cache).await, Some("not_clean"));
        })
        .await;
    }
}

#[tokio::test]
async fn records_are_forgotten_under_all_secrets() {
    for forgets_media in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let media_key = MediaKey::new(&mxc(), [5; 32]);
        for secrets in [old(), new()] {
            with_file(directory.path(), secrets, async |cache| {
                store(cache, infected());
                let headers = MediaHeaders::from_head(&Head::default());
                let value = CachedMedia::new(KEY.content, 1, None, headers);
                keep_media(cache, media_key, &Arc::new(value));
            })
            .await;
        }
        with_file(directory.path(), rotated(), async |cache| {
            let forgotten = if forgets_media {
                cache.forget_media(&mxc(), &ENGINES).await
            } else {
                cache.forget_content(KEY.content, &ENGINES).await
            };
            assert!(forgotten.unwrap().verdicts > 0);
        })
        .await;
        for secrets in [old(), new()] {
            with_file(directory.path(), secrets, async |cache| {
                assert_eq!(name_of_recalled(cache).await, None);
                let is_known = cache.recall_media(&media_key).await.is_some();
                assert_eq!(is_known, !forgets_media);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn closed_store_does_not_report_success() {
    let directory = tempfile::tempdir().unwrap();
    let cache = restarted(directory.path(), settings());
    store(&cache, infected());
    close(&cache).await;
    let forgotten = cache.forget_content(KEY.content, &ENGINES).await;
    assert_eq!(forgotten, Err(OperatorStoreError::Closed));
    assert_eq!(cache.forget_media(&mxc(), &ENGINES).await, Err(OperatorStoreError::Closed));
}

/// Replicas that change the key one after the other.
#[tokio::test(start_paused = true)]
async fn replicas_with_and_without_the_new_secret_agree() {
    let server = SimulatedServer::new(1);
    let (first, first_events) = replica_with(&server, 1, rotated());
    let (second, second_events) = replica_with(&server, 2, old());
    for (cache, events) in [(first.clone(), first_events), (second.clone(), second_events)] {
        let decisions = DecisionKeeper::open(old(), None, None).unwrap();
        tokio::spawn(async move { cache.follow_replicas(events, decisions).await });
    }
    connected().await;
    let policies = policies();
    let caches = [&first, &second];
    for (index, finder) in caches.into_iter().enumerate() {
        for (content, forgetter) in [10, 20].into_iter().zip(caches) {
            let key = ContentKey { content: [content + u8::try_from(index).unwrap(); 32], ..KEY };
            let found =
                finder.store_outcome(key, infected(), VERSIONS, &policies, finder.generation());
            assert!(found.await.is_none());
            for cache in caches {
                let found = cache.recall(&key, VERSIONS, &policies).await.unwrap();
                assert_eq!(found.verdict.unwrap().name(), "not_clean");
            }
            forgetter.forget_content(key.content, &ENGINES).await.unwrap();
            sleep(Duration::from_secs(2)).await;
            for cache in caches {
                assert!(cache.scanned(&key, &VERSIONS, &policies).is_none());
                assert!(cache.recall(&key, VERSIONS, &policies).await.is_none());
            }
        }
    }
}

/// Each replica has found other malware, of which one is only observed now.
#[tokio::test(start_paused = true)]
async fn infections_under_all_secrets_decide() {
    let server = SimulatedServer::new(1);
    let (first, _first_events) = replica_with(&server, 1, rotated());
    let (second, _second_events) = replica_with(&server, 2, old());
    connected().await;
    let policies = policies();
    let found = first.store_outcome(KEY, only_observed(), VERSIONS, &policies, first.generation());
    assert!(found.await.is_none());
    let found =
        second.store_outcome(KEY, known_to_others(), OTHERS, &policies, second.generation());
    assert!(found.await.is_none());
    let (third, _third_events) = replica_with(&server, 3, rotated());
    connected().await;
    let found = third.recall(&KEY, VERSIONS, &observing()).await.unwrap();
    assert_eq!(found.verdict.unwrap().name(), "not_clean");
}
