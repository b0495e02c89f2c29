//! The contract, held against the real program: a homeserver on loopback, real scripts, real files.

#[path = "../harness/mod.rs"]
mod harness;

mod faults_disk;
mod faults_homeserver;
mod faults_load;
mod faults_script;
mod verdicts;
