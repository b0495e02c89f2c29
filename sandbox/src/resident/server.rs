//! The server's side of a resident program. One task supervises the program, sends and receives its messages, and closes
//! its sandbox job.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::child::ChildFailure;
use super::message::{ResidentReply, ResidentRequest};
use super::record::{RecordError, RecordReader};
use crate::channel::{self, Packet};
use crate::error::Error;
use crate::job::{Command, Exit, Job, Termination};
use crate::sandbox::Sandbox;
use crate::sys;

/// Time limit for a resident program to load its data.
const START_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for a killed child to be reported, and for the program to exit after its socket is closed.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Interval and number of checks whether the pipe of an ended child is closed: one second in total.
const PIPE_CLOSE_INTERVAL: Duration = Duration::from_millis(2);
const PIPE_CLOSE_CHECKS: u32 = 500;

/// Captured length of each output stream of a resident program, bytes.
const MAX_OUTPUT: usize = 4096;

/// Dimensions of a resident program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidentLimits {
    /// Maximum number of jobs at the same time.
    pub jobs: u32,
    /// Maximum memory of one job without its media, bytes. The limit of a control group is calculated from it.
    pub job_memory: u64,
}

/// Limits of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// Memory beyond the address space of the resident program and the media, bytes.
    pub memory: u64,
    /// Time limit, also for processor time, which is rounded up to seconds.
    pub time: Duration,
}

/// Reason why a job has no result. The media may or may not be the cause.
#[derive(Debug, thiserror::Error)]
pub enum ResidentJobError {
    /// The resident program has ended. Another one can evaluate the media.
    #[error("the resident program has ended")]
    Ended,
    /// No child was forked.
    #[error("cannot fork")]
    NotStarted(#[source] io::Error),
    /// The pipe of the job could not be created.
    #[error("cannot create a pipe")]
    Pipe(#[source] io::Error),
    /// The time limit expired.
    #[error("the time limit expired")]
    TimedOut,
    /// The child did not end with exit code 0. The text names the cause of codes above 100.
    #[error("{}", describe_child(*.0))]
    Failed(Termination),
    /// The child ended with exit code 0 without a valid result.
    #[error("{0}")]
    Record(#[from] RecordError),
}

fn describe(termination: Termination) -> String {
    match termination {
        Termination::Exited(code) => format!("exit code {code}"),
        Termination::Signaled(signal) => format!("signal {signal}"),
        Termination::TimedOut => "the time limit expired".to_owned(),
    }
}

/// Describes the end of a child, with what usually causes it.
fn describe_child(termination: Termination) -> String {
    let cause = match termination {
        // A failed allocation prints a message, which the filter does not allow.
        Termination::Signaled(libc::SIGSYS) => Some("forbidden system call or out of memory"),
        Termination::Exited(code) => ChildFailure::from_code(code).map(ChildFailure::cause),
        Termination::Signaled(_) | Termination::TimedOut => None,
    };
    let end = describe(termination);
    cause.map_or_else(|| end.clone(), |cause| format!("{end} ({cause})"))
}

/// A running resident program. Dropping it ends the program and all jobs.
#[derive(Debug)]
pub struct Resident {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    next_job: AtomicU64,
}

impl Sandbox {
    /// Starts a resident program in a job of its own below `directory`, see [`prepare`](Self::prepare), passes `data` (at most two files) to it
    /// and waits until it is ready. `program` calls [`serve_resident`](crate::serve_resident). Requires a tokio runtime
    /// with I/O and time enabled. Cancellation safe: dropping the future ends the program.
    ///
    /// # Errors
    /// If the job cannot be prepared, or the program is not ready within 30 s.
    pub async fn start_resident(
        &self,
        directory: &Path,
        program: Command,
        data: &[&File],
        limits: ResidentLimits,
    ) -> Result<Resident, Error> {
        let job = self
            .for_resident(limits.jobs.into(), limits.job_memory)
            .prepare(directory, "media")
            .await?;
        let pair = channel::pair().map_err(Error::errno("creating a socket pair"))?;
        let (socket, programs_end) = pair;
        let data: Vec<_> = data.iter().map(AsFd::as_fd).collect();
        channel::send(socket.as_fd(), &ResidentRequest::Load.encode(), &data)
            .map_err(Error::errno("writing to a resident program"))?;
        let socket = sys::async_fd(socket).map_err(Error::io("polling a resident program"))?;
        let (outgoing, requests) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let driver = Driver {
            socket,
            requests,
            queue: VecDeque::new(),
            pending: HashMap::new(),
            ready: Some(ready),
        };
        // Dropped with this future if the caller gives up, which ends the task.
        let resident = Resident { outgoing, next_job: AtomicU64::new(1) };
        tokio::spawn(supervise(job, program, programs_end, driver));
        match timeout(START_TIME_LIMIT, started).await {
            Ok(Ok(ResidentStart::Ready)) => Ok(resident),
            Ok(Ok(ResidentStart::Failed(error))) => Err(error),
            Ok(Err(_)) => Err(Error::Resident("no reason was reported".to_owned())),
            Err(_) => Err(Error::Resident("it was not ready in time".to_owned())),
        }
    }
}

impl Resident {
    /// Returns whether the program has ended, so that no job can succeed any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// Evaluates media in a child of the program and returns the result. `media` must be open for reading only; its
    /// position is not used. The child receives `argument`, whose meaning the program defines. Cancellation safe: dropping
    /// the future kills the child.
    ///
    /// # Errors
    /// If the child ended otherwise than with exit code 0 and exactly one result, or not in time.
    pub async fn evaluate(
        &self,
        media: impl AsFd,
        argument: u32,
        limits: JobLimits,
        priority: &crate::JobPriority,
    ) -> Result<Vec<u8>, ResidentJobError> {
        let pipe_error = |errno: Errno| ResidentJobError::Pipe(errno.into());
        // Non-blocking on both ends: a child that floods its pipe does not wait, and the server reads after its end.
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(pipe_error)?;
        let media = media.as_fd().try_clone_to_owned().map_err(ResidentJobError::Pipe)?;
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        let cpu_seconds = limits.time.as_secs().saturating_add(1);
        let request = ResidentRequest::Evaluate {
            job,
            memory: limits.memory,
            cpu_seconds: u32::try_from(cpu_seconds).unwrap_or(u32::MAX),
            argument,
        };
        let (sender, mut ended) = oneshot::channel();
        let fds = vec![media, writing];
        let sent = self.outgoing.send(Outgoing { request, fds, job, ended: Some(sender) });
        sent.map_err(|_| ResidentJobError::Ended)?;
        let running = SentJob { outgoing: &self.outgoing, job };
        let end = timeout(limits.time, async {
            tokio::select! {
                biased;
                end = &mut ended => return end,
                () = priority.demotion() => running.demote(),
            }
            (&mut ended).await
        });
        let Ok(end) = end.await else {
            running.kill();
            // The caller may start the next job when the child is gone.
            let _ = timeout(KILL_GRACE, ended).await;
            return Err(ResidentJobError::TimedOut);
        };
        match end.map_err(|_| ResidentJobError::Ended)? {
            JobEnd::Status(0) => Ok(read_to_end(&reading, job).await?),
            JobEnd::Status(status) => {
                let status = ExitStatus::from_raw(status);
                let signal = Termination::Signaled(status.signal().unwrap_or_default());
                Err(ResidentJobError::Failed(status.code().map_or(signal, Termination::Exited)))
            }
            JobEnd::NotStarted(errno) => {
                Err(ResidentJobError::NotStarted(io::Error::from_raw_os_error(errno)))
            }
        }
    }
}

/// Reads the result of a job whose child has ended. A process that the server itself starts has a copy of the pipe between
/// fork(2) and execve(2), so end-of-file may arrive later.
async fn read_to_end(pipe: &OwnedFd, job: u64) -> Result<Vec<u8>, RecordError> {
    let mut reader = RecordReader::new();
    for _ in 0..PIPE_CLOSE_CHECKS {
        match reader.read(pipe, job) {
            Err(RecordError::Open) => sleep(PIPE_CLOSE_INTERVAL).await,
            result => return result,
        }
    }
    reader.read(pipe, job)
}

/// A job that was sent. Dropping it kills the child, if that has not ended.
struct SentJob<'a> {
    outgoing: &'a mpsc::UnboundedSender<Outgoing>,
    job: u64,
}

impl SentJob<'_> {
    fn send(&self, request: ResidentRequest) {
        // Fails if the program has ended, and the child with it.
        let _ =
            self.outgoing.send(Outgoing { request, fds: Vec::new(), job: self.job, ended: None });
    }

    fn kill(&self) {
        self.send(ResidentRequest::Kill { job: self.job });
    }

    fn demote(&self) {
        self.send(ResidentRequest::FindChild { job: self.job });
    }
}

impl Drop for SentJob<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A message to the program.
#[derive(Debug)]
struct Outgoing {
    request: ResidentRequest,
    fds: Vec<OwnedFd>,
    job: u64,
    /// Receives the end of the job that the message starts.
    ended: Option<oneshot::Sender<JobEnd>>,
}

/// End of a job.
#[derive(Debug)]
enum JobEnd {
    /// Wait status, see wait(2).
    Status(i32),
    /// Error of fork(2).
    NotStarted(i32),
}

/// Result of a program's start.
#[derive(Debug)]
enum ResidentStart {
    Ready,
    Failed(Error),
}

/// The socket to the program.
struct Driver {
    socket: AsyncFd<OwnedFd>,
    requests: mpsc::UnboundedReceiver<Outgoing>,
    /// Messages that the socket has no space for.
    queue: VecDeque<Outgoing>,
    /// Jobs that have not ended. Dropping the senders reports to their callers that the program has ended.
    pending: HashMap<u64, oneshot::Sender<JobEnd>>,
    ready: Option<oneshot::Sender<ResidentStart>>,
}

/// Runs the program until it ends, or until its [`Resident`] is dropped.
async fn supervise(mut job: Job, program: Command, programs_end: OwnedFd, driver: Driver) {
    run(&mut job, &program, programs_end, driver).await;
    if let Err(error) = job.close().await {
        tracing::warn!(%error, "failed to end the job of a resident program");
    }
}

async fn run(job: &mut Job, program: &Command, programs_end: OwnedFd, mut driver: Driver) {
    let (children, demotions) = mpsc::unbounded_channel();
    let mut run = pin!(job.run_resident(program, programs_end, demotions, MAX_OUTPUT));
    let exit = tokio::select! {
        biased;
        exit = &mut run => Some(exit),
        result = driver.run(&children) => {
            if let Err(errno) = result {
                tracing::warn!(error = %errno, "connection to a resident program lost");
            }
            None
        }
    };
    let ready = driver.ready.take();
    // Closes the socket, which ends the program and its children.
    drop(driver);
    let Some(exit) = exit else {
        if timeout(KILL_GRACE, run).await.is_err() {
            tracing::warn!("a resident program did not end by itself and is killed");
        }
        return;
    };
    let reason = end_reason(exit);
    if let Some(ready) = ready {
        // Fails if the caller has given up.
        let _ = ready.send(ResidentStart::Failed(reason));
    } else {
        tracing::warn!(error = %reason, "a resident program ended");
    }
}

fn end_reason(exit: Result<Exit, Error>) -> Error {
    match exit {
        Ok(exit) => {
            let output = String::from_utf8_lossy(&exit.stderr);
            let output = output.trim().escape_debug();
            Error::Resident(format!("{}: {output}", describe(exit.termination)))
        }
        Err(error) => error,
    }
}

impl Driver {
    /// Sends and receives until the [`Resident`] is dropped or the program closes the socket.
    async fn run(&mut self, children: &mpsc::UnboundedSender<OwnedFd>) -> nix::Result<()> {
        loop {
            tokio::select! {
                biased;
                packet = receive(&self.socket) => {
                    let Some(packet) = packet? else {
                        // The program is ending; its exit status, for which the caller waits as well, has the reason.
                        sleep(KILL_GRACE).await;
                        return Ok(());
                    };
                    self.handle(packet, children)?;
                }
                sent = send_first(&self.socket, &self.queue), if !self.queue.is_empty() => {
                    sent?;
                    self.queue.pop_front();
                }
                outgoing = self.requests.recv() => match outgoing {
                    Some(outgoing) => self.enqueue(outgoing),
                    None => return Ok(()),
                },
            }
        }
    }

    fn enqueue(&mut self, mut outgoing: Outgoing) {
        match outgoing.ended.take() {
            Some(ended) => {
                self.pending.insert(outgoing.job, ended);
            }
            // The job has ended.
            None if !self.pending.contains_key(&outgoing.job) => return,
            None => {}
        }
        self.queue.push_back(outgoing);
    }

    fn handle(
        &mut self,
        packet: Packet,
        children: &mpsc::UnboundedSender<OwnedFd>,
    ) -> nix::Result<()> {
        let Packet { bytes, mut fds } = packet;
        let (job, end) = match ResidentReply::decode(&bytes).ok_or(Errno::EPROTO)? {
            ResidentReply::Ready => {
                let ready = self.ready.take().ok_or(Errno::EPROTO)?;
                // Fails if the caller has given up.
                let _ = ready.send(ResidentStart::Ready);
                return Ok(());
            }
            ResidentReply::Child { .. } => {
                let child = fds.pop().ok_or(Errno::EPROTO)?;
                // Fails if the program has ended.
                let _ = children.send(child);
                return Ok(());
            }
            ResidentReply::Ended { job, status } => (job, JobEnd::Status(status)),
            ResidentReply::NotStarted { job, errno } => (job, JobEnd::NotStarted(errno)),
        };
        if let Some(ended) = self.pending.remove(&job) {
            // Fails if the caller has given up.
            let _ = ended.send(end);
        }
        Ok(())
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> nix::Result<Option<Packet>> {
    loop {
        let mut ready = socket.readable().await.map_err(errno)?;
        match ready.try_io(|socket| Ok(channel::receive(socket.get_ref().as_fd())?)) {
            Err(_would_block) => {}
            Ok(Ok(packet)) => return Ok(packet),
            Ok(Err(error)) => match errno(error) {
                // The program ended with unread messages.
                Errno::ECONNRESET => return Ok(None),
                errno => return Err(errno),
            },
        }
    }
}

/// Sends the first message of the queue. Cancellation safe.
async fn send_first(socket: &AsyncFd<OwnedFd>, queue: &VecDeque<Outgoing>) -> nix::Result<()> {
    let Some(Outgoing { request, fds, .. }) = queue.front() else { return Ok(()) };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    loop {
        let mut ready = socket.writable().await.map_err(errno)?;
        let send = |socket: &AsyncFd<OwnedFd>| {
            Ok(channel::send(socket.get_ref().as_fd(), &request.encode(), &fds)?)
        };
        match ready.try_io(send) {
            Err(_would_block) => {}
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => match errno(error) {
                Errno::EPIPE | Errno::ECONNRESET => return std::future::pending().await,
                // Too many descriptors are in flight, unix(7).
                Errno::ETOOMANYREFS => sleep(Duration::from_millis(1)).await,
                errno => return Err(errno),
            },
        }
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EIO)
}
