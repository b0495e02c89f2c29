//! Tests of server discovery.

use std::{
    io::{self, Write as _},
    mem,
    sync::Mutex,
};

use reqwest::header::HeaderValue;
use rustls::pki_types::pem::PemObject as _;

use super::*;
use crate::{
    media::{fake::*, resolver::NameService, tests::*, *},
    memory_bounds::{assert_table_memory, row_bytes},
};

/// Starts a proxy that is the target of every connection. The settings trust its certificate authority.
async fn behind_proxy(
    respond: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> (FakeHomeserver, Settings, tempfile::NamedTempFile) {
    let (authority, acceptor) = tls(&["named.example", "hs.example"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.as_bytes()).unwrap();
    let proxy = FakeHomeserver::proxy(acceptor, respond).await;
    let settings = Settings {
        proxy: Some(proxy.url()),
        ca_certificates: Some(file.path().to_owned()),
        ..settings()
    };
    (proxy, settings, file)
}

fn discovered(server: &str) -> MediaRequest {
    let unused = "http://unused.example".parse().unwrap();
    MediaRequest {
        media: MediaId::parse(server, "abc").unwrap(),
        origin: Origin::Discovered,
        ..with_secrets(&unused)
    }
}

#[tokio::test]
async fn discovered_server_needs_global_address() {
    let local = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let port = local.address.port();
    for server in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("2130706433:{port}"),
        format!("[::1]:{port}"),
    ] {
        let request = MediaRequest {
            media: MediaId::parse(&server, "abc").unwrap(),
            origin: Origin::Discovered,
            ..request(&local.url(), Some(TOKEN))
        };
        assert_error!(fetch(&settings(), &request).await, FetchError::ForbiddenAddress(_));
    }
    assert_eq!(local.requests().len(), 0);
    let invalid = MediaRequest {
        media: MediaId::parse("1.2.3.4.5", "abc").unwrap(),
        origin: Origin::Discovered,
        ..request(&local.url(), None)
    };
    assert_error!(fetch(&settings(), &invalid).await, FetchError::NotFound);
}

#[tokio::test]
async fn discovery_omits_port_and_is_cached() {
    let (proxy, mut settings, _file) = behind_proxy(|head| {
        if head.contains("/.well-known/") {
            answer(200, "", r#"{"m.homeserver":{"base_url":"https://hs.example:444/base/"}}"#)
        } else {
            answer(200, "", "x")
        }
    })
    .await;
    settings.additional_headers.insert("x-operator", HeaderValue::from_static("secret"));
    let homeservers = Homeservers::new(&settings, Arc::default()).unwrap();
    for _ in 0..2 {
        let opened = homeservers.open(&discovered("named.example:8448")).await.unwrap();
        assert_eq!(opened.stream_into(Vec::new(), collect, Ok).await.unwrap(), b"x");
    }
    assert_eq!(
        proxy.requests(),
        [
            "CONNECT named.example:443",
            "GET /.well-known/matrix/client",
            "CONNECT hs.example:444",
            "GET /base/_matrix/media/v3/download/named.example:8448/abc",
            "CONNECT hs.example:444",
            "GET /base/_matrix/media/v3/download/named.example:8448/abc",
        ]
    );
    assert!(
        proxy.request_heads().iter().all(|head| !head.contains("secret")),
        "{:?}",
        proxy.request_heads()
    );
}

#[tokio::test]
async fn unusable_well_known_falls_back_to_server_name() {
    let large = format!(
        r#"{{"m.homeserver":{{"base_url":"https://hs.example"}},"x":"{}"}}"#,
        "x".repeat(70_000)
    );
    for (status, body) in [(404, "{}".to_owned()), (200, "<html>".to_owned()), (200, large)] {
        let (proxy, settings, _file) = behind_proxy(move |head| {
            if head.contains("/.well-known/") {
                answer(status, "", &body)
            } else {
                answer(200, "", "x")
            }
        })
        .await;
        assert_eq!(fetch(&settings, &discovered("named.example:8448")).await.unwrap(), b"x");
        assert_eq!(proxy.requests()[2], "CONNECT named.example:8448");
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_discovery() {
    let (proxy, settings, _file) = behind_proxy(|_| answer(200, "", "{}")).await;
    let homeservers = Homeservers::new(&settings, Arc::default()).unwrap();
    let requests: Vec<_> = (0..8).map(|_| discovered("named.example")).collect();
    let all = requests.iter().map(|request| homeservers.open(request));
    for opened in futures_util::future::join_all(all).await {
        opened.unwrap();
    }
    assert_eq!(proxy.requests().iter().filter(|request| request.contains("well-known")).count(), 1);
}

#[tokio::test]
async fn literal_address_is_checked_with_proxy() {
    let (proxy, settings, _file) = behind_proxy(|head| {
        if head.contains("/.well-known/") {
            answer(200, "", r#"{"m.homeserver":{"base_url":"http://169.254.169.254/"}}"#)
        } else {
            answer(200, "", "x")
        }
    })
    .await;
    assert_error!(
        fetch(&settings, &discovered("named.example")).await,
        FetchError::ForbiddenAddress(_)
    );
    assert_eq!(proxy.requests().len(), 2);
}

#[tokio::test]
async fn host_without_trusted_certificate_is_unreachable() {
    let (_proxy, mut settings, _file) = behind_proxy(|_| answer(200, "", "x")).await;
    let (authority, _) = tls(&["named.example"]);
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(authority.as_bytes()).unwrap();
    settings.ca_certificates = Some(other.path().to_owned());
    assert_error!(fetch(&settings, &discovered("named.example")).await, FetchError::Unreachable(_));
}

#[test]
fn parses_valid_base_urls_only() {
    let parse = |text: &str| parse(text.as_bytes()).map(|url| base_url(&url).to_string());
    assert_eq!(
        parse(r#"{"m.homeserver":{"base_url":"https://hs.example/","x":1},"y":[]}"#).as_deref(),
        Some("https://hs.example/")
    );
    assert_eq!(
        parse(r#"{"m.homeserver":{"base_url":"https://u:p@hs.example/a/?q#f"}}"#).as_deref(),
        Some("https://hs.example/a")
    );
    let url = |length: usize| format!("https://hs.example/{}", "x".repeat(length - 19));
    let document = |url: &str| format!(r#"{{"m.homeserver":{{"base_url":"{url}"}}}}"#);
    assert_eq!(parse(&document(&url(MAX_BASE_URL))), Some(url(MAX_BASE_URL)));
    assert_eq!(parse(&document(&url(MAX_BASE_URL + 1))), None);
    // Percent-encoding makes the URL longer than the document.
    assert_eq!(parse(&document(&format!("https://hs.example/{}", "é".repeat(600)))), None);
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"m.homeserver":null}"#,
        r#"{"m.homeserver":{}}"#,
        r#"{"m.homeserver":{"base_url":1}}"#,
        r#"{"m.homeserver":{"base_url":""}}"#,
        r#"{"m.homeserver":{"base_url":"hs.example"}}"#,
        r#"{"m.homeserver":{"base_url":"//hs.example"}}"#,
        r#"{"m.homeserver":{"base_url":"file:///etc/passwd"}}"#,
        r#"{"m.homeserver":{"base_url":"ftp://hs.example"}}"#,
        r#"{"m.homeserver":{"base_url":"data:text/plain,x"}}"#,
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn name_that_cannot_be_resolved_is_resolved_once() {
    let lookups: Arc<Mutex<Vec<String>>> = Arc::default();
    let recorded = Arc::clone(&lookups);
    let names = NameService::fake(Duration::from_secs(60), move |name| {
        recorded.lock().unwrap().push(name.to_owned());
        match name {
            "private.example" => Ok(vec![([10, 0, 0, 1], 0).into()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    });
    let (authority, _) = tls(&["unused.example"]);
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    let http_clients =
        HttpClients::with_names(&settings(), [].into_iter(), roots, &names, Arc::default())
            .unwrap();
    let discovery = Discovery::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    for server in ["unknown.example", "Unknown.example:8448", "private.example"] {
        let request = discovered(server);
        let is_private = server.starts_with("private");
        match discovery.base_url(&request.media, &http_clients, deadline).await {
            Err(FetchError::Unresolved(_)) if !is_private => {}
            Err(FetchError::ForbiddenAddress(_)) if is_private => {}
            other => panic!("{server}: {other:?}"),
        }
        let looked_up = mem::take(&mut *lookups.lock().unwrap());
        let host = server.trim_end_matches(":8448").to_ascii_lowercase();
        assert_eq!(looked_up, [host]);
    }
}

#[test]
fn lack_of_descriptors_leads_to_no_fallback_address() {
    let failure = |code| {
        let error = FetchError::Unreachable(io::Error::from_raw_os_error(code).into());
        discovery_failure(error, "named.example").map(FetchError::from)
    };
    let error = failure(nix::libc::EMFILE).unwrap();
    assert!(is_exhaustion(&error), "{error}");
    assert!(failure(nix::libc::ECONNREFUSED).is_none(), "the fallback address applies");
    let cause =
        ResolutionFailure::Failed(Arc::new(io::Error::from_raw_os_error(nix::libc::EMFILE)));
    let unresolved = ResolutionError { name: "redirected.example".to_owned(), cause };
    let failure = discovery_failure(FetchError::Unresolved(unresolved), "named.example");
    assert!(is_exhaustion(&FetchError::from(failure.unwrap())));
}

#[test]
fn discovered_base_urls_stay_within_their_memory() {
    let test = "discovered_base_urls_stay_within_their_memory";
    assert_table_memory(module_path!(), test, row_bytes("discovered base URLs"), || {
        let discovery = Discovery::new();
        for number in 0..2 * CAPACITY {
            let path = "x".repeat(MAX_BASE_URL - "https://hs.example/".len());
            let url = Url::parse(&format!("https://hs.example/{path}")).unwrap();
            assert_eq!(url.as_str().len(), MAX_BASE_URL);
            discovery.known.insert(format!("{number:0>255}"), Arc::new(url), TTL);
        }
        discovery
    });
}
