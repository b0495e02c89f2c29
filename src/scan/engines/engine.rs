//! One of the engines, whichever it is, and its word on a media: with its bounds, and with what its failure means.
//! Knows nothing of the others.

use std::sync::Arc;

use mcs_sandbox::Job;
use tracing::warn;

use super::{
    super::{
        ScanError, Verdict,
        script::{self, Script, one_line},
        worker::caught,
    },
    Bounds, Clamd, EngineFailure, Finding, Icap, Otherwise, Rules, Specimen,
};
use crate::chain::Chain;

/// Names, as they are configured, counted and told.
pub(super) const SCRIPT: &str = "script";
pub(super) const RULES: &str = "rules";
pub(super) const CLAMD: &str = "clamd";
pub(super) const ICAP: &str = "icap";

#[derive(Clone, Debug)]
pub(super) enum Engine {
    Script(Arc<Script>, Bounds),
    Rules(Rules, Bounds),
    Clamd(Arc<Clamd>, Bounds),
    Icap(Arc<Icap>, Bounds),
}

/// One engine's word.
pub(super) enum Word {
    Clean,
    NotClean {
        output: Arc<str>,
        first_line: String,
    },
    /// The contents need a password.
    Encrypted {
        name: String,
    },
    Failed(ScanError),
    LeftOut {
        failed: bool,
    },
}

pub(super) struct Opinion {
    pub(super) engine: &'static str,
    pub(super) word: Word,
    pub(super) exit_code: Option<i32>,
    pub(super) first_line: Option<String>,
}

impl Word {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::NotClean { .. } => "not_clean",
            Self::Encrypted { .. } => "encrypted",
            Self::Failed(_) => "failed",
            Self::LeftOut { .. } => "skipped",
        }
    }
}

impl Engine {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Script(..) => SCRIPT,
            Self::Rules(..) => RULES,
            Self::Clamd(..) => CLAMD,
            Self::Icap(..) => ICAP,
        }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        match self {
            Self::Script(_, bounds)
            | Self::Rules(_, bounds)
            | Self::Clamd(_, bounds)
            | Self::Icap(_, bounds) => bounds,
        }
    }

    pub(super) fn bounds_mut(&mut self) -> &mut Bounds {
        match self {
            Self::Script(_, bounds)
            | Self::Rules(_, bounds)
            | Self::Clamd(_, bounds)
            | Self::Icap(_, bounds) => bounds,
        }
    }

    pub(super) fn is_program(&self) -> bool {
        matches!(self, Self::Script(..) | Self::Rules(..))
    }

    /// The word of an engine that is asked over a socket.
    pub(super) async fn asked(&self, specimen: &Specimen, max_output: usize) -> Option<Opinion> {
        if self.is_program() {
            return None;
        }
        if let Some(word) = self.too_large(specimen) {
            return Some(self.opinion(word));
        }
        let found = match self {
            Self::Script(..) | Self::Rules(..) => return None,
            Self::Clamd(clamd, _) => caught(async { Ok(clamd.scan(specimen).await) }).await,
            Self::Icap(icap, _) => caught(async { Ok(icap.scan(specimen).await) }).await,
        };
        Some(self.opinion(self.word(found, max_output)))
    }

    fn word(
        &self,
        found: Result<Result<Finding, EngineFailure>, ScanError>,
        max_output: usize,
    ) -> Word {
        match found {
            Ok(Ok(Finding::Clean)) => Word::Clean,
            Ok(Ok(Finding::NotClean { name })) => Word::NotClean {
                output: one_line(&name, max_output).into(),
                first_line: one_line(&name, script::MAX_FIRST_LINE),
            },
            Ok(Ok(Finding::Encrypted { name })) => {
                Word::Encrypted { name: one_line(&name, max_output) }
            }
            Ok(Err(failure)) => self.failed(ScanError::Engine(self.name(), failure)),
            Err(error) => self.failed(error),
        }
    }

    /// The word of an engine that runs in the sandbox.
    pub(super) async fn run(
        &self,
        specimen: &Specimen,
        job: &mut Job,
        max_output: usize,
    ) -> Option<(Opinion, Option<script::Run>)> {
        if !self.is_program() {
            return None;
        }
        if let Some(word) = self.too_large(specimen) {
            return Some((self.opinion(word), None));
        }
        let script = match self {
            Self::Script(script, _) => script,
            Self::Rules(rules, _) => {
                let found = caught(rules.scan(job)).await;
                return Some((self.opinion(self.word(found, max_output)), None));
            }
            Self::Clamd(..) | Self::Icap(..) => return None,
        };
        let mut run = script.judge(job).await;
        let mut opinion = self.opinion(Word::Clean);
        match std::mem::replace(&mut run.outcome, Err(ScanError::Stopping)) {
            Ok(script::Judgement { verdict, exit_code, first_line }) => {
                opinion.exit_code = Some(exit_code);
                if let Verdict::NotClean { output } = verdict {
                    opinion.word = Word::NotClean { output, first_line };
                } else {
                    opinion.first_line = Some(first_line);
                }
            }
            Err(error) => opinion.word = self.failed(error),
        }
        Some((opinion, Some(run)))
    }

    pub(super) fn opinion(&self, word: Word) -> Opinion {
        Opinion { engine: self.name(), word, exit_code: None, first_line: None }
    }

    pub(super) fn not_asked(&self) -> Word {
        Word::Failed(ScanError::Engine(self.name(), EngineFailure::NotAsked))
    }

    fn too_large(&self, specimen: &Specimen) -> Option<Word> {
        let limit = self.bounds().max_size.filter(|limit| specimen.len() > *limit)?;
        Some(match self.bounds().larger {
            Otherwise::Fail => {
                Word::Failed(ScanError::Engine(self.name(), EngineFailure::TooLarge { limit }))
            }
            Otherwise::Skip => {
                let (engine, size) = (self.name(), specimen.len());
                warn!(engine, size, limit, "not asked: the media is larger than its max_size");
                Word::LeftOut { failed: false }
            }
        })
    }

    fn failed(&self, error: ScanError) -> Word {
        // What is wrong with the media's file, or with this process, is no engine's silence.
        let its_own = match &error {
            ScanError::Engine(_, failure) => !matches!(failure, EngineFailure::Media(_)),
            error => matches!(error, ScanError::Script(_) | ScanError::Sandbox(_)),
        };
        if its_own && self.bounds().on_failure == Otherwise::Skip {
            warn!(engine = self.name(), cause = %Chain(&error), "failed, and is passed over");
            return Word::LeftOut { failed: true };
        }
        Word::Failed(error)
    }
}
