//! Combination of the outcomes of all engines.

use std::{iter, sync::Arc, time::SystemTime};

use super::{
    examination::FileInspection,
    file_outcome::{EngineFault, FileFinding, FileOutcome},
    names::{HASHES, INSPECTION},
    outcome::{MAX_FIRST_LINE, Outcome, OutcomeText},
    result::{EngineResult, is_engine_failure},
};
use crate::scan::{error::ScanError, verdict::NotCleanKind};

/// Combines the engines' results and the inspection, without the operator's policies. A failed inspection is a failure that no
/// policy skips. Malware takes precedence over other findings; among equal ones, the first engine's finding is kept.
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
    let mut findings = 0;
    // Lists find exact copies only: beside another engine that did not finish, they have not examined the file.
    let decides_alone = results.iter().all(|result| result.engine == HASHES);
    for EngineResult { engine, outcome, others, exit_code, first_line, .. } in results {
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
                findings += 1;
                add(&mut file.finding, engine, kind, text, exit_code, first_line.clone());
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
    if let Some(finding) = &mut file.finding
        && findings > 1
    {
        // The verdict does not depend on the script alone.
        finding.exit_code = None;
    }
    file
}

/// Keeps a finding, unless the kept one is at least as severe.
fn add(
    kept: &mut Option<FileFinding>,
    engine: &'static str,
    kind: NotCleanKind,
    text: OutcomeText,
    exit_code: Option<i32>,
    first_line: Option<String>,
) {
    let is_more_severe = kept
        .as_ref()
        .is_none_or(|kept| kept.kind == NotCleanKind::Refused && kind == NotCleanKind::Infected);
    if is_more_severe {
        let first_line = first_line.unwrap_or_else(|| text.line(MAX_FIRST_LINE));
        let OutcomeText { name, location } = text;
        let (engine, output) = (Some(engine), name.into());
        *kept = Some(FileFinding { kind, engine, output, location, exit_code, first_line });
    }
}
