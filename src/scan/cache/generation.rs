//! Invalidation of all verdicts, and of what operators had forgotten. A scan that began before must not store its result
//! afterwards.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::Mutex;

use super::keys::{MediaKey, MediaTag};

/// Maximum number of forgotten contents and media that are remembered. With more, results of all scans that began before
/// the oldest of them are not stored.
const MAX_FORGOTTEN: usize = 4096;

/// State of the cache at the start of a scan. Changes when verdicts are invalidated.
#[derive(Clone, Copy, Debug)]
pub struct CacheGeneration {
    /// Number of invalidations of all verdicts.
    invalidations: u64,
    /// Number of contents and media that had been forgotten.
    forgets: u64,
    /// The scanned media.
    media: Option<MediaTag>,
}

impl CacheGeneration {
    /// Returns the generation for a scan of media.
    #[must_use]
    pub fn for_media(self, key: &MediaKey) -> Self {
        Self { media: Some(key.tag()), ..self }
    }
}

/// What operators can have forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Subject {
    Content([u8; 32]),
    Media(MediaTag),
}

/// Counts invalidations.
#[derive(Default, Debug)]
pub(super) struct Invalidations {
    all: AtomicU64,
    forgets: AtomicU64,
    /// Number of changes by other replicas that were applied.
    changes: AtomicU64,
    forgotten: Mutex<ForgottenSubjects>,
}

#[derive(Default, Debug)]
struct ForgottenSubjects {
    /// By subject: the number of forgets up to this one, and the time.
    entries: HashMap<Subject, (u64, SystemTime)>,
    /// Results of scans that began with fewer forgets are not stored.
    floor: u64,
    /// Number of forgets up to the last one of a content.
    last_content: u64,
}

impl Invalidations {
    /// Returns the current generation.
    pub(super) fn current(&self) -> CacheGeneration {
        let forgets = self.forgets.load(Ordering::SeqCst);
        CacheGeneration { invalidations: self.all.load(Ordering::SeqCst), forgets, media: None }
    }

    /// Records that something in memory may have become invalid by another replica. Called before it is removed.
    pub(super) fn add_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of changes by other replicas.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Invalidates all verdicts.
    pub(super) fn invalidate_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns whether no invalidation of all verdicts has happened since.
    pub(super) fn is_current(&self, generation: CacheGeneration) -> bool {
        self.all.load(Ordering::SeqCst) == generation.invalidations
    }

    /// Invalidates the results of scans in progress.
    pub(super) fn forget(&self, subject: Subject, now: SystemTime) {
        let mut forgotten = self.forgotten.lock();
        let number = self.forgets.fetch_add(1, Ordering::SeqCst) + 1;
        forgotten.entries.insert(subject, (number, now));
        if matches!(subject, Subject::Content(_)) {
            forgotten.last_content = number;
        }
        if forgotten.entries.len() > MAX_FORGOTTEN {
            let oldest = forgotten.entries.iter().min_by_key(|(_, (number, _))| *number);
            if let Some((&subject, &(number, _))) = oldest {
                forgotten.entries.remove(&subject);
                forgotten.floor = number;
            }
        }
    }

    /// Returns whether the result for a content may be stored by a scan that began at a generation.
    pub(super) fn keeps_content(&self, generation: CacheGeneration, content: &[u8; 32]) -> bool {
        self.is_current(generation) && self.keeps(generation, Some(Subject::Content(*content)))
    }

    /// Returns whether the media entry may be stored by a scan that began at a generation.
    pub(super) fn keeps_media(&self, generation: CacheGeneration) -> bool {
        self.keeps(generation, None)
    }

    fn keeps(&self, generation: CacheGeneration, content: Option<Subject>) -> bool {
        // Nearly always.
        if self.forgets.load(Ordering::SeqCst) == generation.forgets {
            return true;
        }
        let forgotten = self.forgotten.lock();
        let media = generation.media.map(Subject::Media);
        let is_kept = |subject: &Subject| {
            let entry = forgotten.entries.get(subject);
            entry.is_none_or(|(number, _)| *number <= generation.forgets)
        };
        generation.forgets >= forgotten.floor && [content, media].iter().flatten().all(is_kept)
    }

    /// Returns whether a job that began at a generation may answer requests that arrive now: neither its media nor its content
    /// has been forgotten since. Its content is not known yet, so this ends when any content is forgotten.
    pub(super) fn may_be_joined(&self, generation: CacheGeneration) -> bool {
        self.is_current(generation)
            && self.keeps_media(generation)
            && self.forgotten.lock().last_content <= generation.forgets
    }

    /// Returns a number that changes when operators have this content of this media, or the media, forgotten.
    pub(super) fn forgets_of(&self, content: &[u8; 32], media: MediaTag) -> u64 {
        if self.forgets.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        let forgotten = self.forgotten.lock();
        let subjects = [Subject::Content(*content), Subject::Media(media)];
        let entries = subjects.iter().filter_map(|subject| forgotten.entries.get(subject));
        entries.map(|(number, _)| *number).max().unwrap_or(forgotten.floor)
    }

    /// Returns when operators had a content forgotten for the last time, as far as it is remembered.
    pub(super) fn forgotten_at(&self, content: &[u8; 32]) -> Option<SystemTime> {
        if self.forgets.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let forgotten = self.forgotten.lock();
        forgotten.entries.get(&Subject::Content(*content)).map(|(_, time)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: u16) -> [u8; 32] {
        let mut content = [0; 32];
        content[..2].copy_from_slice(&number.to_le_bytes());
        content
    }

    #[test]
    fn results_of_scans_that_began_before_are_not_kept() {
        let invalidations = Invalidations::default();
        let before = invalidations.current();
        invalidations.forget(Subject::Content(content(1)), SystemTime::UNIX_EPOCH);
        assert!(!invalidations.keeps_content(before, &content(1)));
        assert!(invalidations.keeps_content(before, &content(2)));
        assert!(invalidations.keeps_content(invalidations.current(), &content(1)));
        assert!(invalidations.is_current(before));
        assert_eq!(invalidations.forgotten_at(&content(1)), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(invalidations.forgotten_at(&content(2)), None);
        let (media, other) = (MediaKey::from_digest([1; 32]), MediaKey::from_digest([2; 32]));
        let before = invalidations.current();
        invalidations.forget(Subject::Media(media.tag()), SystemTime::UNIX_EPOCH);
        assert!(!invalidations.keeps_content(before.for_media(&media), &content(2)));
        assert!(!invalidations.keeps_media(before.for_media(&media)));
        assert!(invalidations.keeps_media(before.for_media(&other)));
        invalidations.invalidate_all();
        assert!(!invalidations.keeps_content(before, &content(3)));
    }

    #[test]
    fn jobs_that_began_before_are_not_joined() {
        let invalidations = Invalidations::default();
        let (media, other) = (MediaKey::from_digest([1; 32]), MediaKey::from_digest([2; 32]));
        let before = invalidations.current();
        invalidations.forget(Subject::Media(media.tag()), SystemTime::UNIX_EPOCH);
        assert!(!invalidations.may_be_joined(before.for_media(&media)));
        assert!(invalidations.may_be_joined(before.for_media(&other)));
        assert!(invalidations.may_be_joined(invalidations.current().for_media(&media)));
        let [media_tag, other_tag] = [media, other].map(|key| key.tag());
        assert_eq!(invalidations.forgets_of(&content(1), other_tag), 0);
        assert_eq!(invalidations.forgets_of(&content(1), media_tag), 1);
        invalidations.forget(Subject::Content(content(1)), SystemTime::UNIX_EPOCH);
        assert!(!invalidations.may_be_joined(before.for_media(&other)), "of any content");
        assert!(invalidations.may_be_joined(invalidations.current().for_media(&media)));
        let first = invalidations.forgets_of(&content(1), other_tag);
        invalidations.forget(Subject::Content(content(1)), SystemTime::UNIX_EPOCH);
        assert_ne!(invalidations.forgets_of(&content(1), other_tag), first);
        assert_eq!(invalidations.forgets_of(&content(2), other_tag), 0);
        let before = invalidations.current();
        invalidations.invalidate_all();
        assert!(!invalidations.may_be_joined(before));
    }

    #[test]
    fn number_of_remembered_subjects_is_bounded() {
        let invalidations = Invalidations::default();
        let before = invalidations.current();
        for number in 0..5000 {
            invalidations.forget(Subject::Content(content(number)), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(invalidations.forgotten.lock().entries.len(), MAX_FORGOTTEN);
        assert!(!invalidations.keeps_content(before, &content(6000)), "began before");
        let now = invalidations.current();
        assert!((0..6000).all(|number| invalidations.keeps_content(now, &content(number))));
    }
}
