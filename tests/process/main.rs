//! The program as a process: its commands, its signals, what it listens on and what it leaves.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a panic is how a test fails, in its helpers too; and tables are long"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod audit;
mod cgroup;
mod commands;
mod encrypted_contents;
mod half_minutes;
mod listening;
mod migrate;
mod operations;
mod ownership;
mod reload;
mod rules;
mod secrets;
mod service_manager;
mod signals;
mod spool;
mod terminal;
mod trial;
