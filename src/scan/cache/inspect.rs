//! What operators see: verdicts and media entries in memory and in the store.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use mcs_store::RecordKind;

use super::{
    ResultCache,
    entry::{Timed, VerdictEntry},
    keys::{ContentKey, MediaTag},
    known::{
        KnownContent, KnownMedia, KnownVerdict, OperatorStoreError, StoredOutcome, VerdictFilter,
        VerdictList,
    },
};
use crate::{
    media::MediaId,
    scan::{
        cached_media::CachedMedia,
        engines::{EngineIdentity, Policies},
    },
};

/// Maximum time that a listing reads the store.
const LISTING_TIME: Duration = Duration::from_secs(5);

/// Maximum number of media entries that are returned for a content.
const MAX_MEDIA: usize = 64;

impl ResultCache {
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
        for (key, entry) in self.tables.verdicts.iter() {
            let verdict = self.cached_verdict(&key, &entry, engines, policies);
            if filter.accepts(&verdict) {
                add_latest(&mut found, verdict);
            }
        }
        let mut is_complete = true;
        if let Some(records) = &self.tables.records {
            let kinds: &[_] = &[RecordKind::NotClean, RecordKind::Finished];
            let (end, cached) = (Instant::now() + LISTING_TIME, found.len());
            let mut after = None;
            loop {
                let (page, next) = records.page(kinds, after).await?;
                is_complete &= !page.is_truncated;
                for stored in page.outcomes {
                    let verdict = self.stored_verdict(stored, engines, policies);
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
        verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.scanned));
        is_complete &= verdicts.len() <= filter.limit;
        verdicts.truncate(filter.limit);
        Ok(VerdictList { verdicts, is_complete })
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
                known.verdicts.push(self.stored_verdict(stored, engines, policies));
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
        for (key, entry) in self.tables.media.iter() {
            if key.tag() == tag && !stored.contains(&entry.value.content) {
                let mxc = Some(mxc.to_string());
                found.push(KnownMedia { mxc, ..self.cached_entry(&entry.value, entry.stored) });
            }
        }
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
        let stored: HashSet<_> = found.keys().copied().collect();
        for (_, Timed { value, stored: time }) in self.tables.media.iter() {
            if contents.contains(&value.content) && !stored.contains(&value.content) {
                let entries = found.entry(value.content).or_default();
                entries.push(self.cached_entry(&value, time));
                entries.truncate(MAX_MEDIA);
            }
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
        stored: StoredOutcome,
        engines: &EngineIdentity,
        policies: &Policies,
    ) -> KnownVerdict {
        let engines_fingerprint = engines.engines_fingerprint;
        let is_valid = stored.content.is_some_and(|content| {
            let key = ContentKey { content, engines_fingerprint };
            let records = self.tables.records.as_ref();
            let forgotten = self.tables.invalidations.forgotten_at(&content);
            forgotten < Some(stored.outcome.scanned)
                && records.is_some_and(|records| records.is_valid(&stored, &key, engines.versions))
        });
        KnownVerdict {
            content: stored.content,
            verdict: policies.decide(&stored.outcome).verdict,
            engine: stored.outcome.finding_engine(),
            scanned: Some(stored.outcome.scanned),
            detected: stored.outcome.detected,
            expires: stored.expires,
            is_valid,
            is_stored: true,
        }
    }
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
    SystemTime::now().checked_add(ttl.saturating_sub(stored.elapsed()))
}
