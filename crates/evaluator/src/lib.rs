//! Inspects files, and evaluates YARA rules on them, each file in a process of its own.
//!
//! The service reads and compiles the rules once at its start ([`RuleSet::load`]), where invalid rules are reported,
//! and keeps the prepared form in memory. It starts its own program again in the sandbox as a *resident evaluator*
//! ([`dispatch`], called first in `main`). That process loads the prepared rules once and forks a child for each file,
//! which reads the file and returns a [`FileReport`]: its type, its encryption, and what the rules found. Files are parsed in no
//! other process.
//!
//! This crate does not depend on HTTP, Matrix, queues or configuration files.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod compiler;
pub mod encrypted;
mod error;
mod evaluator;
mod evaluator_settings;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
pub mod fuzz_unpack;
mod hash_list_set;
mod hash_visitor;
mod inspector;
mod metadata;
mod object_types;
mod prepared;
mod process_limits;
mod report;
mod resident;
mod rule_filter;
mod rule_set;
mod rule_visitor;
mod sources;
mod split;
mod structure;
#[cfg(test)]
mod tests;
mod unpack;
mod variables;

pub use encrypted::Encryption;
pub use error::RuleLoadError;
pub use evaluator_settings::{EvaluatorSettings, EvaluatorTask, ObservedFindings};
pub use hash_list_set::{HashListLoadError, HashListSet};
pub use mcs_hashlist::{HashMatch, ListAction, ListSummary};
pub use process_limits::memory_allowance;
pub use report::{
    EvaluationReport, EvaluatorAnswer, FileReport, HashFinding, HashReport, Inspection, MAX_ANSWER,
    Note, NoteKind, RuleFinding, RuleKind,
};
pub use resident::{arguments, dispatch};
pub use rule_set::RuleSet;
pub use unpack::UnpackSettings;
