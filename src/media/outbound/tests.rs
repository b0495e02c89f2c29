//! Where a redirect leads, and what goes along.

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
async fn a_redirect_to_another_origin_takes_no_secret_along() {
    let other = Fake::start(|_| answer(200, "", "y")).await;
    let to = other.url();
    let fake = Fake::start(move |head| match head {
        _ if head.starts_with("GET /same") => {
            redirect(format!("{}away?a=b", to.as_str().replace("//", "//u:p@")))
        }
        _ => redirect("/same"),
    })
    .await;
    let mut settings = Settings { allow_private_addresses: true, ..fake.settings() };
    settings.additional_headers.insert("x-operator", HeaderValue::from_static("secret-operator"));
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"y");

    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    for head in seen {
        // Within the origin everything goes along, except what is not the client's to say.
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
    let seen = other.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].contains("secret") && !seen[0].contains("authorization"), "{}", seen[0]);
    assert!(seen[0].starts_with("GET /away?a=b HTTP"), "{}", seen[0]);
}

#[tokio::test]
async fn a_strangers_word_on_tokens_does_not_count() {
    let other = Fake::start(|_| errcode(401, "M_UNKNOWN_TOKEN")).await;
    let to = other.url();
    let fake = Fake::start(move |_| redirect(&to)).await;
    let settings = Settings { allow_private_addresses: true, ..fake.settings() };
    assert_error!(
        fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
        FetchError::MissingToken
    );
}

#[tokio::test]
async fn no_secret_comes_back_with_a_redirect_back() {
    let home: Arc<Mutex<Option<Url>>> = Arc::default();
    let back = Arc::clone(&home);
    let other =
        Fake::start(move |_| redirect(back.lock().unwrap().clone().unwrap().join("/end").unwrap()))
            .await;
    let to = other.url();
    let fake = Fake::start(move |head| {
        if head.starts_with("GET /end") { answer(200, "", "x") } else { redirect(&to) }
    })
    .await;
    *home.lock().unwrap() = Some(fake.url());
    let settings = Settings { allow_private_addresses: true, ..fake.settings() };
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"x");
    let seen = fake.seen();
    assert!(seen[0].contains("secret") && !seen[1].contains("secret"), "{seen:?}");
}

#[tokio::test]
async fn a_redirect_leads_to_global_addresses_only_by_whatever_name() {
    let inside = Fake::start(|_| answer(200, "", "x")).await;
    let port = inside.address.port();
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
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test]
async fn configured_origins_are_exempt_as_targets_and_other_ports_are_not() {
    let other = Fake::start(|_| answer(200, "", "x")).await;
    let to = other.url();
    let fake = Fake::start(move |_| redirect(&to)).await;
    let mut settings = fake.settings();
    assert_error!(
        fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
        FetchError::ForbiddenAddress(_)
    );
    settings.homeservers.push(("other.example".into(), other.url()));
    assert_eq!(fetch(&settings, &request(&fake.url(), Some(TOKEN))).await.unwrap(), b"x");
    assert!(!other.seen()[0].contains("secret"));
}

#[tokio::test]
async fn redirects_end_and_stay_with_http() {
    let count = Fake::start(|head| {
        let hop: u32 = head.split(['/', ' ']).nth(2).and_then(|hop| hop.parse().ok()).unwrap_or(0);
        if hop == 5 { answer(200, "", "x") } else { redirect(format!("/{}", hop + 1)) }
    })
    .await;
    assert_eq!(fetch(&count.settings(), &request(&count.url(), None)).await.unwrap(), b"x");
    assert_eq!(count.asked().len(), 6);

    let looping = Fake::start(|_| redirect("/again")).await;
    assert_error!(
        fetch(&looping.settings(), &request(&looping.url(), None)).await,
        FetchError::NotMedia(_)
    );
    assert_eq!(looping.asked().len(), 6);

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

fn question() -> Question {
    Question {
        headers: HeaderMap::new(),
        leave_origin: true,
        patience: Duration::from_secs(10),
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

#[tokio::test]
async fn without_roots_http_works_and_https_names_the_package() {
    let fake = Fake::start(|_| answer(200, "", "x")).await;
    let base = fake.url();
    let exits =
        Exits::with_roots(&settings(), [&base].into_iter(), RootCertStore::empty(), Arc::default())
            .unwrap();
    assert!(matches!(exits.walk(base, question()).await, Ok(Reached::Answer(..))));
    let https = "https://hs.example".parse().unwrap();
    match exits.walk(https, question()).await {
        Err(FetchError::Unreachable(why)) => {
            assert!(why.to_string().contains("ca-certificates"));
        }
        _ => panic!("https without roots"),
    }
}

#[test]
fn without_roots_nothing_configured_may_be_https() {
    let base: Url = "https://hs.example".parse().unwrap();
    let refused = [
        Exits::with_roots(&settings(), [&base].into_iter(), RootCertStore::empty(), Arc::default()),
        Exits::with_roots(
            &Settings { proxy: Some(base.clone()), ..settings() },
            [].into_iter(),
            RootCertStore::empty(),
            Arc::default(),
        ),
    ];
    for refused in refused {
        let error = refused.err().unwrap();
        assert!(error.to_string().contains("ca-certificates"), "{error}");
    }
}

#[tokio::test]
async fn the_proxys_own_name_is_exempt() {
    let proxy = Fake::start(|_| answer(200, "", "x")).await;
    let mut url = proxy.url();
    url.set_host(Some("localhost")).unwrap();
    let settings = Settings { proxy: Some(url), ..settings() };
    let exits =
        Exits::with_roots(&settings, [].into_iter(), RootCertStore::empty(), Arc::default())
            .unwrap();
    let reached = exits.walk("http://named.example/".parse().unwrap(), question()).await;
    assert!(matches!(reached, Ok(Reached::Answer(..))));
    assert_eq!(proxy.asked(), ["GET http://named.example/"]);
}

#[tokio::test]
async fn a_kept_connection_that_closes_when_used_again_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&closed);
    tokio::spawn(async move {
        // The first connection answers once.
        for connection in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                for request in 0.. {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(socket.read_u8().await.unwrap());
                    }
                    if connection == 0 && request == 1 {
                        return told.store(true, Ordering::SeqCst);
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx";
                    socket.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let homeservers = Homeservers::new(&settings, Arc::default()).unwrap();
    for _ in 0..3 {
        let opened = homeservers.open(&request(&base, None)).await.unwrap();
        assert_eq!(opened.stream_into(Vec::new(), collect, Ok).await.unwrap(), b"x");
        // The connection goes back to where it is kept in a task of its own.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert!(closed.load(Ordering::SeqCst));
}
