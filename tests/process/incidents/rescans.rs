//! Served media is scanned again when the signatures of an engine change.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{IncidentFixture, ServerStep, StepReply, incident_lines, write_secret};
use crate::{
    harness::{
        Attachment, MockMedia, ScannerBuilder, ScannerProcess, homeserver::TOKEN, scanner::restart,
        wait_until,
    },
    operations::scrape_until,
};

const RESCAN_TOKEN: &str = "syt_rescan_token_0123456789";

/// The pass that finds nothing to do, because no media was served yet.
const FIRST_PASS: &str = "served media was scanned again";

/// A clamd whose signatures a test replaces.
#[derive(Clone)]
struct ChangingClamd {
    address: String,
    state: Arc<Mutex<ClamdState>>,
}

#[derive(Default)]
struct ClamdState {
    version: usize,
    /// Finds files that contain this.
    signature: String,
    scans: Vec<String>,
    asked_for_version: usize,
    is_failing: bool,
}

impl ChangingClamd {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(ClamdState {
            version: 27000,
            signature: "infected".to_owned(),
            ..ClamdState::default()
        }));
        let clamd = Self { address, state };
        let serving = clamd.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let clamd = serving.clone();
                tokio::spawn(async move { clamd.respond(stream).await });
            }
        });
        clamd
    }

    async fn respond(&self, mut stream: TcpStream) {
        let mut received = Vec::new();
        while !received.ends_with(b"\0\0\0\0") && received != b"zVERSION\0" {
            if !matches!(stream.read_buf(&mut received).await, Ok(length) if length > 0) {
                return;
            }
        }
        let response = {
            let mut state = self.state.lock().unwrap();
            if received == b"zVERSION\0" {
                state.asked_for_version += 1;
                format!("ClamAV 1.4.3/{}/Mon Nov 23 10:00:00 2026\0", state.version)
            } else {
                let text = String::from_utf8_lossy(&received[14..received.len() - 4]).into_owned();
                let is_infected = text.contains(&state.signature);
                state.scans.push(text);
                match (state.is_failing, is_infected) {
                    (true, _) => "stream: Can't allocate memory ERROR\0".to_owned(),
                    (false, true) => "stream: Later FOUND\0".to_owned(),
                    (false, false) => "stream: OK\0".to_owned(),
                }
            }
        };
        let _ = stream.write_all(response.as_bytes()).await;
    }

    /// Installs signatures of another version.
    fn update(&self, signature: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        signature.clone_into(&mut state.signature);
    }

    fn set_failing(&self, is_failing: bool) {
        self.state.lock().unwrap().is_failing = is_failing;
    }

    /// Returns the number of scans of files with this text.
    fn scans(&self, text: &str) -> usize {
        self.state.lock().unwrap().scans.iter().filter(|scan| scan.contains(text)).count()
    }

    /// Waits until the service has learnt the version several times more.
    async fn wait_for_versions(&self) {
        let asked = || self.state.lock().unwrap().asked_for_version;
        let start = asked();
        wait_until("the version is read", || asked() >= start + 4).await;
    }
}

/// Media that has to be there for requests about the homeserver itself.
fn add_client_api(fixture: &IncidentFixture) {
    for name in ["versions", "whoami"] {
        let media = MockMedia::new("application/json", "{}").served_before_authentication();
        fixture.homeserver.add_media(name, media);
    }
    fixture.homeserver.add_token(RESCAN_TOKEN);
}

fn with_clamd(builder: ScannerBuilder, clamd: &ChangingClamd) -> ScannerBuilder {
    write_secret(builder.dir(), "rescan", RESCAN_TOKEN);
    builder.config(&format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [\"{}\"]\nscan.version_interval = \"1s\"\n",
        clamd.address
    ))
}

const RESCAN: &str = r#"
    incident = { rescan = "recent", rate = 100, rescan_delay = "1s", token_path = "rescan" }
    "#;

/// Returns a service with rescans, and without consequences of malware.
fn rescan_alone(fixture: &IncidentFixture, clamd: &ChangingClamd) -> ScannerBuilder {
    let builder = ScannerBuilder::new("").homeserver(&fixture.homeserver);
    fs::create_dir(builder.dir().path("state")).unwrap();
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(builder.dir().path("state"), mode).unwrap();
    with_clamd(builder, clamd)
        .config("store.path = \"state/store.db\"\naudit.path = \"audit.jsonl\"")
        .config(RESCAN)
}

/// Returns the requests for media with this token.
fn requests_with(fixture: &IncidentFixture, token: &str, id: &str) -> usize {
    let expected = format!("Bearer {token}");
    let requests = fixture.homeserver.requests();
    let matching = requests.iter().filter(|request| {
        let authorization = request.headers.get("authorization");
        request.uri.contains(id) && authorization.is_some_and(|value| *value == *expected)
    });
    matching.count()
}

async fn scan_clean(scanner: &ScannerProcess, id: &str) {
    scanner.client.get(&format!("/scan/hs.example/{id}")).await.assert_clean();
}

async fn scan_infected(scanner: &ScannerProcess, id: &str) {
    let response = scanner.client.get(&format!("/scan/hs.example/{id}")).await;
    response.assert_not_clean("File not clean. Output: 'Later'");
}

fn audit_lines(scanner: &ScannerProcess) -> Vec<Value> {
    let text = fs::read_to_string(scanner.dir.path("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn served_media_becomes_infected_after_an_update() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    fixture.homeserver.add_bytes("later", "a file that is found later");
    fixture.homeserver.add_bytes("clean", "clean");
    let attachment = Attachment::encrypt(b"a message that is found later", 3);
    fixture.homeserver.add_bytes("sealed", attachment.ciphertext.clone());
    let scanner = with_clamd(fixture.builder(), &clamd).config(RESCAN).start().await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    for id in ["later", "clean"] {
        scan_clean(&scanner, id).await;
    }
    let body = attachment.body("mxc://hs.example/sealed");
    scanner.client.post("/scan_encrypted", &body).await.assert_clean();

    clamd.update("later");
    scanner.wait_for_log(FIRST_PASS, 2).await;
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_incidents_total{engine=\"clamd\"} 1").await;
    scrape_until(&operations, "mcs_incident_outbox 0").await;
    assert_eq!(fixture.server.quarantined(), ["hs.example/later"]);
    assert_eq!(fixture.server.received(ServerStep::Quarantine).len(), 1);
    assert_eq!(fixture.notices().len(), 1);
    for (id, token, expected) in [
        ("later", RESCAN_TOKEN, 1),
        ("later", TOKEN, 1),
        ("clean", RESCAN_TOKEN, 1),
        ("sealed", RESCAN_TOKEN, 0),
        ("sealed", TOKEN, 1),
    ] {
        assert_eq!(requests_with(&fixture, token, id), expected, "{id} {token}");
    }
    let results = [("not_clean", 1), ("clean", 1), ("known", 0), ("no_verdict", 0)];
    for (result, number) in results {
        let line = format!("mcs_rescan_media_total{{result=\"{result}\"}} {number}");
        scrape_until(&operations, &line).await;
    }
    let lines = audit_lines(&scanner);
    let rescans: Vec<_> = lines.iter().filter(|line| line["rescan"] == true).collect();
    assert_eq!(rescans.len(), 2);
    let found = rescans.iter().find(|line| line["mxc"] == "mxc://hs.example/later").unwrap();
    assert_eq!((&found["verdict"], &found["outcome"]), (&"not_clean".into(), &"infected".into()));

    // The next request is refused without a scan or a download.
    assert_eq!(clamd.scans("found later"), 3);
    let downloads = fixture.homeserver.download_count();
    scan_infected(&scanner, "later").await;
    assert_eq!((clamd.scans("found later"), fixture.homeserver.download_count()), (3, downloads));

    // Another update: the infection stays known, and causes no second incident.
    clamd.update("a file that is found later");
    scanner.wait_for_log(FIRST_PASS, 3).await;
    assert_eq!(clamd.scans("found later"), 3);
    assert_eq!(requests_with(&fixture, RESCAN_TOKEN, "clean"), 2);
    assert_eq!(fixture.server.received(ServerStep::Quarantine).len(), 1);
    assert_eq!(incident_lines(&scanner.dir).len(), 2, "created and quarantined");
    for secret in [RESCAN_TOKEN, TOKEN] {
        assert!(!scanner.log().contains(secret));
    }
}

#[tokio::test]
async fn nothing_is_fetched_without_rescans() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    fixture.homeserver.add_bytes("later", "a file that is found later");
    let scanner = with_clamd(fixture.builder(), &clamd).start().await;
    scan_clean(&scanner, "later").await;
    let requests = fixture.homeserver.requests().len();
    clamd.update("later");
    clamd.wait_for_versions().await;
    assert_eq!(fixture.homeserver.requests().len(), requests);
    scan_infected(&scanner, "later").await;
}

/// The signatures change while the service is down. Without quarantine and notifications, its requests are refused.
#[tokio::test]
async fn change_while_the_service_is_down_is_noticed() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    fixture.homeserver.add_bytes("later", "a file that is found later");
    let scanner = rescan_alone(&fixture, &clamd).start().await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    scan_clean(&scanner, "later").await;
    let operations = scanner.operations_client().await;
    // The media with its reference, name and verdict, and the end of the first pass.
    scrape_until(&operations, "mcs_store_records 5").await;

    let scanner = restart(scanner.stop().await).await;
    clamd.wait_for_versions().await;
    assert_eq!(requests_with(&fixture, RESCAN_TOKEN, "later"), 0, "nothing has changed");
    let dir = scanner.stop().await;
    clamd.update("later");
    let scanner = restart(dir).await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    assert_eq!(requests_with(&fixture, RESCAN_TOKEN, "later"), 1);
    let scans = clamd.scans("later");
    scan_infected(&scanner, "later").await;
    assert_eq!(clamd.scans("later"), scans);
    assert_eq!(incident_lines(&scanner.dir).len(), 0);
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_incidents_total{engine=\"clamd\"} 0").await;
}

/// The pass waits for a token that the homeserver accepts, and for engines that work. One line for each.
#[tokio::test]
async fn pass_waits_for_its_token_and_for_the_engines() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    for id in ["later", "other"] {
        fixture.homeserver.add_bytes(id, format!("the file {id}"));
    }
    let scanner = rescan_alone(&fixture, &clamd).start().await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    for id in ["later", "other"] {
        scan_clean(&scanner, id).await;
    }
    fixture.homeserver.revoke_token(RESCAN_TOKEN);
    clamd.update("later");
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_rescan_pauses_total{cause=\"token\"} 2").await;
    scrape_until(&operations, "mcs_rescan_running 1").await;
    scrape_until(&operations, "mcs_rescan_media_left 2").await;
    assert_eq!(scanner.log().matches("rescan paused").count(), 1, "{}", scanner.log());

    // Read at each use.
    clamd.set_failing(true);
    write_secret(&scanner.dir, "rescan", "syt_another_token_0123456789");
    fixture.homeserver.add_token("syt_another_token_0123456789");
    scrape_until(&operations, "mcs_rescan_pauses_total{cause=\"engines\"} 1").await;
    scrape_until(&operations, "mcs_rescan_media_left 2").await;
    clamd.set_failing(false);
    scanner.wait_for_log(FIRST_PASS, 2).await;
    assert_eq!(scanner.log().matches("rescan paused").count(), 2, "{}", scanner.log());
    scan_infected(&scanner, "later").await;
}

/// A pass that is interrupted by the stop of the service ends at once, and continues after the next start.
#[tokio::test]
async fn stop_interrupts_a_pass() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    fixture.homeserver.add_bytes("later", "a file that is found later");
    let scanner = rescan_alone(&fixture, &clamd).start().await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    scan_clean(&scanner, "later").await;
    // A homeserver that is down: also the request about itself fails.
    fixture.homeserver.add_media("later", MockMedia::error(502, ""));
    fixture
        .homeserver
        .add_media("versions", MockMedia::error(502, "").served_before_authentication());
    clamd.update("later");
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_rescan_pauses_total{cause=\"homeserver\"} 1").await;
    let dir = scanner.stop().await;
    fixture.homeserver.add_bytes("later", "a file that is found later");
    add_client_api(&fixture);
    let scanner = restart(dir).await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    scan_infected(&scanner, "later").await;
}

#[tokio::test]
async fn token_that_others_can_read_is_rejected() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    let builder = rescan_alone(&fixture, &clamd);
    let path = builder.dir().path("rescan");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let (code, _, stderr) = builder.run(&["check-config", "--offline"]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("incident.token_path") && stderr.contains("has mode 0604"), "{stderr}");
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{stderr}");
}

/// The homeserver asks the quarantine to wait. Refusals do not depend on it.
#[tokio::test]
async fn media_is_refused_before_its_quarantine() {
    let (fixture, clamd) = (IncidentFixture::new().await, ChangingClamd::start().await);
    add_client_api(&fixture);
    fixture.homeserver.add_bytes("later", "a file that is found later");
    fixture.server.reply(ServerStep::Quarantine, [StepReply::Never]);
    let scanner = with_clamd(fixture.builder(), &clamd).config(RESCAN).start().await;
    scanner.wait_for_log(FIRST_PASS, 1).await;
    scan_clean(&scanner, "later").await;
    clamd.update("later");
    fixture.server.wait_for(ServerStep::Quarantine, 1).await;
    scan_infected(&scanner, "later").await;
}
