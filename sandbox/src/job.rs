//! The server's side of a job: the helper process, the media's file and the programs that run. Closing the socket tells
//! the helper to kill and remove everything. If the helper is dead or unresponsive, this side kills the program and
//! removes the directory itself, also after a future was dropped.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::build_id::BUILD;
use crate::channel::Channel;
use crate::cleanup::{Cleanup, ProgramProcess};
use crate::denial::Denial;
use crate::diagnosis::explain_exec_error;
use crate::error::{Error, Step};
use crate::output::Capture;
use crate::priority::JobPriority;
use crate::protocol::{
    Attempt, FileState, Prepare, Reply, Request, RunCommand, Text, is_safe_name, is_safe_path,
};
use crate::sandbox::Sandbox;
use crate::sys;
use crate::usage::Usage;
use crate::view::View;

/// Time limit for the helper to create the job's directory.
const PREPARE_TIME_LIMIT: Duration = Duration::from_secs(10);
/// Additional time for the helper to detect that a program exceeded its time limit and to kill its descendants.
const RUN_GRACE: Duration = Duration::from_secs(5);
/// Time limit for the helper to remove the job's directory and exit.
const CLOSE_TIME_LIMIT: Duration = Duration::from_secs(30);
/// Time limit for reading the rest of the output after the program was killed: a survivor may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(100);

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Absolute path, or a name that is searched in the `PATH` of the program's environment.
    pub program: PathBuf,
    /// Arguments after the program's name, including the media's path if the program needs it.
    pub args: Vec<OsString>,
}

impl RunCommand {
    fn new(command: &Command, time_limit: Duration, monitored: bool) -> Self {
        Self {
            program: Text::from(command.program.as_os_str()),
            arguments: command.args.iter().cloned().map(Text).collect(),
            time_limit,
            monitored,
        }
    }
}

impl Prepare {
    fn new(sandbox: &Sandbox, parent: &Path, directory: String, media: &str) -> Self {
        let policy = sandbox.policy();
        let variables = policy.environment.iter();
        Self {
            build: BUILD.to_owned(),
            parent: Text::from(parent.as_os_str()),
            directory,
            media: media.to_owned(),
            plan: sandbox.plan(),
            cgroup: policy.cgroup.path().map(|path| Text::from(path.as_os_str())),
            view: View { network: policy.network.clone(), paths: policy.paths.clone() },
            user: policy.user,
            limits: sandbox.limits().limits.clone(),
            resident: sandbox.is_resident(),
            environment: variables
                .map(|(name, value)| (Text(name.clone()), Text(value.clone())))
                .collect(),
        }
    }
}

/// Result of a program's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How the program's process ended.
    pub termination: Termination,
    /// Beginning of standard output.
    pub stdout: Vec<u8>,
    /// Beginning of standard error.
    pub stderr: Vec<u8>,
    /// Whether standard output exceeded the capture limit and was truncated.
    pub stdout_truncated: bool,
    /// Whether standard error exceeded the capture limit and was truncated.
    pub stderr_truncated: bool,
    /// Resource usage.
    pub usage: Usage,
    /// State of the program's file; `None` if it differed before and after the run, or was inaccessible.
    pub program: Option<FileState>,
}

/// How a program's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// The process exited with this code, 0 to 255.
    Exited(i32),
    /// The process was killed by this signal.
    Signaled(i32),
    /// The process exceeded its time limit and was killed, or exited at the same moment.
    TimedOut,
}

/// A helper process with a private directory. Created by [`Sandbox::prepare`], ended by [`close`](Self::close).
/// Dropping a job ends it in the background.
#[derive(Debug)]
pub struct Job {
    sandbox: Sandbox,
    directory: PathBuf,
    media_path: PathBuf,
    media: Option<File>,
    tamper_proof: bool,
    priority: JobPriority,
    /// `None` while a program runs, and after a call failed or was cancelled. Dropping the channel ends the helper.
    channel: Option<Channel>,
    /// `None` after the cleanup has started.
    cleanup: Option<Cleanup>,
}

impl Sandbox {
    /// Starts a helper that creates a job's directory in `parent`, with an empty file `media_name` in it.
    ///
    /// `parent` must exist, be owned by the caller, have an absolute path of `[A-Za-z0-9._/-]`, and be searchable by
    /// the policy's user (mode 0711) if one is set. `media_name` consists of `[A-Za-z0-9._-]`, at most 255 bytes, does
    /// not start with `.` or `-` and is not `tmp`. Cancellation safe: dropping the future removes the job. Requires a
    /// tokio runtime with I/O and time enabled, as do all methods of [`Job`].
    pub async fn prepare(&self, parent: &Path, media_name: &str) -> Result<Job, Error> {
        Job::prepare(self, parent, media_name).await
    }
}

impl Job {
    pub(crate) async fn prepare(
        sandbox: &Sandbox,
        parent: &Path,
        media_name: &str,
    ) -> Result<Self, Error> {
        validate_names(parent, media_name)?;
        // The server chooses the name so that it can remove the directory even if the helper dies.
        let random = sys::random_u128().map_err(Error::errno("getting random bytes"))?;
        let name = format!("job-{random:032x}");
        let directory = parent.join(&name);
        let request = Prepare::new(sandbox, parent, name, media_name);
        let starting_sandbox = sandbox.clone();
        let (helper, socket) = spawn_blocking(move || starting_sandbox.start_helper())
            .await
            .map_err(|error| Error::Io { doing: "starting the helper", source: error.into() })??;
        let (policy, plan) = (sandbox.policy(), sandbox.plan());
        let mut job = Self {
            sandbox: sandbox.clone(),
            media_path: directory.join(media_name),
            media: None,
            tamper_proof: policy.user.is_some() || plan.namespaces,
            priority: JobPriority::new(),
            channel: None,
            cleanup: Some(Cleanup {
                helper,
                directory: directory.clone(),
                group: policy.cgroup.path().filter(|_| plan.cgroup.is_some()).map(Path::to_owned),
                in_memory: plan.namespaces,
                program: None,
            }),
            directory,
        };
        let channel = Channel::new(socket)?;
        match timeout(PREPARE_TIME_LIMIT, create_media(&channel, request))
            .await
            .unwrap_or(Err(Error::HelperTimedOut))
        {
            Ok(media) => {
                job.media = Some(media);
                job.channel = Some(channel);
                Ok(job)
            }
            Err(error) => {
                drop(channel);
                job.end_after_error(&error).await;
                Err(error)
            }
        }
    }

    /// Returns the absolute path of the media's file for programs; it consists of `[A-Za-z0-9._/-]`.
    #[must_use]
    pub fn media_path(&self) -> &Path {
        &self.media_path
    }

    /// Returns the job's directory: the program's working directory and `HOME`. Its subdirectory `tmp` is `TMPDIR`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the media's file, readable and writable; `None` after [`take_media`](Self::take_media).
    #[must_use]
    pub fn media(&self) -> Option<&File> {
        self.media.as_ref()
    }

    /// Takes the media's file. Its content stays readable after the job is closed and is unchanged by programs if
    /// [`media_is_tamper_proof`](Self::media_is_tamper_proof). With namespaces the file is in memory.
    pub fn take_media(&mut self) -> Option<File> {
        self.media.take()
    }

    /// Returns the control over the priority of this job's programs, to be used while one runs.
    #[must_use]
    pub fn priority(&self) -> JobPriority {
        self.priority.clone()
    }

    /// Whether programs cannot change the content of [`media`](Self::media): true with namespaces, and if programs run
    /// as a user other than the server's. Even then, [`media_path`](Self::media_path) may name another file after a
    /// run.
    #[must_use]
    pub fn media_is_tamper_proof(&self) -> bool {
        self.tamper_proof
    }

    /// Runs a program until it ends or `time_limit` expires, then kills all of its descendants. Captures at most
    /// `max_output` bytes each of standard output and standard error.
    ///
    /// Errors other than [`Error::NotStarted`] and [`Error::Argument`] end the job, as does dropping the future; then
    /// only [`close`](Self::close) is useful.
    pub async fn run(
        &mut self,
        command: &Command,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<Exit, Error> {
        let run = RunCommand::new(command, time_limit, false);
        self.run_command(command, run, None, max_output).await.map(|(exit, _)| exit)
    }

    /// Runs a resident program with its socket as standard input, until it ends. `demoted` receives pidfds of processes
    /// whose priority is to be lowered.
    pub(crate) async fn run_resident(
        &mut self,
        command: &Command,
        socket: OwnedFd,
        demoted: UnboundedReceiver<OwnedFd>,
        max_output: usize,
    ) -> Result<Exit, Error> {
        let run = RunCommand::new(command, Duration::MAX, false);
        let resident = Some((socket, demoted));
        self.run_command(command, run, resident, max_output).await.map(|(exit, _)| exit)
    }

    /// Runs a program like [`run`](Self::run) and also returns the accesses that it was denied, for testing a new
    /// script. Denied system calls are reported only if the seccomp layer is active.
    pub async fn run_monitored(
        &mut self,
        command: &Command,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<(Exit, Vec<Denial>), Error> {
        let run = RunCommand::new(command, time_limit, true);
        let (exit, attempts) = self.run_command(command, run, None, max_output).await?;
        Ok((exit, attempts.into_iter().filter_map(Denial::from_attempt).collect()))
    }

    async fn run_command(
        &mut self,
        command: &Command,
        run: RunCommand,
        resident: Option<(OwnedFd, UnboundedReceiver<OwnedFd>)>,
        max_output: usize,
    ) -> Result<(Exit, Vec<Attempt>), Error> {
        validate(command)?;
        // Put back only after success: dropping the channel tells the helper to kill and remove everything.
        let channel = self.channel.take().ok_or(Error::JobEnded)?;
        let result = self.run_on_channel(&channel, run, resident, max_output).await;
        match &result {
            Ok(_) | Err(Error::NotStarted { .. } | Error::Argument(_)) => {
                self.channel = Some(channel);
            }
            Err(error) => {
                drop(channel);
                self.end_after_error(error).await;
            }
        }
        match result {
            Err(Error::NotStarted { step: Step::Execute, source }) => {
                let (sandbox, program) = (self.sandbox.clone(), command.program.clone());
                let directory = self.directory.clone();
                let explain =
                    move || explain_exec_error(&program, sandbox.policy(), &directory, source);
                let source = spawn_blocking(explain).await.unwrap_or_else(Into::into);
                Err(Error::NotStarted { step: Step::Execute, source })
            }
            result => result,
        }
    }

    async fn run_on_channel(
        &mut self,
        channel: &Channel,
        run: RunCommand,
        resident: Option<(OwnedFd, UnboundedReceiver<OwnedFd>)>,
        max_output: usize,
    ) -> Result<(Exit, Vec<Attempt>), Error> {
        let limit = run.time_limit.saturating_add(RUN_GRACE);
        let (mut stdout, stdout_end) = Capture::new(max_output)?;
        let (mut stderr, stderr_end) = Capture::new(max_output)?;
        let (socket, demoted) = resident.unzip();
        let streams = [Some(&stdout_end), Some(&stderr_end), socket.as_ref()];
        let streams: Vec<_> = streams.into_iter().flatten().map(OwnedFd::as_fd).collect();
        channel.send(&Request::Run(run), &streams).await?;
        drop((stdout_end, stderr_end, socket));

        let ended = {
            let mut reading = pin!(async { tokio::join!(stdout.fill(), stderr.fill()) });
            let mut ended = pin!(timeout(limit, self.wait_for_end(channel, demoted)));
            tokio::select! {
                // Polls the output first: output that arrives together with the end of the program must not be lost.
                biased;
                // A program may close its output streams and continue to run.
                _ = &mut reading => ended.await,
                ended = &mut ended => {
                    let _ = timeout(DRAIN, reading).await;
                    ended
                }
            }
        };
        let (termination, usage, program, attempts) =
            ended.unwrap_or(Err(Error::HelperTimedOut))?;
        let exit = Exit {
            termination,
            stdout: stdout.captured,
            stderr: stderr.captured,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            usage,
            program,
        };
        Ok((exit, attempts))
    }

    /// Receives the helper's replies until the program has ended.
    async fn wait_for_end(
        &mut self,
        channel: &Channel,
        mut demoted: Option<UnboundedReceiver<OwnedFd>>,
    ) -> Result<(Termination, Usage, Option<FileState>, Vec<Attempt>), Error> {
        let cleanup = self.cleanup.as_mut().ok_or(Error::JobEnded)?;
        let mut demotion_sent = false;
        loop {
            let reply = tokio::select! {
                biased;
                reply = channel.receive::<Reply>() => reply?,
                () = self.priority.demotion(), if !demotion_sent => {
                    channel.send(&Request::Demote, &[]).await?;
                    demotion_sent = true;
                    continue;
                }
                Some(process) = next(&mut demoted) => {
                    channel.send(&Request::Demote, &[process.as_fd()]).await?;
                    continue;
                }
            };
            match reply {
                (Reply::Started { pid }, fds) => {
                    let [pidfd] = <[OwnedFd; 1]>::try_from(fds)
                        .map_err(|_| Error::Protocol("the program's descriptor is missing"))?;
                    cleanup.program = Some(ProgramProcess { pid: Pid::from_raw(pid), pidfd });
                }
                (Reply::Ended { status, timed_out, usage, program, survivors, attempts }, _) => {
                    cleanup.program = None;
                    if survivors {
                        tracing::warn!("processes of a scan script could not be killed in time");
                    }
                    return Ok((
                        Termination::from_wait_status(status, timed_out),
                        usage,
                        program,
                        attempts,
                    ));
                }
                (Reply::Refused(refusal), _) => {
                    cleanup.program = None;
                    return Err(refusal.into());
                }
                (Reply::Prepared, _) => return Err(Error::Protocol("unexpected reply to Run")),
            }
        }
    }

    /// Kills remaining processes, removes the directory and verifies both. Continues in the background if the future is
    /// dropped.
    pub async fn close(mut self) -> Result<(), Error> {
        self.end_within(CLOSE_TIME_LIMIT).await
    }

    async fn end_after_error(&mut self, error: &Error) {
        // A helper that does not reply will not clean up either.
        let time_limit =
            if matches!(error, Error::HelperTimedOut) { Duration::ZERO } else { CLOSE_TIME_LIMIT };
        if let Err(error) = self.end_within(time_limit).await {
            tracing::warn!(%error, directory = %self.directory.display(), "failed to remove a job's directory");
        }
    }

    async fn end_within(&mut self, time_limit: Duration) -> Result<(), Error> {
        self.channel = None;
        let Some(cleanup) = self.cleanup.take() else { return Ok(()) };
        // A separate task, so that dropping this future does not cancel the cleanup.
        match tokio::spawn(cleanup.finish(time_limit)).await {
            // When the runtime ends, the helper cleans up alone.
            Err(error) if error.is_cancelled() => Ok(()),
            ended => ended.map_err(|e| Error::Io { doing: "ending a job", source: e.into() })?,
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.channel = None;
        // Without a runtime the helper cleans up alone.
        if let (Some(cleanup), Ok(runtime)) = (self.cleanup.take(), Handle::try_current()) {
            let directory = self.directory.clone();
            runtime.spawn(async move {
                if let Err(error) = cleanup.finish(CLOSE_TIME_LIMIT).await {
                    tracing::warn!(%error, directory = %directory.display(), "failed to remove a job's directory");
                }
            });
        }
    }
}

impl Termination {
    fn from_wait_status(status: i32, timed_out: bool) -> Self {
        let status = ExitStatus::from_raw(status);
        match (timed_out, status.code(), status.signal()) {
            (true, _, _) => Self::TimedOut,
            (false, Some(code), _) => Self::Exited(code),
            // A wait status of an ended process has either a code or a signal.
            (false, None, signal) => Self::Signaled(signal.unwrap_or_default()),
        }
    }
}

/// Receives the next process; never returns without a receiver.
async fn next(demoted: &mut Option<UnboundedReceiver<OwnedFd>>) -> Option<OwnedFd> {
    match demoted {
        Some(demoted) => demoted.recv().await,
        None => std::future::pending().await,
    }
}

fn validate_names(parent: &Path, media_name: &str) -> Result<(), Error> {
    if !is_safe_path(parent) {
        return Err(Error::Argument(
            "a job's parent directory is not an absolute path of [A-Za-z0-9._/-]",
        ));
    }
    if !is_safe_name(media_name) || media_name == "tmp" {
        return Err(Error::Argument("the media's file name is not of [A-Za-z0-9._-]"));
    }
    Ok(())
}

/// Lets the helper create the job's directory and returns the media's file in it.
async fn create_media(channel: &Channel, request: Prepare) -> Result<File, Error> {
    channel.send(&Request::Prepare(Box::new(request)), &[]).await?;
    match channel.receive::<Reply>().await? {
        (Reply::Prepared, fds) => <[OwnedFd; 1]>::try_from(fds)
            .map(|[media]| File::from(media))
            .map_err(|_| Error::Protocol("the media's descriptor is missing")),
        (Reply::Refused(refusal), _) => Err(refusal.into()),
        _ => Err(Error::Protocol("unexpected reply to Prepare")),
    }
}

/// Rejects NUL bytes, which execve(2) cannot transfer, and relative paths, which would name files of the job's
/// directory.
fn validate(command: &Command) -> Result<(), Error> {
    let program = command.program.as_os_str().as_bytes();
    if program.is_empty() || (program.contains(&b'/') && !command.program.is_absolute()) {
        return Err(Error::Argument("a program is neither an absolute path nor a file name"));
    }
    if program.contains(&0) || command.args.iter().any(|arg| arg.as_bytes().contains(&0)) {
        return Err(Error::Argument("a command line contains NUL"));
    }
    Ok(())
}
