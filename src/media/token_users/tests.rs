//! Questions to a homeserver, and what is done with its answers.

use futures_util::future::join_all;
use reqwest::header::HeaderName;

use super::*;
use crate::{
    media::fake::{Act, FakeHomeserver, answer, errcode, redirect, request},
    memory_bounds::assert_table_memory,
};

const TOKEN: &str = "Bearer secret";

fn homeservers(fake: &FakeHomeserver) -> Homeservers {
    Homeservers::new(&fake.settings(), Arc::default()).unwrap()
}

fn whoami(user_id: &str) -> Act {
    answer(200, "", serde_json::json!({ "user_id": user_id, "device_id": "D" }).to_string())
}

fn question(request: &MediaRequest) -> OwnedUserQuestion {
    UserQuestion::from_request(request).unwrap().into_owned()
}

/// Asks once. Returns the user and the number of the result in the metrics.
async fn ask(
    act: impl Fn(&str) -> Act + Send + Sync + 'static,
    result: &'static str,
) -> Option<String> {
    let fake = FakeHomeserver::start(act).await;
    let (users, homeservers) = (TokenUsers::default(), homeservers(&fake));
    let user = users.find(&homeservers, &question(&request(&fake.url(), Some(TOKEN)))).await;
    let counted = homeservers.counters.user_lookups.get_or_create(&[("result", result)]).get();
    assert_eq!(counted, 1, "{result}");
    user.map(|user| user.to_string())
}

#[tokio::test]
async fn each_token_is_asked_about_once() {
    let fake = FakeHomeserver::start(|_| whoami("@alice:example.org")).await;
    let (users, homeservers) = (TokenUsers::default(), homeservers(&fake));
    let mut same = request(&fake.url(), Some("bearer   secret "));
    let address = (HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("::1"));
    same.requester.forwarded.extend([(Some(address.0), address.1)]);
    let requests = [request(&fake.url(), Some(TOKEN)), same];
    let questions: Vec<_> = requests.iter().cycle().take(20).map(question).collect();
    let found = join_all(questions.iter().map(|one| users.find(&homeservers, one))).await;
    assert!(found.iter().all(|user| user.as_deref() == Some("@alice:example.org")), "{found:?}");
    let heads = fake.request_heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("GET /_matrix/client/v3/account/whoami HTTP"), "{}", heads[0]);
    assert!(heads[0].contains("\r\nauthorization: Bearer secret\r\n"), "{}", heads[0]);
    let known = users.known(&UserQuestion::from_request(&requests[0]).unwrap());
    assert_eq!(known.flatten().as_deref(), Some("@alice:example.org"));
    // Another token, and another homeserver at the same base URL.
    let mut hosted = request(&fake.url(), Some(TOKEN));
    hosted.requester.forwarded.insert("host", HeaderValue::from_static("b.example"));
    for other in [request(&fake.url(), Some("Bearer other")), hosted] {
        assert!(users.known(&UserQuestion::from_request(&other).unwrap()).is_none());
        users.find(&homeservers, &question(&other)).await;
    }
    assert_eq!(fake.request_heads().len(), 3);
}

#[test]
fn requests_without_an_askable_homeserver_have_no_question() {
    let url = "https://hs.example".parse().unwrap();
    let with = |token| request(&url, token);
    let operator = Requester { sender: RequestSender::Operator, ..with(Some(TOKEN)).requester };
    for request in [
        with(None),
        with(Some("Bearer")),
        with(Some("Basic abc")),
        with(Some("X-Matrix origin=a")),
        MediaRequest { origin: Origin::Discovered, ..with(Some(TOKEN)) },
        MediaRequest { requester: operator, ..with(Some(TOKEN)) },
    ] {
        assert!(UserQuestion::from_request(&request).is_none(), "{request:?}");
    }
}

#[tokio::test]
async fn path_of_the_base_url_is_kept() {
    let fake = FakeHomeserver::start(|_| whoami("@a:b")).await;
    let base = fake.url().join("/prefix").unwrap();
    let (users, homeservers) = (TokenUsers::default(), homeservers(&fake));
    users.find(&homeservers, &question(&request(&base, Some(TOKEN)))).await;
    let head = fake.request_heads().remove(0);
    assert!(head.starts_with("GET /prefix/_matrix/client/v3/account/whoami HTTP"), "{head}");
}

#[tokio::test]
async fn answers_without_a_user_are_failures() {
    let long = format!("@{}:b", "a".repeat(253));
    for user_id in [
        "",
        "@",
        "alice",
        "@alice",
        "@:b",
        "@alice:",
        "@a b:c",
        "@a\n:b",
        "@a:b\n",
        "@a:b c",
        "@a\u{e4}:b",
        "@a\u{202e}:b",
        "@a\0:b",
        "@a:b/c",
        "@a:b\"",
        "#alice:b",
        "@a:b:c",
        &long,
    ] {
        let user_id = user_id.to_owned();
        let found = ask(move |_| whoami(&user_id), "failed").await;
        assert_eq!(found, None);
    }
    for body in
        ["", "{}", "[]", "{\"user_id\": 1}", "{\"user_id\": \"@a:b\", \"user_id\": \"@c:d\"}"]
    {
        assert_eq!(ask(move |_| answer(200, "", body), "failed").await, None, "{body}");
    }
    let padded = format!("{{\"user_id\": \"@a:b\", \"x\": \"{}\"}}", "x".repeat(MAX_RESPONSE));
    assert_eq!(ask(move |_| answer(200, "", &padded), "failed").await, None);
    for status in [201, 204, 302, 404, 429, 500] {
        let found =
            ask(move |_| answer(status, "location: /x\r\n", "{\"user_id\": \"@a:b\"}"), "failed");
        assert_eq!(found.await, None, "{status}");
    }
    for status in [401, 403] {
        assert_eq!(ask(move |_| errcode(status, "M_UNKNOWN_TOKEN"), "refused").await, None);
    }
}

#[tokio::test]
async fn users_of_the_grammar_are_accepted() {
    let long = format!("@{}:b", "a".repeat(252));
    for user_id in ["@alice:example.org", "@=/+-_.9:[::1]:8448", "@A!b\"c<d>:1.2.3.4", &long] {
        let sent = user_id.to_owned();
        let found = ask(move |_| whoami(&sent), "found").await;
        assert_eq!(found.as_deref(), Some(user_id));
    }
}

#[tokio::test]
async fn token_is_not_sent_to_another_origin() {
    let other = FakeHomeserver::start(|_| whoami("@mallory:b")).await;
    let target = other.url();
    assert_eq!(ask(move |_| redirect(&target), "failed").await, None);
    assert!(other.request_heads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn answers_are_used_for_an_hour_and_failures_for_a_minute() {
    for (status, period) in [(200, TTL), (401, TTL), (500, RETRY_AFTER)] {
        let body = "{\"user_id\": \"@a:b\"}";
        let fake = FakeHomeserver::start(move |_| answer(status, "", body)).await;
        let (users, homeservers) = (TokenUsers::default(), homeservers(&fake));
        let question = question(&request(&fake.url(), Some(TOKEN)));
        users.find(&homeservers, &question).await;
        tokio::time::advance(period.saturating_sub(Duration::from_secs(1))).await;
        users.find(&homeservers, &question).await;
        assert_eq!(fake.request_heads().len(), 1, "{status}");
        tokio::time::advance(Duration::from_secs(1)).await;
        users.find(&homeservers, &question).await;
        assert_eq!(fake.request_heads().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn hanging_homeserver_is_given_up() {
    let fake = FakeHomeserver::start(|_| Act::Hang(Vec::new())).await;
    let (users, homeservers) = (TokenUsers::default(), homeservers(&fake));
    let questions: Vec<_> = (0..MAX_IN_FLIGHT + 4)
        .map(|number| {
            let mut request = request(&fake.url(), Some(TOKEN));
            let token = HeaderValue::try_from(format!("Bearer {number}")).unwrap();
            request.requester.authorization = Some(token);
            question(&request)
        })
        .collect();
    let mut found = Box::pin(join_all(questions.iter().map(|one| users.find(&homeservers, one))));
    tokio::select! {
        biased;
        _ = &mut found => panic!("an answer"),
        () = async {
            while fake.request_heads().len() < MAX_IN_FLIGHT {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
    // The others wait for a slot, and not longer than the first ones for an answer.
    assert_eq!(users.slots.available_permits(), 0);
    tokio::time::pause();
    let begin = Instant::now();
    assert!(found.await.iter().all(Option::is_none));
    assert!(begin.elapsed() < TIMEOUT + Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn users_stay_within_their_memory() {
    let test = "users_stay_within_their_memory";
    assert_table_memory(module_path!(), test, CAPACITY * ENTRY_BYTES, || {
        let users = TokenUsers::default();
        for number in 0..CAPACITY * 5 / 4 {
            let user: Arc<str> = format!("@{number:0248}:b.org").into();
            assert_eq!(user.len(), MAX_USER_ID);
            let key = Sha256::digest(number.to_le_bytes()).into();
            users.users.insert(key, Some(user), TTL);
        }
        users
    });
}
