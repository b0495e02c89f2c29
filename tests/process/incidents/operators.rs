//! What operators see of incidents, and the release of media from quarantine.

use serde_json::json;

use super::*;
use crate::{
    admin::{page::PageClient, sha256, store, store_succeeds},
    harness::scanner::run,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const ADMIN: &str = r#"
    admin.enabled = true
    admin.socket = "admin.sock"
    admin.token_path = "admin-token"
"#;

const INFECTED: &str = "an infected file";

async fn start(fixture: &IncidentFixture) -> ScannerProcess {
    let builder = fixture.builder().config(ADMIN);
    write_secret(builder.dir(), "admin-token", TOKEN);
    let scanner = builder.start().await;
    scanner.wait_for_log("listening for operators' changes", 1).await;
    scanner
}

async fn list(dir: &ScannerDir, arguments: &[&str]) -> Value {
    let arguments = [&["incidents", "--json"], arguments].concat();
    serde_json::from_str(&store_succeeds(dir, &arguments).await).unwrap()
}

/// Runs `quarantine release`. Returns the exit code, standard output and standard error.
async fn release(dir: &ScannerDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = dir.path("config.toml");
    let words = ["-c", config.to_str().unwrap(), "quarantine", "release"];
    let arguments: Vec<_> = words.iter().chain(arguments).map(ToString::to_string).collect();
    let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn release_succeeds(dir: &ScannerDir, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = release(dir, arguments).await;
    assert_eq!(code, Some(0), "{arguments:?} {stdout} {stderr}");
    stdout
}

fn release_lines(dir: &ScannerDir) -> Vec<Value> {
    let text = fs::read_to_string(dir.path("audit.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["change"] == "release").collect()
}

#[tokio::test]
async fn incidents_are_listed_with_the_states_of_their_steps() {
    let fixture = IncidentFixture::new().await;
    fixture.homeserver.add_bytes("infected", INFECTED);
    fixture.server.reply(ServerStep::Webhook, [StepReply::Status(500)]);
    let scanner = start(&fixture).await;
    let dir = &scanner.dir;
    assert_eq!(list(dir, &[]).await, json!({ "incidents": [] }));
    fixture.scan(&scanner, "infected").await;
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"webhook\",result=\"failed\"} 1")
        .await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"quarantine\",result=\"done\"} 1")
        .await;
    scrape_until(&operations, "mcs_incident_steps_total{step=\"room\",result=\"done\"} 1").await;
    // The webhook is tried again after two seconds.
    let listed = &list(dir, &["--waiting"]).await["incidents"];
    if let Some(waiting) = listed.get(0) {
        assert_eq!(waiting["state"], "waiting", "{waiting}");
        assert_eq!(waiting["media"][0]["quarantine"], json!({ "state": "done", "tries": 0 }));
        let webhook = &waiting["notifications"][0];
        assert_eq!(webhook["address"], fixture.server.url(), "without the path: {waiting}");
        assert_eq!((&webhook["state"], &webhook["tries"]), (&"waiting".into(), &1.into()));
        assert_eq!(waiting["notifications"][1]["state"], "done", "{waiting}");
    }
    fixture.wait_until_done(&scanner, 1).await;
    assert_eq!(list(dir, &["--waiting"]).await["incidents"], json!([]));
    let finished = &list(dir, &["--finished"]).await["incidents"][0];
    assert_eq!(finished["state"], "done", "{finished}");
    assert_eq!(finished["content"], sha256(INFECTED.as_bytes()));
    assert_eq!(finished["id"], fixture.notices()[0]["id"]);
    assert_eq!(finished["notifications"][0]["state"], "done", "{finished}");

    let text = store_succeeds(dir, &["incidents"]).await;
    for expected in [
        "script: Found <b>@room",
        "mxc://hs.example/infected: quarantine done",
        "room !room:example.org: done",
        "done, 1 tries failed",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("patient"), "{text}");

    let page = PageClient::sign_in(dir, TOKEN).await;
    for path in ["/", "/incidents", "/incidents?state=finished"] {
        let body = page.get(path).await.body;
        let table = body.split("class=\"incidents\"").nth(1).unwrap();
        for expected in ["mxc://hs.example/infected", "Found &#60;b&#62;@room", "<td>done"] {
            assert!(table.contains(expected), "{path} {expected}: {table}");
        }
        assert!(!table.contains("href=\"mxc:") && !table.contains("<b>"), "{path}: {table}");
    }
    let waiting = page.get("/incidents?state=waiting").await.body;
    assert!(!waiting.contains("hs.example"), "{waiting}");
    assert_eq!(page.get("/incidents?state=other").await.status, 400);
}

#[tokio::test]
async fn list_has_pages() {
    let fixture = IncidentFixture::new().await;
    let scanner = start(&fixture).await;
    for number in 0..3 {
        let id = format!("infected-{number}");
        fixture.homeserver.add_bytes(&id, format!("infected {number}"));
        fixture.scan(&scanner, &id).await;
        fixture.wait_until_done(&scanner, number + 1).await;
    }
    let dir = &scanner.dir;
    let first = list(dir, &["--limit", "2"]).await;
    let next = first["next"].as_str().unwrap();
    let second = list(dir, &["--limit", "2", "--after", next]).await;
    assert!(second.get("next").is_none(), "{second}");
    let pages = [&first["incidents"], &second["incidents"]];
    let incidents = pages.into_iter().flat_map(|page| page.as_array().unwrap());
    let media: Vec<_> = incidents.map(|incident| incident["media"][0]["mxc"].clone()).collect();
    let expected = [2, 1, 0].map(|number| format!("mxc://hs.example/infected-{number}"));
    assert_eq!(media, expected, "the latest first");
    let (code, _, stderr) = store(dir, &["incidents", "--after", "x"]).await;
    assert_eq!(code, Some(2), "{stderr}");
}

#[tokio::test]
async fn media_is_released_from_quarantine() {
    let fixture = IncidentFixture::new().await;
    for id in ["one", "two"] {
        fixture.homeserver.add_bytes(id, INFECTED);
    }
    let scanner = start(&fixture).await;
    let dir = &scanner.dir;
    for (number, id) in ["one", "two"].into_iter().enumerate() {
        fixture.scan(&scanner, id).await;
        fixture.wait_until_done(&scanner, number + 1).await;
    }
    let content = sha256(INFECTED.as_bytes());
    let mxc = "mxc://hs.example/one";
    let released = release_succeeds(dir, &[mxc, "--comment", "false alarm"]).await;
    assert_eq!(fixture.server.quarantined(), ["hs.example/two"]);
    for expected in [
        "mxc://hs.example/one: released\n".to_owned(),
        format!("run: store allow {content} --comment TEXT"),
        "quarantine: mxc://hs.example/two".to_owned(),
    ] {
        assert!(released.contains(&expected), "{expected}: {released}");
    }
    scanner
        .client
        .get("/scan/hs.example/one")
        .await
        .assert_not_clean("File not clean. Output: 'Found <b>@room'");
    let lines = release_lines(dir);
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["requested", "done"]);
    assert_eq!(lines[1]["mxc"], mxc);
    assert_eq!(lines[1]["comment"], "false alarm");
    assert_eq!(
        (&lines[1]["before"], &lines[1]["after"]),
        (&"quarantined".into(), &"not_quarantined".into())
    );

    // Both in one command.
    let words = ["mxc://hs.example/two", "--allow", "--for", "1d", "--comment", "false alarm"];
    let released = release_succeeds(dir, &words).await;
    assert!(released.contains(&format!("content {content}: allowed")), "{released}");
    assert_eq!(fixture.server.quarantined().len(), 0);
    for id in ["one", "two"] {
        scanner.client.get(&format!("/scan/hs.example/{id}")).await.assert_clean();
    }
    let released = release_succeeds(dir, &[mxc, "--comment", "again"]).await;
    assert!(released.contains("it was not in quarantine"), "{released}");
}

/// A homeserver may send a false positive first, and malware later.
#[tokio::test]
async fn several_infected_contents_are_not_allowed_at_once() {
    let fixture = IncidentFixture::new().await;
    let scanner = start(&fixture).await;
    let (dir, mxc) = (&scanner.dir, "mxc://hs.example/changing");
    let contents = [INFECTED.to_owned(), format!("{INFECTED} later")];
    for (number, content) in contents.iter().enumerate() {
        fixture.homeserver.add_bytes("changing", content.clone());
        fixture.scan(&scanner, "changing").await;
        fixture.wait_until_done(&scanner, number + 1).await;
        store_succeeds(dir, &["forget", mxc]).await;
    }
    let (code, _, stderr) = release(dir, &[mxc, "--allow", "--comment", "x"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    for content in &contents {
        assert!(stderr.contains(&sha256(content.as_bytes())), "{stderr}");
    }
    let decisions = store_succeeds(dir, &["decisions"]).await;
    assert!(decisions.contains("no file is allowed or blocked"), "{decisions}");
    assert_eq!(fixture.server.quarantined(), ["hs.example/changing"]);
}

#[tokio::test]
async fn failed_release_is_explained() {
    let fixture = IncidentFixture::new().await;
    let scanner = start(&fixture).await;
    let dir = &scanner.dir;
    fixture.server.remove("hs.example/missing");
    let mxc = "mxc://hs.example/one";
    for (step, reply, expected) in [
        (ServerStep::Release, StepReply::Status(403), "needs the token of an administrator"),
        (ServerStep::Release, StepReply::Status(500), "not released: status 500"),
        (ServerStep::Release, StepReply::RateLimit, "busy: try again in 1 s"),
        (
            ServerStep::Release,
            StepReply::Status(404),
            "check quarantine.at and quarantine.base_url",
        ),
        (ServerStep::Release, StepReply::Redirect("/".to_owned()), "status 307"),
        (ServerStep::Check, StepReply::Huge, "sent no state of the media"),
        (ServerStep::Check, StepReply::Status(401), "needs the token of an administrator"),
    ] {
        fixture.server.reply(step, [reply.clone()]);
        let (code, _, stderr) = release(dir, &[mxc, "--comment", "x"]).await;
        assert_eq!(code, Some(2), "{reply:?} {stderr}");
        assert!(stderr.contains(expected), "{reply:?} {stderr}");
        assert_eq!(release_lines(dir).last().unwrap()["state"], "failed");
    }
    let (code, _, stderr) = release(dir, &["mxc://hs.example/missing", "--comment", "x"]).await;
    assert!(code == Some(2) && stderr.contains("does not have this media"), "{stderr}");
    let (code, _, stderr) = release(dir, &[mxc, "--comment", "x", "--allow"]).await;
    assert!(code == Some(2) && stderr.contains("known to be infected"), "{stderr}");
    let (code, _, stderr) = release(dir, &[mxc, "--comment", ""]).await;
    assert!(code == Some(2) && stderr.contains("comment: expected"), "{stderr}");
    let (code, _, _) = release(dir, &["hs.example/one", "--comment", "x"]).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn commands_name_what_is_off() {
    let fixture = IncidentFixture::new().await;
    let off = [("MCS_QUARANTINE__AT", ""), ("MCS_NOTIFY__TARGETS", "")];
    for (variables, expected) in [
        (&off[..], "incidents are off"),
        (&off[..1], "quarantine.at is \"off\""),
        (
            &[("MCS_QUARANTINE__AT", "media-repo")],
            "matrix-media-repo has no API that releases media",
        ),
    ] {
        let mut builder = fixture.builder().config(ADMIN);
        for (name, value) in variables {
            builder = builder.env(name, value);
        }
        write_secret(builder.dir(), "admin-token", TOKEN);
        let scanner = builder.start().await;
        scanner.wait_for_log("listening for operators' changes", 1).await;
        let words = ["mxc://hs.example/one", "--comment", "x"];
        let (code, _, stderr) = release(&scanner.dir, &words).await;
        assert!(code == Some(2) && stderr.contains(expected), "{stderr}");
    }
}
