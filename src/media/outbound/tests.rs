//! Tests of redirects, of the headers sent with them and of TLS settings.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use reqwest::header::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::media::{fake::*, tests::*, *};

#[tokio::test]
async fn cross_origin_redirect_sends_no_secrets() {
    let other = FakeHomeserver::start(|_| answer(200, "", "y")).await;
    let to = other.url();
    let fake = FakeHomeserver::start(move |head| match head {
        _ if head.starts_with("GET /same") => {
            redirect(format!("{}away?a=b", to.as_str().replace("//", "//u:p@")))
        }
        _ => redirect("/same"),
    })
    .await;
    let mut settings = Settings { allow_private_addresses: true, ..fake.settings() };
    settings.additional_headers.insert("x-operator", HeaderValue::from_static("secret-operator"));
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"y");

    let heads = fake.request_heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        // Within the origin, all headers are sent except those that are never forwarded.
        assert!(head.contains(TOKEN) && head.contains("secret-cookie"), "{head}");
        assert!(
            head.contains("secret-operator") && head.contains("host: secret-host.example\r\n"),
            "{head}"
        );
        assert!(!head.contains("secret-forwarded") && !head.contains("secret-etag"), "{head}");
        assert!(
            !head.contains("range:")
                && !head.contains("br\r\n")
                && !head.contains("content-length"),
            "{head}"
        );
        assert_eq!(head.matches("host:").count(), 1);
    }
    let heads = other.request_heads();
    assert_eq!(heads.len(), 1);
    assert!(!heads[0].contains("secret") && !heads[0].contains("authorization"), "{}", heads[0]);
    assert!(heads[0].starts_with("GET /away?a=b HTTP"), "{}", heads[0]);
}

#[tokio::test]
async fn refusal_after_redirect_is_not_the_homeservers() {
    for (status, error) in [(401, "M_UNKNOWN_TOKEN"), (403, "M_FORBIDDEN"), (410, "M_GONE")] {
        let other = FakeHomeserver::start(move |_| errcode(status, error)).await;
        let to = other.url();
        let fake = FakeHomeserver::start(move |_| redirect(&to)).await;
        let settings = Settings { allow_private_addresses: true, ..fake.settings() };
        assert_error!(
            fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
            FetchError::Upstream { status: found, .. } if found == status
        );
    }
}

#[tokio::test]
async fn no_origin_is_exempt_after_a_foreign_one() {
    // All requests go through the proxy, so that each origin answers without being reachable.
    let proxy = FakeHomeserver::start(|head| {
        let target = head.split(' ').nth(1).unwrap();
        match target.strip_prefix("http://").unwrap() {
            "10.0.0.1/to-own" => redirect("http://10.0.0.1/media"),
            "10.0.0.1/to-cdn" => redirect("http://cdn.example/x"),
            "cdn.example/x" => redirect("http://10.0.0.1/_synapse/admin/v1/users"),
            "10.0.0.2/to-cdn" => redirect("http://cdn.example/y"),
            "cdn.example/y" => redirect("http://second.example/back"),
            "10.0.0.1/to-other" | "second.example/back" => redirect("http://10.0.0.2:8008/media"),
            "cdn.example/named" => redirect("http://second.example/media"),
            _ => answer(200, "", "media"),
        }
    })
    .await;
    let configured = ["http://10.0.0.1", "http://10.0.0.2:8008", "http://second.example"]
        .map(|url| Url::parse(url).unwrap());
    let settings = Settings { proxy: Some(proxy.url()), ..settings() };
    let http_clients = HttpClients::with_roots(
        &settings,
        configured.iter(),
        RootCertStore::empty(),
        Arc::default(),
    )
    .unwrap();
    for (start, allowed) in [
        ("http://10.0.0.1/to-own", true),
        ("http://10.0.0.1/to-other", true),
        ("http://second.example/back", true),
        ("http://10.0.0.1/to-cdn", false),
        // Also through another configured origin after the foreign one.
        ("http://cdn.example/y", false),
        ("http://cdn.example/named", true),
    ] {
        let reply =
            http_clients.get_following_redirects(start.parse().unwrap(), outbound_request()).await;
        match reply {
            Ok(OutboundReply::Response(..)) if allowed => {}
            Err(FetchError::ForbiddenAddress(_)) if !allowed => {}
            Ok(_) => panic!("{start}: followed"),
            Err(error) => panic!("{start}: {error}"),
        }
    }
    assert!(!proxy.requests().iter().any(|request| request.contains("admin")));
}

#[tokio::test]
async fn redirect_back_sends_no_secrets() {
    let first: Arc<Mutex<Option<Url>>> = Arc::default();
    let target = Arc::clone(&first);
    let other = FakeHomeserver::start(move |_| {
        redirect(target.lock().unwrap().clone().unwrap().join("/end").unwrap())
    })
    .await;
    let to = other.url();
    let fake = FakeHomeserver::start(move |head| {
        if head.starts_with("GET /end") { answer(200, "", "x") } else { redirect(&to) }
    })
    .await;
    *first.lock().unwrap() = Some(fake.url());
    let settings = Settings { allow_private_addresses: true, ..fake.settings() };
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"x");
    let heads = fake.request_heads();
    assert!(heads[0].contains("secret") && !heads[1].contains("secret"), "{heads:?}");
}

#[tokio::test]
async fn redirects_need_global_addresses() {
    let local = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let port = local.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0",
        "[::]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "１２７.0.0.1",
    ] {
        let to = format!("http://{host}:{port}/");
        assert_error!(fetch_from(move |_| redirect(&to)).await, FetchError::ForbiddenAddress(_));
    }
    assert_eq!(local.requests().len(), 0);
}

#[tokio::test]
async fn only_configured_origins_are_exempt() {
    let other = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let to = other.url();
    let fake = FakeHomeserver::start(move |_| redirect(&to)).await;
    let mut settings = fake.settings();
    assert_error!(
        fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
        FetchError::ForbiddenAddress(_)
    );
    settings.homeservers.push(("other.example".into(), other.url()));
    assert_eq!(fetch(&settings, &request(&fake.url(), Some(TOKEN))).await.unwrap(), b"x");
    assert!(!other.request_heads()[0].contains("secret"));
}

#[tokio::test]
async fn redirects_are_limited_in_number_and_scheme() {
    let counting = FakeHomeserver::start(|head| {
        let hop: u32 = head.split(['/', ' ']).nth(2).and_then(|hop| hop.parse().ok()).unwrap_or(0);
        if hop == 5 { answer(200, "", "x") } else { redirect(format!("/{}", hop + 1)) }
    })
    .await;
    assert_eq!(fetch(&counting.settings(), &request(&counting.url(), None)).await.unwrap(), b"x");
    assert_eq!(counting.requests().len(), 6);

    let looping = FakeHomeserver::start(|_| redirect("/again")).await;
    assert_error!(
        fetch(&looping.settings(), &request(&looping.url(), None)).await,
        FetchError::NotMedia(_)
    );
    assert_eq!(looping.requests().len(), 6);

    for to in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "data:text/plain,x",
        "http://",
        "//",
        "http://a b/",
        "gopher:x",
    ] {
        assert_error!(fetch_from(move |_| redirect(to)).await, FetchError::NotMedia(_));
    }
    assert_error!(fetch_from(|_| answer(302, "", "")).await, FetchError::NotMedia(_));
}

fn outbound_request() -> OutboundRequest {
    OutboundRequest {
        headers: HeaderMap::new(),
        redirects: RedirectPolicy::Follow,
        per_hop_timeout: Duration::from_secs(10),
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

#[tokio::test]
async fn without_roots_http_works_and_https_error_names_package() {
    let fake = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let base = fake.url();
    let http_clients = HttpClients::with_roots(
        &settings(),
        [&base].into_iter(),
        RootCertStore::empty(),
        Arc::default(),
    )
    .unwrap();
    assert!(matches!(
        http_clients.get_following_redirects(base, outbound_request()).await,
        Ok(OutboundReply::Response(..))
    ));
    let https = "https://hs.example".parse().unwrap();
    match http_clients.get_following_redirects(https, outbound_request()).await {
        Err(FetchError::Unreachable(cause)) => {
            assert!(cause.to_string().contains("ca-certificates"));
        }
        _ => panic!("https without roots"),
    }
}

#[test]
fn without_roots_rejects_configured_https() {
    let base: Url = "https://hs.example".parse().unwrap();
    let results = [
        HttpClients::with_roots(
            &settings(),
            [&base].into_iter(),
            RootCertStore::empty(),
            Arc::default(),
        ),
        HttpClients::with_roots(
            &Settings { proxy: Some(base.clone()), ..settings() },
            [].into_iter(),
            RootCertStore::empty(),
            Arc::default(),
        ),
    ];
    for result in results {
        let error = result.err().unwrap();
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    }
}

#[tokio::test]
async fn name_of_proxy_is_exempt() {
    let proxy = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let mut url = proxy.url();
    url.set_host(Some("localhost")).unwrap();
    let settings = Settings { proxy: Some(url), ..settings() };
    let http_clients =
        HttpClients::with_roots(&settings, [].into_iter(), RootCertStore::empty(), Arc::default())
            .unwrap();
    let target = "http://named.example/".parse().unwrap();
    let reply = http_clients.get_following_redirects(target, outbound_request()).await;
    assert!(matches!(reply, Ok(OutboundReply::Response(..))));
    assert_eq!(proxy.requests(), ["GET http://named.example/"]);
}

#[tokio::test]
async fn retries_when_pooled_connection_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&closed);
    tokio::spawn(async move {
        // The first connection answers one request only.
        for connection in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let signal = Arc::clone(&signal);
            tokio::spawn(async move {
                for request in 0.. {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(socket.read_u8().await.unwrap());
                    }
                    if connection == 0 && request == 1 {
                        return signal.store(true, Ordering::SeqCst);
                    }
                    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx";
                    socket.write_all(response).await.unwrap();
                }
            });
        }
    });
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let homeservers = Homeservers::new(&settings, Arc::default()).unwrap();
    for _ in 0..3 {
        let opened = homeservers.open(&request(&base, None)).await.unwrap();
        assert_eq!(opened.stream_into(Vec::new(), collect, Ok).await.unwrap(), b"x");
        // A task of the client returns the connection to the pool.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert!(closed.load(Ordering::SeqCst));
}
