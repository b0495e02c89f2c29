//! The canary: a known-bad and a known-clean sample for each engine alone, the script in the real
//! sandbox, at start and from time to time. A scanner whose signatures are missing, or one that a restriction
//! keeps from its files, may say "clean" to everything; while the canary has another answer than the
//! right ones, nothing is scanned.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tracing::{error, info};

use super::{ScanError, Verdict, engines::Engines, local::LocalScanner};
use crate::chain::Chain;

/// How long after a wrong answer the next one is asked for.
const RETRY: Duration = Duration::from_secs(5);

/// The test file of the European Institute for Computer Antivirus Research, backwards: forwards, this
/// program and its sources would be what scanners look for.
const EICAR_BACKWARDS: &[u8] =
    b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X";

const CLEAN_TEXT: &[u8] = b"A file without anything in it that a scanner could object to.\n";

/// What the script is called where engines are named.
pub const THE_SCRIPT: &str = "the script";

/// What the canary says of the engines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CanaryState {
    /// Nothing yet: the first answer is awaited.
    Awaited,
    /// The last answers were the right ones, or nobody asks.
    Passed,
    /// One of them was not: why, on one line.
    Failed(Arc<str>),
}

/// `scan.canary`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What is given to the engines.
    pub samples: Samples,
    /// From a right answer to the next question.
    pub interval: Duration,
}

/// A sample that each engine has to refuse, and one that it has to let pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Samples {
    /// The EICAR test file, and a line of text.
    Eicar,
    /// The operator's own, read anew each time.
    #[expect(missing_docs, reason = "the names say it")]
    Files { infected: PathBuf, clean: PathBuf },
}

/// The canary's word.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The worst there is: everything would pass.
    #[error("{0} calls the infected sample clean")]
    InfectedPassed(&'static str),
    /// Nothing would pass.
    #[error("{0} calls the clean sample not clean: {1:?}")]
    CleanRefused(&'static str, String),
    /// Nothing would be known.
    #[error("{0} gives no verdict on the {1} sample")]
    NoVerdict(&'static str, &'static str, #[source] ScanError),
}

/// Who asks.
#[derive(Debug)]
pub struct Canary {
    scanner: LocalScanner,
    settings: Settings,
}

impl Canary {
    /// One that asks this scanner's engines.
    #[must_use]
    pub fn new(scanner: LocalScanner, settings: Settings) -> Self {
        Self { scanner, settings }
    }

    /// Asks each engine about both samples, whatever the MIME lists say of them. One whose failures are
    /// passed over may have no word, as long as another has.
    ///
    /// # Errors
    /// The first answer that is not the right one.
    pub async fn check(&self) -> Result<(), CanaryError> {
        let engines = &self.scanner.engines;
        let (mut silent, mut spoke) = (None, false);
        for name in engines.names() {
            match self.check_one(name, &engines.alone(name)).await {
                Ok(()) => spoke = true,
                Err(error @ CanaryError::NoVerdict(..)) if engines.may_fail(name) => {
                    silent = silent.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        match silent {
            Some(error) if !spoke => Err(error),
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
            Verdict::NotClean { output } => {
                Err(CanaryError::CleanRefused(name, output.to_string()))
            }
            Verdict::TypeForbidden { .. } => Err(CanaryError::CleanRefused(name, String::new())),
        }
    }

    /// Asks again and again, and says in `state` what the last answers were. Ends with whoever
    /// listens there. After each wrong verdict, `distrust` is called: what was said of
    /// late is as wrong as that.
    pub async fn watch(self, state: watch::Sender<CanaryState>, distrust: impl Fn() + Send) {
        while !state.is_closed() {
            let wrong = self.check().await.err();
            let now = match &wrong {
                None => CanaryState::Passed,
                Some(wrong) => CanaryState::Failed(Chain(wrong).to_string().into()),
            };
            let before = state.send_replace(now.clone());
            if !matches!(wrong, None | Some(CanaryError::NoVerdict(..))) {
                distrust();
            }
            match &now {
                // Told when it changes: what goes on for hours fills no log.
                now if *now == before => {}
                CanaryState::Failed(why) => {
                    error!(%why, "not ready: the canary's answer is wrong");
                }
                _ => info!("ready: each engine knows a bad file from a good one"),
            }
            let pause = if wrong.is_some() { RETRY } else { self.settings.interval };
            tokio::select! {
                () = sleep(pause) => {}
                () = state.closed() => {}
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
        let (sample, length) =
            self.settings.samples.open(kind).map_err(|error| no_verdict(ScanError::Disk(error)))?;
        self.scanner.ask(engine, sample, length).await.map_err(no_verdict)
    }
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

impl Samples {
    /// The sample, and its length in bytes.
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
    fn the_infected_sample_is_the_eicar_test_file() {
        let (mut sample, length) = Samples::Eicar.open(Kind::Infected).unwrap();
        let mut bytes = Vec::new();
        sample.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        // As eicar.org gives it out.
        assert_eq!(Sha256::digest(&bytes)[..8], [0x27, 0x5a, 0x02, 0x1b, 0xbf, 0xb6, 0x48, 0x9e]);
    }
}
