//! Removal of verdicts and media entries by operators: from memory at once, then from the store.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use tokio::time::{Duration, timeout};

use super::{
    CacheGeneration, ResultCache, clock,
    generation::Subject,
    keys::{ContentKey, MediaTag},
    known::{ForgetReport, OperatorStoreError},
    verdict_records::VerdictRecords,
};
use crate::{
    media::MediaId,
    scan::engines::{EngineIdentity, Versions},
};

/// Maximum time that an operator's request waits for the removal of all records.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(10);

impl ResultCache {
    /// Removes all verdicts on a content. Scans in progress do not store theirs.
    ///
    /// # Errors
    /// If the store cannot be changed. The verdicts are then not used until the end of the process.
    pub async fn forget_content(
        &self,
        content: [u8; 32],
        engines: &EngineIdentity,
    ) -> Result<ForgetReport, OperatorStoreError> {
        let verdicts = self.forget_contents(&HashSet::from([content]), engines).await?;
        Ok(self.report(verdicts, 0))
    }

    /// Removes the entries of a media URI, thumbnails and decrypted variants included, and all verdicts on their contents.
    /// Scans in progress do not store theirs.
    ///
    /// # Errors
    /// As [`forget_content`](Self::forget_content). The call can be repeated.
    pub async fn forget_media(
        &self,
        mxc: &MediaId,
        engines: &EngineIdentity,
    ) -> Result<ForgetReport, OperatorStoreError> {
        let tag = MediaTag::from_media(mxc);
        self.tables.invalidations.forget(Subject::Media(tag), clock::now());
        let mut contents = self.remove_cached_media(tag);
        let cached = contents.len();
        let contents_of = |contents: Vec<[u8; 32]>| contents.into_iter().collect::<HashSet<_>>();
        let Some(records) = &self.tables.records else {
            let verdicts = self.forget_contents(&contents_of(contents), engines).await?;
            return Ok(self.report(verdicts, cached));
        };
        let references = records.references(mxc).await?;
        for reference in &references {
            records.forget_media(reference).await?;
            contents.push(reference.content);
        }
        let verdicts = self.forget_contents(&contents_of(contents), engines).await?;
        // Last, because the contents are found by them.
        records.forget_references(mxc).await?;
        Ok(self.report(verdicts, references.len().max(cached)))
    }

    /// Removes all verdicts and media entries.
    ///
    /// # Errors
    /// If the store is not empty after 10 s. It is not used until it is.
    pub async fn forget_all(&self) -> Result<ForgetReport, OperatorStoreError> {
        // First, so that nothing is recalled under the next generation.
        let cleared = self.tables.records.as_ref().map(|records| (records, records.clear()));
        self.tables.invalidations.invalidate_all();
        let (verdicts, media) = (self.tables.verdicts.len(), self.tables.media.len());
        self.tables.verdicts.clear();
        self.tables.media.clear();
        if let Some((records, cleared)) = cleared {
            let result = timeout(CLEAR_TIMEOUT, cleared).await;
            let removed = records.removed();
            result
                .map_err(|_elapsed| OperatorStoreError::Removing { removed })?
                .map_err(|_| OperatorStoreError::Write)?;
        }
        Ok(self.report(verdicts, media))
    }

    /// Returns whether a job that began at a generation may answer requests that arrive now.
    pub(in crate::scan) fn may_be_joined(&self, generation: CacheGeneration) -> bool {
        self.tables.invalidations.may_be_joined(generation)
    }

    /// Returns a number that changes when operators have this content of this media, or the media, forgotten: a scan that began
    /// before does not answer later requests.
    pub(in crate::scan) fn forgets_of(&self, content: &[u8; 32], media: MediaTag) -> u64 {
        self.tables.invalidations.forgets_of(content, media)
    }

    fn report(&self, verdicts: usize, media: usize) -> ForgetReport {
        let store = self.records().and_then(VerdictRecords::shared_store);
        ForgetReport {
            verdicts,
            media,
            is_pending: store.is_some_and(|store| !store.is_available()),
        }
    }

    /// Returns the number of removed verdicts.
    async fn forget_contents(
        &self,
        contents: &HashSet<[u8; 32]>,
        engines: &EngineIdentity,
    ) -> Result<usize, OperatorStoreError> {
        let now = clock::now();
        for content in contents {
            self.tables.invalidations.forget(Subject::Content(*content), now);
        }
        let cached = Cell::new(0_usize);
        self.tables.verdicts.retain(|key, _| {
            let is_kept = !contents.contains(&key.content);
            cached.set(cached.get() + usize::from(!is_kept));
            is_kept
        });
        let mut stored = 0;
        if let Some(records) = &self.tables.records {
            let versions: Versions = engines.versions;
            for content in contents {
                let engines_fingerprint = engines.engines_fingerprint;
                let key = ContentKey { content: *content, engines_fingerprint };
                stored += records.forget_outcomes(&key, versions, self.settings.ttl, now).await?;
            }
        }
        Ok(stored.max(cached.get()))
    }

    /// Removes the entries of a URI from memory. Returns their contents.
    fn remove_cached_media(&self, tag: MediaTag) -> Vec<[u8; 32]> {
        let contents = RefCell::new(Vec::new());
        self.tables.media.retain(|key, entry| {
            let is_kept = key.tag() != tag;
            if !is_kept {
                contents.borrow_mut().push(entry.value.content);
            }
            is_kept
        });
        contents.into_inner()
    }
}
