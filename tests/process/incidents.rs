//! Incidents: quarantine and notifications after malware in plain media, also when the service is killed in between.

mod operators;
mod rescans;
pub(crate) mod server;

use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::Sha256;

use crate::{
    harness::{
        Attachment, MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess,
        scanner::{ScannerDir, restart},
        wait_until,
    },
    operations::scrape_until,
};
use server::{IncidentServer, ServerStep, StepReply};

/// Finds what contains `infected`.
const SCRIPT: &str = r#"
    if grep -q infected "$1"; then printf 'Found <b>@room\033'; exit 1; fi
"#;

/// Finds what contains `later`.
const NEWER_SCRIPT: &str = r#"if grep -q later "$1"; then echo Later; exit 1; fi"#;

const SECRET: &str = "secret-of-the-webhook-0123456789";
const BOT_TOKEN: &str = "syt_bot_token_0123456789";
const ADMIN_TOKEN: &str = "syt_admin_token_0123456789";

const OUTBOX_EMPTY: &str = "mcs_incident_outbox 0";

struct IncidentFixture {
    homeserver: MockHomeserver,
    server: IncidentServer,
}

fn write_secret(dir: &ScannerDir, name: &str, secret: &str) {
    fs::write(dir.path(name), format!("{secret}\n")).unwrap();
    fs::set_permissions(dir.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

impl IncidentFixture {
    async fn new() -> Self {
        Self { homeserver: MockHomeserver::start().await, server: IncidentServer::start().await }
    }

    /// Returns a service that quarantines, and notifies the room and the webhook.
    fn builder(&self) -> ScannerBuilder {
        let builder = ScannerBuilder::new(SCRIPT).homeserver(&self.homeserver);
        let dir = builder.dir();
        fs::create_dir(dir.path("state")).unwrap();
        fs::set_permissions(dir.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
        write_secret(dir, "hook", SECRET);
        write_secret(dir, "bot", BOT_TOKEN);
        write_secret(dir, "admin", ADMIN_TOKEN);
        let url = self.server.url();
        builder.config(&format!(
            r#"
            store.path = "state/store.db"
            audit.path = "audit.jsonl"
            quarantine = {{ at = "synapse", base_url = "{url}", token_path = "admin", rate = 100 }}
            notify = [
                {{ webhook = "{url}/hook", secret_path = "hook" }},
                {{ room = "!room:example.org", homeserver = "{url}", token_path = "bot", personal_data = true }},
            ]
            "#
        ))
    }

    async fn scan(&self, scanner: &ScannerProcess, id: &str) {
        scanner.client.get(&format!("/scan/hs.example/{id}")).await;
    }

    /// Waits until this number of incidents was created, and nothing is left to do.
    async fn wait_until_done(&self, scanner: &ScannerProcess, incidents: usize) {
        let operations = scanner.operations_client().await;
        let line = format!("mcs_incidents_total{{engine=\"script\"}} {incidents}");
        scrape_until(&operations, &line).await;
        scrape_until(&operations, OUTBOX_EMPTY).await;
    }

    /// Returns the notifications of the webhook.
    fn notices(&self) -> Vec<Value> {
        let received = self.server.received(ServerStep::Webhook);
        received.iter().map(|received| serde_json::from_slice(&received.body).unwrap()).collect()
    }
}

fn incident_lines(dir: &ScannerDir) -> Vec<Value> {
    let text = fs::read_to_string(dir.path("audit.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("incident").is_some()).collect()
}

#[tokio::test]
async fn infected_plain_media_is_quarantined_and_notified() {
    let fixture = IncidentFixture::new().await;
    let media = MockMedia::new("text/plain", "an infected file")
        .with_header("content-disposition", "inline; filename=\"patient <i>.txt\"");
    fixture.homeserver.add_media("infected", media);
    let scanner = fixture.builder().start().await;
    fixture.scan(&scanner, "infected").await;
    fixture.wait_until_done(&scanner, 1).await;

    assert_eq!(fixture.server.quarantined(), ["hs.example/infected"]);
    let admin = format!("Bearer {ADMIN_TOKEN}");
    for step in [ServerStep::Quarantine, ServerStep::Check] {
        assert_eq!(fixture.server.received(step)[0].headers["authorization"], admin);
    }

    let hooks = fixture.server.received(ServerStep::Webhook);
    assert_eq!(hooks.len(), 1);
    let header = |name: &str| hooks[0].headers[name].to_str().unwrap().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(header("x-mcs-timestamp").as_bytes());
    mac.update(b".");
    mac.update(&hooks[0].body);
    let digits: Vec<_> =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("x-mcs-signature"), format!("sha256={}", digits.concat()));
    assert!(!hooks[0].headers.contains_key("authorization"));
    let notice = &fixture.notices()[0];
    let object = notice.as_object().unwrap();
    let keys: Vec<_> = object.keys().map(String::as_str).collect();
    assert_eq!(keys, ["engine", "finding", "id", "mxc", "outcome", "time", "type"]);
    assert_eq!(notice["mxc"], serde_json::json!(["mxc://hs.example/infected"]));
    assert_eq!(
        (&notice["engine"], &notice["finding"]),
        (&"script".into(), &"Found <b>@room".into())
    );

    let room = &fixture.server.received(ServerStep::Room)[0];
    assert_eq!(room.headers["authorization"], format!("Bearer {BOT_TOKEN}"));
    let id = notice["id"].as_str().unwrap();
    assert!(room.path.ends_with(&format!("/send/m.room.message/mcs-{id}")), "{}", room.path);
    let message = &fixture.server.messages()[0];
    assert_eq!(message["msgtype"], "m.notice");
    assert_eq!(message["m.mentions"], serde_json::json!({}));
    let html = message["formatted_body"].as_str().unwrap();
    for text in
        ["<code>mxc://hs.example/infected</code>", "Found &lt;b&gt;@room", "patient &lt;i&gt;.txt"]
    {
        assert!(html.contains(text), "{html}");
    }
    assert!(!html.contains("href"), "{html}");

    let lines = incident_lines(&scanner.dir);
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["created", "quarantined"]);
    assert_eq!(lines[0]["incident"], notice["id"]);
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_incidents_total{engine=\"script\"} 1").await;
    for step in ["quarantine", "webhook", "room"] {
        let line = format!("mcs_incident_steps_total{{step=\"{step}\",result=\"done\"}} 1");
        scrape_until(&operations, &line).await;
    }
    let log = scanner.log();
    for secret in [SECRET, BOT_TOKEN, ADMIN_TOKEN, "patient"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

/// A content is found infected at a later scan: all its media are quarantined. The same media causes no second incident.
#[tokio::test]
async fn all_media_with_the_content_are_one_incident() {
    let fixture = IncidentFixture::new().await;
    for id in ["one", "two", "three"] {
        fixture.homeserver.add_bytes(id, "a file that is found later");
    }
    let scanner = fixture.builder().start().await;
    for id in ["one", "two"] {
        fixture.scan(&scanner, id).await;
    }
    // Written shortly after the response: for each media its entry, its reference and its name; and one verdict.
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_store_records 7").await;
    assert_eq!(fixture.server.received(ServerStep::Quarantine).len(), 0);
    let dir = scanner.stop().await;
    dir.write_script("script.sh", NEWER_SCRIPT);
    let scanner = restart(dir).await;
    fixture.scan(&scanner, "three").await;
    fixture.wait_until_done(&scanner, 1).await;
    let expected = ["hs.example/one", "hs.example/three", "hs.example/two"];
    assert_eq!(fixture.server.quarantined(), expected);
    let notices = fixture.notices();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0]["mxc"].as_array().unwrap().len(), 3);

    // Another script scans all of them again.
    let dir = scanner.stop().await;
    dir.write_script("script.sh", &format!("{NEWER_SCRIPT}\n# other"));
    let scanner = restart(dir).await;
    for id in ["one", "two", "three"] {
        fixture.scan(&scanner, id).await;
    }
    // Other media with the content is new.
    fixture.homeserver.add_bytes("four", "a file that is found later");
    fixture.scan(&scanner, "four").await;
    fixture.wait_until_done(&scanner, 1).await;
    assert_eq!(fixture.server.quarantined().len(), 4);
    let notices = fixture.notices();
    assert_eq!(notices.len(), 2);
    assert_eq!(notices[1]["mxc"], serde_json::json!(["mxc://hs.example/four"]));
}

#[tokio::test]
async fn other_outcomes_cause_no_incident() {
    let fixture = IncidentFixture::new().await;
    let attachment = Attachment::encrypt(b"an infected message", 3);
    fixture.homeserver.add_bytes("sealed", attachment.ciphertext.clone());
    fixture.homeserver.add_bytes("clean", "clean");
    fixture.homeserver.add_media("unknown", MockMedia::error(404, "M_NOT_FOUND"));
    // A login page that answers for the homeserver.
    let page = MockMedia::new("text/html", "")
        .with_status(302)
        .with_header("location", "/_matrix/media/infected-page");
    fixture.homeserver.add_media("redirected", page);
    let page = MockMedia::new("text/html", "an infected page").served_without_token();
    fixture.homeserver.add_media("infected-page", page);
    let scanner = fixture.builder().start().await;
    let body = attachment.body("mxc://hs.example/sealed");
    scanner
        .client
        .post("/scan_encrypted", &body)
        .await
        .assert_not_clean("File not clean. Output: 'Found <b>@room'");
    for id in ["sealed", "clean", "unknown", "redirected"] {
        fixture.scan(&scanner, id).await;
    }
    // The only incident.
    fixture.homeserver.add_bytes("infected", "an infected file");
    fixture.scan(&scanner, "infected").await;
    fixture.wait_until_done(&scanner, 1).await;
    assert_eq!(fixture.server.quarantined(), ["hs.example/infected"]);
    assert_eq!(fixture.notices().len(), 1);
}

/// The other side has received a request when the service is killed: nothing is lost, and the room has one message.
#[tokio::test]
async fn killed_service_finishes_its_incidents() {
    for step in [ServerStep::Quarantine, ServerStep::Check, ServerStep::Webhook, ServerStep::Room] {
        let fixture = IncidentFixture::new().await;
        fixture.homeserver.add_bytes("infected", "an infected file");
        fixture.server.reply(step, [StepReply::Never]);
        let scanner = fixture.builder().start().await;
        fixture.scan(&scanner, "infected").await;
        fixture.server.wait_for(step, 1).await;
        let scanner = restart(scanner.kill()).await;
        fixture.server.wait_for(step, 2).await;
        scrape_until(&scanner.operations_client().await, OUTBOX_EMPTY).await;
        assert_eq!(fixture.server.quarantined(), ["hs.example/infected"], "{step:?}");
        assert_eq!(fixture.server.messages().len(), 1, "{step:?}");
        let mut ids: Vec<_> = fixture.notices().iter().map(|notice| notice["id"].clone()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{step:?}");
    }
}

/// The previous key is not accepted any more, so the store opens nothing that was stored before. The step is tried again
/// before the service ends, or by the next process.
#[tokio::test]
async fn waiting_incidents_outlive_a_new_request_key() {
    for tries in [2, 1] {
        let fixture = IncidentFixture::new().await;
        fixture.homeserver.add_bytes("infected", "an infected file");
        let failures = std::iter::repeat_n((), tries).map(|()| StepReply::Status(500));
        fixture.server.reply(ServerStep::Quarantine, failures);
        let builder = fixture.builder().config("crypto.previous_key_ttl = \"0s\"");
        let scanner = builder.start().await;
        fixture.scan(&scanner, "infected").await;
        fixture.server.wait_for(ServerStep::Quarantine, 1).await;
        fs::write(scanner.dir.path("request_secret"), STANDARD.encode([7; 32])).unwrap();
        scanner.signal(Signal::SIGHUP);
        scanner.wait_for_log("reloaded", 1).await;
        fixture.server.wait_for(ServerStep::Quarantine, tries).await;
        let scanner = restart(scanner.stop().await).await;
        // The outbox is also empty before it is read.
        fixture.server.wait_for(ServerStep::Quarantine, tries + 1).await;
        scrape_until(&scanner.operations_client().await, OUTBOX_EMPTY).await;
        assert_eq!(fixture.server.quarantined(), ["hs.example/infected"], "{tries}");
        assert!(!scanner.log().contains("are lost"), "{}", scanner.log());
    }
}

/// Killed right after the response, when neither the verdict nor the incident need to be on disk: a known verdict has its
/// incident, and without one the media is scanned again.
#[tokio::test]
async fn no_verdict_survives_without_its_incident() {
    let fixture = IncidentFixture::new().await;
    let mut scanner = fixture.builder().start().await;
    for number in 0..10 {
        let id = format!("infected-{number}");
        fixture.homeserver.add_bytes(&id, format!("an infected file {number}"));
        fixture.scan(&scanner, &id).await;
        scanner = restart(scanner.kill()).await;
        fixture.scan(&scanner, &id).await;
        wait_until("the incident is done", || {
            fixture.server.quarantined().len() == number + 1
                && fixture.server.messages().len() == number + 1
        })
        .await;
    }
}

#[tokio::test]
async fn hostile_responses_are_tried_again() {
    let fixture = IncidentFixture::new().await;
    let elsewhere = IncidentServer::start().await;
    let target = |path: &str| StepReply::Redirect(format!("{}{path}", elsewhere.url()));
    fixture.homeserver.add_bytes("infected", "an infected file");
    fixture
        .server
        .reply(ServerStep::Quarantine, [target("/_synapse/admin/v1/media/quarantine/a/b")]);
    fixture.server.reply(ServerStep::Check, [StepReply::Huge]);
    fixture.server.reply(ServerStep::Webhook, [target("/hook")]);
    fixture.server.reply(ServerStep::Room, [StepReply::RateLimit, StepReply::Status(500)]);
    let scanner = fixture.builder().start().await;
    fixture.scan(&scanner, "infected").await;
    fixture.server.wait_for(ServerStep::Room, 3).await;
    fixture.server.wait_for(ServerStep::Webhook, 2).await;
    fixture.server.wait_for(ServerStep::Check, 1).await;
    for step in [ServerStep::Quarantine, ServerStep::Webhook] {
        assert_eq!(elsewhere.received(step).len(), 0, "no secret follows a redirect");
    }
    let operations = scanner.operations_client().await;
    for line in [
        "mcs_incident_steps_total{step=\"quarantine\",result=\"failed\"} 2",
        "mcs_incident_steps_total{step=\"webhook\",result=\"failed\"} 1",
        "mcs_incident_steps_total{step=\"room\",result=\"failed\"} 1",
        "mcs_incident_outbox 1",
    ] {
        scrape_until(&operations, line).await;
    }
    assert_eq!(fixture.server.messages().len(), 1);
    assert!(scanner.log().contains("a step of an incident failed, trying again later"));
}

#[tokio::test]
async fn media_that_the_homeserver_lacks_ends_the_quarantine() {
    let fixture = IncidentFixture::new().await;
    fixture.homeserver.add_bytes("infected", "an infected file");
    fixture.server.remove("hs.example/infected");
    let scanner = fixture.builder().start().await;
    fixture.scan(&scanner, "infected").await;
    fixture.wait_until_done(&scanner, 1).await;
    assert_eq!(fixture.server.quarantined().len(), 0);
    let lines = incident_lines(&scanner.dir);
    assert_eq!(lines.last().unwrap()["state"], "not_quarantined");
}

/// Eleven incidents at once: ten notifications; the eleventh waits for the summary.
#[tokio::test]
async fn notifications_are_limited() {
    let fixture = IncidentFixture::new().await;
    for number in 0..12 {
        fixture.homeserver.add_bytes(&format!("infected-{number}"), format!("infected {number}"));
    }
    let scanner = fixture.builder().start().await;
    for number in 0..12 {
        fixture.scan(&scanner, &format!("infected-{number}")).await;
    }
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"quarantine\",result=\"done\"} 12")
        .await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"room\",result=\"done\"} 10").await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"webhook\",result=\"done\"} 10")
        .await;
    scrape_until(&operations, "mcs_incident_outbox 2").await;
    assert_eq!(fixture.notices().len(), 10);
}

#[tokio::test]
async fn secrets_that_others_can_read_are_rejected() {
    for name in ["hook", "bot", "admin"] {
        let fixture = IncidentFixture::new().await;
        let builder = fixture.builder();
        let path = builder.dir().path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let (code, _, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.contains("has mode 0604"), "{stderr}");
        let (code, stderr) = builder.run_to_exit();
        assert_eq!(code, Some(78), "{stderr}");
    }
}
