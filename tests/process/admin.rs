//! The listener of operators, and the commands that ask it.

mod decisions;
pub(crate) mod page;
mod recent;
mod requests;
mod scripts;
mod tokens;

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::PathBuf,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use crate::harness::{
    Attachment, MockHomeserver, ScannerBuilder, ScannerProcess, TEST_TIMEOUT, png,
    scanner::{ScannerDir, restart, run},
    wait_until,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Finds files that contain `infected` unless `$MARKS/corrected` exists, and waits while `$MARKS/wait` exists.
const SCRIPT: &str = r#"
    echo run >> "$MARKS/runs"
    while [ -e "$MARKS/wait" ]; do sleep 0.01; done
    if [ ! -e "$MARKS/corrected" ] && grep -q infected "$1"; then printf 'Found\033[31m'; exit 1; fi
"#;

/// Settings of the listener on a socket.
const ADMIN: &str = r#"
    admin.enabled = true
    admin.socket = "admin.sock"
    admin.token_path = "admin-token"
"#;

fn builder(script: &str, lines: &str) -> ScannerBuilder {
    let audit = if lines.contains("audit.path") { "" } else { "audit.path = \"audit.jsonl\"" };
    let builder = ScannerBuilder::new(script);
    let token = builder.dir().path("admin-token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    let state = builder.dir().path("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(state, fs::Permissions::from_mode(0o700)).unwrap();
    builder.config(ADMIN).config(audit).config(lines)
}

fn with_store(lines: &str) -> ScannerBuilder {
    builder(SCRIPT, &format!("store.path = \"state/store.db\"\n{lines}"))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest: Vec<_> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.concat()
}

/// Waits until the service listens for operators.
async fn listening(scanner: ScannerProcess) -> ScannerProcess {
    scanner.wait_for_log("listening for operators' changes", 1).await;
    scanner
}

/// Runs `store` with these arguments. Returns the exit code, standard output and standard error.
pub(crate) async fn store(dir: &ScannerDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = dir.path("config.toml");
    let words = ["-c", config.to_str().unwrap(), "store"];
    let arguments: Vec<_> = words.iter().chain(arguments).map(ToString::to_string).collect();
    let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Runs `store`, which succeeds, and returns its standard output.
pub(crate) async fn store_succeeds(dir: &ScannerDir, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = store(dir, arguments).await;
    assert_eq!(code, Some(0), "{arguments:?} {stdout} {stderr}");
    stdout
}

/// Sends a request to a socket. Returns the status, the header and the body of the response.
async fn exchange(socket: PathBuf, request: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The service may respond to a part of the request.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut response = Vec::new();
    let _ = timeout(TEST_TIMEOUT, stream.read_to_end(&mut response)).await.expect("a response");
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    assert!(!head.to_ascii_lowercase().contains("access-control"), "{head}");
    for line in SECURITY_HEADERS {
        assert!(head.lines().any(|header| header == line), "{line} in {head}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// Headers of every response.
const SECURITY_HEADERS: [&str; 4] = [
    "x-content-type-options: nosniff",
    "referrer-policy: no-referrer",
    "cache-control: no-store",
    "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
];

/// Sends a request to a socket. Returns the status and the JSON of the response.
async fn ask(socket: PathBuf, request: &str) -> (u16, Value) {
    let (status, _, body) = exchange(socket, request).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn audit_lines(dir: &ScannerDir) -> Vec<Value> {
    let text = fs::read_to_string(dir.path("audit.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("change").is_some()).collect()
}

/// A service with a store, and media: a clean file, an infected one, its thumbnail, and an encrypted infected one.
struct AdminFixture {
    _homeserver: MockHomeserver,
    clean: String,
    infected: String,
    encrypted: String,
    body: Value,
}

const INFECTED: &[u8] = b"an infected file";
const ENCRYPTED: &[u8] = b"another infected file";

impl AdminFixture {
    async fn start(builder: ScannerBuilder) -> (Self, ScannerProcess) {
        let homeserver = MockHomeserver::start().await;
        let clean = homeserver.add_bytes("clean", png());
        let infected = homeserver.add_bytes("infected", INFECTED);
        let attachment = Attachment::encrypt(ENCRYPTED, 7);
        let encrypted = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());
        let body = attachment.body(&format!("mxc://{encrypted}"));
        let scanner = listening(builder.homeserver(&homeserver).start().await).await;
        (Self { _homeserver: homeserver, clean, infected, encrypted, body }, scanner)
    }

    /// Requests all media. Returns the number of scans since the first start.
    async fn request_all(&self, scanner: &ScannerProcess) -> usize {
        let client = &scanner.client;
        client.get(&format!("/scan/{}", self.clean)).await.assert_clean();
        let infected = client.get(&format!("/scan/{}", self.infected)).await;
        assert_eq!(infected.json()["clean"], false);
        client.get(&format!("/thumbnail/{}?width=96", self.infected)).await;
        let encrypted = client.post("/scan_encrypted", &self.body).await;
        assert_eq!(encrypted.json()["clean"], false);
        scanner.dir.mark_count("runs")
    }
}

#[tokio::test]
async fn verdicts_are_listed_shown_and_forgotten() {
    for lines in ["store.path = \"state/store.db\"", "store.kind = \"none\""] {
        let (fixture, scanner) = AdminFixture::start(builder(SCRIPT, lines)).await;
        let dir = &scanner.dir;
        let mxc = format!("mxc://{}", fixture.infected);
        assert_eq!(fixture.request_all(&scanner).await, 3);
        let is_stored = lines.contains("path");
        if is_stored {
            // Records are written shortly after the response.
            let listed = || fs::metadata(dir.path("state/store.db-wal")).is_ok();
            wait_until("the store is written", listed).await;
        }
        let list = store_succeeds(dir, &["list"]).await;
        assert_eq!(list.matches("not clean (infected)").count(), 2, "{list}");
        assert_eq!(list.lines().count(), 4, "{list}");
        for content in [&png()[..], INFECTED, ENCRYPTED] {
            assert!(list.contains(&sha256(content)), "{list}");
        }
        assert!(list.contains("script: Found"), "{list}");
        let not_clean = store_succeeds(dir, &["list", "--not-clean", "--since", "1d"]).await;
        assert_eq!(not_clean.lines().count(), 3, "{not_clean}");
        let one = store_succeeds(dir, &["list", "--limit", "1"]).await;
        assert!(one.contains("more verdicts are known"), "{one}");

        let shown = store_succeeds(dir, &["show", &mxc]).await;
        assert!(shown.contains(&sha256(INFECTED)) && shown.contains("(infected)"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let shown = store_succeeds(dir, &["show", &sha256(ENCRYPTED), "--json"]).await;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["verdicts"][0]["engine"], "script", "{shown}");
        assert_eq!(shown["verdicts"][0]["valid"], true, "{shown}");
        let engines = shown["verdicts"][0]["engines"].as_array().unwrap();
        assert_eq!(engines.len(), 1, "{shown}");
        let result = [&engines[0]["engine"], &engines[0]["result"], &engines[0]["finding"]];
        assert_eq!(result, ["script", "infected", "Found [31m"], "{shown}");
        assert!(engines[0]["duration_ms"].is_u64(), "{shown}");
        let shown = store_succeeds(dir, &["show", &sha256(ENCRYPTED)]).await;
        assert!(shown.contains("\n    script infected (Found [31m) in "), "{shown}");

        let words = ["forget", &mxc, "--comment", "a false\npositive"];
        let forgotten = store_succeeds(dir, &words).await;
        assert!(forgotten.contains("verdicts 1, media entries 2"), "{forgotten}");
        assert_eq!(store(dir, &["show", &mxc]).await.0, Some(1));
        let (code, stdout, _) = store(dir, &["forget", &mxc]).await;
        assert!(code == Some(1) && stdout.contains("nothing was known"), "{stdout}");
        assert_eq!(fixture.request_all(&scanner).await, 4, "scanned again");
        store_succeeds(dir, &["forget", &sha256(ENCRYPTED)]).await;
        assert_eq!(fixture.request_all(&scanner).await, 5, "scanned again");
        store_succeeds(dir, &["forget", "--all"]).await;
        assert!(store_succeeds(dir, &["list"]).await.contains("no such verdicts"));
        assert_eq!(fixture.request_all(&scanner).await, 8);

        let lines = audit_lines(dir);
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines[0]["state"], "requested");
        assert_eq!((&lines[0]["mxc"], &lines[0]["comment"]), (&json!(mxc), &json!(words[3])));
        let uid = format!("uid {}", nix::unistd::geteuid());
        assert_eq!((&lines[1]["state"], &lines[1]["peer"]), (&"done".into(), &uid.into()));
        assert_eq!(lines[1]["removed_media"], 2);
        assert_eq!(lines[4]["content"], sha256(ENCRYPTED));
        assert_eq!(lines[6]["all"], true);
        assert!(!scanner.log().contains(TOKEN), "the token is not logged");
    }
}

#[tokio::test]
async fn what_is_forgotten_is_not_in_the_store_after_a_restart() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    assert_eq!(fixture.request_all(&scanner).await, 3);
    let scanner = listening(restart(scanner.stop().await).await).await;
    assert_eq!(fixture.request_all(&scanner).await, 3);
    let scanner = listening(restart(scanner.stop().await).await).await;
    // Nothing is in memory. The encrypted file is found by its URI.
    let mxc = format!("mxc://{}", fixture.encrypted);
    let shown = store_succeeds(&scanner.dir, &["show", &mxc]).await;
    assert!(shown.contains(", encrypted,") && shown.contains(&sha256(ENCRYPTED)), "{shown}");
    let shown = store_succeeds(&scanner.dir, &["show", &sha256(INFECTED)]).await;
    assert!(shown.contains("thumbnail width=96"), "{shown}");
    store_succeeds(&scanner.dir, &["forget", &mxc]).await;
    store_succeeds(&scanner.dir, &["forget", &sha256(INFECTED)]).await;
    let scanner = restart(scanner.kill()).await;
    assert_eq!(fixture.request_all(&scanner).await, 5);
}

#[tokio::test]
async fn scans_in_progress_are_not_kept() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let dir = &scanner.dir;
    let mxc = format!("mxc://{}", fixture.infected);
    let path = format!("/scan/{}", fixture.infected);
    for (round, subject) in [sha256(INFECTED), mxc].into_iter().enumerate() {
        fs::write(dir.path("marks/wait"), "").unwrap();
        let (client, path) = (scanner.client.clone(), path.clone());
        let scan = tokio::spawn(async move { client.get(&path).await });
        wait_until("the scan runs", || dir.mark_count("runs") == 2 * round + 1).await;
        assert_eq!(store(dir, &["forget", &subject]).await.0, Some(1));
        fs::remove_file(dir.path("marks/wait")).unwrap();
        assert_eq!(scan.await.unwrap().json()["clean"], false, "answered as scanned");
        scanner.client.get(&format!("/scan/{}", fixture.infected)).await;
        assert_eq!(dir.mark_count("runs"), 2 * round + 2, "scanned again");
        store_succeeds(dir, &["forget", "--all"]).await;
    }
}

/// The first scan finds the file infected, later ones do not.
#[tokio::test]
async fn request_after_a_forget_is_not_answered_by_an_earlier_scan() {
    let script = r#"
        echo run >> "$MARKS/runs"
        number=$(wc -l < "$MARKS/runs")
        while [ ! -e "$MARKS/end$number" ]; do sleep 0.01; done
        [ "$number" != 1 ] || exit 1
    "#;
    let lines = "store.path = \"state/store.db\"";
    for by_content in [false, true] {
        let (fixture, scanner) = AdminFixture::start(builder(script, lines)).await;
        let scanner = listening(scanner).await;
        let mxc = format!("mxc://{}", fixture.infected);
        let subject = if by_content { sha256(INFECTED) } else { mxc };
        let request = || {
            let (client, path) = (scanner.client.clone(), format!("/scan/{}", fixture.infected));
            tokio::spawn(async move { client.get(&path).await })
        };
        let before = request();
        wait_until("the scan runs", || scanner.dir.mark_count("runs") == 1).await;
        assert_eq!(store(&scanner.dir, &["forget", &subject]).await.0, Some(1));
        let after = request();
        wait_until("another scan runs", || scanner.dir.mark_count("runs") == 2).await;
        fs::write(scanner.dir.path("marks/end1"), "").unwrap();
        assert_eq!(before.await.unwrap().json()["clean"], false);
        fs::write(scanner.dir.path("marks/end2"), "").unwrap();
        after.await.unwrap().assert_clean();
        request().await.unwrap().assert_clean();
        assert_eq!(scanner.dir.mark_count("runs"), 2, "the later verdict is kept");
    }
}

#[tokio::test]
async fn change_that_cannot_be_recorded_is_not_made() {
    let (fixture, scanner) = AdminFixture::start(with_store("audit.path = \"/dev/full\"")).await;
    assert_eq!(fixture.request_all(&scanner).await, 3);
    let (code, _, stderr) = store(&scanner.dir, &["forget", "--all"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("nothing was changed, because the change cannot be recorded"),
        "{stderr}"
    );
    assert_eq!(fixture.request_all(&scanner).await, 3);
}

#[tokio::test]
async fn socket_is_private_replaced_when_stale_and_removed_at_the_end() {
    let scanner = listening(with_store("").start().await).await;
    let socket = scanner.dir.path("admin.sock");
    let mode = || fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let dir = scanner.kill();
    let socket = dir.path("admin.sock");
    assert!(socket.exists(), "left behind");
    let (code, _, stderr) = store(&dir, &["list"]).await;
    assert!(code == Some(2) && stderr.contains("nothing listens there"), "{stderr}");
    let scanner = listening(restart(dir).await).await;
    store_succeeds(&scanner.dir, &["list"]).await;
    let dir = scanner.stop().await;
    assert!(!socket.exists());
    let (code, _, stderr) = store(&dir, &["list"]).await;
    assert!(code == Some(2) && stderr.contains("there is no such socket"), "{stderr}");
    // A process listens: the service does not take over.
    let _listener = UnixListener::bind(&socket).unwrap();
    let (code, _, stderr) = run(&["-c", dir.path("config.toml").to_str().unwrap()], &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen for operators' changes ([admin])"), "{stderr}");
    assert!(socket.exists());
}

#[tokio::test]
async fn default_socket_is_in_the_runtime_directory() {
    let scanner = with_store("");
    let runtime = scanner.dir().path("marks").to_str().unwrap().to_owned();
    let config = scanner.write_config();
    let lines = fs::read_to_string(&config).unwrap();
    assert!(lines.contains("socket = \"admin.sock\""), "{lines}");
    let lines = lines.replace("socket = \"admin.sock\"", "");
    fs::write(&config, &lines).unwrap();
    let config = config.to_str().unwrap();
    let (code, _, stderr) = run(&["-c", config, "check-config"], &[]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("admin.socket: missing"), "{stderr}");
    // Scripts can reach this directory.
    let variables = [("RUNTIME_DIRECTORY", &*runtime)];
    let (code, _, stderr) = run(&["-c", config, "check-config"], &variables);
    assert!(code == Some(78) && stderr.contains("admin.socket: found"), "{stderr}");
    let runtime = scanner.dir().path("state").to_str().unwrap().to_owned();
    let (_, stdout, stderr) =
        run(&["-c", config, "check-config", "--show"], &[("RUNTIME_DIRECTORY", &runtime)]);
    assert!(stdout.contains(&format!("socket = \"{runtime}/admin.sock\"")), "{stdout}{stderr}");
    let (code, _, stderr) = run(&["-c", config, "store", "list"], &[]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("/run/matrix-content-scanner/admin.sock"), "{stderr}");
}

#[tokio::test]
async fn unusable_tokens_are_rejected() {
    for (content, mode, expected) in [
        ("", 0o600, "contains nothing"),
        ("short", 0o600, "contains 5 characters"),
        ("two words of a token", 0o600, "line 1: contains more than two words"),
        (&format!("alice {TOKEN}\nalice {TOKEN}0"), 0o600, "line 2: has the name of line 1"),
        (
            TOKEN,
            0o644,
            "has mode 0644, so that scan scripts and other users can use it (chmod 0600)",
        ),
    ] {
        let builder = with_store("");
        let token = builder.dir().path("admin-token");
        fs::write(&token, content).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        for command in [&["check-config"][..], &[]] {
            let (code, _, stderr) = builder.run(command);
            assert_eq!(code, Some(78), "{stderr}");
            assert!(stderr.contains(expected), "{command:?} {stderr}");
            assert!(!stderr.contains(TOKEN), "{stderr}");
        }
    }
    let (code, _, stderr) = with_store("audit.path = \"\"").run(&["check-config"]);
    assert_eq!(code, Some(78), "{stderr}");
}

#[tokio::test]
async fn client_states_why_it_cannot_ask() {
    let scanner = listening(with_store("").start().await).await;
    let dir = &scanner.dir;
    let other = dir.path("other-token");
    fs::write(&other, "fedcba9876543210").unwrap();
    let (code, _, stderr) = store(dir, &["list", "--token-path", other.to_str().unwrap()]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("the service does not accept this token"), "{stderr}");
    let (code, _, stderr) = store(dir, &["list", "--token-path", "/nowhere"]).await;
    assert!(code == Some(2) && stderr.contains("cannot be read"), "{stderr}");
    let socket = dir.path("admin.sock");
    let (socket, token) = (socket.to_str().unwrap(), dir.path("admin-token"));
    // Without a configuration.
    let words = ["store", "list", "--socket", socket, "--token-path", token.to_str().unwrap()];
    let (code, stdout, stderr) = run(&[&["-c", "/nowhere"][..], &words].concat(), &[]);
    assert!(code == Some(0) && stdout.contains("no such verdicts"), "{stdout}{stderr}");
    // Another server.
    let words = ["list", "--address", &scanner.address];
    let (code, _, stderr) = store(dir, &words).await;
    assert!(code == Some(2) && stderr.contains("is not the [admin] listener"), "{stderr}");
    for (words, expected) in [
        (&["show", "abc"][..], "expected mxc://SERVER/ID, or 64 hexadecimal digits"),
        (&["show", "mxc://a"], "invalid media identifier"),
        (&["forget"], "<MXC|SHA256>"),
        (&["forget", &sha256(b""), "--all"], "cannot be used with"),
        (&["list", "--limit", "0"], "0 is not in 1..=10000"),
        (&["list", "--since", "yesterday"], "invalid value"),
    ] {
        let (code, _, stderr) = store(dir, words).await;
        assert!(code == Some(2) && stderr.contains(expected), "{words:?} {stderr}");
    }
    let off = ScannerBuilder::new("exit 0");
    let (code, _, stderr) = off.run(&["store", "list"]);
    assert!(code == Some(2) && stderr.contains("admin.enabled is false"), "{stderr}");
    assert!(stderr.contains("hint: set admin.enabled = true"), "{stderr}");
    scanner.signal(Signal::SIGTERM);
}
