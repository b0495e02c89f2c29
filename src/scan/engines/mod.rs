//! The engines: whoever has a word on a media. Each gives `Clean`, `NotClean` or a failure, by a version
//! of its own; together they are asked at once, and one "not clean" outweighs everything, as a failure
//! outweighs "clean".
//!
//! The script runs in the sandbox; clamd and ICAP servers are asked by this process, which gives them a
//! media to read and takes a line of text from them. Nothing waits here: that is what the queue is for.

pub mod clamd;
mod combine;
mod engine;
pub mod error;
#[cfg(test)]
pub(super) mod fake;
pub mod icap;
pub mod rules;
mod servers;
pub mod specimen;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use mcs_sandbox::{Job, Sandbox};
use sha2::{Digest, Sha256};

use super::{
    ScanError, Settings, Verdict,
    encrypted::OnEncrypted,
    script::{self, Script, Turns},
    worker::blocking,
};
use crate::media::intake::IntakeError;
use combine::combine;
use engine::{CLAMD, Engine, ICAP, Opinion, RULES, SCRIPT};

pub use clamd::Clamd;
pub use error::{EngineFailure, SetupError};
pub use icap::Icap;
pub use rules::{Evaluator, Rules};
pub use specimen::Specimen;

/// An engine, as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The script of `[scan]`, with the bounds of the others.
    Script(Bounds),
    /// `[rules]`
    Rules(rules::Settings),
    /// `[clamd]`
    Clamd(clamd::Settings),
    /// `[icap]`
    Icap(icap::Settings),
}

/// Which media an engine is asked about, and what its silence means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Largest media that it is asked about, bytes; none where there is no bound of its own.
    pub max_size: Option<u64>,
    /// What a larger one means.
    pub larger: Otherwise,
    /// What a failure means.
    pub on_failure: Otherwise,
}

/// What it means that an engine says nothing of a media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Otherwise {
    /// There is no verdict.
    Fail,
    /// The other engines' words count.
    Skip,
}

/// What an engine found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Nothing.
    Clean,
    /// Something.
    NotClean {
        /// As the engine calls it: any text, not empty.
        name: String,
    },
    /// Contents that need a password, and nothing in the rest.
    Encrypted {
        /// As the engine calls it.
        name: String,
    },
}

/// The engines that are asked over a socket: connections, who of them is well, and what versions they
/// told. Shared by all who ask by the same settings.
#[derive(Default, Debug)]
pub struct Network {
    clamd: Option<Arc<Clamd>>,
    icap: Option<Arc<Icap>>,
}

impl Network {
    /// Asks nobody yet. Blocking where TLS is used.
    ///
    /// # Errors
    /// Where TLS is used and cannot be.
    pub fn new(kinds: &[Kind]) -> Result<Self, SetupError> {
        let mut this = Self::default();
        for kind in kinds {
            match kind {
                Kind::Script(_) | Kind::Rules(_) => {}
                Kind::Clamd(settings) => this.clamd = Some(Arc::new(Clamd::new(settings))),
                Kind::Icap(settings) => this.icap = Some(Arc::new(Icap::new(settings)?)),
            }
        }
        Ok(this)
    }

    /// Asks all of them for their versions; bounded by a few seconds.
    pub async fn read_versions(&self) {
        let clamd = async {
            if let Some(clamd) = &self.clamd {
                clamd.read_versions().await;
            }
        };
        let icap = async {
            if let Some(icap) = &self.icap {
                icap.read_versions().await;
            }
        };
        tokio::join!(clamd, icap);
    }

    /// What each of them told last, for people.
    #[must_use]
    pub fn versions(&self) -> Vec<(&'static str, Option<String>)> {
        let clamd = self.clamd.iter().map(|clamd| (CLAMD, clamd.versions()));
        clamd.chain(self.icap.iter().map(|icap| (ICAP, icap.versions()))).collect()
    }

    /// Reads versions each `interval`, as long as anybody uses these engines.
    pub async fn keep_versions(this: Weak<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            match this.upgrade() {
                Some(network) => network.read_versions().await,
                None => return,
            }
        }
    }
}

/// All who have to agree.
#[derive(Debug)]
pub struct Engines {
    all: Vec<Engine>,
    turns: Turns,
    /// Held, since versions are read for as long as somebody does.
    network: Arc<Network>,
    /// A digest of all settings that verdicts hang on, the script's own apart.
    conditions: [u8; 32],
    max_output: usize,
    on_encrypted: OnEncrypted,
}

/// A media that engines may look at.
pub struct Exposed<'a> {
    /// Its bytes.
    pub specimen: &'a Specimen,
    /// Where programs find it; none where none is run.
    pub job: Option<&'a mut Job>,
    /// Whether no program can change what the specimen reads.
    pub tamper_proof: bool,
}

/// Who judges at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Verdicts by others don't count.
    pub judges: Fingerprint,
    /// "Clean" by other versions doesn't.
    pub versions: Versions,
    script: Option<script::Identity>,
}

/// The engines with their settings, and the script with its content: a hash that tells a few of them apart, for as long as
/// this process runs. Nobody chooses one who would gain by its being taken for another, and each verdict that is remembered holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub u64);

/// What the engines told of their versions; such a hash too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Versions(pub u64);

/// What came of asking all of them.
#[derive(Debug)]
pub struct Run {
    /// What they say together.
    pub outcome: Result<Judgement, ScanError>,
    /// How long the script ran; none where it did not.
    pub script_took: Option<Duration>,
    /// What became of each: `clean`, `not_clean`, `failed` or `skipped`.
    pub results: Vec<(&'static str, &'static str)>,
    script: Option<script::Run>,
    /// Whether anybody was asked.
    begun: bool,
}

/// A verdict, and what it rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The word of all.
    pub verdict: Verdict,
    /// The script's, where the verdict hangs on it.
    pub exit_code: Option<i32>,
    /// The first line of what the script printed, or what another engine found.
    pub first_line: String,
    /// Whether an engine failed and was left out: good for a moment only.
    pub without_some: bool,
}

impl Engines {
    /// The engines of these settings; programs run in this sandbox.
    ///
    /// # Errors
    /// [`SetupError::Missing`], since media that nobody looks at are not clean.
    pub fn new(
        settings: &Settings,
        sandbox: &Sandbox,
        evaluator: Option<&Arc<Evaluator>>,
        turns: &Turns,
        network: &Arc<Network>,
    ) -> Result<Self, SetupError> {
        let engine = |kind: &Kind| match kind {
            Kind::Script(bounds) => {
                let program = there(SCRIPT, settings.script.as_deref())?;
                let script = Script::new(program, settings, sandbox, turns.clone());
                Ok(Engine::Script(Arc::new(script), bounds.clone()))
            }
            Kind::Rules(rules) => {
                let evaluator = Arc::clone(there(RULES, evaluator)?);
                let engine = Rules::new(rules, evaluator, turns.clone());
                Ok(Engine::Rules(engine, rules.bounds.clone()))
            }
            Kind::Clamd(clamd) => {
                let engine = there(CLAMD, network.clamd.as_ref())?;
                Ok(Engine::Clamd(Arc::clone(engine), clamd.bounds.clone()))
            }
            Kind::Icap(icap) => {
                let engine = there(ICAP, network.icap.as_ref())?;
                Ok(Engine::Icap(Arc::clone(engine), icap.bounds.clone()))
            }
        };
        let told = format!(
            "{:?} {} {:?}",
            settings.engines, settings.max_output_size, settings.on_encrypted
        );
        Ok(Self {
            all: settings.engines.iter().map(engine).collect::<Result<_, SetupError>>()?,
            turns: turns.clone(),
            network: Arc::clone(network),
            conditions: Sha256::digest(told).into(),
            max_output: settings.max_output_size,
            on_encrypted: settings.on_encrypted,
        })
    }

    /// The engines' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(Engine::name)
    }

    /// Whether a failure of this one is passed over.
    #[must_use]
    pub fn may_fail(&self, name: &str) -> bool {
        let named = |engine: &&Engine| engine.name() == name;
        let engine = self.all.iter().find(named);
        engine.is_some_and(|engine| engine.bounds().on_failure == Otherwise::Skip)
    }

    /// This one alone, whose failures are none to pass over. Encrypted contents are its own to judge: the canary
    /// tests what the engine finds, and a sample in an encrypted archive must not hide that it finds nothing.
    #[must_use]
    pub fn alone(&self, name: &str) -> Self {
        let mut all: Vec<_> =
            self.all.iter().filter(|engine| engine.name() == name).cloned().collect();
        for engine in &mut all {
            engine.bounds_mut().on_failure = Otherwise::Fail;
        }
        let (turns, network) = (self.turns.clone(), Arc::clone(&self.network));
        let (conditions, max_output) = (self.conditions, self.max_output);
        Self { all, turns, network, conditions, max_output, on_encrypted: OnEncrypted::Pass }
    }

    /// Whether any of them runs in the sandbox.
    #[must_use]
    pub fn need_sandbox(&self) -> bool {
        self.all.iter().any(Engine::is_program)
    }

    /// Whose turns scripts take.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Those of them that are asked over a socket.
    pub(super) fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Who judges now; none if the script cannot be looked at, in which case nothing that is
    /// remembered counts.
    pub async fn identity(&self) -> Option<Identity> {
        let (mut judges, mut versions) = (DefaultHasher::new(), DefaultHasher::new());
        judges.write(&self.conditions);
        let mut script = None;
        for engine in &self.all {
            let version = match engine {
                Engine::Script(engine, _) => {
                    let identity = engine.identity().await?;
                    judges.write(identity.fingerprint.as_bytes());
                    script = Some(identity);
                    continue;
                }
                // Among the conditions.
                Engine::Rules(..) => continue,
                Engine::Clamd(clamd, _) => clamd.versions(),
                Engine::Icap(icap, _) => icap.versions(),
            };
            (engine.name(), version).hash(&mut versions);
        }
        Some(Identity {
            judges: Fingerprint(judges.finish()),
            versions: Versions(versions.finish()),
            script,
        })
    }

    /// Asks all of them, those over sockets at once, and programs one after the other beside that. Looks before
    /// whether the contents need a password; the engines are asked all the same, since an infection that one of
    /// them finds outweighs that.
    pub async fn judge<'e>(&'e self, media: Exposed<'e>) -> Run {
        let Exposed { specimen, job, tamper_proof } = media;
        let encrypted = match self.encryption(specimen).await {
            Ok(encrypted) => encrypted,
            Err(error) => return Run::prevented(error),
        };
        let asked = |(at, engine): (usize, &'e Engine)| async move {
            engine.asked(specimen, self.max_output).await.map(|opinion| (at, opinion))
        };
        let over_sockets = join_all(self.all.iter().enumerate().map(asked));
        let in_sandbox = async {
            let (mut run, mut said) = (None, Vec::new());
            if let Some(job) = job {
                // The rules before the script, which may change what it was given.
                let mut programs: Vec<_> = self.all.iter().enumerate().collect();
                programs.sort_by_key(|(_, engine)| matches!(engine, Engine::Script(..)));
                for (at, engine) in programs {
                    if let Some((opinion, script)) =
                        engine.run(specimen, job, self.max_output).await
                    {
                        said.push((at, opinion));
                        run = run.or(script);
                    }
                }
            }
            (said, run)
        };
        let (answered, (ran, script)) = if tamper_proof {
            tokio::join!(over_sockets, in_sandbox)
        } else {
            // A program could change what the others read: they read it first.
            let answered = over_sockets.await;
            (answered, in_sandbox.await)
        };
        let mut said: HashMap<usize, Opinion> = answered.into_iter().flatten().chain(ran).collect();
        // One of each: whoever was not asked has not called it clean.
        let opinion = |(at, engine): (usize, &Engine)| {
            said.remove(&at).unwrap_or_else(|| engine.opinion(engine.not_asked()))
        };
        let opinions: Vec<_> = self.all.iter().enumerate().map(opinion).collect();
        Run {
            results: opinions.iter().map(|it| (it.engine, it.word.name())).collect(),
            script_took: script.as_ref().and_then(|run| run.took),
            outcome: combine(opinions, encrypted, self.on_encrypted),
            script,
            begun: true,
        }
    }

    /// What is encrypted in a media by its own headers, where that matters.
    async fn encryption(&self, specimen: &Specimen) -> Result<Option<String>, ScanError> {
        if self.on_encrypted == OnEncrypted::Pass {
            return Ok(None);
        }
        let specimen = specimen.clone();
        let found = blocking(move || specimen.encryption().map_err(IntakeError::Disk)).await?;
        Ok(found.map(|found| found.to_string()))
    }
}

impl Run {
    /// A run that it never came to.
    #[must_use]
    pub fn prevented(error: ScanError) -> Self {
        Self {
            outcome: Err(error),
            script_took: None,
            results: Vec::new(),
            script: None,
            begun: false,
        }
    }

    /// Whether it was those who were found before that judged.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        match (&identity.script, &self.script) {
            (Some(identity), Some(run)) => run.is_of(identity),
            // A media that was too large for the script.
            (_, None) => self.begun,
            (None, Some(_)) => false,
        }
    }
}

/// A part of an engine.
fn there<T>(engine: &'static str, part: Option<T>) -> Result<T, SetupError> {
    part.ok_or(SetupError::Missing(engine))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn an_engine_that_was_not_asked_has_not_called_a_media_clean() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("none.yar");
        std::fs::write(&file, "rule None { condition: false }").unwrap();
        let bounds =
            Bounds { max_size: None, larger: Otherwise::Skip, on_failure: Otherwise::Skip };
        let settings = rules::Settings {
            rules: mcs_rules::RuleSet::load(std::slice::from_ref(&file)).unwrap(),
            paths: vec![file],
            ignore: Vec::new(),
            timeout: Duration::from_secs(1),
            bounds: bounds.clone(),
        };
        let program = Path::new("/absent").to_owned();
        let evaluator = Evaluator::prepare(program, &settings.rules);
        let turns = Turns::new(1);
        let rules = Rules::new(&settings, Arc::new(evaluator.unwrap()), turns.clone());
        let engines = Engines {
            all: vec![Engine::Rules(rules, bounds)],
            turns,
            network: Arc::default(),
            conditions: [0; 32],
            max_output: 100,
            on_encrypted: OnEncrypted::Refuse,
        };
        let specimen = specimen::tests::specimen(b"media");
        // A program, and no place to run it in.
        let media = Exposed { specimen: &specimen, job: None, tamper_proof: true };
        let run = engines.judge(media).await;
        let outcome = run.outcome.unwrap_err();
        assert!(matches!(outcome, ScanError::Engine(RULES, EngineFailure::NotAsked)), "{outcome}");
        assert_eq!(run.results, [(RULES, "failed")]);
    }
}
