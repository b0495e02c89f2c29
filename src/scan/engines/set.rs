//! The configured engines together.

use std::sync::Arc;

use futures_util::future::join_all;
use mcs_evaluator::{EvaluatorTask, HashListSet};
use mcs_filetype::MimeRules;
use mcs_sandbox::{Job, Sandbox};

use super::{
    bounds::SkipPolicy,
    combine::combine,
    engine::{Engine, EngineKind, RemoteEngine},
    error::EngineSetupError,
    examination::{Evaluated, Examination, Examiner, FileInspection, untyped},
    fingerprint::{self, FingerprintHasher},
    hashes::ListedFile,
    identity::{EngineFingerprint, EngineIdentity, Versions},
    names::{CLAMD, HASHES, ICAP, INSPECTION, RULES, SCRIPT},
    policies::Policies,
    remote::RemoteEngines,
    resident::{Evaluator, EvaluatorEnv},
    result::EngineResult,
    run::{EngineRun, RunOutcome},
    sample::{Sample, SampleAccess},
    script::Script,
    settings::EngineSettings,
    slots::ScanSlots,
    summary::{EngineSummary, FAILED},
};
use crate::{
    scan::{error::ScanError, settings::Settings},
    tenancy::TenantGroup,
};

/// The configured engines. A file is clean only if all of them agree.
#[derive(Debug)]
pub struct Engines {
    members: Vec<Engine>,
    /// Examines each file under any set of engines.
    examiner: Examiner,
    /// Apply to whole media files; `None` unless the lists of hashes are an engine.
    hashes: Option<HashListSet>,
    scan_slots: ScanSlots,
    /// Keeps [`RemoteEngines::poll_versions`] running.
    remote: Arc<RemoteEngines>,
    /// Fingerprint of the engines and their settings, except those of the script.
    conditions: [u8; 32],
    max_output: usize,
    policies: Policies,
}

impl Engines {
    /// Creates the engines. Programs run in `sandbox`.
    ///
    /// # Errors
    /// [`EngineSetupError::Missing`]: an engine that cannot run must not be dropped silently.
    pub fn new(
        settings: &Settings,
        sandbox: &Sandbox,
        evaluator: &EvaluatorEnv,
        scan_slots: &ScanSlots,
        remote_engines: &Arc<RemoteEngines>,
    ) -> Result<Self, EngineSetupError> {
        let engine = |engine: &EngineSettings| {
            let (kind, bounds) = match engine {
                EngineSettings::Script(bounds) => {
                    let program = require(SCRIPT, settings.script.as_deref())?;
                    let script = Script::new(program, settings, sandbox, scan_slots.clone());
                    (EngineKind::Script(Arc::new(script)), bounds)
                }
                EngineSettings::Rules(rules) => {
                    let has_rules = evaluator.evaluator.has_rules();
                    require(RULES, has_rules.then_some(()))?;
                    (EngineKind::Rules, &rules.bounds)
                }
                EngineSettings::Hashes(_) => {
                    require(HASHES, evaluator.evaluator.hashes())?;
                    (EngineKind::Hashes, engine.bounds())
                }
                EngineSettings::Clamd(clamd) => {
                    let engine = Arc::clone(require(CLAMD, remote_engines.clamd.as_ref())?);
                    (EngineKind::Remote(RemoteEngine::Clamd(engine)), &clamd.bounds)
                }
                EngineSettings::Icap(icap) => {
                    let engine = Arc::clone(require(ICAP, remote_engines.icap.as_ref())?);
                    (EngineKind::Remote(RemoteEngine::Icap(engine)), &icap.bounds)
                }
            };
            Ok(Engine { kind, bounds: bounds.clone() })
        };
        let members =
            settings.engines.iter().map(engine).collect::<Result<Vec<_>, EngineSetupError>>()?;
        let bounds = members.iter().map(|engine| (engine.name(), &engine.bounds));
        // The files in slots, as many demoted files, and the files of two canaries.
        let jobs = settings.max_scripts.saturating_mul(2).saturating_add(2);
        let resident = Evaluator::resident(evaluator, settings, jobs);
        Ok(Self {
            policies: Policies::new(settings, bounds),
            members,
            examiner: Examiner::new(resident, scan_slots.clone()),
            hashes: settings.hashes().map(|hashes| hashes.lists.set.clone()),
            scan_slots: scan_slots.clone(),
            remote: Arc::clone(remote_engines),
            conditions: fingerprint::of_settings(settings),
            max_output: settings.max_output_size,
        })
    }

    /// Returns the names of the engines in the configured order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(Engine::name)
    }

    /// Returns whether failures of this engine are skipped.
    #[must_use]
    pub fn may_fail(&self, name: &str) -> bool {
        self.policies.on_failure(name) == SkipPolicy::Skip
    }

    /// Returns a set with this engine only, for the canary. Its policies leave each verdict to the engine, because the
    /// canary tests what the engine finds: a refusal of encrypted contents, for example, would hide an engine that finds
    /// nothing in a sample that is an encrypted archive.
    #[must_use]
    pub fn with_only(&self, name: &str) -> Self {
        let members = self.members.iter().filter(|engine| engine.name() == name);
        Self {
            members: members.cloned().collect(),
            examiner: self.examiner.clone(),
            // Not tested: no list has entries for the samples.
            hashes: None,
            scan_slots: self.scan_slots.clone(),
            remote: Arc::clone(&self.remote),
            conditions: self.conditions,
            max_output: self.max_output,
            policies: self.policies.for_canary(),
        }
    }

    /// Returns the entry in the lists of hashes for the content with this SHA-256. It has precedence over what the engines
    /// find, and applies when a request is answered.
    #[must_use]
    pub fn listed(&self, sha256: &[u8; 32]) -> Option<ListedFile> {
        let listed = ListedFile::find(self.hashes.as_ref()?, sha256)?;
        // An entry that is only observed is a finding of the scan.
        let is_observed = self.policies.observed().observes(HASHES);
        (listed == ListedFile::Allowed || !is_observed).then_some(listed)
    }

    /// Returns the operator's policies for what the engines find.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Returns each engine's name, and whether its findings are only observed.
    pub fn observed(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let observed = self.policies.observed();
        self.names().map(|name| (name, observed.observes(name)))
    }

    /// Returns the number of rules that are only observed.
    #[must_use]
    pub fn observed_rules(&self) -> usize {
        self.policies.observed().rules().len()
    }

    /// Returns whether any engine needs a sandbox job with the file in it: the script. The rules need a descriptor only.
    #[must_use]
    pub fn needs_job(&self) -> bool {
        let is_script = |engine: &Engine| matches!(engine.kind, EngineKind::Script(_));
        self.members.iter().any(is_script)
    }

    pub(in crate::scan) fn scan_slots(&self) -> &ScanSlots {
        &self.scan_slots
    }

    pub(in crate::scan) fn remote_engines(&self) -> &Arc<RemoteEngines> {
        &self.remote
    }

    /// Returns the current identity of the engines; `None` when the script's file cannot be examined, in which case no
    /// cached verdict is valid.
    pub async fn identity(&self) -> Option<EngineIdentity> {
        let mut engines = FingerprintHasher::new("engine set").bytes(&self.conditions);
        let mut versions = FingerprintHasher::new("versions").text(env!("CARGO_PKG_VERSION"));
        let (mut script, mut are_known) = (None, true);
        for engine in &self.members {
            match &engine.kind {
                EngineKind::Script(engine) => {
                    let identity = engine.identity().await?;
                    engines = engines.bytes(identity.fingerprint.as_bytes());
                    script = Some(identity);
                }
                // The fingerprint of the settings contains the rules and the lists.
                EngineKind::Rules | EngineKind::Hashes => {}
                EngineKind::Remote(engine) => {
                    let known = engine.versions();
                    are_known &= engine.has_all_versions();
                    versions = versions
                        .text(engine.name())
                        .list(known.as_slice(), |hash, text| hash.text(text));
                }
            }
        }
        Some(EngineIdentity {
            engines_fingerprint: EngineFingerprint(engines.short()),
            versions: Versions::new(versions.short(), are_known),
            script,
        })
    }

    /// Inspects a file and scans it with all engines: remote engines concurrently, the rules and the script one after the
    /// other at the same time. With lists of types, the inspection is first, and only files of allowed types reach further
    /// engines.
    ///
    /// The engines run even if the inspection finds encrypted contents, because a finding overrides them, and because
    /// `scan.on_encrypted` may change while the outcome is cached.
    pub async fn scan<'e>(&'e self, access: SampleAccess<'e>, lists: &MimeRules) -> EngineRun {
        let SampleAccess { sample, tenant, job, tamper_proof } = access;
        let mut examined = None;
        if *lists != MimeRules::All {
            let Examined { inspection, results } = self.examine(sample, &tenant, lists).await;
            match inspection.as_ref().map(|inspection| inspection.detected.clone()) {
                Ok(Some(detected)) if !lists.allows(detected.as_str()) => {
                    return EngineRun::forbidden(detected);
                }
                Ok(Some(_)) => examined = Some(Examined { inspection, results }),
                // The lists cannot be applied.
                Ok(None) => return EngineRun::prevented(ScanError::Inspection(untyped())),
                Err(_) => return self.finish(inspection, results),
            }
        }
        let examine = async {
            match examined {
                Some(examined) => examined,
                None => self.examine(sample, &tenant, lists).await,
            }
        };
        let remote = self.scan_remote(sample);
        let script = |job| self.run_script(sample, &tenant, job);
        let (remote, examined, script) = if tamper_proof {
            let sandboxed = async { (examine.await, script(job).await) };
            let (remote, (examined, script)) = tokio::join!(remote, sandboxed);
            (remote, examined, script)
        } else {
            // The script could change the file while others read it.
            let (remote, examined) = tokio::join!(remote, examine);
            (remote, examined, script(job).await)
        };
        let Examined { inspection, results } = examined;
        self.finish(inspection, remote.into_iter().chain(results).chain(script).collect())
    }

    /// Combines the results, in the configured order of the engines.
    fn finish(
        &self,
        inspection: Result<FileInspection, ScanError>,
        mut results: Vec<EngineResult>,
    ) -> EngineRun {
        results.sort_by_key(|result| self.names().position(|name| name == result.engine));
        let mut summaries: Vec<_> = results
            .iter()
            .map(|result| EngineSummary {
                result: self.policies.record(result),
                ..EngineSummary::from(result)
            })
            .collect();
        if inspection.is_err() {
            let (engine, result) = (INSPECTION, FAILED);
            summaries.insert(0, EngineSummary { engine, result, finding: None, duration: None });
        }
        let script_run = results.iter_mut().find_map(|result| result.script_run.take());
        let outcome = combine(results, inspection);
        let reports = summaries.into_iter().map(|summary| self.policies.report(summary, &outcome));
        EngineRun {
            results: reports.collect(),
            script_run,
            outcome: RunOutcome::Scanned(Box::new(outcome)),
        }
    }

    /// Inspects a file, evaluates the rules on it if they are an engine and the file is not too large for them, and looks up
    /// what is in it if the lists of hashes are an engine.
    async fn examine(&self, sample: &Sample, tenant: &TenantGroup, lists: &MimeRules) -> Examined {
        let rules = self.members.iter().find(|member| matches!(member.kind, EngineKind::Rules));
        let too_large = rules.and_then(|rules| rules.bounds.refuse(RULES, sample));
        let task = EvaluatorTask {
            evaluates_rules: rules.is_some() && too_large.is_none(),
            limits_types: *lists != MimeRules::All,
            searches_hashes: self
                .members
                .iter()
                .any(|member| matches!(member.kind, EngineKind::Hashes)),
        };
        let examination = Box::pin(self.examiner.examine(sample, tenant, task)).await;
        let Examination { inspection, rules, hashes } = examination;
        let sanitize = |name| {
            move |Evaluated { outcomes, duration, ended_early }| EngineResult {
                duration,
                ended_early,
                ..EngineResult::sanitized(name, outcomes, self.max_output)
            }
        };
        let rules = too_large.or(rules.map(sanitize(RULES)));
        let hashes = hashes.map(sanitize(HASHES));
        Examined { inspection, results: rules.into_iter().chain(hashes).collect() }
    }

    /// Scans with all remote engines at once.
    async fn scan_remote(&self, sample: &Sample) -> Vec<EngineResult> {
        let scans = self.members.iter().filter_map(|member| {
            let EngineKind::Remote(engine) = &member.kind else { return None };
            Some(async move {
                match member.bounds.refuse(engine.name(), sample) {
                    Some(too_large) => too_large,
                    None => engine.scan(sample, self.max_output).await,
                }
            })
        });
        join_all(scans).await
    }

    /// Runs the script, if it is an engine.
    async fn run_script(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        job: Option<&mut Job>,
    ) -> Option<EngineResult> {
        for member in &self.members {
            if let EngineKind::Script(script) = &member.kind {
                return Some(match member.bounds.refuse(SCRIPT, sample) {
                    Some(too_large) => too_large,
                    None => script.scan(job, tenant).await,
                });
            }
        }
        None
    }
}

/// The inspection of a file, and the results of the rules and of the lists of hashes, if they are engines.
struct Examined {
    inspection: Result<FileInspection, ScanError>,
    results: Vec<EngineResult>,
}

/// Returns a part of an engine, or the error that the part is missing.
fn require<T>(engine: &'static str, part: Option<T>) -> Result<T, EngineSetupError> {
    part.ok_or(EngineSetupError::Missing(engine))
}
