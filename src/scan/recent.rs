//! The latest verdicts, and counts of each minute, for operators. In memory only, and bounded.

mod minutes;

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

pub use minutes::{DurationCounts, MinuteCounts};

use super::{
    cached_media::CachedMedia, error::ScanError, report::JobReport, request::ScanRequest,
    verdict::Verdict,
};
use crate::{
    media::{MediaId, Variant},
    tenancy::{Tenant, TenantName, TenantNames},
    text::single_line,
};
use minutes::Minutes;

/// Maximum number of verdicts that are kept.
pub const MAX_SCANS: usize = 500;

/// Maximum length of a finding that is kept, bytes.
const MAX_FINDING: usize = 300;

/// Outcome of a job without a verdict.
pub const FAILED: &str = "failed";

/// A verdict, or a job that failed without one. Contains no file name and no requester: the audit log records requesters only
/// if that is configured, and file names never.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecentScan {
    pub time: SystemTime,
    pub media: MediaId,
    pub is_thumbnail: bool,
    pub is_encrypted: bool,
    /// SHA-256 of the plaintext; `None` if the download failed.
    pub content: Option<[u8; 32]>,
    pub size: Option<u64>,
    /// "clean", "`type_forbidden`", the name of a [`NotCleanKind`](super::verdict::NotCleanKind), or [`FAILED`].
    pub outcome: &'static str,
    /// The finding, the forbidden type, or the cause of a failure.
    pub finding: Option<String>,
    /// The engine that found it, if the engines ran for this job.
    pub engine: Option<&'static str>,
    /// From the acceptance of the job to its end; `None` for an answer from memory.
    pub duration: Option<Duration>,
    pub(crate) tenant: TenantName,
    pub source: ScanSource,
}

/// Where a verdict comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanSource {
    /// The engines ran.
    Scan,
    /// The media was downloaded, and the verdict on its content was known.
    KnownVerdict,
    /// Everything was in memory.
    Memory,
}

impl ScanSource {
    /// Returns the name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::KnownVerdict => "verdict",
            Self::Memory => "memory",
        }
    }
}

/// Jobs of one tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantLoad {
    pub(crate) tenant: TenantName,
    pub waiting: usize,
    pub running: usize,
}

/// The latest verdicts and the counts of the latest minutes. Answers from memory are listed only if they refuse the media:
/// they may be thousands in a second.
#[derive(Debug)]
pub struct RecentScans {
    names: TenantNames,
    scans: Mutex<VecDeque<RecentScan>>,
    minutes: Mutex<Minutes>,
}

impl Default for RecentScans {
    fn default() -> Self {
        Self {
            names: TenantNames::default(),
            scans: Mutex::default(),
            minutes: Mutex::new(Minutes::new(Instant::now())),
        }
    }
}

impl RecentScans {
    /// Returns the scans for which `matches` is true, the latest first, at most `limit`.
    #[must_use]
    pub fn latest(&self, limit: usize, matches: impl Fn(&RecentScan) -> bool) -> Vec<RecentScan> {
        let scans = self.scans.lock();
        scans.iter().rev().filter(|scan| matches(scan)).take(limit).cloned().collect()
    }

    /// Returns the counts of the latest minutes, the current one last.
    #[must_use]
    pub fn minutes(&self) -> Vec<MinuteCounts> {
        self.minutes.lock().list(Instant::now())
    }

    /// Adds the current load to the counts of the minute.
    pub fn sample(&self, waiting: usize, busy: usize) {
        self.minutes.lock().current(Instant::now()).sample(waiting, busy);
    }

    pub(super) fn tenant_name(&self, tenant: &Tenant) -> TenantName {
        self.names.name(tenant)
    }

    /// Records a finished job. Failures that requesters or homeservers cause are not recorded, unless they are the result
    /// for a downloaded file.
    pub(super) fn record_job(&self, report: &JobReport<'_>) {
        let duration = [report.timings.queue, report.timings.download, report.timings.scan];
        let duration = Some(duration.into_iter().flatten().sum());
        let source = if report.run.is_some() { ScanSource::Scan } else { ScanSource::KnownVerdict };
        let recorded = match report.outcome {
            Ok(outcome) => match &outcome.verdict {
                Ok(verdict) => self.scan(report.request, Some(&outcome.media), Ok(verdict)),
                Err(error) => self.scan(report.request, Some(&outcome.media), Err(error)),
            },
            Err(error) if error.cause().is_server_fault() => {
                self.scan(report.request, None, Err(error))
            }
            Err(_) => return,
        };
        let results = report.run.iter().flat_map(|run| &run.results);
        let mut decisive = results.filter(|result| !result.is_observed);
        let found = decisive.find(|result| result.summary.result == recorded.outcome);
        let engine = found.map(|result| result.summary.engine);
        let engine = engine.filter(|_| recorded.outcome != "clean");
        self.record(RecentScan { engine, duration, source, ..recorded });
    }

    /// Records an answer from memory.
    pub(super) fn record_answer(
        &self,
        request: &ScanRequest,
        media: &CachedMedia,
        verdict: &Verdict,
    ) {
        match verdict {
            Verdict::Clean { .. } => {
                let mut minutes = self.minutes.lock();
                let counts = minutes.current(Instant::now());
                counts.from_memory = counts.from_memory.saturating_add(1);
            }
            _ => self.record(self.scan(request, Some(media), Ok(verdict))),
        }
    }

    fn scan(
        &self,
        request: &ScanRequest,
        media: Option<&CachedMedia>,
        verdict: Result<&Verdict, &ScanError>,
    ) -> RecentScan {
        let (outcome, finding) = match verdict {
            Ok(Verdict::Clean { .. }) => ("clean", None),
            Ok(Verdict::NotClean { kind, output }) => (kind.name(), Some(output.to_string())),
            Ok(verdict @ Verdict::TypeForbidden { detected }) => {
                (verdict.name(), Some(detected.to_string()))
            }
            Err(error) => (FAILED, Some(error.cause().as_str().to_owned())),
        };
        let fetch = &request.fetch;
        RecentScan {
            time: SystemTime::now(),
            media: fetch.media.clone(),
            is_thumbnail: fetch.variant != Variant::Original,
            is_encrypted: request.decryption.is_some(),
            content: media.map(|media| media.content),
            size: media.map(|media| media.size),
            outcome,
            finding: finding.map(|finding| single_line(&finding, MAX_FINDING)),
            engine: None,
            duration: None,
            tenant: self.names.name(&fetch.requester.tenant.tenant),
            source: ScanSource::Memory,
        }
    }

    fn record(&self, scan: RecentScan) {
        let is_clean = (scan.outcome != FAILED).then_some(scan.outcome == "clean");
        self.minutes.lock().current(Instant::now()).count(is_clean, scan.duration);
        let mut scans = self.scans.lock();
        if scans.len() == MAX_SCANS {
            scans.pop_front();
        }
        scans.push_back(scan);
    }
}

#[cfg(test)]
mod tests;
