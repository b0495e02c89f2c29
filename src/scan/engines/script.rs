//! The operator's scan script: how it is called, what its end means, and what makes two runs of it
//! the same judge. Its output is passed on, never interpreted.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mcs_sandbox::{Command, FileState, Job, Outcome, Sandbox};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{debug, warn};

use super::{ScanError, Settings, Verdict, worker::caught};
use crate::{chain::Chain, terminal::shapes_text};

/// How long the removal command may take.
pub(super) const REMOVAL_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of a script's standard error that are logged, its last ones.
const MAX_STDERR: usize = 1000;

/// Bytes of a first line that are kept.
pub(super) const MAX_FIRST_LINE: usize = 1000;

/// A script's file is looked at again after this long.
const IDENTITY_AGE: Duration = Duration::from_secs(1);

/// Why a script that was started gave no verdict.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptFailure {
    /// `scan.timeout` passed.
    #[error("it ran longer than its time limit")]
    TimedOut,
    /// A signal ended it.
    #[error("signal {0} ended it")]
    Signaled(i32),
    /// An exit code in `scan.failure_exit_codes`.
    #[error("it exited with {0}, which scan.failure_exit_codes names as a failure")]
    FailureExitCode(i32),
}

/// What judges: the script's path, arguments and content, what its end means, and what it runs under.
/// Verdicts of another judge don't count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// To make a larger one of.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A script as it was found: its fingerprint, and the state of the file that it was made of.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// For remembering by.
    pub fingerprint: Fingerprint,
    stamp: FileState,
}

/// The configured script, ready to run.
#[derive(Debug)]
pub struct Script {
    program: PathBuf,
    args: Vec<OsString>,
    time_limit: Duration,
    max_output: usize,
    failure_exit_codes: Vec<i32>,
    turns: Turns,
    /// A digest of all but the script's content that its verdicts hang on.
    conditions: [u8; 32],
    /// As it was last found, and when.
    found: Mutex<Option<(Instant, Identity)>>,
}

/// Scripts at a time. Shared by those of before a reload and those of after it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns {
    semaphore: Arc<Semaphore>,
    count: Arc<Mutex<usize>>,
}

impl Turns {
    /// So many.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(count)), count: Arc::new(Mutex::new(count)) }
    }

    /// So many from now on; what runs beyond that ends first. In the context of a runtime.
    pub fn change(&self, count: usize) {
        let mut before = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        self.semaphore.add_permits(count.saturating_sub(*before));
        for _ in count..*before {
            let semaphore = Arc::clone(&self.semaphore);
            tokio::spawn(async move {
                if let Ok(turn) = semaphore.acquire().await {
                    turn.forget();
                }
            });
        }
        *before = count;
    }

    /// None is never: it is not closed.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.semaphore.acquire().await.ok()
    }
}

/// One run of the script.
#[derive(Debug)]
pub struct Run {
    /// What came of it.
    pub outcome: Result<Judgement, ScanError>,
    /// How long it ran; none where it did not.
    pub took: Option<Duration>,
    /// The state of its file, before and after; none where it changed, so that nobody can say which
    /// script it was. Where nothing came of it, the state afterwards.
    stamp: Option<FileState>,
}

impl Run {
    /// A run that it never came to.
    #[must_use]
    pub fn prevented(error: ScanError) -> Self {
        Self { outcome: Err(error), took: None, stamp: None }
    }

    /// Whether it was a run of the script that was found before.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.stamp == Some(identity.stamp)
    }
}

/// What a script writes to standard error is for its operator: where there is no verdict, or a bad one without a word,
/// it is most likely the reason.
fn tell_stderr(stderr: &[u8], judged: &Result<Judgement, ScriptFailure>) {
    if stderr.is_empty() {
        return;
    }
    let last = stderr.split_at(stderr.len().saturating_sub(MAX_STDERR)).1;
    let stderr = String::from_utf8_lossy(last);
    match judged {
        Err(why) => warn!(%why, ?stderr, "the script failed"),
        Ok(Judgement { verdict: Verdict::NotClean { output }, exit_code, .. })
            if output.is_empty() =>
        {
            warn!(exit_code, ?stderr, "the script called a media not clean, and printed nothing");
        }
        Ok(_) => debug!(?stderr, "the script wrote to stderr"),
    }
}

/// A verdict and the exit code that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// What the exit code means.
    pub verdict: Verdict,
    /// For `exit_codes_to_ignore`.
    pub exit_code: i32,
    /// The first line that the script printed on stdout, as [`Verdict::NotClean`]'s output is.
    pub first_line: String,
}

impl Script {
    /// The script of these settings, in this sandbox.
    #[must_use]
    pub fn new(program: &Path, settings: &Settings, sandbox: &Sandbox, turns: Turns) -> Self {
        Self {
            conditions: conditions(program, settings, sandbox),
            program: program.to_owned(),
            args: settings.script_args.clone(),
            time_limit: settings.timeout,
            max_output: settings.max_output_size,
            failure_exit_codes: settings.failure_exit_codes.clone(),
            turns,
            found: Mutex::new(None),
        }
    }

    /// Runs the script on the job's media, when its turn comes.
    pub async fn judge(&self, job: &mut Job) -> Run {
        let Some(_turn) = self.turns.take().await else {
            return Run::prevented(ScanError::Stopping);
        };
        let begun = Instant::now();
        let run = caught(self.run(job)).await;
        let took = Some(begun.elapsed());
        // Not the one it is remembered by, which may be a second old: a link may lead elsewhere since, and back.
        let (outcome, stamp) = match run {
            Ok((judged, stamp)) => (judged.map_err(ScanError::Script), stamp),
            Err(error) => (Err(error), self.stamp().await),
        };
        Run { outcome, took, stamp }
    }

    /// Beside what came of it, the state of the script that it was.
    async fn run(
        &self,
        job: &mut Job,
    ) -> Result<(Result<Judgement, ScriptFailure>, Option<FileState>), ScanError> {
        let command = command(&self.program, &self.args, job.media_path());
        // More than is kept, so that a path at the cut is seen whole and cut out.
        let capture = self.max_output.saturating_add(job.media_path().as_os_str().len());
        let exit = job.run(&command, self.time_limit, capture).await.map_err(ScanError::Sandbox)?;
        let output =
            presentable(&exit.stdout, exit.stdout_truncated, job.directory(), self.max_output);
        let first_line = first_line(&exit.stdout, exit.stdout_truncated, job.directory());
        let judged = self.verdict(exit.outcome, output, first_line);
        tell_stderr(&exit.stderr, &judged);
        Ok((judged, exit.program))
    }

    fn verdict(
        &self,
        outcome: Outcome,
        output: String,
        first_line: String,
    ) -> Result<Judgement, ScriptFailure> {
        match outcome {
            Outcome::Exited(code) if self.failure_exit_codes.contains(&code) => {
                Err(ScriptFailure::FailureExitCode(code))
            }
            Outcome::Exited(0) => {
                let verdict = Verdict::Clean { at: SystemTime::now() };
                Ok(Judgement { verdict, exit_code: 0, first_line })
            }
            Outcome::Exited(exit_code) => {
                let verdict = Verdict::NotClean { output: output.into() };
                Ok(Judgement { verdict, exit_code, first_line })
            }
            Outcome::Signaled(signal) => Err(ScriptFailure::Signaled(signal)),
            Outcome::TimedOut => Err(ScriptFailure::TimedOut),
        }
    }

    /// What judges at the moment; none if the script cannot be looked at, in which case nothing that
    /// is remembered counts.
    pub async fn identity(self: &Arc<Self>) -> Option<Identity> {
        if let Some((looked, identity)) = *self.found()
            && looked.elapsed() < IDENTITY_AGE
        {
            return Some(identity);
        }
        let script = Arc::clone(self);
        tokio::task::spawn_blocking(move || script.look()).await.ok().flatten()
    }

    async fn stamp(&self) -> Option<FileState> {
        let program = self.program.clone();
        tokio::task::spawn_blocking(move || FileState::of(&program)).await.ok().flatten()
    }

    fn look(&self) -> Option<Identity> {
        let stamp = FileState::of(&self.program)?;
        let found = *self.found();
        let fingerprint = match found {
            Some((_, before)) if before.stamp == stamp => before.fingerprint,
            _ => self.read(stamp)?,
        };
        let identity = Identity { fingerprint, stamp };
        *self.found() = Some((Instant::now(), identity));
        Some(identity)
    }

    /// None if it is another by now.
    fn read(&self, stamp: FileState) -> Option<Fingerprint> {
        let mut hash = Sha256::new();
        hash.update(self.conditions);
        let file = File::open(&self.program);
        if let Ok(mut file) = file
            && hash_file(&mut file, &mut hash).is_ok()
        {
            // What was hashed, though a link may lead elsewhere since it was looked at, and back.
            let hashed = FileState::from(&file.metadata().ok()?);
            return (hashed == stamp).then(|| Fingerprint(hash.finalize().into()));
        }
        // Executable but not readable: its stamp has to do.
        hash.update(format!("{stamp:?}"));
        Some(Fingerprint(hash.finalize().into()))
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Identity)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `scan.removal_command`.
#[derive(Debug)]
pub struct Removal {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Removal {
    /// Where there is one.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let (program, args) = settings.removal_command.clone()?;
        Some(Self { program, args })
    }

    /// Runs the removal command on the job's media. What it says changes nothing: the job's directory
    /// is removed afterwards in any case.
    pub async fn run(&self, job: &mut Job) {
        let command = command(&self.program, &self.args, job.media_path());
        match job.run(&command, REMOVAL_TIME_LIMIT, 4096).await {
            Ok(exit) if matches!(exit.outcome, Outcome::Exited(0)) => {}
            Ok(exit) => tracing::warn!(
                outcome = ?exit.outcome,
                stderr = ?String::from_utf8_lossy(&exit.stderr),
                "scan.removal_command failed; the directory is removed all the same"
            ),
            Err(error) => tracing::warn!(
                error = %Chain(&error),
                "scan.removal_command could not be run; the directory is removed all the same"
            ),
        }
    }
}

fn conditions(program: &Path, settings: &Settings, sandbox: &Sandbox) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    feed(program.as_os_str().as_bytes());
    for arg in &settings.script_args {
        feed(arg.as_bytes());
    }
    feed(format!("{:?} {}", settings.failure_exit_codes, settings.max_output_size).as_bytes());
    // All of it but the values of variables, which are left out so that no log has them.
    feed(format!("{:?} {:?}", sandbox.policy(), sandbox.layers()).as_bytes());
    for (name, value) in &sandbox.policy().environment {
        feed(name.as_bytes());
        feed(value.as_bytes());
    }
    hash.finalize().into()
}

fn command(program: &Path, args: &[OsString], media: &Path) -> Command {
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

/// A script's output as a client may see it: valid UTF-8 of at most `max` bytes, without the job's
/// directory and without control characters, which become spaces.
fn presentable(output: &[u8], truncated: bool, directory: &Path, max: usize) -> String {
    let directory = directory.to_string_lossy();
    let text = String::from_utf8_lossy(output);
    let mut text = text.replace(&format!("{directory}/"), "").replace(&*directory, "");
    if truncated {
        // The capture may have ended inside a path: a beginning of it goes too.
        let cut = (1..directory.len())
            .rev()
            .filter_map(|length| directory.get(..length))
            .find_map(|head| text.strip_suffix(head).map(str::len));
        text.truncate(cut.unwrap_or(text.len()));
    }
    one_line(&text, max)
}

/// Text as a client may see it: at most `max` bytes, and spaces in the place of control characters.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max));
    for character in text.trim().chars() {
        let character = if shapes_text(character) { ' ' } else { character };
        if shown.len() + character.len_utf8() > max {
            break;
        }
        shown.push(character);
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// The first line that is not empty, presentable.
fn first_line(output: &[u8], truncated: bool, directory: &Path) -> String {
    let output = output.trim_ascii_start();
    let end = output.iter().position(|byte| *byte == b'\n');
    let line = end.and_then(|end| output.get(..end)).unwrap_or(output);
    presentable(line, truncated && end.is_none(), directory, MAX_FIRST_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "/tmp/mcs-a1b2c3/job-d4e5f6";

    fn shown(output: &[u8], max: usize) -> String {
        presentable(output, false, Path::new(JOB), max)
    }

    #[test]
    fn output_loses_the_jobs_path_control_characters_and_what_is_too_long() {
        assert_eq!(
            shown(b"/tmp/mcs-a1b2c3/job-d4e5f6/media: Eicar FOUND\n", 100),
            "media: Eicar FOUND"
        );
        assert_eq!(shown(b"in /tmp/mcs-a1b2c3/job-d4e5f6", 100), "in");
        assert_eq!(shown(b"a\tb\x1b[31mc\r\nd", 100), "a b [31mc  d");
        assert_eq!(shown(b"\xff\xfe", 100), "\u{fffd}\u{fffd}");
        assert_eq!(shown("a\u{202e}b".as_bytes(), 100), "a b");
        assert_eq!(shown("äöü".as_bytes(), 3), "ä", "never half a character");
        assert_eq!(shown(b"", 100), "");
    }

    #[test]
    fn the_first_line_is_the_first_with_something_in_it() {
        let line = |output: &[u8]| first_line(output, false, Path::new(JOB));
        assert_eq!(line(b"\n \n/tmp/mcs-a1b2c3/job-d4e5f6/media: Eicar\r\nmore\n"), "media: Eicar");
        assert_eq!(line(b"alone"), "alone");
        assert_eq!(line(b""), "");
        assert_eq!(line(&[b'x'; 5000]).len(), MAX_FIRST_LINE);
    }

    #[test]
    fn a_path_that_the_capture_cut_short_is_cut_out_too() {
        let output = b"x /tmp/mcs-a1b2c3/jo";
        assert_eq!(presentable(output, true, Path::new(JOB), 100), "x");
        assert_eq!(shown(output, 100), "x /tmp/mcs-a1b2c3/jo", "whole output is left alone");
    }
}
