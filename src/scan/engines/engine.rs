//! One engine of any kind: a program in the sandbox, or a remote server. Independent of the other engines and of the
//! operator's policies.

use std::{sync::Arc, time::Instant};

use super::{
    bounds::Bounds,
    clamd::Clamd,
    icap::Icap,
    names::{CLAMD, HASHES, ICAP, RULES, SCRIPT},
    outcome::Outcome,
    result::EngineResult,
    sample::Sample,
    script::Script,
};
use crate::scan::task::caught;

/// A configured engine and its bounds.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) kind: EngineKind,
    pub(super) bounds: Bounds,
}

#[derive(Clone, Debug)]
pub(super) enum EngineKind {
    Script(Arc<Script>),
    /// Evaluated by the process that inspects the file.
    Rules,
    /// Looked up by the process that inspects the file.
    Hashes,
    Remote(RemoteEngine),
}

/// An engine on a socket.
#[derive(Clone, Debug)]
pub(super) enum RemoteEngine {
    Clamd(Arc<Clamd>),
    Icap(Arc<Icap>),
}

impl Engine {
    pub(super) fn name(&self) -> &'static str {
        match &self.kind {
            EngineKind::Script(_) => SCRIPT,
            EngineKind::Rules => RULES,
            EngineKind::Hashes => HASHES,
            EngineKind::Remote(engine) => engine.name(),
        }
    }
}

impl Bounds {
    /// Returns the result of an engine that does not examine a sample because of its size; `None` for smaller samples.
    pub(super) fn refuse(&self, engine: &'static str, sample: &Sample) -> Option<EngineResult> {
        let is_oversize = self.max_size.is_some_and(|limit| sample.len() > limit);
        is_oversize.then(|| EngineResult::new(engine, Ok(Outcome::TooLarge)))
    }
}

impl RemoteEngine {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Clamd(_) => CLAMD,
            Self::Icap(_) => ICAP,
        }
    }

    /// Returns the last known versions of the engine and its signatures.
    pub(super) fn versions(&self) -> Option<String> {
        match self {
            Self::Clamd(clamd) => clamd.versions(),
            Self::Icap(icap) => icap.versions(),
        }
    }

    /// Returns whether the version of each server is known.
    pub(super) fn has_all_versions(&self) -> bool {
        match self {
            Self::Clamd(clamd) => clamd.has_all_versions(),
            Self::Icap(icap) => icap.has_all_versions(),
        }
    }

    /// Sends the sample to the server.
    pub(super) async fn scan(&self, sample: &Sample, max_output: usize) -> EngineResult {
        let start = Instant::now();
        let scan = async {
            Ok(match self {
                Self::Clamd(clamd) => clamd.scan(sample).await.map(|outcome| (outcome, Vec::new())),
                Self::Icap(icap) => icap.scan(sample).await,
            })
        };
        let outcomes = caught(scan).await;
        let duration = Some(start.elapsed());
        EngineResult { duration, ..EngineResult::sanitized(self.name(), outcomes, max_output) }
    }
}
