//! The contract, held against the real program: a homeserver on loopback, real scripts, real files.
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

mod canary;
mod counter_wrap;
mod encrypted_contents;
mod faults_disk;
mod faults_homeserver;
mod faults_load;
mod faults_script;
mod hostile_names;
mod log;
mod remembering;
mod tokens;
mod verdicts;
mod wire;
