//! Combination of the outcomes of all engines.

use std::{iter, sync::Arc, time::SystemTime};

use super::{
    examination::FileInspection,
    file_outcome::{EngineFault, FileFinding, FileOutcome},
    names::{HASHES, INSPECTION},
    outcome::{MAX_FIRST_LINE, Outcome, OutcomeText},
    result::{EngineResult, is_engine_failure},
    summary::EngineSummary,
};
use crate::scan::{error::ScanError, verdict::NotCleanKind};

/// Combines the engines' results and the inspection, without the operator's policies. A failed inspection is a failure that no
/// policy skips. Malware takes precedence over other findings; among equal ones, the first engine's finding is first.
pub(super) fn combine(
    results: Vec<EngineResult>,
    inspection: Result<FileInspection, ScanError>,
) -> FileOutcome {
    let mut file = FileOutcome::at(SystemTime::now());
    match inspection {
        Ok(FileInspection { detected, encrypted }) => {
            file.detected = detected;
            file.encrypted = encrypted.map(OutcomeText::from);
        }
        Err(error) => file.failures.push(EngineFault {
            engine: INSPECTION,
            error: Arc::new(error),
            is_engine_failure: false,
        }),
    }
    // Lists find exact copies only: beside another engine that did not finish, they have not examined the file.
    let decides_alone = results.iter().all(|result| result.engine == HASHES);
    for result in results {
        file.results.push(EngineSummary::from(&result));
        let EngineResult { engine, outcome, others, exit_code, first_line, ended_early, .. } =
            result;
        file.ended_early |= ended_early;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let is_engine_failure = is_engine_failure(&error);
                let error = Arc::new(error);
                file.failures.push(EngineFault { engine, error, is_engine_failure });
                continue;
            }
        };
        let outcomes: Vec<_> = iter::once(outcome).chain(others).collect();
        // An engine that did not examine the file has not finished, whatever else it reports.
        file.has_finished |=
            !outcomes.contains(&Outcome::TooLarge) && (engine != HASHES || decides_alone);
        for outcome in outcomes {
            let mut add_finding = |kind, text: OutcomeText| {
                let finding = new_finding(engine, kind, text, exit_code, first_line.clone());
                file.findings.push(finding);
            };
            let keep_first = |kept: &mut Option<OutcomeText>, text| {
                kept.get_or_insert(text);
            };
            match outcome {
                Outcome::Clean => {
                    file.exit_code = file.exit_code.or(exit_code);
                    file.first_line = first_line.clone().unwrap_or(file.first_line);
                }
                Outcome::Infected(text) => add_finding(NotCleanKind::Infected, text),
                Outcome::Refused(text) => add_finding(NotCleanKind::Refused, text),
                Outcome::Encrypted(text) => keep_first(&mut file.encrypted, text),
                Outcome::Limit(text) => keep_first(&mut file.limit, text),
                Outcome::Unreadable(text) => keep_first(&mut file.unreadable, text),
                Outcome::Inconsistent(text) => keep_first(&mut file.inconsistent, text),
                Outcome::TooLarge => file.too_large.push(engine),
            }
        }
    }
    file.findings.sort_by_key(|finding| finding.kind != NotCleanKind::Infected);
    file
}

fn new_finding(
    engine: &'static str,
    kind: NotCleanKind,
    text: OutcomeText,
    exit_code: Option<i32>,
    first_line: Option<String>,
) -> FileFinding {
    let first_line = first_line.unwrap_or_else(|| text.line(MAX_FIRST_LINE));
    let OutcomeText { name, location, rules } = text;
    let (engine, output) = (Some(engine), name.into());
    FileFinding { kind, engine, output, location, rules, exit_code, first_line }
}
