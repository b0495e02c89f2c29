//! The server's side of one job: the helper it started, the media's file, the programs it runs. Whatever happens to the
//! helper or to a future that is dropped, this side leaves no process and no directory behind: closing the socket is the
//! order to remove everything, and where the helper cannot any more, this side does.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::channel::Channel;
use crate::diagnosis::explained;
use crate::dispatch::BUILD;
use crate::output::Capture;
use crate::protocol::{
    Attempt, FileState, Prepare, Reply, Request, Run, Text, is_safe_name, is_safe_path,
};
use crate::remains::{Program, Remains};
use crate::view::View;
use crate::{Error, Sandbox, Step, Usage, sys};

/// For the helper to make a directory.
const PREPARE_TIME_LIMIT: Duration = Duration::from_secs(10);
/// For the helper to notice that a program's time is over, and to kill what it left behind.
const RUN_GRACE: Duration = Duration::from_secs(5);
/// For the helper to remove what a program left behind.
const CLOSE_TIME_LIMIT: Duration = Duration::from_secs(30);
/// For the last output, after all that could be killed is dead: a survivor may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(100);

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// An absolute path, or a name that is looked for in the `PATH` of the program's environment.
    pub program: PathBuf,
    /// The arguments after the program's name; where the program wants the media's path, the caller puts it there.
    pub args: Vec<OsString>,
}

impl Run {
    fn new(command: &Command, time_limit: Duration, watched: bool) -> Self {
        Self {
            program: Text::from(command.program.as_os_str()),
            arguments: command.args.iter().cloned().map(Text).collect(),
            time_limit,
            watched,
        }
    }
}

/// How a program's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How the process itself ended.
    pub outcome: Outcome,
    /// The beginning of what it wrote to standard output.
    pub stdout: Vec<u8>,
    /// The beginning of what it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Whether there was more on standard output.
    pub stdout_truncated: bool,
    /// Whether there was more on standard error.
    pub stderr_truncated: bool,
    /// What it cost.
    pub usage: Usage,
    /// The state of its file, as it was shown to it; none where that was another afterwards than before, or cannot be told.
    pub program: Option<FileState>,
}

/// How a program's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code, 0 to 255.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Its time was over, and it was killed; also if it ended by itself at that very moment.
    TimedOut,
}

/// What a program was refused, or asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A system call, by name.
    Call(String),
    /// A path that exists on the machine and is not shown: see [`Paths::read_only`](crate::Paths).
    Read(PathBuf),
    /// A path that may not be written: see [`Paths::writable`](crate::Paths), or better, `TMPDIR`.
    Write(PathBuf),
    /// A unix socket that may not be connected to: see [`Paths::unix_sockets`](crate::Paths).
    Connect(PathBuf),
    /// A TCP port that may not be connected to: see [`Network::Ports`](crate::Network).
    Port(u16),
}

impl Refused {
    /// Paths that are nowhere are looked for by every library: they are no refusal.
    fn of(attempt: Attempt) -> Option<Self> {
        let there = |path: Text| {
            let path = PathBuf::from(path.0);
            path.symlink_metadata().is_ok().then_some(path)
        };
        Some(match attempt {
            Attempt::Call(name) => Self::Call(name),
            Attempt::Read(path) => Self::Read(there(path)?),
            Attempt::Write(path) => Self::Write(path.0.into()),
            Attempt::Connect(path) => Self::Connect(there(path)?),
            Attempt::Port(port) => Self::Port(port),
        })
    }
}

/// A helper with a private directory. Made by [`Sandbox::prepare`], ended by [`close`](Self::close).
///
/// Dropped without `close` it ends as well, in the background.
#[derive(Debug)]
pub struct Job {
    sandbox: Sandbox,
    directory: PathBuf,
    media_path: PathBuf,
    media: Option<File>,
    tamper_proof: bool,
    /// None while a program runs, and for ever once a call has failed or was abandoned: closing it is what ends the helper.
    channel: Option<Channel>,
    /// None once it is taken to its end.
    remains: Option<Remains>,
}

impl Job {
    pub(crate) async fn prepare(
        sandbox: &Sandbox,
        parent: &Path,
        media_name: &str,
    ) -> Result<Self, Error> {
        if !is_safe_path(parent) {
            return Err(Error::Argument("a job's parent is no absolute path of [A-Za-z0-9._/-]"));
        }
        if !is_safe_name(media_name) || media_name == "tmp" {
            return Err(Error::Argument("the media's name is not one of [A-Za-z0-9._-]"));
        }
        // Named here, not by the helper, so that it can be removed whatever becomes of the helper.
        let name =
            format!("job-{:032x}", sys::random().map_err(Error::errno("getting random bytes"))?);
        let directory = parent.join(&name);
        let policy = sandbox.policy();
        let request = Request::Prepare(Box::new(Prepare {
            build: BUILD.to_owned(),
            parent: Text::from(parent.as_os_str()),
            directory: name,
            media: media_name.to_owned(),
            plan: sandbox.plan(),
            cgroup: policy.cgroup.path().map(|path| Text::from(path.as_os_str())),
            view: View { network: policy.network.clone(), paths: policy.paths.clone() },
            user: policy.user,
            limits: policy.limits.clone(),
            environment: policy
                .environment
                .iter()
                .map(|(name, value)| (Text(name.clone()), Text(value.clone())))
                .collect(),
        }));

        let starting = sandbox.clone();
        let (helper, socket) = spawn_blocking(move || starting.start_helper())
            .await
            .map_err(|error| Error::Io { doing: "starting the helper", source: error.into() })??;
        let mut job = Self {
            sandbox: sandbox.clone(),
            media_path: directory.join(media_name),
            media: None,
            tamper_proof: policy.user.is_some() || sandbox.plan().namespaces,
            channel: None,
            remains: Some(Remains {
                helper,
                directory: directory.clone(),
                group: policy
                    .cgroup
                    .path()
                    .filter(|_| sandbox.plan().cgroup.is_some())
                    .map(Path::to_owned),
                in_memory: sandbox.plan().namespaces,
                program: None,
            }),
            directory,
        };
        let channel = Channel::new(socket)?;
        let prepared = async {
            channel.send(&request, &[]).await?;
            channel.receive::<Reply>().await
        };
        let reply = timeout(PREPARE_TIME_LIMIT, prepared).await;
        let media = match reply.unwrap_or(Err(Error::HelperStuck)) {
            Ok((Reply::Prepared, fds)) => <[OwnedFd; 1]>::try_from(fds)
                .map_err(|_| Error::Protocol("the media's descriptor is missing")),
            Ok((Reply::Refused(refusal), _)) => Err(refusal.into()),
            Ok(_) => Err(Error::Protocol("not an answer to Prepare")),
            Err(error) => Err(error),
        };
        match media {
            Ok([media]) => {
                job.media = Some(File::from(media));
                job.channel = Some(channel);
                Ok(job)
            }
            Err(error) => {
                drop(channel);
                job.end_after(&error).await;
                Err(error)
            }
        }
    }

    /// The media's path, as a program is to be given it: absolute, of `[A-Za-z0-9._/-]`.
    #[must_use]
    pub fn media_path(&self) -> &Path {
        &self.media_path
    }

    /// The job's directory: the program's working directory and `HOME`; `tmp` in it is its `TMPDIR`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The media's file, to be written and read; `None` after [`take_media`](Self::take_media).
    #[must_use]
    pub fn media(&self) -> Option<&File> {
        self.media.as_ref()
    }

    /// The media's file. Its content can be read from it after the job has been closed, and is what was written through it
    /// if [`media_is_tamper_proof`](Self::media_is_tamper_proof). With namespaces it lies in memory.
    pub fn take_media(&mut self) -> Option<File> {
        self.media.take()
    }

    /// Whether no program can have changed what [`media`](Self::media) reads: true with namespaces, and where programs run as
    /// another user than the server. What lies at [`media_path`](Self::media_path) may still be another file after a run.
    #[must_use]
    pub fn media_is_tamper_proof(&self) -> bool {
        self.tamper_proof
    }

    /// Runs a program to its end, or for `time_limit`, and kills all that it leaves behind. At most `max_output` bytes of
    /// standard output are kept, and as many of standard error.
    ///
    /// An error other than [`Error::NotStarted`] and [`Error::Argument`] ends the job, as does dropping the future: what
    /// remains is [`close`](Self::close).
    pub async fn run(
        &mut self,
        command: &Command,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<Exit, Error> {
        let run = Run::new(command, time_limit, false);
        self.run_and(command, run, None, max_output).await.map(|(exit, _)| exit)
    }

    /// The same with a file as the program's standard input, which else is `/dev/null`. The program has the descriptor itself:
    /// what may not be changed has to be sealed, see [`sealed`](crate::sealed), and its offset is shared.
    pub async fn run_with_input(
        &mut self,
        command: &Command,
        input: BorrowedFd<'_>,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<Exit, Error> {
        let run = Run::new(command, time_limit, false);
        self.run_and(command, run, Some(input), max_output).await.map(|(exit, _)| exit)
    }

    /// The same, and beside the exit what the program was refused: for a person who tries a script. What depends on the
    /// filter of system calls is seen where that layer holds.
    pub async fn run_watched(
        &mut self,
        command: &Command,
        time_limit: Duration,
        max_output: usize,
    ) -> Result<(Exit, Vec<Refused>), Error> {
        let run = Run::new(command, time_limit, true);
        let (exit, attempts) = self.run_and(command, run, None, max_output).await?;
        Ok((exit, attempts.into_iter().filter_map(Refused::of).collect()))
    }

    async fn run_and(
        &mut self,
        command: &Command,
        run: Run,
        input: Option<BorrowedFd<'_>>,
        max_output: usize,
    ) -> Result<(Exit, Vec<Attempt>), Error> {
        check(command)?;
        // Only put back in the end: dropped on any other way, it tells the helper to kill and remove everything.
        let channel = self.channel.take().ok_or(Error::Over)?;
        let outcome = self.run_on(&channel, run, input, max_output).await;
        match &outcome {
            Ok(_) | Err(Error::NotStarted { .. } | Error::Argument(_)) => {
                self.channel = Some(channel);
            }
            Err(error) => {
                drop(channel);
                self.end_after(error).await;
            }
        }
        match outcome {
            Err(Error::NotStarted { step: Step::Execute, source }) => {
                let (sandbox, program) = (self.sandbox.clone(), command.program.clone());
                let directory = self.directory.clone();
                let explain = move || explained(&program, sandbox.policy(), &directory, source);
                let source = spawn_blocking(explain).await.unwrap_or_else(Into::into);
                Err(Error::NotStarted { step: Step::Execute, source })
            }
            outcome => outcome,
        }
    }

    async fn run_on(
        &mut self,
        channel: &Channel,
        run: Run,
        input: Option<BorrowedFd<'_>>,
        max_output: usize,
    ) -> Result<(Exit, Vec<Attempt>), Error> {
        let limit = run.time_limit.saturating_add(RUN_GRACE);
        let (mut stdout, stdout_end) = Capture::new(max_output)?;
        let (mut stderr, stderr_end) = Capture::new(max_output)?;
        let streams = [Some(stdout_end.as_fd()), Some(stderr_end.as_fd()), input];
        let streams: Vec<_> = streams.into_iter().flatten().collect();
        channel.send(&Request::Run(run), &streams).await?;
        drop((stdout_end, stderr_end));

        let ended = {
            let mut reading = pin!(async { tokio::join!(stdout.fill(), stderr.fill()) });
            let mut ended = pin!(timeout(limit, self.follow(channel)));
            tokio::select! {
                // Output and end may be there at the same time; what the program wrote counts.
                biased;
                // End-of-file is no end: a program may close its streams and go on.
                _ = &mut reading => ended.await,
                ended = &mut ended => {
                    let _ = timeout(DRAIN, reading).await;
                    ended
                }
            }
        };
        let (outcome, usage, program, attempts) = ended.unwrap_or(Err(Error::HelperStuck))?;
        let exit = Exit {
            outcome,
            stdout: stdout.kept,
            stderr: stderr.kept,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            usage,
            program,
        };
        Ok((exit, attempts))
    }

    /// Follows a program to its end.
    async fn follow(
        &mut self,
        channel: &Channel,
    ) -> Result<(Outcome, Usage, Option<FileState>, Vec<Attempt>), Error> {
        let remains = self.remains.as_mut().ok_or(Error::Over)?;
        loop {
            match channel.receive::<Reply>().await? {
                (Reply::Started { pid }, fds) => {
                    let [pidfd] = <[OwnedFd; 1]>::try_from(fds)
                        .map_err(|_| Error::Protocol("the program's descriptor is missing"))?;
                    remains.program = Some(Program { pid: Pid::from_raw(pid), pidfd });
                }
                (Reply::Ended { status, timed_out, usage, program, survivors, attempts }, _) => {
                    remains.program = None;
                    if survivors {
                        tracing::warn!(
                            "a scan script left processes that could not be killed in time"
                        );
                    }
                    return Ok((Outcome::new(status, timed_out), usage, program, attempts));
                }
                (Reply::Refused(refusal), _) => {
                    remains.program = None;
                    return Err(refusal.into());
                }
                (Reply::Prepared, _) => return Err(Error::Protocol("not an answer to Run")),
            }
        }
    }

    /// Kills what is left, removes the directory and makes sure that both have gone. A future that is dropped goes on in the
    /// background.
    pub async fn close(mut self) -> Result<(), Error> {
        self.end(CLOSE_TIME_LIMIT).await
    }

    async fn end_after(&mut self, error: &Error) {
        // One that does not answer will not clean up either.
        let patience =
            if matches!(error, Error::HelperStuck) { Duration::ZERO } else { CLOSE_TIME_LIMIT };
        if let Err(error) = self.end(patience).await {
            tracing::warn!(%error, directory = %self.directory.display(), "a job could not be removed");
        }
    }

    async fn end(&mut self, patience: Duration) -> Result<(), Error> {
        self.channel = None;
        match self.remains.take() {
            // A task of its own: an end that has begun is not to be dropped with the future that waits for it.
            Some(remains) => tokio::spawn(remains.end(patience))
                .await
                .map_err(|error| Error::Io { doing: "ending a job", source: error.into() })?,
            None => Ok(()),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.channel = None;
        // Without a runtime the helper does it alone.
        if let (Some(remains), Ok(runtime)) = (self.remains.take(), Handle::try_current()) {
            let directory = self.directory.clone();
            runtime.spawn(async move {
                if let Err(error) = remains.end(CLOSE_TIME_LIMIT).await {
                    tracing::warn!(%error, directory = %directory.display(), "a job could not be removed");
                }
            });
        }
    }
}

impl Outcome {
    fn new(status: i32, timed_out: bool) -> Self {
        let status = ExitStatus::from_raw(status);
        match (timed_out, status.code(), status.signal()) {
            (true, _, _) => Self::TimedOut,
            (false, Some(code), _) => Self::Exited(code),
            // wait(2) tells of an end only: it is one or the other.
            (false, None, signal) => Self::Signaled(signal.unwrap_or_default()),
        }
    }
}

/// What execve(2) would not be able to be told, and what would mean another file in the job's directory.
fn check(command: &Command) -> Result<(), Error> {
    let program = command.program.as_os_str().as_bytes();
    if program.is_empty() || (program.contains(&b'/') && !command.program.is_absolute()) {
        return Err(Error::Argument("a program is neither an absolute path nor a name"));
    }
    if program.contains(&0) || command.args.iter().any(|arg| arg.as_bytes().contains(&0)) {
        return Err(Error::Argument("a command line has a NUL in it"));
    }
    Ok(())
}
