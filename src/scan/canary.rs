//! The canary: scans a known-infected and a known-clean sample with each engine alone, the script in the real sandbox,
//! at start, at an interval, and when a remote engine changes. A scanner without signatures, or one that the sandbox keeps
//! from its files, may report every file clean. While a result is wrong, no file is scanned.
//!
//! The rules also scan the infected sample in an archive, because this service unpacks it for them. Whether other engines
//! unpack archives is the operator's choice.

mod samples;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{error, info};

use self::samples::SampleKind;
use super::{
    context::ScanContext,
    engines::{
        Engines,
        changes::{ChangeReceiver, EngineChange},
    },
    error::ScanError,
    settings::{CanarySamples, CanarySettings},
    verdict::Verdict,
};
use crate::chain::Chain;

/// Interval after a wrong result.
const RETRY: Duration = Duration::from_secs(5);

/// Name of the script engine in messages.
pub const THE_SCRIPT: &str = "the script";

/// The canary's latest result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CanaryState {
    /// The first run has not finished, or the behaviour of a remote engine has changed since the latest run.
    Pending,
    /// The latest results were right, or the canary is disabled.
    Passed,
    /// A result was wrong. The reason, on one line.
    Failed(Arc<str>),
}

/// A wrong result of the canary.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The engine may report every file clean.
    #[error("{0} reports the infected sample as clean")]
    InfectedPassed(&'static str),
    /// The engine may report every archive clean.
    #[error("{0} reports an archive with the infected sample as clean")]
    PackedPassed(&'static str),
    /// The engine may report every file as not clean.
    #[error("{0} reports the clean sample as not clean: {1:?}")]
    CleanRefused(&'static str, String),
    /// The engine failed.
    #[error("{engine}{} gives no verdict on the {sample} sample", in_parentheses(servers))]
    NoVerdict {
        engine: &'static str,
        /// Addresses of the servers that failed; empty for an engine without servers.
        servers: Vec<String>,
        sample: &'static str,
        source: Arc<ScanError>,
    },
}

fn in_parentheses(servers: &[String]) -> String {
    if servers.is_empty() { String::new() } else { format!(" ({})", servers.join(", ")) }
}

/// Runs the canary.
#[derive(Debug)]
pub struct Canary {
    context: ScanContext,
    settings: CanarySettings,
}

impl Canary {
    /// Creates a canary for the engines of this context.
    #[must_use]
    pub fn new(context: ScanContext, settings: CanarySettings) -> Self {
        Self { context, settings }
    }

    /// Scans the samples with each engine; the MIME lists do not apply. An engine with `on_failure = "skip"` may fail,
    /// as long as another engine has given right results.
    ///
    /// # Errors
    /// The first wrong result.
    pub async fn check(&self) -> Result<(), CanaryError> {
        let engines = &self.context.engines;
        let (mut failure, mut succeeded) = (None, false);
        for name in engines.names() {
            match self.check_one(name, &engines.with_only(name)).await {
                // The lists of hashes are not tested with the infected sample.
                Ok(()) => succeeded |= name != "hashes" || engines.names().count() == 1,
                Err(error @ CanaryError::NoVerdict { .. }) if engines.may_fail(name) => {
                    failure = failure.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(error) if !succeeded => Err(error),
            _ => Ok(()),
        }
    }

    async fn check_one(&self, name: &'static str, engine: &Engines) -> Result<(), CanaryError> {
        let unpacks = name == "rules" && self.tests_unpacking();
        let name = if name == "script" { THE_SCRIPT } else { name };
        // The lists of hashes have no entry for the sample.
        if name != "hashes" {
            match self.verdict(name, engine, SampleKind::Infected).await? {
                Verdict::NotClean { .. } => {}
                _ => return Err(CanaryError::InfectedPassed(name)),
            }
        }
        if unpacks {
            match self.verdict(name, engine, SampleKind::Packed).await? {
                Verdict::NotClean { .. } => {}
                _ => return Err(CanaryError::PackedPassed(name)),
            }
        }
        match self.verdict(name, engine, SampleKind::Clean).await? {
            Verdict::Clean { .. } => Ok(()),
            Verdict::NotClean { output, .. } => {
                Err(CanaryError::CleanRefused(name, output.to_string()))
            }
            Verdict::TypeForbidden { .. } => Err(CanaryError::CleanRefused(name, String::new())),
        }
    }

    /// Returns whether the rules scan the packed sample: not with samples of the operator, which may be archives
    /// themselves, and not if `[unpack]` does not allow two levels.
    fn tests_unpacking(&self) -> bool {
        let is_unpacked = self.context.settings.unpack.as_ref().is_some_and(|unpack| {
            let limits = &unpack.limits;
            limits.enabled && limits.max_depth >= 2 && limits.max_files >= 2
        });
        is_unpacked && self.settings.samples == CanarySamples::Eicar
    }

    /// Runs the canary periodically and publishes the latest result in `state`, until `state` has no receiver. Calls
    /// `invalidate` after the first wrong verdict since the canary passed, because recent verdicts may be wrong as well.
    /// `health_address`: that of `/health/ready`, for the log.
    pub async fn run_periodically(
        self,
        state: watch::Sender<CanaryState>,
        invalidate: impl Fn() + Send,
        health_address: Option<Arc<str>>,
    ) {
        let mut changes = self.context.engines.remote_engines().subscribe();
        let mut failure = LastingFailure::default();
        while !state.is_closed() {
            let Some(result) = self.check_unless_changed(&mut changes, &state).await else {
                continue;
            };
            let error = result.err();
            let current = match &error {
                None => CanaryState::Passed,
                Some(error) => CanaryState::Failed(Chain(error).to_string().into()),
            };
            let previous = state.send_replace(current.clone());
            if failure.begins_with(error.as_ref()) {
                invalidate();
            }
            match &current {
                // Only changes are logged, so that a lasting failure does not fill the log.
                current if *current == previous => {}
                CanaryState::Failed(cause) => {
                    let address = health_address.as_deref();
                    error!(%cause, address, "not ready: the canary failed");
                }
                _ => info!("ready: the canary passed"),
            }
            let pause = if error.is_some() { RETRY } else { self.settings.interval };
            tokio::select! {
                () = sleep(pause) => {}
                () = state.closed() => {}
                _ = changes.receive(|change| invalidate_result(change, &state)) => {}
            }
        }
    }

    /// Checks the engines. Returns `None` if the behaviour of an engine changed meanwhile, in which case the result may
    /// be invalid.
    async fn check_unless_changed(
        &self,
        changes: &mut ChangeReceiver,
        state: &watch::Sender<CanaryState>,
    ) -> Option<Result<(), CanaryError>> {
        changes.settled().await;
        let mut check = pin!(self.check());
        let mut has_changed = false;
        loop {
            tokio::select! {
                result = &mut check => return (!has_changed).then_some(result),
                change = changes.receive(|change| invalidate_result(change, state)) => {
                    has_changed |= change == EngineChange::Behaviour;
                }
            }
        }
    }

    async fn verdict(
        &self,
        name: &'static str,
        engine: &Engines,
        kind: SampleKind,
    ) -> Result<Verdict, CanaryError> {
        let no_verdict = |source| CanaryError::NoVerdict {
            engine: name,
            servers: engine.remote_engines().failing_addresses(name),
            sample: kind.name(),
            source,
        };
        let (sample, length) = self
            .settings
            .samples
            .open(kind)
            .map_err(|error| no_verdict(Arc::new(ScanError::Disk(error))))?;
        self.context.scan_with(engine, sample, length).await.map_err(no_verdict)
    }
}

/// Wrong verdicts since the canary passed. Nothing is scanned until it passes again, so verdicts are invalidated once.
#[derive(Default)]
struct LastingFailure {
    is_invalidated: bool,
}

impl LastingFailure {
    /// Returns whether this result is the first wrong verdict since the canary passed.
    fn begins_with(&mut self, error: Option<&CanaryError>) -> bool {
        match error {
            None => {
                self.is_invalidated = false;
                false
            }
            Some(CanaryError::NoVerdict { .. }) => false,
            Some(_) => !std::mem::replace(&mut self.is_invalidated, true),
        }
    }
}

/// Invalidates the latest result if a changed engine may scan fewer files, so that no file is scanned before the next
/// result.
fn invalidate_result(change: EngineChange, state: &watch::Sender<CanaryState>) -> EngineChange {
    if change == EngineChange::Behaviour {
        state.send_if_modified(|state| {
            let has_passed = *state == CanaryState::Passed;
            if has_passed {
                *state = CanaryState::Pending;
                info!("options of a remote engine changed, running the canary again");
            }
            has_passed
        });
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_invalidated_once_for_each_failure() {
        let wrong = CanaryError::InfectedPassed("clamd");
        let also_wrong = CanaryError::CleanRefused("clamd", String::new());
        let unavailable = CanaryError::NoVerdict {
            engine: "clamd",
            servers: vec!["a:3310".to_owned(), "b:3310".to_owned()],
            sample: "clean",
            source: Arc::new(ScanError::Overloaded),
        };
        let text = "clamd (a:3310, b:3310) gives no verdict on the clean sample";
        assert_eq!(unavailable.to_string(), text);
        let results = [
            (None, false),
            (Some(&unavailable), false),
            (Some(&wrong), true),
            (Some(&wrong), false),
            (Some(&unavailable), false),
            (Some(&also_wrong), false),
            (None, false),
            (Some(&also_wrong), true),
            (Some(&wrong), false),
        ];
        let mut failure = LastingFailure::default();
        for (index, (error, is_first)) in results.into_iter().enumerate() {
            assert_eq!(failure.begins_with(error), is_first, "result {index}");
        }
    }
}
