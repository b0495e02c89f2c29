//! (being written elsewhere; this is the shape that callers rely on)
#![expect(missing_docs, reason = "being written elsewhere")]
#![expect(
    clippy::missing_errors_doc,
    clippy::todo,
    clippy::unused_async,
    clippy::must_use_candidate,
    clippy::doc_markdown,
    unused_variables
)]
use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub cpu_time: Option<Duration>,
    pub file_size: Option<u64>,
    pub open_files: Option<u64>,
    pub processes: Option<u64>,
    pub address_space: Option<u64>,
}
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub user: Option<User>,
    pub limits: Limits,
    pub environment: Vec<(OsString, OsString)>,
}
pub fn dispatch() {}
#[derive(Clone, Debug)]
pub struct Sandbox;
pub struct Layers;
impl Sandbox {
    pub fn new(policy: Policy) -> Result<Self, Error> {
        todo!()
    }
    pub async fn probe(&self, parent: &Path) -> Result<Layers, Error> {
        todo!()
    }
    pub async fn prepare(&self, parent: &Path, media_name: &str) -> Result<Job, Error> {
        todo!()
    }
}
#[derive(Clone, Debug)]
pub struct Command {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}
#[derive(Debug)]
pub struct Job;
impl Job {
    pub fn media_path(&self) -> &Path {
        todo!()
    }
    pub fn directory(&self) -> &Path {
        todo!()
    }
    pub fn take_media(&mut self) -> Option<File> {
        todo!()
    }
    pub fn media_is_tamper_proof(&self) -> bool {
        todo!()
    }
    pub async fn run(
        &mut self,
        command: &Command,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<Exit, Error> {
        todo!()
    }
    pub async fn close(self) -> Result<(), Error> {
        todo!()
    }
}
pub struct Exit {
    pub outcome: Outcome,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
}
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Exited(i32),
    Signaled(i32),
    TimedOut,
}
pub fn remove_tree(path: &Path) -> io::Result<()> {
    todo!()
}
