//! The program as a process: its commands, its signals, what it listens on and what it leaves.

#[path = "../harness/mod.rs"]
mod harness;

mod commands;
mod listening;
mod secrets;
mod signals;
