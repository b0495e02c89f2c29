//! The lists of hashes: entries for media files, which apply when a request is answered, and the results of the evaluator,
//! which looks up what is inside a media file.

pub use crate::config::sections::hashes::Settings;

use std::{sync::Arc, time::SystemTime};

use mcs_evaluator::{HashFinding, HashListSet, HashMatch, HashReport, ListAction};

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, Outcome, OutcomeText},
    rules::{location, parse_note},
};
use crate::{
    scan::verdict::{NotCleanKind, Verdict},
    text::single_line,
};

/// The entry for a whole media file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListedFile {
    /// The file is not clean. The name of the entry, or of its list.
    Blocked(Arc<str>),
    /// The file is clean, whatever an engine finds.
    Allowed,
}

impl ListedFile {
    /// Finds the entry for the content with this SHA-256.
    pub(super) fn find(lists: &HashListSet, sha256: &[u8; 32]) -> Option<Self> {
        let HashMatch { action, list, name } = lists.lookup(sha256)?;
        Some(match action {
            ListAction::Block => {
                let name = name.filter(|name| !name.is_empty()).unwrap_or(list);
                Self::Blocked(single_line(name, MAX_FIRST_LINE).into())
            }
            ListAction::Allow => Self::Allowed,
        })
    }

    /// Returns the verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Blocked(name) => {
                Verdict::NotClean { kind: NotCleanKind::Infected, output: Arc::clone(name) }
            }
            Self::Allowed => Verdict::Clean { at: SystemTime::now() },
        }
    }
}

/// Returns the outcomes that an evaluator reports: the finding, or the notes, as the operator's policies apply to each.
///
/// # Errors
/// If the report contradicts itself.
pub(super) fn parse_hash_report(
    report: HashReport,
) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    let finding = report.finding.map(|HashFinding { name, path }| {
        Outcome::Infected(OutcomeText { location: location(&path), ..OutcomeText::from(name) })
    });
    if let Some(Outcome::Infected(OutcomeText { name, .. })) = &finding
        && name.is_empty()
    {
        return Err(EngineFailure::BadResponse("a finding without a name".to_owned()));
    }
    let mut outcomes = finding.into_iter().chain(report.notes.into_iter().map(parse_note));
    Ok((outcomes.next().unwrap_or(Outcome::Clean), outcomes.collect()))
}

#[cfg(test)]
mod tests {
    use mcs_evaluator::{Note, NoteKind};

    use super::*;

    fn note() -> Note {
        Note { kind: NoteKind::Limit, reason: "reason".to_owned(), path: Vec::new() }
    }

    #[test]
    fn finding_counts_before_notes() {
        let path = vec!["a.zip".to_owned(), "b".to_owned()];
        let finding = Some(HashFinding { name: "Name".to_owned(), path });
        let (first, others) =
            parse_hash_report(HashReport { finding, notes: vec![note()] }).unwrap();
        let text =
            OutcomeText { location: Some("a.zip > b".to_owned()), ..OutcomeText::from("Name") };
        assert_eq!(first, Outcome::Infected(text));
        assert!(matches!(&others[..], [Outcome::Limit(_)]));
        let (first, others) =
            parse_hash_report(HashReport { finding: None, notes: vec![note()] }).unwrap();
        assert!(matches!(first, Outcome::Limit(_)) && others.is_empty());
        let nothing = parse_hash_report(HashReport::default()).unwrap();
        assert_eq!(nothing, (Outcome::Clean, Vec::new()));
    }

    #[test]
    fn finding_without_a_name_is_a_failure() {
        let finding = Some(HashFinding { name: String::new(), path: Vec::new() });
        let error = parse_hash_report(HashReport { finding, notes: Vec::new() }).unwrap_err();
        assert!(matches!(error, EngineFailure::BadResponse(_)), "{error}");
    }
}
