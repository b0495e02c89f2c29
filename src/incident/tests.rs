//! Tests with servers on loopback that send what homeservers and webhooks should not.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use mcs_store::{FileStore, RecordKind, StoreSecret, StoreSettings};

use super::{
    entry::Incident,
    incident_store::IncidentStore,
    message::Notice,
    outbox::{DueStep, NextStep, Outbox, StepEnd},
    outbox_status::{OutboxStatus, SharedStatus},
    quarantine::QuarantineClient,
    room::NoticeRoom,
    secret_source::SecretSource,
    step::{StepResult, StepState},
    step_plan::{StepKind, StepPlan, StepTarget},
    webhook::Webhook,
};
use crate::{
    config::{Config, sections::quarantine::QuarantineApi},
    media::service_client::ServiceClient,
};

pub(super) fn incident() -> Incident {
    let mut incident = Incident {
        id: "0123".into(),
        found: 1_700_000_000_123,
        content: "00".repeat(32),
        engine: "clamd".into(),
        finding: "Eicar\u{202e} <script> @room evil.example".into(),
        file_name: Some("name of a patient".into()),
        location: Some("inner name".into()),
        media: Vec::new(),
        is_announced: false,
        targets: [("target".to_owned(), StepState::default())].into(),
    };
    incident.add_media("mxc://example.org/abc".into(), None);
    incident
}

#[test]
fn entries_are_read_as_they_were_written() {
    let incident = incident();
    assert_eq!(Incident::decode(&incident.encode()).unwrap(), incident);
    for other in [&b""[..], b"{}", br#"{"id":"a"}"#, b"\xff"] {
        Incident::decode(other).unwrap_err();
    }
}

#[test]
fn notices_escape_findings_and_contain_no_names_of_files() {
    let incident = incident();
    let all = [&incident, &incident];
    for (notice, is_single) in [(Notice::Single(&incident), true), (Notice::Summary(&all), false)] {
        for personal_data in [false, true] {
            let texts = [notice.to_json(personal_data), notice.to_message(personal_data)];
            for text in texts {
                let text = String::from_utf8(text).unwrap();
                assert!(text.is_ascii(), "{text}");
                let has_names = text.contains("patient") && text.contains("inner name");
                assert_eq!(has_names, personal_data && is_single, "{text}");
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
    }
    let message: serde_json::Value =
        serde_json::from_slice(&Notice::Single(&incident).to_message(false)).unwrap();
    let html = message["formatted_body"].as_str().unwrap();
    assert!(html.contains("<code>mxc://example.org/abc</code>"), "{html}");
    assert!(
        html.contains("<code>Eicar\\u{202e} &lt;script&gt; @room evil.example</code>"),
        "{html}"
    );
    let summary: serde_json::Value =
        serde_json::from_slice(&Notice::Summary(&all).to_json(false)).unwrap();
    assert_eq!((&summary["type"], &summary["count"]), (&"summary".into(), &2.into()));
    assert_eq!(summary["engines"], serde_json::json!({ "clamd": 2 }));
    assert_eq!(summary["first"], "2023-11-14T22:13:20.123Z");
}

/// Sends these bytes as responses, one for each connection, and records the requests. Without bytes, sends nothing.
async fn serve(responses: Vec<String>) -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let recorded = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            recorded.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(response.as_bytes()).await;
            if response.is_empty() {
                kept.push(stream);
            }
        }
        std::future::pending::<()>().await;
    });
    (url, requests)
}

fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A directory with a secret, and a client that waits for 2 s.
struct StepFixture {
    directory: tempfile::TempDir,
    client: ServiceClient,
}

impl StepFixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "0123456789abcdef").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let client = ServiceClient::new(&Config::for_test().download).unwrap();
        Self { directory, client: client.with_timeout(Duration::from_secs(2)) }
    }

    fn secret(&self) -> SecretSource {
        SecretSource::new(self.directory.path().join("secret"), "key")
    }

    async fn quarantine(&self, api: QuarantineApi, responses: &[String]) -> StepResult {
        let (base_url, requests) = serve(responses.to_vec()).await;
        let (token, client) = (self.secret(), self.client.clone());
        let client = QuarantineClient { api, base_url, token, client };
        let result = client.quarantine("mxc://example.org/abc").await;
        let path = match api {
            QuarantineApi::Synapse => "/_synapse/admin/v1/media/quarantine/example.org/abc",
            QuarantineApi::MediaRepo => {
                "/_matrix/media/unstable/admin/quarantine/media/example.org/abc"
            }
        };
        for first in requests.lock().unwrap().iter().take(1) {
            assert!(first.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{first}");
        }
        result
    }
}

/// Whether a result is a failure whose cause contains a text.
fn is_failure(result: &StepResult, text: &str) -> bool {
    matches!(result, StepResult::Failed(cause) if cause.contains(text))
}

#[tokio::test]
async fn only_confirmed_media_counts_as_quarantined() {
    let fixture = StepFixture::new();
    let accepted = || response(200, "{\"num_quarantined\": 1}");
    let state = |state: &str| response(200, &format!("{{\"media_info\": {{{state}}}}}"));
    let not_found = || response(404, "{\"errcode\": \"M_NOT_FOUND\"}");
    let limited = || response(429, "{\"errcode\": \"M_LIMIT_EXCEEDED\", \"retry_after_ms\": 1500}");
    let synapse =
        async |responses: &[String]| fixture.quarantine(QuarantineApi::Synapse, responses).await;
    let confirmed = state("\"quarantined_by\": \"@admin:example.org\"");
    assert_eq!(synapse(&[accepted(), confirmed]).await, StepResult::Done);
    // Numbers where the database has no booleans, and null for media of other servers.
    for (protected, is_refused) in
        [("true", true), ("1", true), ("false", false), ("0", false), ("null", false)]
    {
        let text = format!("\"quarantined_by\": null, \"safe_from_quarantine\": {protected}");
        let result = synapse(&[accepted(), state(&text)]).await;
        assert_eq!(matches!(result, StepResult::Refused(_)), is_refused, "{protected}");
        let text = format!("\"quarantined_by\": \"@a:b\", \"safe_from_quarantine\": {protected}");
        assert_eq!(synapse(&[accepted(), state(&text)]).await, StepResult::Done, "{protected}");
    }
    assert!(matches!(synapse(&[accepted(), not_found()]).await, StepResult::NotNeeded(_)));
    assert_eq!(synapse(&[limited()]).await, StepResult::Wait(Duration::from_secs(2)));
    assert_eq!(synapse(&[accepted(), limited()]).await, StepResult::Wait(Duration::from_secs(2)));
    let redirect = "HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_owned();
    for (responses, cause) in [
        (vec![accepted(), state("\"quarantined_by\": null")], "has not quarantined"),
        (vec![accepted(), response(200, "garbage")], "no state"),
        (vec![accepted(), response(200, &"x".repeat(1 << 20))], "no state"),
        (vec![accepted(), "garbage\r\n\r\n".to_owned()], "the request failed"),
        (vec![response(404, "{\"errcode\": \"M_UNRECOGNIZED\"}")], "quarantine.base_url"),
        (vec![response(404, "<html>")], "quarantine.base_url"),
        (vec![response(401, "")], "token of an administrator"),
        (vec![response(403, "")], "token of an administrator"),
        (vec![response(500, "")], "status 500"),
        (vec![redirect], "status 307"),
        (vec![String::new()], "no response"),
    ] {
        let result = synapse(&responses).await;
        assert!(is_failure(&result, cause), "{cause}: {result:?}");
    }
    let media_repo =
        async |response: String| fixture.quarantine(QuarantineApi::MediaRepo, &[response]).await;
    assert_eq!(media_repo(accepted()).await, StepResult::Done);
    let none = response(200, "{\"num_quarantined\": 0}");
    assert!(matches!(media_repo(none).await, StepResult::NotNeeded(_)));
    assert!(is_failure(&media_repo(not_found()).await, "quarantine.base_url"));
    assert!(is_failure(&media_repo(response(200, "{}")).await, "no number"));
}

#[tokio::test]
async fn notices_are_tried_again_until_they_are_accepted() {
    let fixture = StepFixture::new();
    let incident = incident();
    let notice = Notice::Single(&incident);
    let limited = || response(429, "{\"errcode\": \"M_LIMIT_EXCEEDED\", \"retry_after_ms\": 1500}");
    let redirect = || "HTTP/1.1 302 X\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n".to_owned();
    for (reply, expected) in [
        (response(200, ""), Ok(StepResult::Done)),
        (response(204, ""), Ok(StepResult::Done)),
        // The body does not matter.
        (response(200, &"x".repeat(1 << 20)), Ok(StepResult::Done)),
        (limited(), Ok(StepResult::Wait(Duration::from_secs(2)))),
        (response(429, ""), Err("status 429")),
        (redirect(), Err("redirect")),
        (response(500, ""), Err("status 500")),
        (String::new(), Err("no response")),
    ] {
        let (url, _) = serve(vec![reply.clone()]).await;
        let webhook = Webhook { url, secret: fixture.secret(), client: fixture.client.clone() };
        let result = webhook.send(&notice, false).await;
        match expected {
            Ok(expected) => assert_eq!(result, expected, "{reply:.60}"),
            Err(cause) => assert!(is_failure(&result, cause), "{reply:.60} {result:?}"),
        }
    }
    for (reply, expected) in [
        (response(200, "{}"), Ok(StepResult::Done)),
        (limited(), Ok(StepResult::Wait(Duration::from_secs(2)))),
        (response(403, "{}"), Err("member of the room")),
        (response(404, "{}"), Err("status 404")),
        (redirect(), Err("status 302")),
        (String::new(), Err("no response")),
    ] {
        let (homeserver, requests) = serve(vec![reply.clone()]).await;
        let room = "!a/b:example.org".to_owned();
        let (token, client) = (fixture.secret(), fixture.client.clone());
        let room = NoticeRoom { room, homeserver, token, client };
        let result = room.send(&notice, false).await;
        match expected {
            Ok(expected) => assert_eq!(result, expected, "{reply:.60}"),
            Err(cause) => assert!(is_failure(&result, cause), "{reply:.60} {result:?}"),
        }
        let request = requests.lock().unwrap()[0].clone();
        let line = "PUT /_matrix/client/v3/rooms/!a%2Fb:example.org/send/m.room.message/mcs-0123 ";
        assert!(request.starts_with(line), "{request}");
    }
}

#[tokio::test]
async fn nothing_is_sent_without_a_secret() {
    let fixture = StepFixture::new();
    let path = fixture.directory.path().join("secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let result = fixture.quarantine(QuarantineApi::Synapse, &[response(200, "{}")]).await;
    assert!(is_failure(&result, "has mode 0644"), "{result:?}");
    fs::remove_file(path).unwrap();
    let result = fixture.quarantine(QuarantineApi::Synapse, &[response(200, "{}")]).await;
    assert!(is_failure(&result, "cannot be read"), "{result:?}");
}

/// An outbox with notifications of one target.
struct OutboxFixture {
    _directory: tempfile::TempDir,
    store: Arc<FileStore>,
    outbox: Outbox,
}

const TARGET: StepKind = StepKind::Notify(0);

fn target() -> StepTarget {
    let address = "https://hook.example".to_owned();
    StepTarget { name: "target".to_owned(), kind: "webhook", address }
}

impl OutboxFixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret = StoreSecret::derive(b"secret");
        let path = directory.path().join("store.db");
        let (store, _) = FileStore::open(&path, secret, StoreSettings::default()).unwrap();
        let store = Arc::new(store);
        let plan = StepPlan { quarantined_at: None, targets: vec![target()] };
        let outbox =
            Outbox::new(IncidentStore::File(Arc::clone(&store)), plan, Duration::from_secs(3600));
        Self { _directory: directory, store, outbox }
    }

    /// Writes an entry and reads it.
    async fn add(&self, id: &str, value: &[u8]) -> Option<(u64, Arc<Incident>)> {
        let name = self.store.secret().name(RecordKind::Incident, &[id.as_bytes()]);
        self.store.add_incident(name, u64::MAX, u64::MAX, value).unwrap().await.unwrap();
        let page = self.store.outbox_entry(name).await.unwrap();
        self.outbox.insert(&page.entries[0])
    }

    async fn add_incident(&self, id: &str) {
        let incident = Incident { id: id.to_owned(), ..incident() };
        let (number, read) = self.add(id, &incident.encode()).await.unwrap();
        assert_eq!(*read, incident);
        // Its steps begin after other media was added.
        assert_eq!(self.outbox.all(TARGET).iter().filter(|due| due.number == number).count(), 0);
        self.outbox.announce(number, incident);
    }

    fn due(&self) -> DueStep {
        match self.outbox.next(TARGET) {
            NextStep::Due(due) => due,
            other => panic!("{other:?}"),
        }
    }
}

fn status(fixture: &OutboxFixture) -> OutboxStatus {
    OutboxStatus { outbox: fixture.outbox.clone(), shared: SharedStatus::default() }
}

#[tokio::test]
async fn failed_step_makes_way_for_others() {
    let fixture = OutboxFixture::new();
    for id in ["a", "b"] {
        fixture.add_incident(id).await;
    }
    for id in ["a", "b"] {
        let due = fixture.due();
        assert_eq!((&*due.incident.id, due.tries), (id, 0));
        fixture.outbox.record(due.number, due.step, StepEnd::Failed);
    }
    assert!(matches!(fixture.outbox.next(TARGET), NextStep::At(_)));
    assert!(matches!(fixture.outbox.next(StepKind::Quarantine), NextStep::None));
    // The number of tries is stored.
    let tries = async || {
        let entries = fixture.store.outbox(None).await.unwrap().entries;
        let incidents = entries.iter().map(|entry| Incident::decode(&entry.value).unwrap());
        incidents.map(|incident| incident.targets["target"].tries).collect::<Vec<_>>()
    };
    while tries().await != [1, 1] {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn finished_incident_leaves_the_outbox_and_is_not_read_again() {
    let fixture = OutboxFixture::new();
    fixture.add_incident("a").await;
    let before = fixture.store.outbox(None).await.unwrap();
    let due = fixture.due();
    assert_eq!(status(&fixture).length_and_age().0, 1);
    fixture.outbox.record(due.number, due.step, StepEnd::Done);
    // As it was read before.
    assert!(fixture.outbox.insert(&before.entries[0]).is_none());
    assert!(matches!(fixture.outbox.next(TARGET), NextStep::None));
    assert_eq!(status(&fixture).length_and_age(), (0, 0));
    while !fixture.store.outbox(None).await.unwrap().entries.is_empty() {
        tokio::task::yield_now().await;
    }
}

/// A server that replicas share may restore an earlier state.
#[tokio::test]
async fn states_of_one_incident_are_merged() {
    let is_over = StepState { is_over: true, ..StepState::default() };
    let mut earlier = Incident { is_announced: true, ..incident() };
    earlier.add_media("mxc://example.org/other".into(), Some("http://hs".into()));
    let mut later = earlier.clone();
    later.media[1].quarantine = is_over;
    later.targets = [("target".to_owned(), is_over)].into();
    earlier.targets =
        [("target".to_owned(), StepState { tries: 3, ..StepState::default() })].into();
    let mut merged = earlier.clone();
    merged.merge(&later);
    assert_eq!(merged, later, "what is done stays done");
    let mut merged = later.clone();
    merged.merge(&Incident { is_announced: false, ..incident() });
    assert_eq!(merged.media, later.media);
    assert_eq!(merged.targets, later.targets);
    assert!(merged.is_announced);
}

/// The verdicts were wrong, so nothing must follow from them.
#[tokio::test]
async fn removal_of_all_verdicts_drops_the_incidents() {
    let fixture = OutboxFixture::new();
    fixture.add_incident("a").await;
    let due = fixture.due();
    assert_eq!(fixture.outbox.is_stored(due.number).await, Some(true));
    fixture.store.clear().await.unwrap();
    assert_eq!(fixture.outbox.is_stored(due.number).await, Some(false));
    assert!(matches!(fixture.outbox.next(TARGET), NextStep::None));
}

#[tokio::test]
async fn entry_of_another_version_is_dropped() {
    let fixture = OutboxFixture::new();
    assert!(fixture.add("a", b"{}").await.is_none());
    while !fixture.store.outbox(None).await.unwrap().entries.is_empty() {
        tokio::task::yield_now().await;
    }
}
