//! Several named tokens: changes have their names, and a reload revokes them.

use super::{page::PageClient, *};

const ALICE: &str = "0123456789abcdef0123456789abcdea";
const BOB: &str = "0123456789abcdef0123456789abcdeb";

fn write_tokens(dir: &ScannerDir, text: &str) {
    fs::write(dir.path("admin-token"), text).unwrap();
}

async fn start_with_two() -> ScannerProcess {
    let builder = with_store("");
    write_tokens(builder.dir(), &format!("alice {ALICE}\nbob {BOB}\n"));
    listening(builder.start().await).await
}

/// Requests the decisions. Returns the status.
async fn status(scanner: &ScannerProcess, token: &str) -> u16 {
    let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    ask(scanner.dir.path("admin.sock"), &format!("GET /v1/decisions HTTP/1.1\r\n{head}")).await.0
}

/// Has everything forgotten. Returns the status.
async fn forget(scanner: &ScannerProcess, token: &str) -> u16 {
    let body = "{\"all\": true}";
    let head = format!(
        "Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let request = format!("POST /v1/forget HTTP/1.1\r\n{head}{body}");
    ask(scanner.dir.path("admin.sock"), &request).await.0
}

async fn reload(scanner: &ScannerProcess, expected: &str, times: usize) {
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log(expected, times).await;
}

#[tokio::test]
async fn changes_have_the_name_of_the_token() {
    let scanner = start_with_two().await;
    let dir = &scanner.dir;
    // The command uses the first token.
    store_succeeds(dir, &["forget", "--all"]).await;
    assert_eq!(forget(&scanner, BOB).await, 200);
    let page = PageClient::sign_in(dir, BOB).await;
    let content = sha256(INFECTED);
    assert_eq!(page.change("allow", &content, "a reason").await.status, 303);
    let (mxc, comment) = ("mxc://hs.example/unknown", "again");
    // The homeserver cannot be reached: the rescan fails, and is recorded.
    store(dir, &["rescan", mxc, "--comment", comment]).await;
    let lines = audit_lines(dir);
    let changes: Vec<_> = lines
        .iter()
        .map(|line| {
            ["change", "state", "token_name", "access"].map(|key| line[key].as_str().unwrap())
        })
        .collect();
    for (index, (change, name, access)) in [
        ("forget", "alice", "token"),
        ("forget", "bob", "token"),
        ("allow", "bob", "session"),
        ("rescan", "alice", "token"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(changes[2 * index], [change, "requested", name, access]);
        assert_eq!(changes[2 * index + 1], [change, "done", name, access]);
    }
    assert_eq!(changes.len(), 8);
    let audit = fs::read_to_string(dir.path("audit.jsonl")).unwrap();
    let session = audit.lines().find(|line| line.contains("\"session\":\"sign_in\"")).unwrap();
    let session: Value = serde_json::from_str(session).unwrap();
    let uid = format!("uid {}", nix::unistd::geteuid());
    assert_eq!((&session["token_name"], &session["peer"]), (&json!("bob"), &json!(uid)));
    for text in [&scanner.log(), &audit] {
        assert!(!text.contains(ALICE) && !text.contains(BOB), "a token in {text}");
    }
    assert!(scanner.log().contains("\"token_name\":\"bob\""), "{}", scanner.log());
}

#[tokio::test]
async fn reload_revokes_a_token_and_its_sessions() {
    let scanner = start_with_two().await;
    let dir = &scanner.dir;
    let (alice, bob) = (PageClient::sign_in(dir, ALICE).await, PageClient::sign_in(dir, BOB).await);
    assert_eq!((status(&scanner, ALICE).await, status(&scanner, BOB).await), (200, 200));
    write_tokens(dir, &format!("alice {ALICE}\n"));
    assert_eq!(status(&scanner, BOB).await, 200, "in force until the reload");
    reload(&scanner, "reloaded, no changes", 1).await;
    assert_eq!((status(&scanner, ALICE).await, status(&scanner, BOB).await), (200, 401));
    assert_eq!((alice.get("/").await.status, bob.get("/").await.status), (200, 303));
    let log = scanner.log();
    assert!(
        log.contains("tokens of [admin] changed") && log.contains("\"removed\":\"bob\""),
        "{log}"
    );
    // The token comes back, its session does not.
    write_tokens(dir, &format!("carol {BOB}\nalice {ALICE}\n"));
    reload(&scanner, "reloaded, no changes", 2).await;
    assert_eq!((alice.get("/").await.status, bob.get("/").await.status), (200, 303));
    assert_eq!(forget(&scanner, BOB).await, 200);
    assert_eq!(audit_lines(dir)[0]["token_name"], "carol");
}

#[tokio::test]
async fn reload_with_unusable_tokens_is_rejected() {
    let scanner = start_with_two().await;
    let dir = &scanner.dir;
    for (number, (text, expected)) in [
        ("", "contains nothing"),
        (&*format!("alice {ALICE}\n\nbob {ALICE}\n"), "line 3: has the token of line 1"),
        (&format!("alice {ALICE}\n{BOB}\n"), "line 2: contains one word, expected NAME TOKEN"),
    ]
    .into_iter()
    .enumerate()
    {
        write_tokens(dir, text);
        reload(&scanner, "reload rejected", number + 1).await;
        let log = scanner.log();
        assert!(
            log.contains("the tokens of [admin] cannot be used") && log.contains(expected),
            "{log}"
        );
        assert!(!log.contains(ALICE) && !log.contains(BOB), "{log}");
        assert_eq!((status(&scanner, ALICE).await, status(&scanner, BOB).await), (200, 200));
    }
}
