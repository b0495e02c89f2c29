//! Runs one program on one file under restriction.
//!
//! A [`Sandbox`] is built once. Each [`Job`] is a helper process with a private directory: the caller streams the media into
//! the file that the helper made, runs programs on it, and closes the job, after which nothing is left of it.
//! The helper (see `helper/mod.rs` for the order of its steps) restricts itself, executes the program and watches it; all
//! they say to each other passes over one socket, so a failing sandbox is never taken for a program's exit code.
//!
//! This crate must not know HTTP, Matrix, queues or configuration files.

#![deny(unsafe_code)]

mod cgroup;
mod channel;
mod diagnosis;
mod dispatch;
mod error;
mod helper;
mod job;
mod memory;
mod output;
mod plan;
mod policy;
mod probe;
mod protocol;
mod remains;
mod remove;
mod sandbox;
#[expect(unsafe_code, reason = "system calls without a safe wrapper, all in this one file")]
mod sys;
mod view;

pub use cgroup::Cgroup;
pub use dispatch::dispatch;
pub use error::{Error, Step};
pub use job::{Command, Exit, Job, Outcome, Refused};
pub use memory::sealed;
pub use plan::{Layer, Layers, Mode};
pub use policy::{Limits, Network, Paths, Policy, User};
pub use protocol::{FileState, Usage};
pub use remove::remove_tree;
pub use sandbox::{Candidate, Sandbox};
pub use sys::{keep_heaps, map_file};
