//! The operator page, as a browser requests it.

use super::*;

/// A browser with the cookie of its session.
pub(crate) struct PageClient {
    socket: PathBuf,
    cookie: String,
}

/// A response of the page.
pub(crate) struct PageResponse {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl PageResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&*prefix))
    }
}

const HOST: &str = "Host: localhost";

/// What browsers send with a form of the page itself, which has `Referrer-Policy: no-referrer`.
const SAME_ORIGIN: &str = "Origin: null\r\nSec-Fetch-Site: same-origin";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

impl PageClient {
    fn new(dir: &ScannerDir) -> Self {
        Self { socket: dir.path("admin.sock"), cookie: "other=1".to_owned() }
    }

    /// Opens a session with a token.
    pub(crate) async fn sign_in(dir: &ScannerDir, token: &str) -> Self {
        let mut client = Self::new(dir);
        let page = client.post("/sign-in", &[("token", token)]).await;
        assert_eq!((page.status, page.header("location")), (303, Some("/")), "{}", page.body);
        let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap();
        client.cookie = format!("other=1; {cookie}");
        client
    }

    pub(crate) async fn get(&self, path: &str) -> PageResponse {
        self.send("GET", path, &[HOST], "").await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> PageResponse {
        self.send("POST", path, &[HOST, SAME_ORIGIN, FORM], &encode(fields)).await
    }

    async fn send(&self, method: &str, path: &str, lines: &[&str], body: &str) -> PageResponse {
        let length = format!("Content-Length: {}", body.len());
        let first = format!("{method} {path} HTTP/1.1");
        let cookie = format!("Cookie: {}", self.cookie);
        let lines: Vec<_> =
            [&*first, &cookie, &length].into_iter().chain(lines.iter().copied()).collect();
        let request = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        let (status, head, body) = exchange(self.socket.clone(), &request).await;
        PageResponse { status, head, body }
    }

    /// Asks for confirmation of a change, and sends the form of that page.
    pub(crate) async fn change(&self, action: &str, subject: &str, comment: &str) -> PageResponse {
        let query = encode(&[("action", action), ("subject", subject)]);
        let page = self.get(&format!("/confirm?{query}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let csrf = csrf(&page.body);
        let fields = [
            ("csrf", &*csrf),
            ("action", action),
            ("subject", subject),
            ("comment", comment),
            ("days", "30"),
        ];
        self.post("/change", &fields).await
    }
}

fn encode(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Returns the secret of the forms on a page.
fn csrf(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{html}"));
    rest[..64].to_owned()
}

/// Paths with data.
const PATHS: [&str; 8] = [
    "/",
    "/state",
    "/plots/rates.svg",
    "/plots/durations.svg",
    "/plots/load.svg",
    "/verdicts",
    "/lookup?subject=mxc%3A%2F%2Fa%2Fb",
    "/confirm?action=forget&subject=mxc%3A%2F%2Fa%2Fb",
];

#[tokio::test]
async fn page_needs_a_session() {
    let scanner = listening(with_store("").start().await).await;
    let stranger = PageClient::new(&scanner.dir);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for path in PATHS {
        for lines in [&[HOST][..], &[HOST, &bearer]] {
            let page = stranger.send("GET", path, lines, "").await;
            assert_eq!((page.status, page.header("location")), (303, Some("/sign-in")), "{path}");
            assert_eq!(page.body, "", "{path}");
        }
    }
    for path in ["/change", "/sign-out"] {
        let page = stranger.post(path, &[("csrf", "")]).await;
        assert_eq!((page.status, page.header("location")), (303, Some("/sign-in")), "{path}");
    }
    for path in ["/sign-in", "/style.css", "/script.js", "/icon.svg"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    for path in PATHS {
        let page = client.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert!(!page.body.contains(TOKEN) && page.header("set-cookie").is_none(), "{path}");
    }
    assert_eq!(client.get("/elsewhere").await.status, 404);
    assert_eq!(client.get("/change").await.status, 405);
    // A session does not open the API.
    assert_eq!(client.get("/v1/verdicts").await.status, 401);
    let page = client.get("/").await;
    let page = client.post("/sign-out", &[("csrf", &csrf(&page.body))]).await;
    let removed = "mcs_session=; Max-Age=0; HttpOnly; SameSite=Strict; Path=/";
    assert_eq!((page.status, page.header("set-cookie")), (303, Some(removed)));
    assert_eq!(client.get("/").await.status, 303, "signed out");
    assert_eq!(scanner.log().matches("operator signed").count(), 2);
    assert!(!scanner.log().contains(TOKEN));
}

#[tokio::test]
async fn cookie_has_its_attributes() {
    let scanner = listening(with_store("").start().await).await;
    let page = PageClient::new(&scanner.dir).post("/sign-in", &[("token", TOKEN)]).await;
    let cookie = page.header("set-cookie").unwrap();
    let (secret, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "HttpOnly; SameSite=Strict; Path=/");
    assert_eq!(secret.len(), "mcs_session=".len() + 64);
    // Sessions do not survive a restart.
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let scanner = listening(restart(scanner.stop().await).await).await;
    assert_eq!(client.get("/").await.status, 303);
    drop(scanner);
}

#[tokio::test]
async fn wrong_tokens_are_limited_together_with_those_of_the_api() {
    let scanner = listening(with_store("").start().await).await;
    let client = PageClient::new(&scanner.dir);
    for number in 0..5 {
        let page = client.post("/sign-in", &[("token", "wrong")]).await;
        assert_eq!(page.status, 401, "{number}");
        assert!(
            page.body.contains("This is not a token of this service.")
                && page.header("set-cookie").is_none()
        );
        assert_eq!(client.get("/v1/verdicts").await.status, 401);
    }
    let fields: [&[_]; 3] = [&[("token", "wrong")], &[], &[("token", TOKEN), ("token", TOKEN)]];
    for fields in fields {
        let page = client.post("/sign-in", fields).await;
        assert_eq!(page.status, 429, "{fields:?}");
        assert!(page.body.contains("Too many wrong tokens"), "{}", page.body);
    }
    PageClient::sign_in(&scanner.dir, TOKEN).await;
    assert!(!scanner.log().contains(TOKEN) && !scanner.log().contains("wrong\""));
}

#[tokio::test]
async fn forms_of_other_pages_change_nothing() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let runs = fixture.request_all(&scanner).await;
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let other = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let [own, others] = [&client, &other].map(async |client| csrf(&client.get("/").await.body));
    let (own, others) = (own.await, others.await);
    let content = sha256(INFECTED);
    let body = |csrf: &str| {
        let fields =
            [("action", "allow"), ("subject", &*content), ("comment", "x"), ("days", "30")];
        encode(&[&fields[..], &[("csrf", csrf)]].concat())
    };
    let good = body(&own);
    for (lines, body, status) in [
        (&[HOST, SAME_ORIGIN, FORM][..], &body(""), 403),
        (&[HOST, SAME_ORIGIN, FORM], &body(&others), 403),
        (&[HOST, SAME_ORIGIN, FORM], &body(&own[1..]), 403),
        (&[HOST, SAME_ORIGIN, FORM], &encode(&[("action", "allow"), ("subject", &content)]), 403),
        // Other origins, and browsers that do not state the origin.
        (&[HOST, "Origin: http://attacker.example", FORM], &good, 403),
        (&[HOST, "Origin: http://localhost:81", FORM], &good, 403),
        (&[HOST, "Origin: null", FORM], &good, 403),
        (&[HOST, FORM], &good, 403),
        (&[HOST, "Origin: null\r\nSec-Fetch-Site: cross-site", FORM], &good, 403),
        (&[HOST, "Origin: http://localhost\r\nSec-Fetch-Site: same-site", FORM], &good, 403),
        (&[HOST, "Sec-Fetch-Site: cross-site", FORM], &good, 403),
        // A rebound name.
        (&["Host: attacker.example", "Origin: http://attacker.example", FORM], &good, 421),
        (&["Host: attacker.example", SAME_ORIGIN, FORM], &good, 421),
        // Other types.
        (&[HOST, SAME_ORIGIN], &good, 400),
        (&[HOST, SAME_ORIGIN, "Content-Type: text/plain"], &good, 400),
        (&[HOST, SAME_ORIGIN, FORM, FORM], &good, 400),
        (&[HOST, SAME_ORIGIN, FORM], &format!("{good}&x={}", "x".repeat(5000)), 413),
        // Fields.
        (&[HOST, SAME_ORIGIN, FORM], &good.replace("allow", "delete"), 400),
        (&[HOST, SAME_ORIGIN, FORM], &good.replace("days=30", "days=3000"), 400),
        (&[HOST, SAME_ORIGIN, FORM], &good.replace("comment=x", "comment="), 400),
        (&[HOST, SAME_ORIGIN, FORM], &good.replace(&content, "mxc%3A%2F%2Fa%2Fb"), 400),
        (&[HOST, SAME_ORIGIN, FORM], &good.replace(&content, "abc"), 400),
    ] {
        let page = client.send("POST", "/change", lines, body).await;
        assert_eq!(page.status, status, "{lines:?} {body}: {}", page.body);
    }
    // A rebound name shows nothing either.
    let page = client.send("GET", "/", &["Host: attacker.example"], "").await;
    assert_eq!(page.status, 421);
    assert!(!page.body.contains("Overview</h1>"), "{}", page.body);
    let signs_in = encode(&[("token", TOKEN)]);
    for lines in [[HOST, "Origin: http://attacker.example", FORM], [HOST, "X: y", FORM]] {
        let page = client.send("POST", "/sign-in", &lines, &signs_in).await;
        assert_eq!((page.status, page.header("set-cookie")), (403, None));
    }
    assert!(audit_lines(&scanner.dir).is_empty());
    assert_eq!(fixture.request_all(&scanner).await, runs);
    // The same form is accepted from the page itself.
    for origin in [SAME_ORIGIN, "Origin: http://localhost"] {
        let page = client.send("POST", "/change", &[HOST, origin, FORM], &good).await;
        assert_eq!(page.status, 303, "{}", page.body);
    }
}

#[tokio::test]
async fn false_positive_is_reverted_with_one_form() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    fixture.request_all(&scanner).await;
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let (mxc, content) = (format!("mxc://{}", fixture.infected), sha256(INFECTED));
    let overview = client.get("/").await.body;
    for text in [&*mxc, &content, "infected", "script: Found", "Busy workers", "namespaces"] {
        assert!(overview.contains(text), "{text} in {overview}");
    }
    assert!(!overview.contains("href=\"mxc") && !overview.contains("href=\"/lookup?subject=mxc"));
    let page = client.change("allow", &content, "false positive").await;
    let location = page.header("location").unwrap().to_owned();
    assert_eq!((page.status, &*location), (303, &*format!("/lookup?subject={content}&done=allow")));
    scanner.client.get(&format!("/scan/{}", fixture.infected)).await.assert_clean();
    let shown = client.get(&location).await.body;
    for text in ["The file is allowed.", "<strong>allow</strong>", "false positive", &*mxc] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let changes = audit_lines(&scanner.dir);
    assert_eq!((&changes[0]["state"], &changes[1]["state"]), (&json!("requested"), &json!("done")));
    assert_eq!((&changes[1]["before"], &changes[1]["after"]), (&json!("none"), &json!("allow")));
    assert_eq!(
        (&changes[1]["access"], &changes[1]["comment"]),
        (&json!("session"), &json!("false positive"))
    );
    assert_eq!(changes[1]["peer"], format!("uid {}", nix::unistd::geteuid()));
    assert_eq!(client.change("withdraw", &content, "done").await.status, 303);
    let response = scanner.client.get(&format!("/scan/{}", fixture.infected)).await;
    assert_eq!(response.json()["clean"], false);
    let again = client.change("withdraw", &content, "again").await;
    assert!(again.status == 404 && again.body.contains("no decision about this file"));
    let runs = scanner.dir.mark_count("runs");
    assert_eq!(client.change("forget", &mxc, "").await.status, 303);
    assert_eq!(fixture.request_all(&scanner).await, runs + 1, "scanned again");
    assert_eq!(client.change("block", &sha256(&png()), "campaign").await.status, 303);
    let response = scanner.client.get(&format!("/scan/{}", fixture.clean)).await;
    assert_eq!(response.json()["clean"], false);
}

#[tokio::test]
async fn change_of_the_page_that_cannot_be_recorded_is_not_made() {
    let (fixture, scanner) = AdminFixture::start(with_store("audit.path = \"/dev/full\"")).await;
    let runs = fixture.request_all(&scanner).await;
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let page = client.change("forget", &sha256(INFECTED), "").await;
    assert_eq!(page.status, 503);
    assert!(page.body.contains("nothing was changed"), "{}", page.body);
    assert_eq!(fixture.request_all(&scanner).await, runs);
}

/// A finding that ends an element and an attribute, and reverses the text.
const HOSTILE: &str = "</td><script>alert(1)</script>\" onfocus=\"alert(2)' x='\u{202e}exe";

#[tokio::test]
async fn hostile_texts_are_shown_as_text() {
    let script = "printf '%s' '</td><script>alert(1)</script>\" onfocus=\"alert(2)'\"'\"' x='\"'\"''; \
                  printf '\\342\\200\\256exe'; exit 1";
    let builder = builder(script, "store.path = \"state/store.db\"");
    let (fixture, scanner) = AdminFixture::start(builder).await;
    scanner.client.get(&format!("/scan/{}", fixture.infected)).await;
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let content = sha256(INFECTED);
    // A comment is at most 200 bytes.
    assert_eq!(client.change("block", &content, HOSTILE).await.status, 303);
    let filter = encode(&[("text", &HOSTILE[..60]), ("show", "all")]);
    let mut shown = 0;
    for path in [
        "/".to_owned(),
        "/verdicts".to_owned(),
        format!("/verdicts?{filter}"),
        format!("/lookup?subject={content}"),
        format!("/lookup?{}", encode(&[("subject", &format!("mxc://{}", fixture.infected))])),
        format!("/lookup?{}", encode(&[("subject", HOSTILE)])),
        format!("/confirm?{}", encode(&[("action", HOSTILE), ("subject", &content)])),
        format!("/confirm?action=allow&subject={content}"),
        format!("/lookup?{}", encode(&[("subject", &content), ("done", HOSTILE)])),
    ] {
        let page = client.get(&path).await;
        assert!(!page.body.contains("<script>alert"), "{path}: {}", page.body);
        assert!(!page.body.contains("\" onfocus"), "{path}: {}", page.body);
        assert!(!page.body.contains("' x='"), "{path}: {}", page.body);
        assert!(!page.body.contains('\u{202e}'), "{path}: {}", page.body);
        shown += usize::from(page.body.contains("&#60;script&#62;alert(1)&#60;/script&#62;"));
    }
    assert_eq!(shown, 7, "the finding, the comment and the filter are shown");
    let shown = client.get(&format!("/lookup?subject={content}")).await.body;
    assert!(shown.contains("\\u{202e}exe"), "the comment: {shown}");
}

#[tokio::test]
async fn running_scans_are_shown_by_tenant_and_filters_apply() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let client = PageClient::sign_in(&scanner.dir, TOKEN).await;
    let idle = client.get("/state").await.body;
    assert!(idle.contains("No jobs") && idle.contains("<dt>Busy workers</dt><dd>0 of "), "{idle}");
    let wait = scanner.dir.path("marks/wait");
    fs::write(&wait, "").unwrap();
    let (http, path) = (scanner.client.clone(), format!("/scan/{}", fixture.clean));
    let response = tokio::spawn(async move { http.get(&path).await });
    wait_until("the scan runs", || scanner.dir.mark_count("runs") == 1).await;
    let busy = client.get("/state").await.body;
    assert!(busy.contains("<dt>Busy workers</dt><dd>1 of "), "{busy}");
    assert!(busy.contains("</th><td>1</td><td>0</td></tr>") && !busy.contains("No jobs"), "{busy}");
    assert!(!busy.contains("good-token") && !busy.contains("127.0.0.1"), "{busy}");
    fs::remove_file(wait).unwrap();
    response.await.unwrap().assert_clean();
    fixture.request_all(&scanner).await;
    let list = async |query: &str| {
        let page = client.get(&format!("/verdicts?{query}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let (_, rest) = page.body.split_once(" verdicts. ").unwrap_or_default();
        assert!(!rest.is_empty());
        page.body.matches("<tr>\n<td>").count()
    };
    assert_eq!(list("").await, 4);
    assert_eq!(list("show=not_clean").await, 3);
    assert_eq!(list("show=failed").await, 0);
    assert_eq!(list(&format!("text={}", &sha256(ENCRYPTED)[..10])).await, 1);
    assert_eq!(list("text=FOUND").await, 3);
    assert_eq!(list("show=all&text=nothing+like+this").await, 0);
    for query in ["show=x", "other=1", &format!("text={}", "x".repeat(301))] {
        assert_eq!(client.get(&format!("/verdicts?{query}")).await.status, 400, "{query}");
    }
    let plot = client.get("/plots/rates.svg").await;
    assert_eq!(plot.header("content-type"), Some("image/svg+xml"));
    assert!(plot.body.starts_with("<svg ") && !plot.body.contains("style="), "{}", plot.body);
    assert!(client.get("/").await.body.contains("not clean 3 (highest: 3)"));
    assert_eq!(client.get("/plots/other.svg").await.status, 404);
}
