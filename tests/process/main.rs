//! Tests of the program as a process: commands, signals, listeners and cleanup.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their helpers fail by panicking; tables of cases are long"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod audit;
mod cgroup;
mod commands;
mod configurations;
mod doctor;
mod encrypted_contents;
mod evaluator;
mod exhaustion;
mod hashes;
mod homeserver_check;
mod incidents;
mod inspection;
mod limits;
mod listening;
mod memory;
mod migrate;
mod operations;
mod outcomes;
mod ownership;
mod readme;
mod reload;
mod replicas;
mod rules;
mod run_directory;
mod sandbox_command;
mod secrets;
mod service_manager;
mod signals;
mod spool;
mod store;
mod terminal;
mod thirty_second_limits;
mod unpacking;
mod untrusted_text;
