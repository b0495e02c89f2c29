//! Observe mode: what an engine or a rule finds is recorded, and does not refuse a file.
//!
//! The mode applies when a request is answered. Findings are cached and stored without it, so that a change applies to the
//! next request. It concerns the outcomes infected and refused. Contents that were not examined, sizes and failures have
//! settings of their own: they say that the file, or the service, is not as it should be, whoever reports them.
//!
//! An examination by the rules ends at the first object in which rules match that are not observed at that time. If these
//! are observed later, others may follow that count: the file is scanned again.

use std::sync::Arc;

use super::{
    bounds::FindingPolicy,
    file_outcome::{FileFinding, FileOutcome},
    names::{HASHES, RULES},
    summary::FAILED,
};
use crate::scan::settings::Settings;

/// The engines and rules that are only observed.
#[derive(Clone, Default, Debug)]
pub(super) struct ObservedEngines {
    engines: Vec<&'static str>,
    rules: Arc<[String]>,
}

/// How a finding counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FindingEffect {
    /// The file is not clean.
    Refuses,
    /// None.
    Observed,
    /// It is unknown which part of it counts.
    Unknown,
}

impl ObservedEngines {
    /// Creates the observation of rules, and of the engines with this policy.
    pub(super) fn new(
        settings: &Settings,
        engines: impl Iterator<Item = (&'static str, FindingPolicy)>,
    ) -> Self {
        let observed = engines.filter(|(_, policy)| *policy == FindingPolicy::Observe);
        let rules = settings.rules().map(|rules| rules.observe.as_slice()).unwrap_or_default();
        Self { engines: observed.map(|(name, _)| name).collect(), rules: rules.into() }
    }

    fn is_empty(&self) -> bool {
        self.engines.is_empty() && self.rules.is_empty()
    }

    /// Returns the names of the observed rules.
    pub(super) fn rules(&self) -> &[String] {
        &self.rules
    }

    pub(super) fn observes(&self, engine: &str) -> bool {
        self.engines.contains(&engine)
    }

    /// Returns how a finding counts.
    pub(super) fn effect(&self, finding: &FileFinding) -> FindingEffect {
        let Some(engine) = finding.engine else {
            // A record of an earlier version of the program.
            return if self.is_empty() { FindingEffect::Refuses } else { FindingEffect::Unknown };
        };
        if engine != RULES {
            let is_observed = self.observes(engine);
            return if is_observed { FindingEffect::Observed } else { FindingEffect::Refuses };
        }
        // Without rules, a list does not allow the type of an object.
        let is_observed = |rule: &String| self.observes(RULES) || self.rules.contains(rule);
        let observed = finding.rules.iter().filter(|rule| is_observed(rule)).count();
        match finding.rules.len() {
            _ if observed == 0 => FindingEffect::Refuses,
            all if observed == all => FindingEffect::Observed,
            _ => FindingEffect::Unknown,
        }
    }

    /// Returns whether only a new scan can determine which findings count.
    pub(super) fn needs_scan(&self, file: &FileOutcome) -> bool {
        file.findings.iter().any(|finding| match self.effect(finding) {
            FindingEffect::Refuses => false,
            FindingEffect::Observed => file.ended_early,
            FindingEffect::Unknown => true,
        })
    }

    /// Returns whether what an engine found has no effect. `false` for an engine that found nothing.
    pub(super) fn is_only_observed(&self, file: &FileOutcome, engine: &str) -> bool {
        let mut findings = file.findings.iter().filter(|finding| finding.engine == Some(engine));
        let is_observed = |finding| self.effect(finding) == FindingEffect::Observed;
        findings.clone().next().is_some() && findings.all(is_observed)
    }

    /// Returns whether an engine that is not observed has examined the file, if only up to encrypted contents or a limit.
    pub(super) fn has_finished(&self, file: &FileOutcome) -> bool {
        if self.engines.is_empty() || file.is_clean() {
            return file.has_finished;
        }
        let decisive = || file.results.iter().filter(|result| !self.observes(result.engine));
        let decides_alone = decisive().all(|result| result.engine == HASHES);
        let mut finished = decisive()
            .filter(|result| result.result != FAILED && !file.too_large.contains(&result.engine));
        finished.any(|result| result.engine != HASHES || decides_alone)
    }
}

#[cfg(test)]
impl ObservedEngines {
    pub(super) fn for_test(engines: &[&'static str], rules: &[&str]) -> Self {
        let rules = rules.iter().map(|&rule| rule.to_owned()).collect();
        Self { engines: engines.to_vec(), rules }
    }
}

#[cfg(test)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the results of engines, which tables of cases combine"
)]
mod tests {
    use super::*;
    use crate::scan::{
        engines::{
            ContentPolicy, EngineFailure, Outcome, OversizePolicy, Policies, SkipPolicy, Validity,
            outcome::OutcomeText,
        },
        error::ScanError,
    };

    type Results<const N: usize> = [(&'static str, Result<Outcome, ScanError>); N];

    fn policies(engines: &[&'static str], rules: &[&str]) -> Policies {
        let skip =
            Policies::for_test(ContentPolicy::Refuse, OversizePolicy::Skip, SkipPolicy::Skip);
        skip.observing(engines, rules)
    }

    fn matched(rules: &[&str]) -> OutcomeText {
        let rules: Vec<_> = rules.iter().map(|&rule| rule.to_owned()).collect();
        OutcomeText { name: rules.join(", "), location: None, rules }
    }

    fn found(name: &str) -> Result<Outcome, ScanError> {
        Ok(Outcome::Infected(name.into()))
    }

    fn clean() -> Result<Outcome, ScanError> {
        Ok(Outcome::Clean)
    }

    fn failed() -> Result<Outcome, ScanError> {
        Err(ScanError::Engine("clamd", EngineFailure::TimedOut))
    }

    fn decided(policies: &Policies, file: &FileOutcome) -> (String, Validity) {
        let decision = policies.decide(file);
        let name = match decision.verdict {
            Ok(crate::scan::Verdict::NotClean { output, .. }) => output.to_string(),
            Ok(verdict) => verdict.name().to_owned(),
            Err(error) => error.cause().as_str().to_owned(),
        };
        (name, decision.validity)
    }

    #[test]
    fn finding_of_an_observed_engine_does_not_decide() {
        fn case<const N: usize>(results: Results<N>, expected: (&str, Validity)) {
            let file = FileOutcome::for_test(results);
            let (name, validity) = decided(&policies(&["clamd"], &[]), &file);
            assert_eq!((&*name, validity), expected, "{file:?}");
        }
        // Valid for these signatures only, unlike the finding itself.
        case([("clamd", found("Eicar")), ("icap", clean())], ("clean", Validity::Examined));
        case([("clamd", found("Eicar")), ("icap", found("Other"))], ("Other", Validity::Finding));
        // Less severe, but the only one that counts.
        let refused = || Ok(Outcome::Refused("Macro".into()));
        case([("clamd", found("Eicar")), ("icap", refused())], ("Macro", Validity::Finding));
        // No engine that counts has examined the file.
        case([("clamd", clean()), ("icap", failed())], ("no_engine", Validity::Failure));
        let too_large = || Ok(Outcome::TooLarge);
        case([("clamd", clean()), ("icap", too_large())], ("engine_too_large", Validity::Examined));
        case([("clamd", failed()), ("icap", clean())], ("clean", Validity::Partial));
        case([("clamd", clean()), ("hashes", clean())], ("clean", Validity::Examined));
        case([("clamd", found("Eicar")), ("hashes", clean())], ("clean", Validity::Examined));
        // Contents that were not examined have settings of their own.
        let encrypted = || Ok(Outcome::Encrypted("zip".into()));
        let refused = ("encrypted contents (zip)", Validity::Examined);
        case([("clamd", encrypted()), ("icap", clean())], refused);
    }

    #[test]
    fn lists_of_hashes_do_not_stand_for_a_failed_engine_beside_an_observed_one() {
        let file =
            FileOutcome::for_test([("rules", found("A")), ("hashes", clean()), ("icap", failed())]);
        let observing = policies(&["rules"], &[]);
        assert_eq!(
            decided(&observing, &file).0,
            "A",
            "the name of no rule: a type that lists forbid"
        );
        let file = FileOutcome::for_test([
            ("rules", Ok(Outcome::Infected(matched(&["A"])))),
            ("hashes", clean()),
            ("icap", failed()),
        ]);
        assert_eq!(decided(&observing, &file).0, "no_engine");
    }

    #[test]
    fn rule_is_observed_by_its_name() {
        let file = |rules: &[&str]| {
            let outcome = Ok(Outcome::Infected(matched(rules)));
            FileOutcome::for_test([("rules", outcome), ("icap", clean())])
        };
        let observing = policies(&[], &["A"]);
        assert_eq!(decided(&observing, &file(&["A"])), ("clean".into(), Validity::Examined));
        assert_eq!(decided(&observing, &file(&["B"])), ("B".into(), Validity::Finding));
        // Which of them is malware is not known.
        assert_eq!(decided(&observing, &file(&["A", "B"])), ("A, B".into(), Validity::Unsettled));
        assert!(observing.may_refuse(&file(&["A", "B"])) && !observing.may_refuse(&file(&["A"])));
    }

    #[test]
    fn examination_that_ended_at_an_observed_finding_is_repeated() {
        let outcome = Ok(Outcome::Infected(matched(&["A"])));
        let mut file = FileOutcome::for_test([("rules", outcome), ("icap", clean())]);
        file.ended_early = true;
        let observing = policies(&[], &["A"]);
        assert_eq!(decided(&observing, &file), ("A".into(), Validity::Unsettled));
        assert_eq!(decided(&policies(&[], &[]), &file), ("A".into(), Validity::Finding));
    }

    #[test]
    fn rules_that_were_observed_refuse_together_afterwards() {
        let text = |rule| matched(&[rule]);
        let mut file = FileOutcome::for_test([
            ("rules", Ok(Outcome::Refused(text("Policy")))),
            ("rules", Ok(Outcome::Infected(text("Malware")))),
        ]);
        assert_eq!(decided(&policies(&[], &[]), &file).0, "Malware, Policy");
        file.findings[1].location = Some("a.zip > b".to_owned());
        assert_eq!(decided(&policies(&[], &[]), &file).0, "Malware");
    }

    #[test]
    fn finding_of_an_unknown_engine_counts() {
        let mut file = FileOutcome::for_test([("clamd", found("Eicar")), ("icap", clean())]);
        file.findings[0].engine = None;
        for (observing, validity) in [
            (policies(&[], &[]), Validity::Finding),
            (policies(&["clamd"], &[]), Validity::Unsettled),
        ] {
            assert_eq!(decided(&observing, &file), ("Eicar".into(), validity));
            assert!(observing.may_refuse(&file));
        }
    }

    #[test]
    fn engine_is_reported_as_observed_if_nothing_of_it_refuses() {
        let file = FileOutcome::for_test([
            ("clamd", found("Eicar")),
            ("icap", found("Other")),
            ("script", clean()),
        ]);
        let observed = ObservedEngines::for_test(&["clamd", "script"], &[]);
        let reported =
            ["clamd", "icap", "script"].map(|name| observed.is_only_observed(&file, name));
        assert_eq!(reported, [true, false, false]);
    }
}
