//! Resident programs. The program of the tests is hostile in its children: the media of a job selects the attack.

mod attacks;
mod failures;
mod processes;

pub(crate) use attacks::{successful_attacks, table};

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mcs_sandbox::{
    Command, Error, JobLimits, JobPriority, Layer, Paths, Policy, Resident, ResidentJobError,
    ResidentLimits, Sandbox,
};
use nix::unistd::Pid;

use crate::fixture::{Fixture, LONG_TIMEOUT, policy, wait_until};
use crate::hostile::program;

/// Content of the data that the program loads.
const DATA: &str = "data";

/// Limits of ordinary jobs.
pub(crate) const LIMITS: JobLimits = JobLimits { memory: 64 << 20, time: LONG_TIMEOUT };

/// A resident program in a sandbox of its own.
pub(crate) struct Program {
    pub(crate) resident: Resident,
    /// Argument of the program, by which its processes are found.
    marker: String,
    fixture: Fixture,
}

impl Program {
    pub(crate) async fn new(layers: &[Layer]) -> Self {
        let paths = Paths { read_only: vec![program()], ..Paths::default() };
        let fixture = Fixture::with_layers(Policy { paths, ..policy() }, layers);
        let marker = fresh_marker();
        let started = start(&fixture.sandbox, &fixture, &marker).await;
        Self { resident: started.unwrap(), marker, fixture }
    }

    /// Runs a job and returns its result, or the reason why there is none.
    pub(crate) async fn run(&self, media: &str) -> String {
        self.run_within(media, LIMITS).await
    }

    async fn run_within(&self, media: &str, limits: JobLimits) -> String {
        describe(self.evaluate(media.as_bytes(), limits).await)
    }

    async fn evaluate(&self, media: &[u8], limits: JobLimits) -> Result<Vec<u8>, ResidentJobError> {
        self.resident.evaluate(self.media(media), 7, limits, &JobPriority::new()).await
    }

    fn media(&self, content: &[u8]) -> File {
        media(&self.fixture, content)
    }

    /// Returns the processes of the program: itself, and its children.
    fn processes(&self) -> Vec<Pid> {
        processes_with(&self.marker)
    }

    /// Ends the program and checks that nothing is left.
    pub(crate) async fn end(self) {
        let Self { resident, marker, fixture } = self;
        drop(resident);
        wait_until("all processes have ended", || processes_with(&marker).is_empty()).await;
        fixture.wait_until_empty().await;
    }
}

/// Returns an unnamed file with this content, open for reading only.
fn media(fixture: &Fixture, content: &[u8]) -> File {
    let path = fixture.root.join(format!("media-{}", crate::hostile::fresh_name()));
    File::create(&path).unwrap().write_all(content).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

async fn start(sandbox: &Sandbox, fixture: &Fixture, marker: &str) -> Result<Resident, Error> {
    let data = mcs_sandbox::sealed("data", DATA.as_bytes()).unwrap();
    let command = Command { program: program(), args: vec!["resident".into(), marker.into()] };
    let limits = ResidentLimits { jobs: 250, job_memory: 64 << 20 };
    sandbox.start_resident(&fixture.jobs(), command, &[&data], limits).await
}

fn fresh_marker() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("resident-{}-{number}-", std::process::id())
}

fn describe(result: Result<Vec<u8>, ResidentJobError>) -> String {
    match result {
        Ok(result) => String::from_utf8(result).unwrap(),
        // Without the usual cause.
        Err(error) => error.to_string().split(" (").next().unwrap().to_owned(),
    }
}

/// Returns the processes with this argument.
fn processes_with(marker: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command_line.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
    })
    .map(Pid::from_raw)
    .collect()
}

/// Limits of jobs that do not end on their own.
fn short() -> JobLimits {
    JobLimits { time: Duration::from_millis(300), ..LIMITS }
}
