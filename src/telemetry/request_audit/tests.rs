//! Lines that wait for the user of a token.

use std::{fs, path::Path, time::SystemTime};

use reqwest::{Url, header::HeaderValue};
use tokio::net::TcpListener;

use super::*;
use crate::{
    config::Config,
    media::{MediaId, Origin, Requester, Variant},
    metrics::Metrics,
    telemetry::audit::AuditDestination,
};

/// A homeserver that accepts connections and never answers, and the log that asks it.
struct RequestFixture {
    _homeserver: TcpListener,
    base: Arc<Url>,
    metrics: Metrics,
    log: AuditLog,
    pending: PendingLines,
    audit: RequestAudit,
    directory: tempfile::TempDir,
}

impl RequestFixture {
    async fn new(lines: &str) -> Self {
        let homeserver = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}/", homeserver.local_addr().unwrap()).parse().unwrap();
        let config = Config::for_test();
        let settings =
            crate::media::Settings { base_homeserver_url: Some(base.clone()), ..config.download };
        let metrics = Metrics::default();
        let counters = Arc::clone(&metrics.homeservers);
        let homeservers = Arc::new(Homeservers::new(&settings, counters).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = AuditDestination::File(directory.path().join("audit"));
        let log = AuditLog::start(path, Arc::default()).unwrap();
        let user = if lines == "hash" { UserRecord::Hash } else { UserRecord::Full };
        let settings = Settings { user, client_address: true, ..config.audit };
        let pending = PendingLines::default();
        let hasher = || UserHasher::derive(&[1; 32]);
        let audit = RequestAudit::new(log.clone(), &settings, hasher, &homeservers, &pending);
        let base = Arc::new(base);
        Self { _homeserver: homeserver, base, metrics, log, pending, audit, directory }
    }

    /// Records a request with this token.
    fn record(&self, token: Option<&str>, sender: RequestSender) {
        let media = MediaId::parse("a.example", "abc").unwrap();
        let authorization =
            token.map(|token| HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let request = MediaRequest {
            media: media.clone(),
            variant: Variant::Original,
            timeout_ms: None,
            origin: Origin::Configured(Arc::clone(&self.base)),
            requester: Requester { authorization, sender, ..Requester::default() },
        };
        let record = AuditRecord {
            time: SystemTime::UNIX_EPOCH,
            media: &media,
            origin: &request.origin,
            thumbnail: false,
            encrypted: false,
            rescan: false,
            sha256: &[0; 32],
            size: 1,
            detected: None,
            verdict: "clean",
            not_clean: None,
            source: "memory",
            exit_code: None,
            first_line: None,
            took: None,
            engines: &[],
        };
        self.audit.record(&request, &record);
    }

    /// Returns the lines that are written or queued.
    async fn lines(&self) -> Vec<String> {
        self.log.flush(Duration::from_secs(20)).await;
        read(&self.directory.path().join("audit"))
    }

    fn skipped(&self) -> u64 {
        let skipped = [("result", "skipped")];
        self.metrics.homeservers.user_lookups.get_or_create(&skipped).get()
    }
}

fn read(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

const CLIENT: RequestSender = RequestSender::Client(None);

#[tokio::test]
async fn lines_without_a_question_are_written_at_once() {
    let fixture = RequestFixture::new("full").await;
    fixture.record(None, RequestSender::Client(Some("2001:db8::1".parse().unwrap())));
    fixture.record(None, CLIENT);
    fixture.record(Some("a"), RequestSender::Operator);
    let lines = fixture.lines().await;
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("\"client_address\":\"2001:db8::1\",\"exit_code\""), "{lines:?}");
    assert!(lines[1].contains("\"client_address\":null,\"exit_code\""), "{lines:?}");
    assert!(!lines[2].contains("client_address") && !lines[2].contains("user"), "{lines:?}");
}

#[tokio::test]
async fn number_of_waiting_lines_is_bounded_and_they_are_written_at_the_end() {
    for (form, unknown) in [("full", "\"user\":null"), ("hash", "\"user_hash\":null")] {
        let fixture = RequestFixture::new(form).await;
        for number in 0..MAX_PENDING + 3 {
            fixture.record(Some(&number.to_string()), CLIENT);
        }
        let lines = fixture.lines().await;
        assert_eq!((lines.len(), fixture.skipped()), (3, 3), "{form}");
        fixture.pending.finish().await;
        // Written at once from now on.
        fixture.record(Some("late"), CLIENT);
        let lines = fixture.lines().await;
        assert_eq!((lines.len(), fixture.skipped()), (MAX_PENDING as usize + 4, 4), "{form}");
        assert!(lines.iter().all(|line| line.contains(unknown)), "{form}");
    }
}
