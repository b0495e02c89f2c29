//! The contract, held against the real program: a homeserver on loopback, real scripts, real files.

#[path = "../harness/mod.rs"]
mod harness;

mod faults_homeserver;
mod faults_script;
mod hostile_names;
mod remembering;
mod tokens;
mod verdicts;
mod wire;
