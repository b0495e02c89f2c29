//! Reasons why rules cannot be used.

use std::{io, path::PathBuf};

/// Maximum number of rules, and of global rules, in one part. boreal 1.4.0 restores no more.
pub(crate) const MAX_RULES: usize = 1024;

/// Reason why rules cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RuleLoadError {
    /// A file or a directory is not readable.
    #[error("{} cannot be read", path.display())]
    #[expect(missing_docs, reason = "explained by the message")]
    Unreadable { path: PathBuf, source: io::Error },
    /// Directories or includes are nested too deeply.
    #[error("{}: nested too deeply in directories or includes", .0.display())]
    TooDeep(PathBuf),
    /// A rule does not compile. The message has the file, line, column and reason, on one line.
    #[error("{0}")]
    Invalid(String),
    /// A rule has metadata `kind` with an unknown value.
    #[error("{}: rule {rule}: found kind = {kind}, expected \"malware\" or \"policy\"", path.display())]
    #[expect(missing_docs, reason = "explained by the message")]
    UnknownKind { path: PathBuf, rule: String, kind: String },
    /// No rule can be reported: there are none, or all are private.
    #[error("{} contains no rules", .0.display())]
    Empty(PathBuf),
    /// A rule has metadata `scope` with an unknown value.
    #[error(
        "{}: rule {rule}: found scope = {scope}, expected \"outer\", \"inner\" or \"both\"",
        path.display()
    )]
    #[expect(missing_docs, reason = "explained by the message")]
    UnknownScope { path: PathBuf, rule: String, scope: String },
    /// The engine cannot serialize the compiled rules.
    #[error("cannot serialize the compiled rules")]
    Serialization(#[source] io::Error),
    /// Evaluators would load a rule incompletely.
    #[error(
        "{}: rule {rule}: the engine cannot load it completely, because a list in its condition has more than {MAX_RULES} members; \
         group operands of `and` and `or` in parentheses, as in (a or b) or (c or d), and divide other lists among several rules",
        path.display()
    )]
    #[expect(missing_docs, reason = "explained by the message")]
    Unrestorable { path: PathBuf, rule: String },
    /// Evaluators would load rules other than those compiled, and no single rule is the cause.
    #[error("{}: the engine cannot load the rules of this file completely", .0.display())]
    UnrestorableFile(PathBuf),
    /// A rule and the rules that it refers to do not fit in one part.
    #[error(
        "{}: rule {rule}: its condition needs {needs} rules and imports of the file, global rules included, and the engine loads at \
         most {MAX_RULES} rules together; let the condition refer to fewer rules",
        path.display()
    )]
    #[expect(missing_docs, reason = "explained by the message")]
    TooManyReferences { path: PathBuf, rule: String, needs: usize },
    /// Rule files changed while they were read.
    #[error("rule files changed while they were read; try again")]
    Changed,
}

/// Reason why an evaluation has no result. The service reports the message to operators.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluationError {
    #[error("cannot load the prepared rules: {0}")]
    Rules(#[source] io::Error),
    #[error("cannot read the settings")]
    Settings,
    #[error("cannot load the types of files: {0}")]
    Types(#[source] mcs_filetype::LoadError),
    #[error("no rules are loaded")]
    NoRules,
    #[error("cannot set the limits of the process: {0}")]
    Limits(#[source] io::Error),
    #[error("cannot serve jobs: {0}")]
    Service(#[source] io::Error),
    #[error("more than {0} observed rules match")]
    Observed(usize),
    #[error("the rule engine failed: {0}")]
    Engine(String),
}
