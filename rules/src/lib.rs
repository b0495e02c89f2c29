//! Evaluates YARA rules on one file.
//!
//! The server reads and compiles the rules once ([`RuleSet::load`]), so that a broken one is found at its start, and keeps
//! the result in memory. For each media it starts itself again in the sandbox, as the *evaluator* ([`dispatch`], first thing in
//! `main`): that process loads the prepared rules from its standard input, maps the media, prints the names of the rules that
//! match, and exits.
//! Hostile bytes meet the engine nowhere else.
//!
//! This crate must not know HTTP, Matrix, queues or configuration files.
#![forbid(unsafe_code)]

mod evaluator;
mod prepared;
mod rule_set;
mod split;
#[cfg(test)]
mod tests;

pub use evaluator::{CLEAN, NOT_CLEAN, arguments, dispatch};
pub use rule_set::{LoadError, RuleSet};
