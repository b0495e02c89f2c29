//! Lookups of records under the current secret of the store, and under former ones: after a rotation of the request key,
//! for `crypto.previous_key_ttl`. What is found under a former secret is stored again under the current one.

use std::time::{Duration, SystemTime};

use mcs_store::{RecordKind, StoreUnavailable};
use tracing::debug;

use super::{VerdictRecords, age, expiry};
use crate::{
    media::MediaId,
    scan::{
        cache::{
            forgotten_record,
            found::{FoundMedia, FoundOutcome},
            keys::{ContentKey, MediaKey},
            media_record,
            record_store::{OutcomeRecords, Precedence},
        },
        engines::{DecodedOutcome, FileOutcome, Versions},
    },
};

impl VerdictRecords {
    /// Returns what an earlier scan determined. An infection has precedence over the other outcome.
    pub(in crate::scan::cache) async fn find(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Option<FoundOutcome> {
        // Without its version, an engine may be another one than at the time of the scan.
        let precedence = if versions.are_known() { Precedence::All } else { Precedence::Infected };
        self.find_outcome(key, versions, precedence).await.ok().flatten()
    }

    pub(super) async fn find_outcome(
        &self,
        key: &ContentKey,
        versions: Versions,
        precedence: Precedence,
    ) -> Result<Option<FoundOutcome>, StoreUnavailable> {
        if !self.is_in_use() {
            return Err(StoreUnavailable);
        }
        let mut found = Vec::new();
        for names in self.all_names() {
            found.push(self.store.outcome(&names.outcome(key, versions), precedence).await?);
        }
        // All records may have become invalid meanwhile.
        if !self.is_in_use() {
            return Err(StoreUnavailable);
        }
        Ok(self.decide(&found, versions))
    }

    /// Returns the infection under a former secret, or among the records of the current one.
    pub(super) async fn find_infection(
        &self,
        key: &ContentKey,
        versions: Versions,
        current: OutcomeRecords,
    ) -> Result<Option<FoundOutcome>, StoreUnavailable> {
        let mut found = vec![current];
        for names in self.former_names() {
            let keys = names.outcome(key, versions);
            found.push(self.store.outcome(&keys, Precedence::Infected).await?);
        }
        Ok(self.decide(&found, versions))
    }

    /// Returns the outcome that decides. `found`: by secret, the current one first. A record that was altered may have had
    /// precedence, so nothing is known then.
    fn decide(&self, found: &[OutcomeRecords], versions: Versions) -> Option<FoundOutcome> {
        if found.iter().any(|records| records.is_altered) {
            return None;
        }
        let mut forgotten: Option<SystemTime> = None;
        for record in found.iter().filter_map(|records| records.forgotten.as_deref()) {
            forgotten = forgotten.max(Some(forgotten_record::decode(record)?));
        }
        let valid = found.iter().enumerate().filter_map(|(index, records)| {
            let (kind, record) = records.outcome.as_ref()?;
            let found = self.valid_outcome(*kind, record, versions)?;
            let is_kept = Some(found.outcome.scanned) > forgotten;
            is_kept.then_some(FoundOutcome { is_former: index > 0, ..found })
        });
        let (infected, others): (Vec<_>, Vec<_>) = valid.partition(|found| found.is_infection);
        // Replicas with different secrets may have found different malware, of which some may be only observed.
        infected
            .into_iter()
            .reduce(|first, other| merge(first, &other))
            .or_else(|| others.into_iter().next())
    }

    fn valid_outcome(
        &self,
        kind: RecordKind,
        record: &[u8],
        versions: Versions,
    ) -> Option<FoundOutcome> {
        let DecodedOutcome { outcome, scanned_by, .. } = FileOutcome::from_record(record)
            .inspect_err(|error| debug!(%error, "a stored verdict is of another version"))
            .ok()?;
        let age = age(outcome.scanned)?;
        let is_infection = kind == RecordKind::NotClean;
        if is_infection && (!outcome.is_infected() || age >= self.settings.not_clean_ttl) {
            return None;
        }
        // The key of another outcome contains the versions.
        let is_current =
            !is_infection || (scanned_by.is_some() && scanned_by == self.scan_tag(versions));
        let versions = is_current.then_some(versions);
        let is_former = false;
        Some(FoundOutcome { outcome, age, versions, scanned_by, is_infection, is_former })
    }

    /// Stores an outcome again that was found under a former secret, in the background. Its age remains. Malware that is only
    /// observed is not, if it is stored as an infection: it must not replace what other replicas have found meanwhile. `ttl`:
    /// of outcomes that are no infections.
    pub(in crate::scan::cache) fn renew_outcome(
        &self,
        key: &ContentKey,
        versions: Versions,
        found: &FoundOutcome,
        has_infection: bool,
        ttl: Duration,
    ) {
        if found.is_infection && !has_infection {
            return;
        }
        let keys = self.names().outcome(key, versions);
        let (record_key, ttl) = if found.is_infection {
            (keys.infected, self.settings.not_clean_ttl)
        } else {
            (keys.finished, ttl)
        };
        if self.use_state.lock().is_in_use()
            && let Some(record) = found.outcome.to_record(&key.content, found.scanned_by)
        {
            self.store.put(record_key, expiry(ttl.saturating_sub(found.age)), &record);
        }
    }

    /// Finds a media entry.
    pub(in crate::scan::cache) async fn find_media(&self, key: &MediaKey) -> Option<FoundMedia> {
        if !self.is_in_use() {
            return None;
        }
        for (index, names) in self.all_names().iter().enumerate() {
            let Some(record) = self.store.media(names.media(key)).await.ok()? else { continue };
            let (media, downloaded) = media_record::decode(&record)
                .inspect_err(|error| debug!(%error, "a stored media entry is of another version"))
                .ok()?;
            let former = (index > 0).then_some(record);
            return Some(FoundMedia { media, age: age(downloaded)?, former });
        }
        None
    }

    /// Stores a media entry again that was found under a former secret, in the background. Returns whether it was.
    pub(in crate::scan::cache) fn renew_media(
        &self,
        key: &MediaKey,
        found: &FoundMedia,
        ttl: Duration,
    ) -> bool {
        let Some(record) = &found.former else { return false };
        let mxc = media_record::decode_known(record, None).ok().and_then(|known| known.mxc);
        let mxc = mxc.and_then(|mxc| MediaId::from_mxc(&mxc).ok());
        // Without its reference, operators could not have the entry forgotten.
        let Some(mxc) = mxc.filter(|_| self.use_state.lock().is_in_use()) else { return false };
        self.store.put(self.names().media(key), expiry(ttl.saturating_sub(found.age)), record);
        self.add_reference(key, &found.media, &mxc, ttl);
        true
    }
}

/// Merges infections in the same content.
fn merge(first: FoundOutcome, other: &FoundOutcome) -> FoundOutcome {
    FoundOutcome {
        outcome: first.outcome.merged_with(&other.outcome),
        age: first.age.min(other.age),
        versions: first.versions.filter(|versions| other.versions == Some(*versions)),
        scanned_by: first.scanned_by.filter(|tag| other.scanned_by == Some(*tag)),
        is_infection: true,
        is_former: first.is_former || other.is_former,
    }
}
