//! Lines, and a destination that cannot be written.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;
use crate::{
    media::{MediaId, Origin},
    scan::engines::{EngineReport, EngineSummary},
};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

fn start(path: &Path) -> (AuditLog, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let destination = AuditDestination::File(path.to_owned());
    (AuditLog::start(destination, Arc::clone(&metrics)).unwrap(), metrics)
}

fn audit_record(media: &MediaId) -> AuditRecord<'_> {
    AuditRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        media,
        origin: &Origin::Discovered,
        thumbnail: false,
        encrypted: true,
        rescan: false,
        sha256: &[0xab; 32],
        size: 68,
        detected: Some("text/plain"),
        verdict: "not_clean",
        not_clean: Some("infected"),
        source: "scan",
        exit_code: Some(1),
        first_line: Some("a \"b\"\nc"),
        took: Some(Duration::from_millis(12)),
        engines: &[],
    }
}

async fn record(audit: &AuditLog, media_id: &str) {
    let media = MediaId::parse("a.example", media_id).unwrap();
    audit.record(&AuditLine::new(&audit_record(&media)));
    audit.flush(TEST_TIMEOUT).await;
}

fn expected_line(media_id: &str) -> String {
    format!(
        "{{\"time\":\"2023-11-14T22:13:20.500Z\",\"mxc\":\"mxc://a.example/{media_id}\",\
         \"homeserver\":\"a.example\",\"thumbnail\":false,\"encrypted\":true,\"sha256\":\"{}\",\
         \"size\":68,\"type\":\"text/plain\",\"verdict\":\"not_clean\",\"outcome\":\"infected\",\"source\":\"scan\",\"exit_code\":1,\
         \"output\":\"a \\\"b\\\"\\nc\",\"duration_ms\":12}}\n",
        "ab".repeat(32)
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn appends_lines_to_file_with_restricted_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let (audit, _) = start(&path);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o007, 0);
    record(&audit, "one").await;
    assert_eq!(read(&path), expected_line("one"));
    let (second, _) = start(&path);
    record(&second, "two").await;
    record(&audit, "three").await;
    assert_eq!(read(&path), expected_line("one") + &expected_line("two") + &expected_line("three"));
}

#[test]
fn line_has_the_result_of_each_engine() {
    let report = |engine, result, finding: Option<&str>, is_observed| EngineReport {
        summary: EngineSummary {
            engine,
            result,
            finding: finding.map(Into::into),
            duration: Some(Duration::from_micros(7500)),
        },
        is_observed,
    };
    let reports = [
        report("clamd", "infected", Some("A \"name\"\u{202e}"), true),
        report("script", "clean", None, false),
    ];
    let media = MediaId::parse("a.example", "one").unwrap();
    let record = AuditRecord { engines: &reports, ..audit_record(&media) };
    let line = String::from_utf8(AuditLine::new(&record).to_bytes()).unwrap();
    let engines = line.split_once(",\"engines\":").unwrap().1;
    assert_eq!(
        engines,
        "[{\"engine\":\"clamd\",\"result\":\"infected\",\"finding\":\"A \\\"name\\\"\\u202e\",\
         \"observed\":true,\"duration_ms\":7},\
         {\"engine\":\"script\",\"result\":\"clean\",\"duration_ms\":7}]}\n"
    );
}

#[tokio::test]
async fn reopen_creates_new_file_after_rename() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let moved = directory.path().join("audit.1");
    let (audit, _) = start(&path);
    record(&audit, "one").await;
    fs::rename(&path, &moved).unwrap();
    record(&audit, "two").await;
    audit.reopen().await;
    record(&audit, "three").await;
    assert_eq!(read(&moved), expected_line("one") + &expected_line("two"));
    assert_eq!(read(&path), expected_line("three"));
}

#[tokio::test]
async fn failed_reopen_keeps_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let moved = directory.path().join("audit.1");
    let (audit, _) = start(&path);
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    audit.reopen().await;
    record(&audit, "one").await;
    assert_eq!(read(&moved), expected_line("one"));
}

#[tokio::test]
async fn counts_lines_that_cannot_be_written() {
    let (audit, metrics) = start(Path::new("/dev/full"));
    record(&audit, "one").await;
    record(&audit, "two").await;
    assert_eq!(metrics.audit_line_count(AuditLineResult::Lost), 2);
    assert_eq!(metrics.audit_line_count(AuditLineResult::Written), 0);
}

#[tokio::test]
async fn starts_new_line_after_partial_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let destination = AuditDestination::File(path.clone());
    let file = destination.open().unwrap();
    let metrics = Arc::default();
    let mut writer = AuditWriter { destination, file, torn: false, lost: 0, metrics };
    writer.write(b"{\"ha").unwrap();
    writer.torn = true;
    writer.write_line(b"{}\n".to_vec());
    writer.write_line(b"{}\n".to_vec());
    assert_eq!(read(&path), "{\"ha\n{}\n{}\n");
}

#[tokio::test]
async fn does_not_wait_for_blocked_writer() {
    // The writer blocks on a full pipe without a reader.
    let (reader, pipe) = io::pipe().unwrap();
    let metrics = Arc::new(Metrics::default());
    let (sender, messages) = async_channel::bounded(2);
    let file = File::from(std::os::fd::OwnedFd::from(pipe));
    let mut writer = AuditWriter {
        destination: AuditDestination::Stdout,
        file,
        torn: false,
        lost: 0,
        metrics: Arc::clone(&metrics),
    };
    let thread = std::thread::spawn(move || {
        writer.write_line(vec![b'x'; 1 << 20]);
        writer.run(&messages);
    });
    let audit = AuditLog(Arc::new(AuditSender {
        writer: sender,
        metrics: Arc::clone(&metrics),
        overflow_logged: AtomicBool::new(false),
    }));
    let media = MediaId::parse("a.example", "abc").unwrap();
    for _ in 0..5 {
        audit.record(&AuditLine::new(&audit_record(&media)));
    }
    assert_eq!(metrics.audit_line_count(AuditLineResult::Lost), 3);
    audit.flush(Duration::from_millis(1)).await;
    // A reload does not wait either; its timeout runs on the paused clock.
    tokio::time::pause();
    timeout(REOPEN_TIMEOUT * 2, audit.reopen()).await.expect("reopen does not return");
    drop(reader);
    drop(audit);
    thread.join().unwrap();
}

#[test]
fn rejects_directory_fifo_and_missing_folder() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [directory.path().to_owned(), fifo, directory.path().join("no/such/folder")] {
        assert!(AuditDestination::File(path.clone()).open().is_err(), "{}", path.display());
    }
}

#[tokio::test]
async fn change_is_recorded_only_if_the_line_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");

    let subject = ChangeSubject::All(true);
    let (change, state) = ("forget", ChangeState::Requested);
    let requested = AuditChange {
        change,
        subject: &subject,
        token_name: "admin",
        peer: "uid 0",
        access: "token",
        comment: None,
        state,
    };
    let audit = start(&path).0;
    assert_eq!(audit.record_change(&requested).await, Ok(()));
    assert!(read(&path).contains("\"all\":true"));
    let full = start(Path::new("/dev/full")).0;
    assert_eq!(full.record_change(&requested).await, Err(NotRecorded));
}
