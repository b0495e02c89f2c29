//! Runs one program on one file in a sandbox.
//!
//! A [`Sandbox`] is built once per service. Each [`Job`] consists of a helper process and a private directory. The
//! caller writes the media to a file that the helper created, runs programs on that file and closes the job; closing
//! removes every process and file of the job.
//!
//! The helper restricts itself, executes the program and supervises it; `helper/mod.rs` lists the steps in order.
//! Server and helper communicate over one socket that no program inherits, so a failed sandbox cannot be mistaken for
//! an exit code of a program.
//!
//! This crate does not depend on HTTP, Matrix, the scan queue or configuration files.

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod build_id;
mod builder;
mod capacity;
mod cgroup;
mod channel;
mod cleanup;
mod denial;
mod diagnosis;
mod dispatch;
mod error;
mod helper;
mod job;
mod layers;
mod limits;
mod memory;
mod output;
mod plan;
mod policy;
mod priority;
mod probe;
mod protocol;
mod remove;
mod resident;
mod sandbox;
#[expect(unsafe_code, reason = "system calls without a safe wrapper are confined to this module")]
mod sys;
mod usage;
mod view;

pub use builder::SandboxBuilder;
pub use capacity::{EffectiveLimits, RESERVED_TASKS};
pub use cgroup::Cgroup;
pub use denial::Denial;
pub use dispatch::dispatch;
pub use error::{Error, Step};
pub use job::{Command, Exit, Job, Termination};
pub use layers::{Layer, Layers, Mode};
pub use limits::ResourceLimits;
pub use memory::sealed;
pub use policy::{NetworkAccess, Paths, Policy, User};
pub use priority::JobPriority;
pub use protocol::FileState;
pub use remove::remove_tree;
pub use resident::{
    JobLimits, JobMedia, MAX_RESULT, RecordError, Resident, ResidentJobError, ResidentLimits,
    serve_resident,
};
pub use sandbox::Sandbox;
pub use sys::{SealedMapping, limit_malloc_arenas, map_sealed};
pub use usage::Usage;
