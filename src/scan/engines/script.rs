//! The operator's scan script: its invocation, the meaning of its exit status, and its identity in the cache. The
//! service passes its output on and never interprets it.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use mcs_sandbox::{Command, FileState, Job, Sandbox, Termination};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::{
    error::{EngineFailure, ScriptFailure},
    fingerprint,
    names::SCRIPT,
    outcome::{MAX_FIRST_LINE, Outcome},
    result::EngineResult,
    script_run::{ScriptFingerprint, ScriptIdentity, ScriptRun},
    slots::ScanSlots,
};
use crate::{
    scan::{error::ScanError, settings::Settings, task::caught},
    tenancy::TenantGroup,
    text::single_line,
};

/// Maximum length of a script's standard error in the log, bytes; its end is kept.
const MAX_STDERR: usize = 1000;

/// Interval after which the script's file is examined again.
const IDENTITY_AGE: Duration = Duration::from_secs(1);

/// The configured script, ready to run.
#[derive(Debug)]
pub struct Script {
    program: PathBuf,
    args: Vec<OsString>,
    time_limit: Duration,
    max_output: usize,
    failure_exit_codes: Vec<i32>,
    scan_slots: ScanSlots,
    /// Fingerprint of everything that verdicts depend on, except the script's content.
    conditions: [u8; 32],
    /// The latest identity, and when it was determined.
    last_identity: Mutex<Option<(Instant, ScriptIdentity)>>,
}

/// Logs the script's standard error. When there is no verdict, or a verdict without output, it most likely names the
/// reason.
fn log_stderr(stderr: &[u8], result: &Result<ScriptVerdict, ScriptFailure>) {
    if stderr.is_empty() {
        return;
    }
    let last = stderr.split_at(stderr.len().saturating_sub(MAX_STDERR)).1;
    let stderr = String::from_utf8_lossy(last);
    match result {
        Err(cause) => warn!(%cause, ?stderr, "script failed"),
        Ok(ScriptVerdict { outcome: Outcome::Infected(text), exit_code, .. })
            if text.name.is_empty() =>
        {
            warn!(exit_code, ?stderr, "script reported a file as not clean without output");
        }
        Ok(_) => debug!(?stderr, "script wrote to standard error"),
    }
}

/// An outcome and the exit code that it follows from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ScriptVerdict {
    /// Clean, or infected with the sanitized output: a script cannot report other outcomes.
    outcome: Outcome,
    /// The exit code, for `exit_codes_to_ignore`.
    exit_code: i32,
    /// The first line that the script printed on standard output, sanitized like the output.
    first_line: String,
}

impl Script {
    /// Creates the script engine from its settings.
    #[must_use]
    pub fn new(
        program: &Path,
        settings: &Settings,
        sandbox: &Sandbox,
        scan_slots: ScanSlots,
    ) -> Self {
        Self {
            conditions: fingerprint::of_script(settings, sandbox.policy()),
            program: program.to_owned(),
            args: settings.script_args.clone(),
            time_limit: settings.timeout,
            max_output: settings.max_output_size,
            failure_exit_codes: settings.failure_exit_codes.clone(),
            scan_slots,
            last_identity: Mutex::new(None),
        }
    }

    /// Returns a script that cannot be run.
    #[cfg(test)]
    pub(super) fn absent(scan_slots: ScanSlots) -> Self {
        Self {
            program: "/absent".into(),
            args: Vec::new(),
            time_limit: Duration::from_secs(1),
            max_output: 100,
            failure_exit_codes: Vec::new(),
            scan_slots,
            conditions: [0; 32],
            last_identity: Mutex::new(None),
        }
    }

    /// Waits for a scan slot and runs the script on the job's file. A script without a job has not run, which is a failure.
    pub(super) async fn scan(&self, job: Option<&mut Job>, tenant: &TenantGroup) -> EngineResult {
        let Some(job) = job else {
            let not_run = ScanError::Engine(SCRIPT, EngineFailure::NotRun);
            return EngineResult::new(SCRIPT, Err(not_run));
        };
        let Some(slot) = self.scan_slots.acquire(tenant).await else {
            let script_run = Some(ScriptRun { duration: None, file_state: None });
            return EngineResult {
                script_run,
                ..EngineResult::new(SCRIPT, Err(ScanError::Stopping))
            };
        };
        let start = Instant::now();
        let priority = job.priority();
        let run = slot.run(&priority, caught(self.run(job))).await;
        let duration = Some(start.elapsed());
        // Not the state of the cached identity, which may be a second old: a symbolic link may have changed since,
        // and back.
        let (verdict, file_state) = match run {
            Ok((result, file_state)) => (result.map_err(ScanError::Script), file_state),
            Err(error) => (Err(error), self.file_state().await),
        };
        let script_run = Some(ScriptRun { duration, file_state });
        match verdict {
            Ok(ScriptVerdict { outcome, exit_code, first_line }) => EngineResult {
                exit_code: Some(exit_code),
                first_line: Some(first_line),
                script_run,
                duration,
                ..EngineResult::new(SCRIPT, Ok(outcome))
            },
            Err(error) => {
                EngineResult { script_run, duration, ..EngineResult::new(SCRIPT, Err(error)) }
            }
        }
    }

    /// Runs the script. Returns its result and the state of its file.
    async fn run(
        &self,
        job: &mut Job,
    ) -> Result<(Result<ScriptVerdict, ScriptFailure>, Option<FileState>), ScanError> {
        let command = command(&self.program, &self.args, job.media_path());
        // Longer than the kept output, so that a path at its end is captured completely and removed.
        let capture = self.max_output.saturating_add(job.media_path().as_os_str().len());
        let exit = job.run(&command, self.time_limit, capture).await.map_err(ScanError::Sandbox)?;
        let output =
            sanitize_output(&exit.stdout, exit.stdout_truncated, job.directory(), self.max_output);
        let first_line = first_line(&exit.stdout, exit.stdout_truncated, job.directory());
        let result = self.verdict(exit.termination, output, first_line);
        log_stderr(&exit.stderr, &result);
        Ok((result, exit.program))
    }

    fn verdict(
        &self,
        termination: Termination,
        output: String,
        first_line: String,
    ) -> Result<ScriptVerdict, ScriptFailure> {
        match termination {
            Termination::Exited(code) if self.failure_exit_codes.contains(&code) => {
                Err(ScriptFailure::FailureExitCode(code))
            }
            Termination::Exited(0) => {
                Ok(ScriptVerdict { outcome: Outcome::Clean, exit_code: 0, first_line })
            }
            Termination::Exited(exit_code) => {
                let outcome = Outcome::Infected(output.into());
                Ok(ScriptVerdict { outcome, exit_code, first_line })
            }
            Termination::Signaled(signal) => Err(ScriptFailure::Signaled(signal)),
            Termination::TimedOut => Err(ScriptFailure::TimedOut),
        }
    }

    /// Returns the current identity of the script; `None` when its file cannot be examined, in which case no cached
    /// verdict is valid.
    pub async fn identity(self: &Arc<Self>) -> Option<ScriptIdentity> {
        if let Some((determined, identity)) = *self.last_identity()
            && determined.elapsed() < IDENTITY_AGE
        {
            return Some(identity);
        }
        let script = Arc::clone(self);
        tokio::task::spawn_blocking(move || script.read_identity()).await.ok().flatten()
    }

    async fn file_state(&self) -> Option<FileState> {
        let program = self.program.clone();
        tokio::task::spawn_blocking(move || FileState::from_path(&program)).await.ok().flatten()
    }

    fn read_identity(&self) -> Option<ScriptIdentity> {
        let file_state = FileState::from_path(&self.program)?;
        let last_identity = *self.last_identity();
        let fingerprint = match last_identity {
            Some((_, before)) if before.file_state == file_state => before.fingerprint,
            _ => self.fingerprint_of(file_state)?,
        };
        let identity = ScriptIdentity { fingerprint, file_state };
        *self.last_identity() = Some((Instant::now(), identity));
        Some(identity)
    }

    /// Returns `None` if the file has changed since `file_state` was read.
    fn fingerprint_of(&self, file_state: FileState) -> Option<ScriptFingerprint> {
        let mut hash = Sha256::new();
        hash.update(self.conditions);
        let file = File::open(&self.program);
        if let Ok(mut file) = file
            && hash_file(&mut file, &mut hash).is_ok()
        {
            // The state of the hashed file: a symbolic link may have changed since `file_state` was read, and back.
            let hashed = FileState::from(&file.metadata().ok()?);
            return (hashed == file_state).then(|| ScriptFingerprint(hash.finalize().into()));
        }
        // The file is executable but not readable: its state takes the place of its content.
        hash.update(format!("{file_state:?}"));
        Some(ScriptFingerprint(hash.finalize().into()))
    }

    fn last_identity(&self) -> parking_lot::MutexGuard<'_, Option<(Instant, ScriptIdentity)>> {
        self.last_identity.lock()
    }
}

/// Returns the command that runs a program on a file.
pub(in crate::scan) fn command(program: &Path, args: &[OsString], media: &Path) -> Command {
    let mut args = args.to_vec();
    args.push(media.as_os_str().to_owned());
    Command { program: program.to_owned(), args }
}

fn hash_file(file: &mut File, hash: &mut Sha256) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Returns a script's output for clients: valid UTF-8 of at most `max` bytes, with the path of the job's directory
/// removed and control characters replaced by spaces.
fn sanitize_output(output: &[u8], truncated: bool, directory: &Path, max: usize) -> String {
    let directory = directory.to_string_lossy();
    let text = String::from_utf8_lossy(output);
    let mut text = text.replace(&format!("{directory}/"), "").replace(&*directory, "");
    if truncated {
        // The capture may have ended inside a path: removes the beginning of a path as well.
        let cut = (1..directory.len())
            .rev()
            .filter_map(|length| directory.get(..length))
            .find_map(|head| text.strip_suffix(head).map(str::len));
        text.truncate(cut.unwrap_or(text.len()));
    }
    single_line(&text, max)
}

/// Returns the first line that is not empty, sanitized.
fn first_line(output: &[u8], truncated: bool, directory: &Path) -> String {
    let output = output.trim_ascii_start();
    let end = output.iter().position(|byte| *byte == b'\n');
    let line = end.and_then(|end| output.get(..end)).unwrap_or(output);
    sanitize_output(line, truncated && end.is_none(), directory, MAX_FIRST_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "/tmp/mcs-a1b2c3/job-d4e5f6";

    #[tokio::test]
    async fn script_without_a_job_is_a_failure() {
        let script = Script::absent(ScanSlots::new(1, Duration::from_secs(2)));
        let result = script.scan(None, &TenantGroup::default()).await;
        assert!(matches!(result.outcome, Err(ScanError::Engine(SCRIPT, EngineFailure::NotRun))));
    }

    fn sanitize(output: &[u8], max: usize) -> String {
        sanitize_output(output, false, Path::new(JOB), max)
    }

    #[test]
    fn sanitizing_removes_job_path_control_characters_and_excess() {
        assert_eq!(
            sanitize(b"/tmp/mcs-a1b2c3/job-d4e5f6/media: Eicar FOUND\n", 100),
            "media: Eicar FOUND"
        );
        assert_eq!(sanitize(b"in /tmp/mcs-a1b2c3/job-d4e5f6", 100), "in");
        assert_eq!(sanitize(b"a\tb\x1b[31mc\r\nd", 100), "a b [31mc  d");
        assert_eq!(sanitize(b"\xff\xfe", 100), "\u{fffd}\u{fffd}");
        assert_eq!(sanitize("a\u{202e}b".as_bytes(), 100), "a b");
        assert_eq!(sanitize("äöü".as_bytes(), 3), "ä", "truncates at a character boundary");
        assert_eq!(sanitize(b"", 100), "");
    }

    #[test]
    fn first_line_skips_empty_lines() {
        let line = |output: &[u8]| first_line(output, false, Path::new(JOB));
        assert_eq!(line(b"\n \n/tmp/mcs-a1b2c3/job-d4e5f6/media: Eicar\r\nmore\n"), "media: Eicar");
        assert_eq!(line(b"alone"), "alone");
        assert_eq!(line(b""), "");
        assert_eq!(line(&[b'x'; 5000]).len(), MAX_FIRST_LINE);
    }

    #[test]
    fn removes_partial_job_path_from_truncated_output() {
        let output = b"x /tmp/mcs-a1b2c3/jo";
        assert_eq!(sanitize_output(output, true, Path::new(JOB), 100), "x");
        assert_eq!(
            sanitize(output, 100),
            "x /tmp/mcs-a1b2c3/jo",
            "complete output is not shortened"
        );
    }
}
