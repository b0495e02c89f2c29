//! Tests the HTTP contract of the real program with a mock homeserver on loopback, real scripts and real files.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their helpers fail by panicking, and test tables are long"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod bodies;
mod caching;
mod canary;
mod conditions;
mod counter_wrap;
mod encrypted_contents;
mod fairness;
mod faults_connections;
mod faults_deadline;
mod faults_disk;
mod faults_homeserver;
mod faults_load;
mod faults_script;
mod hostile_names;
mod log;
mod removal_command;
mod smuggling;
mod tokens;
mod verdicts;
mod wire;
