//! What `check-config` says about the servers at base URLs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::harness::scanner::ScannerBuilder;

const VERSIONS: &str = "/_matrix/client/versions";
const MEDIA: &str = "/_matrix/client/v1/media/";
const OLD_MEDIA: &str = "/_matrix/media/v3/";
const SCANNER: &str = "/_matrix/media_proxy/";

const VERSION_LIST: &str = r#"{"versions":["r0.6.1","v1.11"]}"#;
const MISSING_TOKEN: &str = r#"{"errcode":"M_MISSING_TOKEN","error":"Missing access token"}"#;
const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;
const NOT_FOUND: &str = r#"{"errcode":"M_NOT_FOUND","error":"Not found"}"#;
const PAGE: &str = "<!DOCTYPE html><title>Welcome</title>";

/// Beginning of a path, status and body; `301 LOCATION` for a redirect.
type FakeRoute = (&'static str, &'static str, &'static str);

const HOMESERVER: [FakeRoute; 2] = [(VERSIONS, "200", VERSION_LIST), (MEDIA, "401", MISSING_TOKEN)];

/// A server with fixed responses, 404 with a page for all other paths.
struct FixedServer {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
}

impl FixedServer {
    fn start(routes: &[FakeRoute]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let paths = Arc::new(Mutex::new(Vec::new()));
        let (routes, shared) = (routes.to_vec(), Arc::clone(&paths));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(path) = read_path(&stream) else { continue };
                if path == STOP {
                    break;
                }
                respond(stream, &path, &routes);
                shared.lock().unwrap().push(path);
            }
        });
        Self { address, paths }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

const STOP: &str = "/stop";

impl Drop for FixedServer {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = write!(stream, "GET {STOP} HTTP/1.1\r\n\r\n");
        }
    }
}

/// Returns `None` for bytes other than HTTP.
fn read_path(mut stream: &TcpStream) -> Option<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => head.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
        if !head.starts_with(b"GET ") {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            return None;
        }
    }
    String::from_utf8(head).ok()?.split(' ').nth(1).map(str::to_owned)
}

fn respond(mut stream: TcpStream, path: &str, routes: &[FakeRoute]) {
    let route = routes.iter().find(|(prefix, ..)| path.starts_with(prefix));
    let (_, status, body) = route.copied().unwrap_or(("", "404", PAGE));
    let (status, location) = status.split_once(' ').unwrap_or((status, ""));
    let location =
        if location.is_empty() { String::new() } else { format!("Location: {location}\r\n") };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// Returns exit code and output.
fn check(base_url: &str, config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let builder = ScannerBuilder::new("exit 0").base_url(base_url).config(config);
    let (code, stdout, stderr) = builder.run(&[&["check-config"], arguments].concat());
    (code, stdout + &stderr)
}

#[test]
fn homeservers_and_media_repositories_are_accepted() {
    for (kind, routes) in [
        ("homeserver", HOMESERVER.to_vec()),
        (
            "homeserver before Matrix 1.11",
            vec![
                (VERSIONS, "200", VERSION_LIST),
                (MEDIA, "404", UNRECOGNIZED),
                (OLD_MEDIA, "404", NOT_FOUND),
            ],
        ),
        ("media repository", vec![(VERSIONS, "404", UNRECOGNIZED), (MEDIA, "401", MISSING_TOKEN)]),
        (
            "other storage",
            vec![(VERSIONS, "200", VERSION_LIST), (MEDIA, "307 https://a.example/", "")],
        ),
    ] {
        let server = FixedServer::start(&routes);
        let (code, output) = check(&server.url(), "", &[]);
        assert_eq!(code, Some(0), "{kind}: {output}");
        assert!(!output.contains("base_homeserver_url"), "{kind}: {output}");
        let (_, output) = check(&server.url(), "", &["--show"]);
        let line = format!("# download.base_homeserver_url: {} is a homeserver\n", server.url());
        assert!(output.contains(&line), "{kind}: {output}");
    }
}

#[test]
fn requests_contain_no_token_and_only_two_paths() {
    let server = FixedServer::start(&HOMESERVER);
    assert_eq!(check(&server.url(), "", &[]).0, Some(0));
    let media = format!("{MEDIA}download/127.0.0.1/mcs-check?allow_remote=false");
    assert_eq!(server.paths(), [VERSIONS, &media]);
    let (code, output) = check(&server.url(), "", &["--offline"]);
    assert_eq!((code, server.paths().len()), (Some(0), 2), "{output}");
}

#[test]
fn wrong_servers_are_errors_that_name_what_to_write() {
    let well_known = r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#;
    let key = r#"{"public_key":"ZGlmZmVyZW50"}"#;
    let cases: [(&[FakeRoute], &str); 10] = [
        (&[(VERSIONS, "200", PAGE)], "found a web page (status 200), not a homeserver: a web site"),
        (&[], "found a web page (status 404), not a homeserver"),
        (
            &[("/.well-known/matrix/client", "200", well_known)],
            "not a homeserver; write \"https://matrix.example.org\"",
        ),
        (
            &[(VERSIONS, "200", r#"{"status":"up"}"#)],
            "found other JSON (status 200), not a homeserver",
        ),
        (&[(VERSIONS, "200", "pong")], "found another response (status 200), not a homeserver"),
        (&[(VERSIONS, "401", "")], "a proxy that wants a login"),
        (
            &[("/", "404", UNRECOGNIZED)],
            "found status 404 with M_UNRECOGNIZED, not a homeserver: a Matrix server without the API for clients",
        ),
        (
            &[(VERSIONS, "301 https://matrix.example.org/_matrix/client/versions", "")],
            "write \"https://matrix.example.org\"",
        ),
        (
            &[(VERSIONS, "302 https://login.example.org/?next=x", "")],
            "a redirect to https://login.example.org/?next=x (status 302), which no homeserver sends",
        ),
        (
            &[(VERSIONS, "404", UNRECOGNIZED), (SCANNER, "200", key)],
            "a Matrix content scanner answers",
        ),
    ];
    for (routes, expected) in cases {
        let server = FixedServer::start(routes);
        let (code, output) = check(&server.url(), "", &[]);
        assert_eq!(code, Some(78), "{output}");
        let start = format!("error: download.base_homeserver_url: {}: ", server.url());
        assert!(output.contains(&start) && output.contains(expected), "{expected} in {output}");
        assert!(!output.ends_with("OK\n"), "{output}");
    }
}

#[test]
fn media_routes_must_lead_to_the_homeserver() {
    let refused = r#"{"reason":"MCS_MEDIA_REQUEST_FAILED","info":"…"}"#;
    for (status, body, expected) in [
        ("404", PAGE, "found a web page (status 404) at /_matrix/client/v1/media/download"),
        (
            "404",
            UNRECOGNIZED,
            "its media routes cannot be used: found status 404 with M_UNRECOGNIZED",
        ),
        // The reverse proxy sends downloads to the scanner.
        ("502", refused, "a Matrix content scanner answers"),
    ] {
        let routes = [(VERSIONS, "200", VERSION_LIST), (MEDIA, status, body)];
        let server = FixedServer::start(&routes);
        let (code, output) = check(&server.url(), "", &[]);
        assert_eq!(code, Some(78), "{output}");
        assert!(output.contains(expected), "{expected} in {output}");
    }
}

#[test]
fn mistakes_in_the_url_need_no_request() {
    let server = FixedServer::start(&HOMESERVER);
    let port = server.address.port();
    for (url, config, expected) in [
        (format!("{}/_matrix", server.url()), String::new(), format!("write \"{}\"", server.url())),
        (server.url(), format!("web.port = {port}"), "is of this service".to_owned()),
        (
            format!("http://localhost:{port}"),
            format!("web.port = {port}"),
            "is of this service".to_owned(),
        ),
    ] {
        for arguments in [&[][..], &["--offline"]] {
            let (code, output) = check(&url, &config, arguments);
            assert_eq!(code, Some(78), "{output}");
            assert!(output.contains(&expected), "{expected} in {output}");
        }
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[test]
fn similar_url_with_a_homeserver_is_suggested() {
    let server = FixedServer::start(&HOMESERVER);
    // Trusts any certificate, so that https can be used at all.
    let certificate = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, certificate.cert.pem()).unwrap();
    for url in [format!("{}/synapse", server.url()), format!("https://{}", server.address)] {
        let builder = ScannerBuilder::new("exit 0").base_url(&url);
        let builder = builder.env("SSL_CERT_FILE", roots.to_str().unwrap());
        let (code, stdout, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(78), "{stdout}{stderr}");
        assert!(stderr.contains(&format!("write \"{}\"", server.url())), "{stderr}");
    }
}

#[test]
fn failures_of_the_network_are_notes() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = FixedServer::start(&[("/", "502", PAGE)]);
    for (url, expected) in [
        (format!("http://{closed}"), "check the address and port, and that the homeserver runs"),
        (
            format!("http://{}", silent.local_addr().unwrap()),
            "whether a firewall drops the packets",
        ),
        (gateway.url(), "status 502 from the reverse proxy"),
        ("http://homeserver.invalid".to_owned(), "homeserver"),
    ] {
        let (code, output) = check(&url, "", &[]);
        assert_eq!(code, Some(0), "{output}");
        let note = format!("\nnote: download.base_homeserver_url: {url}: ");
        assert!(output.contains(&note) && output.contains(expected), "{expected} in {output}");
        assert!(output.ends_with("\nOK\n"), "{output}");
    }
}

#[test]
fn each_homeserver_is_checked() {
    let (good, bad) = (FixedServer::start(&HOMESERVER), FixedServer::start(&[]));
    let config = format!(
        "download.homeservers = {{ \"a.example\" = \"{}\", \"b.example\" = \"{}\" }}",
        good.url(),
        bad.url()
    );
    let (code, output) = check(&good.url(), &config, &["--show"]);
    assert_eq!(code, Some(78), "{output}");
    for line in [
        format!("# download.base_homeserver_url: {} is a homeserver", good.url()),
        format!("# download.homeservers.\"a.example\": {} is a homeserver", good.url()),
        format!("error: download.homeservers.\"b.example\": {}: found a web page", bad.url()),
    ] {
        assert!(output.contains(&line), "{line} in {output}");
    }
    let (code, stdout, _) = ScannerBuilder::new("exit 0").run(&["check-config"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("note: download.base_homeserver_url: not set, so media"), "{stdout}");
}
