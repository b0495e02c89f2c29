//! The audit: on request one line of JSON for each media that was fetched and judged, appended to a
//! file or written to standard output. No token, no key, no file name. A thread of its own writes, so
//! that a disk that is full, or hangs, stops no scan: what cannot be written is counted, and told to
//! the log once.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::{sync::oneshot, time::timeout};
use tracing::{error, info, warn};

use crate::{
    chain::Chain,
    identity::by,
    media::{self, MediaId, Origin},
    metrics::{AuditLine, Metrics},
    ownership::open_to_append,
};

/// Lines that wait for the writer. Beyond that the disk is not slow but stuck.
const WAITING: usize = 1024;

/// For the owner to write and the group to read, whatever the umask is.
const MODE: u32 = 0o640;

/// How long a reload waits for a writer that a disk holds up.
const REOPENING: Duration = Duration::from_secs(5);

/// `[audit]`, checked: where lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settings {
    /// Appended to a file, made where it is not there.
    File(PathBuf),
    /// Standard output, which is the journal under systemd.
    Stdout,
}

/// Why there can be no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened, or standard output is closed.
    #[error("{at} cannot be opened{}", by(source))]
    Open {
        /// The file, or standard output.
        at: String,
        #[expect(missing_docs, reason = "the name says it")]
        source: io::Error,
    },
    /// The system refused.
    #[error("no thread can be started")]
    Thread(#[source] io::Error),
}

/// One media that was fetched and judged.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When.
    pub time: SystemTime,
    /// The media.
    pub media: &'a MediaId,
    /// Where it was fetched.
    pub origin: &'a Origin,
    /// Whether it is a thumbnail of the media.
    pub thumbnail: bool,
    /// Whether it came end-to-end encrypted.
    pub encrypted: bool,
    /// Of the plaintext.
    pub sha256: &'a [u8; 32],
    /// Bytes of the plaintext.
    pub size: u64,
    /// Its type, by content.
    pub detected: &'a str,
    /// [`crate::scan::Verdict::name`]
    pub verdict: &'static str,
    /// The script's, where it ran for this media.
    pub exit_code: Option<i32>,
    /// The first line of its output, where it ran for this media.
    pub first_line: Option<&'a str>,
    /// How long it ran, where it did.
    pub took: Option<Duration>,
}

/// Takes lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writer: async_channel::Sender<Message>,
    metrics: Arc<Metrics>,
    /// Whether the log has been told that the writer does not keep up.
    told: AtomicBool,
}

enum Message {
    Line(Vec<u8>),
    Reopen,
    /// Answered when all before it is written.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Opens what is configured and starts the writer, which ends with the last clone of this.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, AuditError> {
        let file = settings.open()?;
        let (sender, messages) = async_channel::bounded(WAITING);
        let writer = Writer { settings, file, torn: false, lost: 0, metrics: Arc::clone(&metrics) };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(&messages)).map_err(AuditError::Thread)?;
        Ok(Self(Arc::new(Shared { writer: sender, metrics, told: AtomicBool::new(false) })))
    }

    /// Has a line written; waits for nothing.
    pub fn record(&self, entry: &Entry<'_>) {
        let Shared { writer, metrics, told } = &*self.0;
        if writer.try_send(Message::Line(line(entry))).is_ok() {
            told.store(false, Ordering::Relaxed);
            return;
        }
        metrics.audit_line(AuditLine::Lost);
        if !told.swap(true, Ordering::Relaxed) {
            error!("audit lines are lost: {WAITING} of them wait to be written");
        }
    }

    /// Opens the file anew, after what has been recorded so far: somebody has moved it away. Where that
    /// fails, the old one is written on.
    pub async fn reopen(&self) {
        // Fails only once the writer has panicked, whose message is in the log.
        if timeout(REOPENING, self.0.writer.send(Message::Reopen)).await.is_err() {
            warn!("the audit's file is not opened anew: lines wait to be written to the old one");
        }
    }

    /// Until all that has been recorded is written, for this long at the most.
    pub async fn flush(&self, time: Duration) {
        let (tell, told) = oneshot::channel();
        let written = async {
            let _ended = self.0.writer.send(Message::Flush(tell)).await;
            let _ended = told.await;
        };
        if timeout(time, written).await.is_err() {
            warn!("the last audit lines may be lost: they are not written yet");
        }
    }
}

impl Settings {
    fn open(&self) -> Result<File, AuditError> {
        let opened = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => open_to_append(path, MODE).and_then(only_a_file),
        };
        opened.map_err(|source| AuditError::Open { at: self.to_string(), source })
    }
}

/// Lines are whole in a file alone, and there they wait for nobody; `/dev/null` and the like may be
/// meant.
fn only_a_file(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_char_device() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// The thread that writes.
struct Writer {
    settings: Settings,
    file: File,
    /// Whether the last line broke off.
    torn: bool,
    /// Lines since the last one that was written.
    lost: u64,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self, messages: &async_channel::Receiver<Message>) {
        while let Ok(message) = messages.recv_blocking() {
            match message {
                Message::Line(line) => self.line(line),
                Message::Reopen => self.reopen(),
                Message::Flush(told) => {
                    let _nobody_waits = told.send(());
                }
            }
        }
    }

    fn line(&mut self, mut line: Vec<u8>) {
        if self.torn {
            line.insert(0, b'\n');
        }
        match self.write(&line) {
            Ok(()) => {
                self.metrics.audit_line(AuditLine::Written);
                if self.lost > 0 {
                    warn!(lost = self.lost, "audit lines are written again");
                    self.lost = 0;
                }
            }
            Err(error) => {
                self.metrics.audit_line(AuditLine::Lost);
                if self.lost == 0 {
                    error!(%error, to = %self.settings, "audit lines are lost");
                }
                self.lost = self.lost.saturating_add(1);
            }
        }
    }

    /// In one write(2), as long as there is room: a file that others append to gets whole lines.
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
        match self.settings.open() {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                info!(to = %self.settings, "the audit's file is open anew");
            }
            Err(error) => {
                error!(error = %Chain(&error), "the audit goes on in the file as it was");
            }
        }
    }
}

fn line(entry: &Entry<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        mxc: String,
        homeserver: &'a str,
        thumbnail: bool,
        encrypted: bool,
        sha256: String,
        size: u64,
        r#type: &'a str,
        verdict: &'static str,
        exit_code: Option<i32>,
        output: Option<&'a str>,
        duration_ms: Option<u64>,
    }
    let line = Line {
        time: humantime::format_rfc3339_millis(entry.time).to_string(),
        mxc: entry.media.to_string(),
        homeserver: match entry.origin {
            Origin::Configured(url) => url.as_str(),
            Origin::Discovered => entry.media.server_name(),
        },
        thumbnail: entry.thumbnail,
        encrypted: entry.encrypted,
        sha256: media::hex(entry.sha256),
        size: entry.size,
        r#type: entry.detected,
        verdict: entry.verdict,
        exit_code: entry.exit_code,
        output: entry.first_line,
        duration_ms: entry.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    };
    // Text, numbers and no map: this cannot fail.
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn start(path: &Path) -> (Audit, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let settings = Settings::File(path.to_owned());
        (Audit::start(settings, Arc::clone(&metrics)).unwrap(), metrics)
    }

    fn entry(media: &MediaId) -> Entry<'_> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
            media,
            origin: &Origin::Discovered,
            thumbnail: false,
            encrypted: true,
            sha256: &[0xab; 32],
            size: 68,
            detected: "text/plain",
            verdict: "not_clean",
            exit_code: Some(1),
            first_line: Some("a \"b\"\nc"),
            took: Some(Duration::from_millis(12)),
        }
    }

    async fn record(audit: &Audit, media_id: &str) {
        audit.record(&entry(&MediaId::parse("a.example", media_id).unwrap()));
        audit.flush(PATIENCE).await;
    }

    fn line_of(media_id: &str) -> String {
        format!(
            "{{\"time\":\"2023-11-14T22:13:20.500Z\",\"mxc\":\"mxc://a.example/{media_id}\",\
             \"homeserver\":\"a.example\",\"thumbnail\":false,\"encrypted\":true,\"sha256\":\"{}\",\
             \"size\":68,\"type\":\"text/plain\",\"verdict\":\"not_clean\",\"exit_code\":1,\
             \"output\":\"a \\\"b\\\"\\nc\",\"duration_ms\":12}}\n",
            "ab".repeat(32)
        )
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[tokio::test]
    async fn a_line_is_appended_whole_to_a_file_that_others_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let (audit, _) = start(&path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o007, 0);
        record(&audit, "one").await;
        assert_eq!(read(&path), line_of("one"));
        let (again, _) = start(&path);
        record(&again, "two").await;
        record(&audit, "three").await;
        assert_eq!(read(&path), line_of("one") + &line_of("two") + &line_of("three"));
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_left_for_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let moved = directory.path().join("audit.1");
        let (audit, _) = start(&path);
        record(&audit, "one").await;
        fs::rename(&path, &moved).unwrap();
        record(&audit, "two").await;
        audit.reopen().await;
        record(&audit, "three").await;
        assert_eq!(read(&moved), line_of("one") + &line_of("two"));
        assert_eq!(read(&path), line_of("three"));
    }

    #[tokio::test]
    async fn where_no_new_one_can_be_had_the_old_one_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let moved = directory.path().join("audit.1");
        let (audit, _) = start(&path);
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        audit.reopen().await;
        record(&audit, "one").await;
        assert_eq!(read(&moved), line_of("one"));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_stops_nobody() {
        let (audit, metrics) = start(Path::new("/dev/full"));
        record(&audit, "one").await;
        record(&audit, "two").await;
        assert_eq!(metrics.audit_lines(AuditLine::Lost), 2);
        assert_eq!(metrics.audit_lines(AuditLine::Written), 0);
    }

    #[tokio::test]
    async fn a_line_that_broke_off_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let settings = Settings::File(path.clone());
        let file = settings.open().unwrap();
        let mut writer = Writer { settings, file, torn: false, lost: 0, metrics: Arc::default() };
        writer.write(b"{\"ha").unwrap();
        writer.torn = true;
        writer.line(b"{}\n".to_vec());
        writer.line(b"{}\n".to_vec());
        assert_eq!(read(&path), "{\"ha\n{}\n{}\n");
    }

    #[tokio::test]
    async fn a_writer_that_hangs_is_not_waited_for() {
        // A pipe that nobody reads, full: its writer waits.
        let (reader, pipe) = io::pipe().unwrap();
        let metrics = Arc::new(Metrics::default());
        let (sender, messages) = async_channel::bounded(2);
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let mut writer = Writer {
            settings: Settings::Stdout,
            file,
            torn: false,
            lost: 0,
            metrics: Arc::clone(&metrics),
        };
        let thread = std::thread::spawn(move || {
            writer.line(vec![b'x'; 1 << 20]);
            writer.run(&messages);
        });
        let audit = Audit(Arc::new(Shared {
            writer: sender,
            metrics: Arc::clone(&metrics),
            told: AtomicBool::new(false),
        }));
        let media = MediaId::parse("a.example", "abc").unwrap();
        for _ in 0..5 {
            audit.record(&entry(&media));
        }
        assert_eq!(metrics.audit_lines(AuditLine::Lost), 3);
        audit.flush(Duration::from_millis(1)).await;
        // Nor by a reload, whose patience is the clock's here.
        tokio::time::pause();
        timeout(REOPENING * 2, audit.reopen()).await.expect("the reload goes on");
        drop(reader);
        drop(audit);
        thread.join().unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [directory.path().to_owned(), fifo, directory.path().join("no/such/folder")] {
            assert!(Settings::File(path.clone()).open().is_err(), "{}", path.display());
        }
    }
}
