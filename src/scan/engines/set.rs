//! The configured engines together.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::join_all;
use mcs_sandbox::Sandbox;
use sha2::{Digest, Sha256};

use super::{
    bounds::SkipPolicy,
    combine::combine,
    engine::{CLAMD, Engine, EngineResult, ICAP, RULES, SCRIPT},
    error::EngineSetupError,
    identity::{EngineFingerprint, EngineIdentity, Versions},
    policies::Policies,
    remote::RemoteEngines,
    rules::{Evaluator, Rules},
    run::EngineRun,
    sample::{Sample, SampleAccess},
    script::Script,
    settings::EngineSettings,
    slots::ScanSlots,
};
use crate::{
    media::ingest::IngestError,
    scan::{error::ScanError, settings::Settings, task::blocking},
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
        evaluator: Option<&Arc<Evaluator>>,
        scan_slots: &ScanSlots,
        remote_engines: &Arc<RemoteEngines>,
    ) -> Result<Self, EngineSetupError> {
        let engine = |engine: &EngineSettings| match engine {
            EngineSettings::Script(bounds) => {
                let program = require(SCRIPT, settings.script.as_deref())?;
                let script = Script::new(program, settings, sandbox, scan_slots.clone());
                Ok(Engine::Script(Arc::new(script), bounds.clone()))
            }
            EngineSettings::Rules(rules) => {
                let evaluator = Arc::clone(require(RULES, evaluator)?);
                let engine = Rules::new(rules, evaluator, scan_slots.clone());
                Ok(Engine::Rules(engine, rules.bounds.clone()))
            }
            EngineSettings::Clamd(clamd) => {
                let engine = require(CLAMD, remote_engines.clamd.as_ref())?;
                Ok(Engine::Clamd(Arc::clone(engine), clamd.bounds.clone()))
            }
            EngineSettings::Icap(icap) => {
                let engine = require(ICAP, remote_engines.icap.as_ref())?;
                Ok(Engine::Icap(Arc::clone(engine), icap.bounds.clone()))
            }
        };
        // Without the policies, so that cached outcomes remain valid when a policy changes.
        let examined: Vec<_> =
            settings.engines.iter().map(EngineSettings::without_policies).collect();
        let conditions = format!("{examined:?} {}", settings.max_output_size);
        let members =
            settings.engines.iter().map(engine).collect::<Result<Vec<_>, EngineSetupError>>()?;
        let bounds = members.iter().map(|engine| (engine.name(), engine.bounds()));
        Ok(Self {
            policies: Policies::new(settings.on_encrypted, settings.on_limit, bounds),
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
            policies: Policies::for_canary(),
        }
    }

    /// Returns the operator's policies for what the engines find.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Returns whether any engine runs in the sandbox.
    #[must_use]
    pub fn needs_sandbox(&self) -> bool {
        self.members.iter().any(Engine::is_program)
    }

    pub(in crate::scan) fn scan_slots(&self) -> &ScanSlots {
        &self.scan_slots
    }

    pub(in crate::scan) fn remote_engines(&self) -> &Arc<RemoteEngines> {
        &self.remote
    }

    /// Returns the current identity of the engines; none when the script's file cannot be examined, in which case
    /// no cached verdict is valid.
    pub async fn identity(&self) -> Option<EngineIdentity> {
        let (mut fingerprint, mut versions) = (DefaultHasher::new(), DefaultHasher::new());
        fingerprint.write(&self.conditions);
        let mut script = None;
        for engine in &self.members {
            let version = match engine {
                Engine::Script(engine, _) => {
                    let identity = engine.identity().await?;
                    fingerprint.write(identity.fingerprint.as_bytes());
                    script = Some(identity);
                    continue;
                }
                // The settings in `conditions` contain the rules.
                Engine::Rules(..) => continue,
                Engine::Clamd(clamd, _) => clamd.versions(),
                Engine::Icap(icap, _) => icap.versions(),
            };
            (engine.name(), version).hash(&mut versions);
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
        let SampleAccess { sample, job, tamper_proof } = access;
        let encrypted = match detect_encryption(sample).await {
            Ok(encrypted) => encrypted,
            Err(error) => return EngineRun::prevented(error),
        };
        let scan_remote = |(index, engine): (usize, &'e Engine)| async move {
            engine.scan_remote(sample, self.max_output).await.map(|result| (index, result))
        };
        let remote = join_all(self.members.iter().enumerate().map(scan_remote));
        let in_sandbox = async {
            let (mut script_run, mut results) = (None, Vec::new());
            if let Some(job) = job {
                // The script runs last, because it may change its file.
                let mut engines: Vec<_> = self.members.iter().enumerate().collect();
                engines.sort_by_key(|(_, engine)| matches!(engine, Engine::Script(..)));
                for (index, engine) in engines {
                    if let Some((result, run)) =
                        engine.scan_in_sandbox(sample, job, self.max_output).await
                    {
                        results.push((index, result));
                        script_run = script_run.or(run);
                    }
                }
            }
            (results, script_run)
        };
        let (remote_results, (sandbox_results, script)) = if tamper_proof {
            tokio::join!(remote, in_sandbox)
        } else {
            // A program could change the file while remote engines read it.
            let remote_results = remote.await;
            (remote_results, in_sandbox.await)
        };
        let mut results: HashMap<usize, EngineResult> =
            remote_results.into_iter().flatten().chain(sandbox_results).collect();
        // An engine without a result has not called the file clean.
        let result = |(index, engine): (usize, &Engine)| {
            results.remove(&index).unwrap_or_else(|| engine.not_run())
        };
        let results: Vec<_> = self.members.iter().enumerate().map(result).collect();
        EngineRun {
            results: results
                .iter()
                .map(|result| (result.engine, self.policies.record(result)))
                .collect(),
            script_duration: script.as_ref().and_then(|run| run.duration),
            outcome: Ok(combine(results, encrypted)),
            script,
            started: true,
        }
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
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::scan::engines::{
        bounds::{Bounds, ContentPolicy, OversizePolicy},
        error::EngineFailure,
        sample,
    };

    #[tokio::test]
    async fn engine_that_did_not_run_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("none.yar");
        std::fs::write(&file, "rule None { condition: false }").unwrap();
        let bounds = Bounds {
            max_size: None,
            on_oversize: OversizePolicy::Skip,
            on_failure: SkipPolicy::Skip,
        };
        let names = [(RULES, &bounds)].into_iter();
        let policies = Policies::new(ContentPolicy::Refuse, ContentPolicy::Fail, names);
        let settings = crate::scan::engines::rules::Settings {
            rules: mcs_evaluator::RuleSet::load(std::slice::from_ref(&file)).unwrap(),
            paths: vec![file],
            ignore: Vec::new(),
            timeout: Duration::from_secs(1),
            bounds: bounds.clone(),
        };
        let program = Path::new("/absent").to_owned();
        let evaluator = Evaluator::prepare(program, &settings.rules);
        let scan_slots = ScanSlots::new(1, Duration::from_secs(2));
        let rules = Rules::new(&settings, Arc::new(evaluator.unwrap()), scan_slots.clone());
        let engines = Engines {
            members: vec![Engine::Rules(rules, bounds.clone())],
            scan_slots,
            remote: Arc::default(),
            conditions: [0; 32],
            max_output: 100,
            policies,
        };
        let sample = sample::tests::sample(b"media");
        // The rules engine needs a sandbox job.
        let access = SampleAccess { sample: &sample, job: None, tamper_proof: true };
        let run = Box::pin(engines.scan(access)).await;
        let error = engines.policies.decide(&run.outcome.unwrap()).verdict.unwrap_err();
        assert!(matches!(*error, ScanError::Engine(RULES, EngineFailure::NotRun)), "{error}");
        assert_eq!(run.results, [(RULES, "failed")]);
    }
}
