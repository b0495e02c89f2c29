//! The result of a job, which an evaluator returns as JSON.

use serde::{Deserialize, Serialize};

use crate::encrypted::Encryption;

/// Maximum length of a serialized answer, bytes.
pub const MAX_ANSWER: usize = 32 * 1024;

/// The result of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileReport {
    /// What the file is.
    pub inspection: Inspection,
    /// What the rules found; `None` if they were not to be evaluated, or not to the end because of a blocked hash.
    pub rules: Option<EvaluatorAnswer>,
    /// What the lists of hashes found; `None` if they were not to be searched.
    pub hashes: Option<HashReport>,
}

/// The result of the lists of hashes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashReport {
    /// The first object whose hash is blocked.
    pub finding: Option<HashFinding>,
    /// Why parts of the file were not examined, at most one note of each kind.
    pub notes: Vec<Note>,
}

/// What a file is, without the operator's rules.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// Name of the media type; `None` if types are not determined.
    pub mime: Option<String>,
    /// What is encrypted, if the headers show it.
    pub encrypted: Option<Encryption>,
}

/// The result of the rules.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvaluatorAnswer {
    /// The file was evaluated.
    Report(EvaluationReport),
    /// The evaluation failed, for this reason.
    Failed(String),
}

impl EvaluatorAnswer {
    /// Returns whether rules match.
    #[must_use]
    pub fn has_finding(&self) -> bool {
        matches!(self, Self::Report(EvaluationReport { finding: Some(_), .. }))
    }
}

/// Result of the evaluation of one media file.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationReport {
    /// The first object in which rules match that are not only observed. It ends the evaluation.
    pub finding: Option<RuleFinding>,
    /// Matches of observed rules up to there: of each rule the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<RuleFinding>,
    /// Why parts of the file were not examined, at most one note of each kind.
    pub notes: Vec<Note>,
}

/// Rules that match in one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFinding {
    /// The most severe kind of the rules.
    pub kind: RuleKind,
    /// Names of the rules, those of malware first; at least one. For [`RuleKind::Type`], the reason.
    pub rules: Vec<String>,
    /// Where the object is; empty for the media file itself.
    pub path: Vec<String>,
}

/// An object whose hash is blocked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashFinding {
    /// Name of the entry, or of its list.
    pub name: String,
    /// Where the object is; empty for the media file itself.
    pub path: Vec<String>,
}

/// What a match means. The more severe kind is the greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// The type of an object, which a list does not allow: no rule.
    Type,
    /// Contents that a policy does not allow: rules with `kind = "policy"`.
    Policy,
    /// Malware: rules with `kind = "malware"`, and rules without a kind.
    Malware,
}

/// Contents that were not examined, or not as every program would unpack them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The reason's class, which the operator's policies refer to.
    pub kind: NoteKind,
    /// The reason.
    pub reason: String,
    /// The container; empty for the media file itself.
    pub path: Vec<String>,
}

/// Class of a [`Note`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Contents need a password.
    Encrypted,
    /// A limit was reached.
    Limit,
    /// Contents are damaged, truncated, or packed by an unknown method.
    Unreadable,
    /// Two programs would unpack different contents.
    Inconsistent,
}
