//! Entries of the tables in memory, and their weights.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use mcs_filetype::MediaType;
use quick_cache::Weighter;

use super::keys::{ContentKey, MediaKey};
use crate::scan::{
    cached_media::CachedMedia,
    engines::{CleanRun, EngineSummary, FileOutcome, Policies, Validity, Versions},
    error::ScanError,
    infection::Infection,
    verdict::Verdict,
};

/// What a scan determined about a content.
#[derive(Clone, Debug)]
pub struct ScannedContent {
    /// The type; `None` if types were not determined, or the scan failed.
    pub detected: Option<MediaType>,
    /// The verdict of the engines, without the lists of types.
    pub verdict: CachedVerdict,
    /// The malware that was found and is not only observed; `None` if an engine did not finish.
    pub infection: Option<Arc<Infection>>,
}

impl ScannedContent {
    /// Applies the policies to an outcome.
    #[must_use]
    pub fn new(outcome: &FileOutcome, policies: &Policies) -> Self {
        Self {
            detected: outcome.detected.clone(),
            verdict: policies.decide(outcome).verdict,
            infection: policies.infection(outcome).map(Arc::new),
        }
    }
}

/// Result of the scan of a content: a verdict, or a failure. A failure is shared by all requests within a few seconds,
/// so that the retries of clients do not run the engines again and again.
pub type CachedVerdict = Result<Verdict, Arc<ScanError>>;

/// A value and the time at which it was stored. The reader's settings determine how long it is valid.
#[derive(Clone, Debug)]
pub(super) struct Timed<T> {
    pub(super) value: T,
    pub(super) stored: Instant,
}

impl<T> Timed<T> {
    pub(super) fn now(value: T) -> Self {
        Self { value, stored: Instant::now() }
    }
}

/// Result of a scan, with the facts that its validity depends on.
#[derive(Clone, Debug)]
pub(super) enum VerdictEntry {
    /// All engines finished and found nothing. Nearly all entries, so without an allocation of their own.
    Clean {
        scanned: SystemTime,
        detected: Option<MediaType>,
        exit_code: Option<i32>,
        run: CleanRun,
        versions: Versions,
    },
    /// Any other outcome of the engines, which the policies in force at the time of reading are applied to. The versions are
    /// absent if it is from a store and other engines determined it.
    Outcome(Arc<(FileOutcome, Option<Versions>)>),
    /// A failure of the whole scan.
    Failure(Arc<ScanError>),
}

impl VerdictEntry {
    pub(super) fn new(outcome: FileOutcome, versions: Option<Versions>) -> Self {
        if let Some(versions) = versions
            && outcome.is_clean()
        {
            let (exit_code, run) = (outcome.clean_exit_code(), CleanRun::new(outcome.results()));
            let FileOutcome { scanned, detected, .. } = outcome;
            return Self::Clean { scanned, detected, exit_code, run, versions };
        }
        Self::Outcome(Arc::new((outcome.without_lines(), versions)))
    }

    /// Returns the approximate memory outside of the entry itself, bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Self::Clean { .. } => 0,
            // With two reference counts.
            Self::Outcome(entry) => {
                size_of_val(&**entry) + 2 * size_of::<usize>() + entry.0.allocated_bytes()
            }
            Self::Failure(_) => FAILURE_BYTES,
        }
    }

    /// Returns the start of the scan; `None` for a failure.
    pub(super) fn scanned(&self) -> Option<SystemTime> {
        match self {
            Self::Clean { scanned, .. } => Some(*scanned),
            Self::Outcome(entry) => Some(entry.0.scanned),
            Self::Failure(_) => None,
        }
    }

    /// Returns the engine with the most severe finding.
    pub(super) fn finding_engine(&self) -> Option<&'static str> {
        match self {
            Self::Outcome(entry) => entry.0.finding_engine(),
            Self::Clean { .. } | Self::Failure(_) => None,
        }
    }

    /// Returns the results of the engines.
    pub(super) fn results(&self) -> Vec<EngineSummary> {
        match self {
            Self::Clean { run, .. } => run.results(),
            Self::Outcome(entry) => entry.0.results().to_vec(),
            Self::Failure(_) => Vec::new(),
        }
    }

    /// Returns the malware that was found and is not only observed, if all engines finished.
    pub(super) fn infection(&self, policies: &Policies) -> Option<Infection> {
        match self {
            Self::Outcome(entry) => policies.infection(&entry.0),
            Self::Clean { .. } | Self::Failure(_) => None,
        }
    }

    /// Returns the type of the content.
    pub(super) fn detected(&self) -> Option<&MediaType> {
        match self {
            Self::Clean { detected, .. } => detected.as_ref(),
            Self::Outcome(entry) => entry.0.detected.as_ref(),
            Self::Failure(_) => None,
        }
    }

    /// Applies the policies. Returns the verdict, its validity, the script's exit code, and the versions of the engines.
    pub(super) fn decide(
        &self,
        policies: &Policies,
    ) -> (CachedVerdict, Validity, Option<i32>, Option<Versions>) {
        let (decision, versions) = match self {
            Self::Clean { scanned, exit_code, versions, .. } => {
                (policies.decide(&FileOutcome::clean(*scanned, *exit_code)), Some(*versions))
            }
            Self::Outcome(entry) => (policies.decide(&entry.0), entry.1),
            Self::Failure(error) => return (Err(Arc::clone(error)), Validity::Failure, None, None),
        };
        (decision.verdict, decision.validity, decision.exit_code, versions)
    }
}

/// Weighs media entries and verdicts by their memory. An entry of typical size weighs [`ENTRY_WEIGHT`], so
/// `result_cache.max_size` limits both the number of entries and their bytes: larger entries leave room for fewer.
#[derive(Clone, Debug)]
pub(super) struct WeighEntry;

/// Minimum weight of a media entry or verdict, and the average up to which `result_cache.max_size` entries fit, bytes.
pub const ENTRY_WEIGHT: u64 = 768;

/// Memory of an entry in a table, bytes: key, value, list and hash slots, free slots, entries that were evicted
/// recently, and the allocator's overhead.
const TABLE_OVERHEAD: usize = 192;

/// Memory of a cached failure, bytes. Its texts are bounded where they are received.
const FAILURE_BYTES: usize = 1024;

fn entry_weight(allocated: usize) -> u64 {
    ((allocated + TABLE_OVERHEAD) as u64).max(ENTRY_WEIGHT)
}

impl Weighter<MediaKey, Timed<Arc<CachedMedia>>> for WeighEntry {
    fn weight(&self, _: &MediaKey, entry: &Timed<Arc<CachedMedia>>) -> u64 {
        entry_weight(entry.value.allocated_bytes())
    }
}

impl Weighter<ContentKey, Timed<VerdictEntry>> for WeighEntry {
    fn weight(&self, _: &ContentKey, entry: &Timed<VerdictEntry>) -> u64 {
        entry_weight(entry.value.allocated_bytes())
    }
}
