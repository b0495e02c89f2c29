//! The subcommands. Each has a function `run`, which returns the exit code of a completed command.

pub(super) mod check_config;
pub(super) mod completions;
pub(super) mod doctor;
pub(super) mod generate_key;
pub(super) mod migrate;
pub(super) mod public_key;
pub(super) mod quarantine;
pub(super) mod sandbox;
pub(super) mod scan;
pub(super) mod serve;
pub(super) mod store;
pub(super) mod user_hash;
