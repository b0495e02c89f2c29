//! Evaluates YARA rules on one file, in a process of its own.
//!
//! The service reads and compiles the rules once at its start ([`RuleSet::load`]), where invalid rules are reported,
//! and keeps the prepared form in memory. For each file it starts its own program again in the sandbox as an
//! *evaluator* ([`dispatch`], called first in `main`). That process loads the prepared rules from standard input, maps
//! the file, prints the names of the rules that match, and exits. The rule engine processes untrusted bytes in no other
//! process.
//!
//! This crate does not depend on HTTP, Matrix, queues or configuration files.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod compiler;
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
mod rule_set;
mod rule_visitor;
mod split;
mod structure;
#[cfg(test)]
mod tests;
mod unpack;
mod variables;

pub use error::RuleLoadError;
pub use evaluator::{arguments, dispatch};
pub use report::{EvaluationReport, MAX_REPORT, Note, NoteKind, RuleFinding, RuleKind};
pub use rule_set::RuleSet;
pub use unpack::UnpackSettings;
