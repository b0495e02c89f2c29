//! The verdict on a fetched body: cached, from a scan in progress, or from a run of the engines.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use mcs_filetype::{MediaType, MimeRules};
use tokio::time::timeout_at;

use super::{Fetched, Pipeline, RunningJob};
use crate::scan::{
    cache::{CacheGeneration, ContentKey, ScannedContent, turn::ScanTurn},
    engines::{EngineIdentity, EngineRun, FileOutcome, HASHES, ListedFile, RunOutcome},
    error::{Phase, ScanError},
    infection::Infection,
    report::{EngineRunReport, PlainMedia},
    verdict::{NotCleanKind, Verdict},
    work_dir::WorkDir,
};

impl Pipeline {
    /// Determines the verdict on a fetched body. Returns the report of the run of the engines, if this job ran them.
    pub(super) async fn scan(
        &self,
        running: &mut RunningJob,
        fetched: &Fetched,
    ) -> (ScannedContent, Option<EngineRunReport>) {
        let lists = &self.context.settings.mime;
        if let Some(detected) = fetched.detected.clone().filter(|d| !lists.allows(d.as_str())) {
            return (forbidden(detected), None);
        }
        let listed = self.listed(&fetched.content);
        let lacks_type = *lists != MimeRules::All && fetched.detected.is_none();
        if let Some(listed) =
            listed.as_ref().filter(|listed| **listed != ListedFile::Allowed || !lacks_type)
        {
            let detected = fetched.detected.clone();
            let infection = self.listed_infection(&fetched.content);
            return (ScannedContent { detected, verdict: Ok(listed.verdict()), infection }, None);
        }
        let (mut scanned, report) = self.scan_unlisted(running, fetched).await;
        // An operator may have decided about the file during the scan.
        match (self.listed(&fetched.content), &scanned.detected) {
            (Some(listed @ ListedFile::Blocked(_)), _) => {
                scanned.verdict = Ok(listed.verdict());
                scanned.infection = self.listed_infection(&fetched.content);
            }
            // The file had to be inspected for the lists of types, which apply to allowed files as well.
            (Some(listed @ ListedFile::Allowed), Some(_))
                if !matches!(scanned.verdict, Ok(Verdict::TypeForbidden { .. })) =>
            {
                scanned.verdict = Ok(listed.verdict());
            }
            _ => {}
        }
        (scanned, report)
    }

    /// Returns the malware that a content is by the lists of hashes. Decisions of operators are none, because operators know
    /// of their own ones.
    fn listed_infection(&self, content: &[u8; 32]) -> Option<Arc<Infection>> {
        match self.context.engines.listed(content)? {
            ListedFile::Blocked(finding) => {
                Some(Arc::new(Infection { engine: HASHES, finding, location: None }))
            }
            ListedFile::Allowed => None,
        }
    }

    /// Reports plain media with the result of its scan to the observer, and waits until the observer has recorded it.
    pub(super) async fn report_plain_media(
        &self,
        running: &RunningJob,
        fetched: &Fetched,
        scanned: &ScannedContent,
    ) {
        let request = &running.job.request;
        let Some(observer) = &self.plain_media_observer else { return };
        // The body may be from a login page.
        if request.decryption.is_some() || !fetched.is_granted {
            return;
        }
        let kind = scanned.verdict.as_ref().ok().and_then(Verdict::not_clean_kind);
        let is_infected = kind == Some(NotCleanKind::Infected);
        let recorded = observer(&PlainMedia {
            request,
            content: &fetched.content,
            headers: &fetched.headers,
            infection: scanned.infection.as_deref().filter(|_| is_infected),
        });
        if let Some(recorded) = recorded {
            recorded.await;
        }
    }

    /// Reports an infection that a run of the engines has found, before the outcome is stored.
    async fn report_run(&self, running: &RunningJob, fetched: &Fetched, run: &EngineRun) {
        if let RunOutcome::Scanned(outcome) = &run.outcome
            && outcome.is_infected()
            && self.listed(&fetched.content) != Some(ListedFile::Allowed)
        {
            self.report_plain_media(running, fetched, &self.decided(outcome)).await;
            // A second report would count the incident twice if the outbox is full.
            running.has_reported.store(true, Ordering::Relaxed);
        }
    }

    async fn scan_unlisted(
        &self,
        running: &mut RunningJob,
        fetched: &Fetched,
    ) -> (ScannedContent, Option<EngineRunReport>) {
        let start = Instant::now();
        running.job.progress.scanning();
        let scanned = if let Some(identity) = self.context.engines.identity().await {
            self.scan_once(running, fetched, &identity).await
        } else {
            // The script's file cannot be examined. Running the script yields an error that names the cause. Nothing is
            // cached, because there is no cache key without an identity.
            let deadline = running.job.deadline.into();
            match timeout_at(deadline, self.run_engines(running, fetched)).await {
                Ok((run, report)) => (self.scanned(run), report),
                Err(_elapsed) => (failed(Arc::new(ScanError::Deadline(Phase::Scanning))), None),
            }
        };
        running.timings.scan = Some(start.elapsed());
        scanned
    }

    /// Takes the verdict from the cache, from a scan of the same content in progress, or from a new scan, whose result
    /// is cached.
    async fn scan_once(
        &self,
        running: &mut RunningJob,
        fetched: &Fetched,
        identity: &EngineIdentity,
    ) -> (ScannedContent, Option<EngineRunReport>) {
        let key = ContentKey {
            content: fetched.content,
            engines_fingerprint: identity.engines_fingerprint,
        };
        let (start, deadline, generation) =
            (Instant::now(), running.job.deadline, running.generation);
        // A request after a forget shares no scan that began before.
        let forgets = self.cache.forgets_of(&key.content, running.job.key.tag());
        let mut report = None;
        let scan = async {
            let look_up = || self.known_scan(&key, identity.versions);
            if let Some(scanned) = look_up().await {
                return scanned;
            }
            let lease = match self.cache.turn(&key, identity.versions, look_up).await {
                ScanTurn::Known(scanned) => return scanned,
                ScanTurn::Scan(lease) => lease,
            };
            let started = SystemTime::now();
            let mut run;
            (run, report) = self.run_engines(running, fetched).await;
            if let RunOutcome::Scanned(outcome) = &mut run.outcome {
                // What operators have had forgotten meanwhile, at any replica, is not valid.
                outcome.scanned = started;
            }
            self.report_run(running, fetched, &run).await;
            let scanned = self.cache_run(key, identity, generation, run).await;
            if let Some(lease) = lease {
                lease.release().await;
            }
            scanned
        };
        // The scan of another tenant may lack space that this tenant has.
        let accepts = |scanned: &ScannedContent, _| {
            scanned.verdict.as_ref().err().is_none_or(|error| !error.is_tenant_specific())
        };
        let scan_key = (key, identity.versions, forgets);
        let shared = self.scans.run(scan_key, accepts, scan);
        let scanned = timeout_at(deadline.into(), shared).await.unwrap_or_else(|_elapsed| {
            let error = Arc::new(ScanError::Deadline(Phase::Scanning));
            // Another scan of this content would most likely time out as well. This does not hold if a slow download
            // took most of the time: its failure must not be shared with other media that has the same bytes.
            if start.elapsed() > self.context.settings.deadline / 2 {
                self.cache.store_failure(key, Arc::clone(&error));
            }
            failed(error)
        });
        (scanned, report)
    }

    /// Caches the outcome of a run of the engines and returns the verdict. A forbidden type is not cached with the content,
    /// because the lists may change: the entry of the media has the type.
    async fn cache_run(
        &self,
        key: ContentKey,
        identity: &EngineIdentity,
        generation: CacheGeneration,
        run: EngineRun,
    ) -> ScannedContent {
        let policies = self.context.engines.policies();
        // Caches the result of a run, even a failure: either the content caused the failure, or an immediate retry
        // would fail again. A failure before the run, such as a full disk, is not cached.
        let is_cacheable = run.matches_identity(identity);
        let outcome = match run.outcome {
            RunOutcome::Scanned(outcome) => outcome,
            RunOutcome::Forbidden(detected) => return forbidden(detected),
            RunOutcome::Prevented(error) => return failed(Arc::new(error)),
        };
        let scanned = self.decided(&outcome);
        let is_overload = scanned.verdict.as_ref().is_err_and(|error| error.is_overload());
        if is_cacheable && !is_overload {
            let stored =
                self.cache.store_outcome(key, *outcome, identity.versions, policies, generation);
            if let Some(infected) = stored.await {
                return infected;
            }
        }
        scanned
    }

    /// Returns the result of a scan with this outcome.
    fn decided(&self, outcome: &FileOutcome) -> ScannedContent {
        ScannedContent::new(outcome, self.context.engines.policies())
    }

    fn scanned(&self, run: EngineRun) -> ScannedContent {
        match run.outcome {
            RunOutcome::Scanned(outcome) => self.decided(&outcome),
            RunOutcome::Forbidden(detected) => forbidden(detected),
            RunOutcome::Prevented(error) => failed(Arc::new(error)),
        }
    }

    /// Runs the engines on the plaintext. Returns no report if they were not started, or the type is forbidden.
    async fn run_engines(
        &self,
        running: &mut RunningJob,
        fetched: &Fetched,
    ) -> (EngineRun, Option<EngineRunReport>) {
        let mut run = match self.run_on_plaintext(running, fetched).await {
            Ok(run) => run,
            Err(error) => return (EngineRun::prevented(error), None),
        };
        let RunOutcome::Scanned(outcome) = &run.outcome else { return (run, None) };
        let decision = self.context.engines.policies().decide(outcome);
        let verdict_details =
            decision.verdict.is_ok().then_some((decision.exit_code, decision.first_line));
        let report = EngineRunReport {
            results: std::mem::take(&mut run.results),
            script_duration: run.script_duration(),
            verdict_details,
        };
        // An engine may have changed during the run, and have scanned the file in a way that the canary has not tested.
        if !self.is_ready() || !self.cache.is_current(running.generation) {
            return (EngineRun::prevented(ScanError::NotReady), Some(report));
        }
        (run, Some(report))
    }

    async fn run_on_plaintext(
        &self,
        running: &mut RunningJob,
        fetched: &Fetched,
    ) -> Result<EngineRun, ScanError> {
        if !self.is_ready() || !self.cache.is_current(running.generation) {
            return Err(ScanError::NotReady);
        }
        if running.work_dir.is_none() {
            // The verdict was cached when the download started, and has expired since.
            self.rewrite_plaintext(running, fetched.body.as_ref()).await?;
        }
        let sample = running.work_dir.as_mut().and_then(WorkDir::sample_access);
        let sample = sample.ok_or(ScanError::Stopping)?;
        let lists = &self.context.settings.mime;
        Ok(Box::pin(self.context.engines.scan(sample, lists)).await)
    }
}

fn forbidden(detected: MediaType) -> ScannedContent {
    let verdict = Ok(Verdict::TypeForbidden { detected: detected.clone() });
    ScannedContent { detected: Some(detected), verdict, infection: None }
}

fn failed(error: Arc<ScanError>) -> ScannedContent {
    ScannedContent { detected: None, verdict: Err(error), infection: None }
}
