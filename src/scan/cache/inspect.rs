//! What operators see: verdicts and media entries in memory and in the store.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use mcs_store::RecordKind;
use tokio::task::spawn_blocking;

use super::{
    ResultCache, clock,
    entry::{Timed, VerdictEntry},
    keys::{ContentKey, MediaKey, MediaTag},
    known::{
        KnownContent, KnownMedia, KnownVerdict, OperatorStoreError, StoredOutcome, VerdictFilter,
        VerdictList,
    },
};
use crate::{
    media::MediaId,
    scan::{
        cached_media::CachedMedia,
        engines::{DecodedOutcome, EngineIdentity, Policies, Validity, Versions},
    },
};

/// Maximum time that a listing reads the store.
const LISTING_TIME: Duration = Duration::from_secs(5);

/// Maximum number of media entries that are returned for a content.
const MAX_MEDIA: usize = 64;

impl ResultCache {
    /// Returns whether a content has a valid outcome of all engines, or a finding, in memory or in the store, without taking it
    /// over into memory. Failures, and outcomes without an engine that failed, do not count.
    pub async fn has_outcome(
        &self,
        key: &ContentKey,
        versions: Versions,
        policies: &Policies,
    ) -> bool {
        let is_settled = |Timed { value, stored }: Timed<VerdictEntry>| {
            let validity = value.decide(policies).1;
            let ttl = self.time_to_live(&value, versions, policies);
            matches!(validity, Validity::Finding | Validity::Examined)
                && ttl.is_some_and(|ttl| stored.elapsed() < ttl)
        };
        if self.tables.verdicts.peek(key).is_some_and(is_settled) {
            return true;
        }
        let Some(records) = &self.tables.records else { return false };
        let Some(found) = records.find(key, versions).await else { return false };
        self.tables.invalidations.forgotten_at(&key.content) < Some(found.outcome.scanned)
    }

    /// Returns verdicts in memory and in the store, the latest scans first; one for each content. A store with many records
    /// is not read to its end if enough verdicts are found before.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn known_verdicts(
        &self,
        filter: VerdictFilter,
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> Result<VerdictList, OperatorStoreError> {
        let mut found: HashMap<_, KnownVerdict> = HashMap::new();
        let (cached, mut is_complete) = self.cached_verdicts(filter, engines, policies).await;
        for verdict in cached {
            add_latest(&mut found, verdict);
        }
        if let Some(records) = &self.tables.records {
            let kinds: &[_] = &[RecordKind::NotClean, RecordKind::Finished];
            let (end, cached) = (Instant::now() + LISTING_TIME, found.len());
            let mut after = None;
            loop {
                let (page, next) = records.page(kinds, after).await?;
                is_complete &= !page.is_truncated;
                for stored in page.outcomes {
                    let verdict = self.stored_verdict(&stored, engines, policies);
                    if filter.accepts(&verdict) {
                        add_latest(&mut found, verdict);
                    }
                }
                after = next;
                let is_enough = found.len() >= filter.limit.saturating_add(cached);
                if after.is_none() || is_enough || Instant::now() >= end {
                    break;
                }
            }
            is_complete &= after.is_none();
        }
        let mut verdicts: Vec<_> = found.into_values().collect();
        is_complete &= verdicts.len() <= filter.limit;
        keep_latest(&mut verdicts, filter.limit);
        Ok(VerdictList { verdicts, is_complete })
    }

    /// Returns the latest verdicts in memory, and whether these are all. On a thread for blocking work, because there may be
    /// many entries.
    async fn cached_verdicts(
        &self,
        filter: VerdictFilter,
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> (Vec<KnownVerdict>, bool) {
        let (cache, engines, policies) = (self.clone(), *engines, policies.clone());
        let list = move || {
            let (mut found, mut is_complete) = (Vec::new(), true);
            for (key, entry) in cache.tables.verdicts.iter() {
                let verdict = cache.cached_verdict(&key, &entry, &engines, &policies);
                if filter.accepts(&verdict) {
                    found.push(verdict);
                }
                if found.len() > 2 * filter.limit {
                    keep_latest(&mut found, filter.limit);
                    is_complete = false;
                }
            }
            is_complete &= found.len() <= filter.limit;
            keep_latest(&mut found, filter.limit);
            (found, is_complete)
        };
        spawn_blocking(list).await.unwrap_or_default()
    }

    /// Returns the media entries in memory that are wanted, on a thread for blocking work.
    async fn cached_media_where(
        &self,
        is_wanted: impl Fn(&MediaKey, &CachedMedia) -> bool + Send + 'static,
    ) -> Vec<KnownMedia> {
        let cache = self.clone();
        let list = move || {
            let entries = cache.tables.media.iter();
            let wanted = entries.filter(|(key, entry)| is_wanted(key, &entry.value));
            wanted.map(|(_, entry)| cache.cached_entry(&entry.value, entry.stored)).collect()
        };
        spawn_blocking(list).await.unwrap_or_default()
    }

    /// Returns the verdicts on a content.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn known_content(
        &self,
        content: [u8; 32],
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> Result<KnownContent, OperatorStoreError> {
        let (engines_fingerprint, versions) = (engines.engines_fingerprint, engines.versions);
        let key = ContentKey { content, engines_fingerprint };
        let mut known = KnownContent {
            forgotten: self.tables.invalidations.forgotten_at(&content),
            ..KnownContent::default()
        };
        if let Some(entry) = self.tables.verdicts.peek(&key) {
            known.verdicts.push(self.cached_verdict(&key, &entry, engines, policies));
        }
        if let Some(records) = &self.tables.records {
            for stored in records.outcomes(&key, versions).await? {
                known.verdicts.push(self.stored_verdict(&stored, engines, policies));
            }
            known.forgotten = known.forgotten.max(records.forgotten_at(&key, versions).await?);
        }
        Ok(known)
    }

    /// Returns the entries of a media URI, thumbnails and decrypted variants included.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn known_media(&self, mxc: &MediaId) -> Result<Vec<KnownMedia>, OperatorStoreError> {
        let mut found = Vec::new();
        if let Some(records) = &self.tables.records {
            for reference in records.references(mxc).await? {
                found.extend(records.referenced(&reference).await?);
            }
        }
        let stored: HashSet<_> = found.iter().map(|media| media.content).collect();
        let tag = MediaTag::from_media(mxc);
        let is_wanted = move |key: &MediaKey, media: &CachedMedia| {
            key.tag() == tag && !stored.contains(&media.content)
        };
        let cached = self.cached_media_where(is_wanted).await.into_iter();
        found.extend(cached.map(|media| KnownMedia { mxc: Some(mxc.to_string()), ..media }));
        Ok(found)
    }

    /// Returns the media entries of contents: those in the store, otherwise those in memory, which have no names. Also
    /// returns whether the store was read to its end.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn media_of_contents(
        &self,
        contents: &HashSet<[u8; 32]>,
    ) -> Result<(HashMap<[u8; 32], Vec<KnownMedia>>, bool), OperatorStoreError> {
        let mut found: HashMap<[u8; 32], Vec<KnownMedia>> = HashMap::new();
        let mut is_complete = true;
        if let Some(records) = &self.tables.records {
            let (end, mut after) = (Instant::now() + LISTING_TIME, None);
            loop {
                let (page, next) = records.page(&[RecordKind::Media], after).await?;
                let is_truncated = page.is_truncated;
                let listed = page.media.into_iter();
                for media in listed.filter(|media| contents.contains(&media.content)) {
                    let entries = found.entry(media.content).or_default();
                    if entries.len() < MAX_MEDIA {
                        entries.push(media);
                    }
                }
                after = next;
                is_complete = after.is_none() && !is_truncated;
                if after.is_none() || Instant::now() >= end {
                    break;
                }
            }
        }
        let missing = contents.iter().filter(|content| !found.contains_key(*content));
        let missing: HashSet<_> = missing.copied().collect();
        let is_wanted = move |_: &MediaKey, media: &CachedMedia| missing.contains(&media.content);
        for media in self.cached_media_where(is_wanted).await {
            let entries = found.entry(media.content).or_default();
            entries.push(media);
            entries.truncate(MAX_MEDIA);
        }
        Ok((found, is_complete))
    }

    fn cached_entry(&self, media: &CachedMedia, stored: Instant) -> KnownMedia {
        KnownMedia {
            mxc: None,
            base_url: None,
            thumbnail: None,
            is_encrypted: None,
            content: media.content,
            size: media.size,
            detected: media.detected.clone(),
            downloaded: None,
            expires: expiry(stored, self.settings.ttl),
            is_stored: false,
        }
    }

    fn cached_verdict(
        &self,
        key: &ContentKey,
        entry: &Timed<VerdictEntry>,
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> KnownVerdict {
        let Timed { value, stored } = entry;
        let ttl = self.time_to_live(value, engines.versions, policies);
        KnownVerdict {
            content: Some(key.content),
            verdict: value.decide(policies).0,
            engine: value.finding_engine(),
            engines: value.results(),
            detected: value.detected().cloned(),
            scanned: value.scanned(),
            expires: ttl.and_then(|ttl| expiry(*stored, ttl)),
            is_valid: key.engines_fingerprint == engines.engines_fingerprint
                && ttl.is_some_and(|ttl| stored.elapsed() < ttl),
            is_stored: false,
        }
    }

    fn stored_verdict(
        &self,
        stored: &StoredOutcome,
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> KnownVerdict {
        let engines_fingerprint = engines.engines_fingerprint;
        let DecodedOutcome { outcome, content, .. } = &stored.decoded;
        let decision = policies.decide(outcome);
        let are_same_versions = || {
            stored.key.kind == RecordKind::Finished
                || self.tables.records.as_ref().is_some_and(|records| {
                    let tag = records.scan_tag(engines.versions);
                    tag.is_some() && tag == stored.decoded.scanned_by
                })
        };
        let is_settled = match decision.validity {
            Validity::Finding | Validity::Failure => true,
            Validity::Examined | Validity::Partial => are_same_versions(),
            Validity::Unsettled => false,
        };
        let is_valid = is_settled
            && content.is_some_and(|content| {
                let key = ContentKey { content, engines_fingerprint };
                let records = self.tables.records.as_ref();
                let forgotten = self.tables.invalidations.forgotten_at(&content);
                forgotten < Some(outcome.scanned)
                    && records
                        .is_some_and(|records| records.is_valid(stored, &key, engines.versions))
            });
        KnownVerdict {
            content: *content,
            verdict: decision.verdict,
            engine: outcome.finding_engine(),
            engines: outcome.results().to_vec(),
            scanned: Some(outcome.scanned),
            detected: outcome.detected.clone(),
            expires: stored.expires,
            is_valid,
            is_stored: true,
        }
    }
}

/// Sorts verdicts, the latest scans first, and keeps this number.
fn keep_latest(verdicts: &mut Vec<KnownVerdict>, limit: usize) {
    verdicts.sort_by_key(|verdict| Reverse(verdict.scanned));
    verdicts.truncate(limit);
}

/// Adds a verdict, unless a later one on the same content is present.
fn add_latest(found: &mut HashMap<Option<[u8; 32]>, KnownVerdict>, verdict: KnownVerdict) {
    let rank = |verdict: &KnownVerdict| (verdict.is_valid, verdict.scanned);
    match found.entry(verdict.content) {
        std::collections::hash_map::Entry::Vacant(entry) => {
            entry.insert(verdict);
        }
        std::collections::hash_map::Entry::Occupied(mut entry) => {
            if rank(&verdict) > rank(entry.get()) {
                entry.insert(verdict);
            }
        }
    }
}

/// Returns when an entry expires.
fn expiry(stored: Instant, ttl: Duration) -> Option<SystemTime> {
    clock::now().checked_add(ttl.saturating_sub(stored.elapsed()))
}
