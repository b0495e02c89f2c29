//! What is kept of the result of each engine, beside the outcome of all engines together.

use std::time::Duration;

use super::{names::ENGINES, outcome::Outcome, result::EngineResult};
use crate::text::single_line;

/// Maximum length of a kept finding, bytes.
const MAX_FINDING: usize = 256;

/// Name of the result of an engine that did not finish.
pub(super) const FAILED: &str = "failed";

/// The result of one engine. Engines run concurrently and to their end, whatever others find; an engine that was not run
/// has none: the rules, if a blocked hash ended the examination before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSummary {
    /// Name of the engine.
    pub engine: &'static str,
    /// Name of the most severe outcome, or `failed`.
    pub result: &'static str,
    /// What the engine found, otherwise its text for the outcome: on one line, without a location, which may be the name of a
    /// file.
    pub finding: Option<Box<str>>,
    /// Duration of the examination, without the wait for a free slot; `None` for an engine that did not start. The rules and
    /// the lists of hashes share one examination.
    pub duration: Option<Duration>,
}

impl From<&EngineResult> for EngineSummary {
    fn from(result: &EngineResult) -> Self {
        let outcome = result.outcome.as_ref();
        let outcomes = outcome.into_iter().chain(&result.others);
        let found = outcomes.filter_map(|outcome| match outcome {
            Outcome::Infected(text) | Outcome::Refused(text) => Some(&*text.name),
            _ => None,
        });
        let found = found.collect::<Vec<_>>().join(", ");
        let text = outcome.ok().and_then(Outcome::text);
        let finding = text.map(|text| if found.is_empty() { &*text.name } else { &*found });
        Self {
            engine: result.engine,
            result: outcome.map_or(FAILED, Outcome::name),
            finding: finding.map(|finding| single_line(finding, MAX_FINDING).into()),
            duration: result.duration,
        }
    }
}

impl EngineSummary {
    /// Returns the memory outside of the value itself, bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.finding.as_deref().map_or(0, str::len)
    }
}

/// The results of engines that all finished and found nothing: the milliseconds of each engine, in the order of
/// [`ENGINES`]. Compact, because nearly all entries of the cache are clean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanRun([u32; ENGINES.len()]);

/// Value of an engine that has no result.
const NO_RESULT: u32 = u32::MAX;

/// Value of an engine whose duration is unknown.
const UNKNOWN: u32 = u32::MAX - 1;

impl CleanRun {
    /// Keeps the results of a clean outcome.
    #[must_use]
    pub fn new(results: &[EngineSummary]) -> Self {
        Self(ENGINES.map(|engine| {
            let result = results.iter().find(|result| result.engine == engine);
            result.map_or(NO_RESULT, |result| {
                let millis = result.duration.map(|duration| duration.as_millis());
                let millis = millis.and_then(|millis| u32::try_from(millis).ok());
                millis.filter(|millis| *millis < UNKNOWN).unwrap_or(UNKNOWN)
            })
        }))
    }

    /// Returns the results.
    #[must_use]
    pub fn results(self) -> Vec<EngineSummary> {
        let engines = ENGINES.into_iter().zip(self.0).filter(|(_, millis)| *millis != NO_RESULT);
        let summary = |(engine, millis): (_, u32)| EngineSummary {
            engine,
            result: Outcome::Clean.name(),
            finding: None,
            duration: (millis != UNKNOWN).then(|| Duration::from_millis(millis.into())),
        };
        engines.map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{
        engines::{EngineFailure, names::CLAMD, outcome::OutcomeText},
        error::ScanError,
    };

    #[test]
    fn finding_is_bounded_and_has_no_location() {
        let text = OutcomeText {
            location: Some("name of a file".to_owned()),
            ..OutcomeText::from("ä".repeat(MAX_FINDING))
        };
        let result = EngineResult::new(CLAMD, Ok(Outcome::Infected(text)));
        let summary = EngineSummary::from(&result);
        assert_eq!((summary.result, summary.duration), ("infected", None));
        assert_eq!(summary.finding.unwrap().len(), MAX_FINDING);
        let failed = EngineResult::new(CLAMD, Err(ScanError::Engine(CLAMD, EngineFailure::NotRun)));
        let summary = EngineSummary::from(&failed);
        assert_eq!((summary.result, summary.finding), ("failed", None));
    }

    #[test]
    fn clean_results_are_kept_in_milliseconds() {
        let summary =
            |engine, duration| EngineSummary { engine, result: "clean", finding: None, duration };
        let results = vec![
            summary("script", Some(Duration::from_millis(7))),
            summary("clamd", None),
            summary("icap", Some(Duration::from_secs(u64::from(u32::MAX)))),
        ];
        let kept = CleanRun::new(&results).results();
        assert_eq!(kept[..2], results[..2]);
        assert_eq!(kept[2..], [summary("icap", None)], "an impossible duration");
        assert_eq!(CleanRun::new(&[]).results(), []);
    }
}
