//! Optional audit log: one line of JSON for each scanned file, or each response with a verdict, and for each change by an
//! operator, appended to a file or written to standard output. Contains no tokens, keys or file names. A dedicated thread writes the lines, so that a full or blocked disk does not
//! stop scans; lost lines are counted and reported in the log once.

mod change;
mod incident;
mod record;
mod session;
mod user_hash;

pub use crate::config::sections::audit::{AuditDestination, Settings, UserRecord};
pub use change::{AuditChange, ChangeState, ChangeSubject, NotRecorded};
pub use record::{AuditLine, AuditRecord, RecordedUser};
pub use session::AuditSession;
pub use user_hash::UserHasher;

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::timeout};
use tracing::{error, info, warn};

use change::format_change;
use incident::format_incident;
use session::format_session;

use crate::{
    chain::Chain,
    identity::denied_user,
    incident::IncidentEvent,
    metrics::{AuditLineResult, Metrics},
    ownership::open_to_append,
};

/// Maximum number of lines that wait for the writer; more are lost.
const QUEUE_CAPACITY: usize = 1024;

/// Mode of the file, regardless of the umask.
const FILE_MODE: u32 = 0o640;

/// Maximum time that a change by an operator waits for the writer.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that a reload waits for a blocked writer.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why the audit log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened, or standard output is closed.
    #[error("{target} cannot be opened{}", denied_user(source))]
    Open {
        /// The file, or standard output.
        target: String,
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("cannot start the writer thread")]
    Thread(#[source] io::Error),
}

/// Sends lines to the writer thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<AuditSender>);

#[derive(Debug)]
struct AuditSender {
    writer: async_channel::Sender<Message>,
    metrics: Arc<Metrics>,
    /// Whether the current overflow of the queue has been logged.
    overflow_logged: AtomicBool,
}

enum Message {
    Line(Vec<u8>),
    /// A line whose sender waits for whether it was written.
    Awaited(Vec<u8>, oneshot::Sender<bool>),
    Reopen,
    /// Acknowledged when all earlier messages have been processed.
    Flush(oneshot::Sender<()>),
}

impl AuditLog {
    /// Opens the destination and starts the writer thread, which ends when the last clone is dropped.
    ///
    /// # Errors
    /// [`AuditError`] if the destination cannot be opened or the thread cannot be started.
    pub fn start(destination: AuditDestination, metrics: Arc<Metrics>) -> Result<Self, AuditError> {
        let file = destination.open()?;
        let (sender, messages) = async_channel::bounded(QUEUE_CAPACITY);
        let writer =
            AuditWriter { destination, file, torn: false, lost: 0, metrics: Arc::clone(&metrics) };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(&messages)).map_err(AuditError::Thread)?;
        let overflow_logged = AtomicBool::new(false);
        Ok(Self(Arc::new(AuditSender { writer: sender, metrics, overflow_logged })))
    }

    /// Queues a line without waiting; the line is lost if the queue is full.
    pub fn record(&self, line: &AuditLine) {
        self.send_line(line.to_bytes());
    }

    /// Queues a line as [`record`](Self::record).
    pub fn record_incident(&self, event: &IncidentEvent<'_>) {
        self.send_line(format_incident(event, SystemTime::now()));
    }

    /// Queues a line as [`record`](Self::record).
    pub fn record_session(&self, session: &AuditSession<'_>) {
        self.send_line(format_session(session, SystemTime::now()));
    }

    fn send_line(&self, line: Vec<u8>) {
        let AuditSender { writer, metrics, overflow_logged } = &*self.0;
        if writer.try_send(Message::Line(line)).is_ok() {
            overflow_logged.store(false, Ordering::Relaxed);
            return;
        }
        metrics.record_audit_line(AuditLineResult::Lost);
        if !overflow_logged.swap(true, Ordering::Relaxed) {
            error!(waiting = QUEUE_CAPACITY, "audit lines are lost, the queue is full");
        }
    }

    /// Writes a line, and waits until it is written.
    ///
    /// # Errors
    /// If the line cannot be written, or the writer is blocked for 5 seconds.
    pub async fn record_change(&self, change: &AuditChange<'_>) -> Result<(), NotRecorded> {
        let (sender, written) = oneshot::channel();
        let line = format_change(change, SystemTime::now());
        let recorded = async {
            self.0.writer.send(Message::Awaited(line, sender)).await.map_err(|_| NotRecorded)?;
            written.await.map_err(|_| NotRecorded)
        };
        match timeout(CHANGE_TIMEOUT, recorded).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(NotRecorded),
        }
    }

    /// Reopens the file for log rotation, after the lines queued so far have been written. If reopening fails, the old
    /// file stays in use.
    pub async fn reopen(&self) {
        // The send fails only if the writer has panicked; the panic message is in the log.
        if timeout(REOPEN_TIMEOUT, self.0.writer.send(Message::Reopen)).await.is_err() {
            warn!("cannot reopen the audit file, the writer is blocked");
        }
    }

    /// Waits until all queued lines are written, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (sender, receiver) = oneshot::channel();
        let flushed = async {
            let _closed = self.0.writer.send(Message::Flush(sender)).await;
            let _closed = receiver.await;
        };
        if timeout(limit, flushed).await.is_err() {
            warn!("timed out writing the last audit lines");
        }
    }
}

impl AuditDestination {
    fn open(&self) -> Result<File, AuditError> {
        let opened = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => open_to_append(path, FILE_MODE).and_then(require_file),
        };
        opened.map_err(|source| AuditError::Open { target: self.to_string(), source })
    }
}

/// Accepts regular files, where writes are complete and do not wait for a reader, and character devices such as
/// `/dev/null`.
fn require_file(file: File) -> io::Result<File> {
    let file_type = file.metadata()?.file_type();
    if file_type.is_file() || file_type.is_char_device() {
        return Ok(file);
    }
    Err(io::Error::other("not a regular file"))
}

impl std::fmt::Display for AuditDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// State of the writer thread.
struct AuditWriter {
    destination: AuditDestination,
    file: File,
    /// Whether the last line was written partially.
    torn: bool,
    /// Number of lines lost since the last successful write.
    lost: u64,
    metrics: Arc<Metrics>,
}

impl AuditWriter {
    fn run(mut self, messages: &async_channel::Receiver<Message>) {
        while let Ok(message) = messages.recv_blocking() {
            match message {
                Message::Line(line) => {
                    self.write_line(line);
                }
                // A sender that has stopped waiting does not make the change.
                Message::Awaited(_, written) if written.is_closed() => {}
                Message::Awaited(line, written) => {
                    let _closed = written.send(self.write_line(line));
                }
                Message::Reopen => self.reopen(),
                Message::Flush(flushed) => {
                    let _closed = flushed.send(());
                }
            }
        }
    }

    /// Returns whether the line was written.
    fn write_line(&mut self, mut line: Vec<u8>) -> bool {
        if self.torn {
            line.insert(0, b'\n');
        }
        let written = self.write(&line);
        let is_written = written.is_ok();
        match written {
            Ok(()) => {
                self.metrics.record_audit_line(AuditLineResult::Written);
                if self.lost > 0 {
                    warn!(lost = self.lost, "writing audit lines again");
                    self.lost = 0;
                }
            }
            Err(error) => {
                self.metrics.record_audit_line(AuditLineResult::Lost);
                if self.lost == 0 {
                    error!(%error, file = %self.destination, "audit lines are lost");
                }
                self.lost = self.lost.saturating_add(1);
            }
        }
        is_written
    }

    /// Writes with a single write(2) if possible, so that lines of several appending processes do not mix.
    fn write(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reopen(&mut self) {
        match self.destination.open() {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                info!(file = %self.destination, "audit file reopened");
            }
            Err(error) => {
                error!(error = %Chain(&error), "cannot reopen the audit file, writing to the old one");
            }
        }
    }
}

#[cfg(test)]
mod tests;
