//! The configured engines together.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::join_all;
use mcs_sandbox::{Job, Sandbox};
use sha2::{Digest, Sha256};

use super::{
    bounds::SkipPolicy,
    combine::combine,
    engine::{Engine, EngineKind, RemoteEngine, SandboxedEngine},
    error::EngineSetupError,
    identity::{EngineFingerprint, EngineIdentity, Versions},
    names::{CLAMD, ICAP, RULES, SCRIPT},
    policies::Policies,
    remote::RemoteEngines,
    resident::EvaluatorEnv,
    result::EngineResult,
    rules::Rules,
    run::EngineRun,
    sample::{Sample, SampleAccess},
    script::Script,
    settings::EngineSettings,
    slots::ScanSlots,
};
use crate::{
    media::ingest::IngestError,
    scan::{error::ScanError, settings::Settings, task::blocking},
    tenancy::TenantGroup,
};

/// The configured engines. A file is clean only if all of them agree.
#[derive(Debug)]
pub struct Engines {
    members: Vec<Engine>,
    scan_slots: ScanSlots,
    /// Keeps [`RemoteEngines::poll_versions`] running.
    remote: Arc<RemoteEngines>,
    /// Digest of all settings that verdicts depend on, except those of the script.
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
        evaluator: Option<&EvaluatorEnv>,
        scan_slots: &ScanSlots,
        remote_engines: &Arc<RemoteEngines>,
    ) -> Result<Self, EngineSetupError> {
        let engine = |engine: &EngineSettings| {
            let (kind, bounds) = match engine {
                EngineSettings::Script(bounds) => {
                    let program = require(SCRIPT, settings.script.as_deref())?;
                    let script = Script::new(program, settings, sandbox, scan_slots.clone());
                    let script = SandboxedEngine::Script(Arc::new(script));
                    (EngineKind::Sandboxed(script), bounds)
                }
                EngineSettings::Rules(rules) => {
                    let env = require(RULES, evaluator)?;
                    // Those in slots, as many demoted ones, and those of two canaries.
                    let jobs = settings.max_scripts.saturating_mul(2).saturating_add(2);
                    let engine = Rules::new(rules, env, scan_slots.clone(), jobs);
                    (EngineKind::Sandboxed(SandboxedEngine::Rules(engine)), &rules.bounds)
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
        // Without the policies, so that cached outcomes remain valid when a policy changes.
        let examined: Vec<_> =
            settings.engines.iter().map(EngineSettings::without_policies).collect();
        let conditions = format!("{examined:?} {}", settings.max_output_size);
        let members =
            settings.engines.iter().map(engine).collect::<Result<Vec<_>, EngineSetupError>>()?;
        let bounds = members.iter().map(|engine| (engine.name(), &engine.bounds));
        Ok(Self {
            policies: Policies::new(settings, bounds),
            members,
            scan_slots: scan_slots.clone(),
            remote: Arc::clone(remote_engines),
            conditions: Sha256::digest(conditions).into(),
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
            scan_slots: self.scan_slots.clone(),
            remote: Arc::clone(&self.remote),
            conditions: self.conditions,
            max_output: self.max_output,
            policies: self.policies.for_canary(),
        }
    }

    /// Returns the operator's policies for what the engines find.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Returns whether any engine needs a sandbox job with the file in it: the script. The rules need a descriptor only.
    #[must_use]
    pub fn needs_job(&self) -> bool {
        let is_script = |engine: &Engine| {
            matches!(engine.kind, EngineKind::Sandboxed(SandboxedEngine::Script(_)))
        };
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
        let (mut fingerprint, mut versions) = (DefaultHasher::new(), DefaultHasher::new());
        fingerprint.write(&self.conditions);
        let mut script = None;
        for engine in &self.members {
            match &engine.kind {
                EngineKind::Sandboxed(SandboxedEngine::Script(engine)) => {
                    let identity = engine.identity().await?;
                    fingerprint.write(identity.fingerprint.as_bytes());
                    script = Some(identity);
                }
                // The settings in `conditions` contain the rules.
                EngineKind::Sandboxed(SandboxedEngine::Rules(_)) => {}
                EngineKind::Remote(engine) => {
                    (engine.name(), engine.versions()).hash(&mut versions);
                }
            }
        }
        Some(EngineIdentity {
            engines_fingerprint: EngineFingerprint(fingerprint.finish()),
            versions: Versions(versions.finish()),
            script,
        })
    }

    /// Scans a file with all engines: remote engines concurrently, programs sequentially at the same time. The
    /// engines run even if the service detects encrypted contents, because a finding overrides them, and because
    /// `scan.on_encrypted` may change while the outcome is cached.
    pub async fn scan<'e>(&'e self, access: SampleAccess<'e>) -> EngineRun {
        let SampleAccess { sample, tenant, job, tamper_proof } = access;
        let encrypted = match detect_encryption(sample).await {
            Ok(encrypted) => encrypted,
            Err(error) => return EngineRun::prevented(error),
        };
        let remote = self.scan_remote(sample);
        let sandboxed = self.scan_in_sandbox(sample, &tenant, job);
        let (remote, sandboxed) = if tamper_proof {
            tokio::join!(remote, sandboxed)
        } else {
            // A program could change the file while remote engines read it.
            let remote = remote.await;
            (remote, sandboxed.await)
        };
        let mut results: Vec<_> = remote.into_iter().chain(sandboxed).collect();
        results.sort_by_key(|(position, _)| *position);
        let mut results: Vec<_> = results.into_iter().map(|(_, result)| result).collect();
        EngineRun {
            results: results
                .iter()
                .map(|result| (result.engine, self.policies.record(result)))
                .collect(),
            script_run: results.iter_mut().find_map(|result| result.script_run.take()),
            outcome: Ok(combine(results, encrypted)),
        }
    }

    /// Scans with all remote engines at once. Returns each result with the engine's position in the configuration.
    async fn scan_remote(&self, sample: &Sample) -> Vec<(usize, EngineResult)> {
        let scans = self.members.iter().enumerate().filter_map(|(position, member)| {
            let EngineKind::Remote(engine) = &member.kind else { return None };
            Some(async move {
                let result = match member.bounds.refuse(engine.name(), sample) {
                    Some(too_large) => too_large,
                    None => engine.scan(sample, self.max_output).await,
                };
                (position, result)
            })
        });
        join_all(scans).await
    }

    /// Runs the sandboxed engines one after another. Returns each result with the engine's position in the
    /// configuration.
    async fn scan_in_sandbox(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        mut job: Option<&mut Job>,
    ) -> Vec<(usize, EngineResult)> {
        let mut programs: Vec<_> = self.members.iter().enumerate().collect();
        // The script runs last, because it may change its file.
        programs.sort_by_key(|(_, member)| member.name() == SCRIPT);
        let mut results = Vec::new();
        for (position, member) in programs {
            let EngineKind::Sandboxed(engine) = &member.kind else { continue };
            let result = match member.bounds.refuse(engine.name(), sample) {
                Some(too_large) => too_large,
                None => engine.scan(sample, tenant, job.as_deref_mut(), self.max_output).await,
            };
            results.push((position, result));
        }
        results
    }
}

/// Returns what the service itself detects as encrypted, under all policies: see [`Engines::scan`].
async fn detect_encryption(sample: &Sample) -> Result<Option<String>, ScanError> {
    let sample = sample.clone();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _cancel = SetOnDrop(Arc::clone(&cancelled));
    let detect = move || sample.encryption(&cancelled).map_err(IngestError::Disk);
    let encryption = blocking(detect).await?;
    Ok(encryption.map(|encryption| encryption.to_string()))
}

/// Sets the flag when dropped, so that a blocking thread stops with the future that waits for the thread.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns a part of an engine, or the error that the part is missing.
fn require<T>(engine: &'static str, part: Option<T>) -> Result<T, EngineSetupError> {
    part.ok_or(EngineSetupError::Missing(engine))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scan::engines::{
        bounds::{Bounds, ContentPolicy, OversizePolicy},
        error::EngineFailure,
        sample,
    };

    #[tokio::test]
    async fn engine_that_did_not_run_is_a_failure() {
        let bounds = Bounds {
            max_size: None,
            on_oversize: OversizePolicy::Skip,
            on_failure: SkipPolicy::Skip,
        };
        let policies =
            Policies::for_test(ContentPolicy::Fail, bounds.on_oversize, bounds.on_failure);
        let scan_slots = ScanSlots::new(1, Duration::from_secs(2));
        let script = SandboxedEngine::Script(Arc::new(Script::absent(scan_slots.clone())));
        let engines = Engines {
            members: vec![Engine { kind: EngineKind::Sandboxed(script), bounds: bounds.clone() }],
            scan_slots,
            remote: Arc::default(),
            conditions: [0; 32],
            max_output: 100,
            policies,
        };
        let sample = sample::tests::sample(b"media");
        // The script needs a sandbox job.
        let access = SampleAccess::without_job(&sample);
        let run = Box::pin(engines.scan(access)).await;
        let error = engines.policies.decide(&run.outcome.unwrap()).verdict.unwrap_err();
        assert!(matches!(*error, ScanError::Engine(SCRIPT, EngineFailure::NotRun)), "{error}");
        assert_eq!(run.results, [(SCRIPT, "failed")]);
    }
}
