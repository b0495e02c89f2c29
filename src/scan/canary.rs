//! The canary: scans a known-infected and a known-clean sample with each engine alone, the script in the real sandbox,
//! at start, at an interval, and when a remote engine changes. A scanner without signatures, or one that the sandbox keeps
//! from its files, may report every file clean. While a result is wrong, no file is scanned.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tracing::{error, info};

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

/// The EICAR test file, reversed, so that scanners do not detect this program and its source.
const EICAR_BACKWARDS: &[u8] =
    b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X";

/// The clean sample.
const CLEAN_TEXT: &[u8] = b"A file without anything in it that a scanner could object to.\n";

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
    /// The engine may report every file as not clean.
    #[error("{0} reports the clean sample as not clean: {1:?}")]
    CleanRefused(&'static str, String),
    /// The engine failed.
    #[error("{0} gives no verdict on the {1} sample")]
    NoVerdict(&'static str, &'static str, #[source] Arc<ScanError>),
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

    /// Scans both samples with each engine; the MIME lists do not apply. An engine with `on_failure = "skip"` may fail,
    /// as long as another engine has given right results.
    ///
    /// # Errors
    /// The first wrong result.
    pub async fn check(&self) -> Result<(), CanaryError> {
        let engines = &self.context.engines;
        let (mut failure, mut succeeded) = (None, false);
        for name in engines.names() {
            match self.check_one(name, &engines.with_only(name)).await {
                Ok(()) => succeeded = true,
                Err(error @ CanaryError::NoVerdict(..)) if engines.may_fail(name) => {
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
        let name = if name == "script" { THE_SCRIPT } else { name };
        match self.verdict(name, engine, Kind::Infected).await? {
            Verdict::NotClean { .. } => {}
            _ => return Err(CanaryError::InfectedPassed(name)),
        }
        match self.verdict(name, engine, Kind::Clean).await? {
            Verdict::Clean { .. } => Ok(()),
            Verdict::NotClean { output, .. } => {
                Err(CanaryError::CleanRefused(name, output.to_string()))
            }
            Verdict::TypeForbidden { .. } => Err(CanaryError::CleanRefused(name, String::new())),
        }
    }

    /// Runs the canary periodically and publishes the latest result in `state`, until `state` has no receiver. Calls
    /// `invalidate` after each wrong verdict, because recent verdicts may be wrong as well.
    pub async fn run_periodically(
        self,
        state: watch::Sender<CanaryState>,
        invalidate: impl Fn() + Send,
    ) {
        let mut changes = self.context.engines.remote_engines().subscribe();
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
            if !matches!(error, None | Some(CanaryError::NoVerdict(..))) {
                invalidate();
            }
            match &current {
                // Only changes are logged, so that a lasting failure does not fill the log.
                current if *current == previous => {}
                CanaryState::Failed(cause) => {
                    error!(%cause, "not ready: the canary failed");
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
        kind: Kind,
    ) -> Result<Verdict, CanaryError> {
        let no_verdict = |error| CanaryError::NoVerdict(name, kind.name(), error);
        let (sample, length) = self
            .settings
            .samples
            .open(kind)
            .map_err(|error| no_verdict(Arc::new(ScanError::Disk(error))))?;
        self.context.scan_with(engine, sample, length).await.map_err(no_verdict)
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

#[derive(Clone, Copy)]
enum Kind {
    Infected,
    Clean,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Infected => "infected",
            Self::Clean => "clean",
        }
    }
}

impl CanarySamples {
    /// Opens a sample. Returns its content and its length in bytes.
    fn open(&self, kind: Kind) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let path = match (self, kind) {
            (Self::Eicar, Kind::Infected) => {
                let eicar: Vec<u8> = EICAR_BACKWARDS.iter().rev().copied().collect();
                return Ok((Box::new(Cursor::new(eicar)), EICAR_BACKWARDS.len() as u64));
            }
            (Self::Eicar, Kind::Clean) => {
                return Ok((Box::new(CLEAN_TEXT), CLEAN_TEXT.len() as u64));
            }
            (Self::Files { infected, .. }, Kind::Infected) => infected,
            (Self::Files { clean, .. }, Kind::Clean) => clean,
        };
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((Box::new(file), length))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn infected_sample_is_the_eicar_test_file() {
        let (mut sample, length) = CanarySamples::Eicar.open(Kind::Infected).unwrap();
        let mut bytes = Vec::new();
        sample.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        // Start of the SHA-256 of the file at eicar.org.
        assert_eq!(Sha256::digest(&bytes)[..8], [0x27, 0x5a, 0x02, 0x1b, 0xbf, 0xb6, 0x48, 0x9e]);
    }
}
