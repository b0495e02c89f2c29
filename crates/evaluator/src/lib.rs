//! Evaluates YARA rules on files, each in a process of its own.
//!
//! The service reads and compiles the rules once at its start ([`RuleSet::load`]), where invalid rules are reported,
//! and keeps the prepared form in memory. It starts its own program again in the sandbox as a *resident evaluator*
//! ([`dispatch`], called first in `main`). That process loads the prepared rules once and forks a child for each file,
//! which reads the file and returns an [`EvaluatorAnswer`]. The rule engine processes untrusted bytes in no other process.
//!
//! This crate does not depend on HTTP, Matrix, queues or configuration files.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod compiler;
pub mod encrypted;
mod error;
mod evaluator;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
pub mod fuzz_unpack;
mod metadata;
mod prepared;
mod process_limits;
mod report;
mod resident;
mod rule_set;
mod rule_visitor;
mod split;
#[cfg(test)]
mod tests;
mod unpack;
mod variables;

pub use error::RuleLoadError;
pub use process_limits::memory_allowance;
pub use report::{
    EvaluationReport, EvaluatorAnswer, MAX_ANSWER, Note, NoteKind, RuleFinding, RuleKind,
};
pub use resident::{arguments, dispatch};
pub use rule_set::RuleSet;
pub use unpack::UnpackSettings;
