//! Too much at once, too slow, and clients that leave: everybody gets an answer, or made room.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::{task::JoinHandle, time::timeout};

use crate::harness::{
    Builder, Caller, Client, Homeserver, Media, PATIENCE, Reply,
    client::{PREFIX, send},
    homeserver::{Gate, TOKEN},
    png, until,
};

/// Tells which media it was given, and waits for the test where the media says so.
const HOLDS: &str = r#"
    head -n 1 "$1" >> "$MARKS/runs"
    if grep -q HOLD "$1"; then read go < "$MARKS/go"; fi
    exit 0
"#;

const HUNG_UP: &str = "ended without an answer";

/// For what never ends. Ample for a whole job that is held up by nothing, on a slow machine.
const DEADLINE: &str = r#"scan.deadline = "4s""#;

fn ask(client: &Client, path: impl AsRef<str>, token: &str) -> JoinHandle<Reply> {
    let request = client.request(Method::GET, path.as_ref()).bearer_auth(token.to_owned());
    tokio::spawn(send(request))
}

fn one_worker(homeserver: &Homeserver) -> Builder {
    Builder::new(HOLDS)
        .homeserver(homeserver)
        .config("scan.workers = 1\nscan.max_scripts = 1\nscan.queue_capacity = 1")
}

#[tokio::test]
async fn a_full_queue_says_so_at_once_and_public_key_still_answers() {
    let homeserver = Homeserver::start().await;
    let scanner = one_worker(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.has_bytes(id, format!("{id} HOLD\n")));
    let first = ask(&scanner.client, path("first"), TOKEN);
    until("the first is scanned", || scanner.place.marks("runs") == 1).await;

    // One of two waits, and the other is turned away before anything is let go.
    let (second, third) = (path("second"), path("third"));
    let second = ask(&scanner.client, second, TOKEN);
    let third = ask(&scanner.client, third, TOKEN);
    let both = futures_util::future::select(second, third);
    let (refused, waiting) = timeout(PATIENCE, both).await.expect("at once").factor_first();
    let refused = refused.unwrap();
    refused.is_error(503, "M_UNKNOWN");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(scanner.client.public_key().await.len(), 43);

    scanner.place.let_go("go").await;
    first.await.unwrap().is_clean();
    scanner.place.let_go("go").await;
    waiting.await.unwrap().is_clean();
    assert_eq!(scanner.place.marks("runs"), 2);
    scanner.idle().await;
}

#[tokio::test]
async fn a_job_whose_client_hangs_up_while_it_waits_is_never_begun() {
    let homeserver = Homeserver::start().await;
    let scanner = one_worker(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let first = homeserver.has_bytes("first", "first HOLD\n");
    let next = homeserver.has_bytes("next", "next\n");
    let first = ask(&scanner.client, format!("/scan/{first}"), TOKEN);
    until("the first is scanned", || scanner.place.marks("runs") == 1).await;

    // One of two waits, and the other is turned away: so the one that waits is in the queue.
    let mut left = Vec::new();
    for id in ["left0", "left1"] {
        let media = homeserver.has_bytes(id, format!("{id}\n"));
        left.push(Caller::get(&scanner.address, &format!("/scan/{media}"), TOKEN).await);
    }
    let answers = left.into_iter().map(|mut caller| {
        Box::pin(async move {
            let answer = caller.read(12).await;
            assert!(answer.starts_with(b"HTTP/1.1 503"));
        })
    });
    let ((), _, waiting) = futures_util::future::select_all(answers).await;
    drop(waiting);
    scanner.logged(HUNG_UP, 1).await;
    // It leaves its place in the queue to another, as soon as everybody has heard of it.
    let client = scanner.client.clone();
    let next = tokio::spawn(async move {
        loop {
            let reply = client.get(&format!("/scan/{next}")).await;
            if reply.status != 503 {
                return reply;
            }
        }
    });
    scanner.place.let_go("go").await;
    first.await.unwrap().is_clean();
    next.await.unwrap().is_clean();
    assert_eq!(scanner.place.mark("runs"), "first HOLD\nnext\n");
    assert!(homeserver.asked().iter().all(|asked| !asked.uri.contains("left")));
    scanner.idle().await;
}

#[tokio::test]
async fn a_scan_whose_client_hangs_up_goes_on_for_those_who_joined() {
    let homeserver = Homeserver::start().await;
    homeserver.knows("another");
    let scanner = Builder::new(HOLDS).homeserver(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "abc HOLD\n");
    let path = format!("/scan/{media}");
    let began = Caller::get(&scanner.address, &path, TOKEN).await;
    until("it is scanned", || scanner.place.marks("runs") == 1).await;
    let joined = ask(&scanner.client, path.clone(), "another");
    // The download, and the question whether the other one may have it.
    homeserver.was_asked(2).await;

    began.hang_up();
    scanner.logged(HUNG_UP, 1).await;
    scanner.place.let_go("go").await;
    joined.await.unwrap().is_clean();
    scanner.client.get(&path).await.is_clean();
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn a_scan_that_everybody_has_left_is_finished_and_remembered() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS).homeserver(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "abc HOLD\n");
    let path = format!("/scan/{media}");
    let caller = Caller::get(&scanner.address, &path, TOKEN).await;
    until("it is scanned", || scanner.place.marks("runs") == 1).await;
    caller.hang_up();
    scanner.logged(HUNG_UP, 1).await;

    scanner.place.let_go("go").await;
    scanner.idle().await;
    scanner.client.get(&path).await.is_clean();
    assert_eq!(scanner.place.marks("runs"), 1);
    assert_eq!(homeserver.downloads(), 1);
}

#[tokio::test]
async fn a_slow_server_name_holds_no_more_than_a_quarter_of_the_workers() {
    let homeserver = Homeserver::start().await;
    let scanner =
        Builder::new(HOLDS).homeserver(&homeserver).config("scan.workers = 4").start().await;
    let gate = Gate::default();
    let mut slow = Vec::new();
    for index in 0..8 {
        let token = format!("slow{index}");
        homeserver.knows(&token);
        let media = Media::new("image/png", format!("slow{index}\n")).behind(&gate);
        homeserver.has(&token, media);
        slow.push(ask(&scanner.client, format!("/scan/slow.example/{token}"), &token));
    }
    homeserver.was_asked(1).await;
    for index in 0..6 {
        let token = format!("quick{index}");
        homeserver.knows(&token);
        homeserver.has_bytes(&token, format!("quick{index}\n"));
        ask(&scanner.client, format!("/scan/quick.example/{token}"), &token)
            .await
            .unwrap()
            .is_clean();
    }
    let slow_ones = homeserver.asked().iter().filter(|it| it.uri.contains("slow.example")).count();
    assert_eq!(slow_ones, 1, "a quarter of four workers");
    gate.open();
    for reply in slow {
        reply.await.unwrap().is_clean();
    }
    scanner.idle().await;
}

#[tokio::test]
async fn one_token_holds_no_more_than_a_quarter_of_the_workers() {
    let homeserver = Homeserver::start().await;
    let scanner =
        Builder::new(HOLDS).homeserver(&homeserver).config("scan.workers = 4").start().await;
    let gate = Gate::default();
    let mut greedy = Vec::new();
    homeserver.knows("greedy");
    for index in 0..8 {
        let id = format!("slow{index}");
        homeserver.has(&id, Media::new("image/png", format!("{id}\n")).behind(&gate));
        greedy.push(ask(&scanner.client, format!("/scan/s{index}.example/{id}"), "greedy"));
    }
    homeserver.was_asked(1).await;
    let media = homeserver.has_bytes("modest", "modest\n");
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    assert_eq!(homeserver.asked().len(), 2);
    gate.open();
    for reply in greedy {
        reply.await.unwrap().is_clean();
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_flood_of_one_token_leaves_places_for_others_and_does_not_hold_up_who_wants_the_same() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS)
        .homeserver(&homeserver)
        .config("scan.workers = 4\nscan.queue_capacity = 16\ndownload.idle_timeout = \"1h\"")
        .start()
        .await;
    let gate = Gate::default();
    homeserver.knows("flood");
    let path = |index: usize| {
        let id = format!("m{index}");
        let media = Media::new("image/png", format!("{id}\n"));
        // The first is all that the flood's one worker ever gets to.
        homeserver.has(&id, if index == 0 { media.behind(&gate) } else { media });
        format!("/scan/s{index}.example/{id}")
    };
    let first = ask(&scanner.client, path(0), "flood");
    homeserver.was_asked(1).await;
    let flood: Vec<_> = (1..10).map(|index| ask(&scanner.client, path(index), "flood")).collect();
    // Four of these wait, and nobody else's place is taken.
    scanner.logged("the queue is full", 5).await;
    for index in 1..10 {
        ask(&scanner.client, path(index), TOKEN).await.unwrap().is_clean();
    }
    gate.open();
    first.await.unwrap().is_clean();
    let mut refused = 0;
    for reply in flood {
        let reply = reply.await.unwrap();
        if reply.status == 503 {
            refused += 1;
        } else {
            reply.is_clean();
        }
    }
    assert_eq!(refused, 5);
    scanner.idle().await;
}

#[tokio::test]
async fn no_request_takes_longer_than_the_deadline_whatever_it_waits_for() {
    let homeserver = Homeserver::start().await;
    homeserver.knows("another");
    let scanner = Builder::new("exit 0")
        .homeserver(&homeserver)
        .config(DEADLINE)
        .config("download.idle_timeout = \"1h\"\ndownload.total_timeout = \"1h\"")
        .start()
        .await;
    let media = homeserver.has_bytes("abc", png());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.is_clean();

    // The homeserver never says whether this one may have what is remembered.
    homeserver.has("abc", Media::new("image/png", png()).behind(&Gate::default()));
    let reply = timeout(PATIENCE / 2, ask(&scanner.client, &path, "another")).await;
    reply.expect("an answer").unwrap().is_error(504, "MCS_MEDIA_REQUEST_FAILED");
}

#[tokio::test]
async fn no_more_scripts_run_at_a_time_than_the_configuration_says() {
    let homeserver = Homeserver::start().await;
    // A gate for each: two readers of one pipe would share what is written.
    let script = r#"
        id=$(cat "$1")
        echo "begin $id" >> "$MARKS/trace"
        read go < "$MARKS/$id"
        echo "end $id" >> "$MARKS/trace"
    "#;
    let scanner = Builder::new(script)
        .homeserver(&homeserver)
        .config("scan.workers = 8\nscan.max_scripts = 2")
        .start()
        .await;
    let mut replies = Vec::new();
    for index in 0..6 {
        let id = format!("m{index}");
        scanner.place.make_fifo(&id);
        homeserver.has(&id, Media::new("image/png", id.clone()).open());
        // Of six servers, without a token: nothing else bounds them.
        let path = format!("/scan/s{index}.example/{id}");
        let request = scanner.client.request(Method::GET, &path);
        replies.push(tokio::spawn(send(request)));
    }
    homeserver.was_asked(6).await;
    until("all six have a job", || scanner.helpers() == 6).await;
    let begun = || {
        let trace = scanner.place.mark("trace");
        let ids = trace.lines().filter_map(|line| line.strip_prefix("begin "));
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    for ended in 0..6 {
        until("two scripts run", || begun().len() >= (ended + 2).min(6)).await;
        scanner.place.let_go(&begun()[ended]).await;
    }
    for reply in replies {
        reply.await.unwrap().is_clean();
    }
    let mut running = 0_i32;
    for line in scanner.place.mark("trace").lines() {
        running += if line.starts_with("begin") { 1 } else { -1 };
        assert!((0..=2).contains(&running), "{running} scripts at a time");
    }
    assert_eq!(running, 0);
    scanner.idle().await;
}

#[tokio::test]
async fn a_job_whose_time_is_over_while_it_waits_is_answered() {
    let homeserver = Homeserver::start().await;
    let builder = one_worker(&homeserver);
    // The worker is held by what comes after an answer.
    let removal = builder.place().write_script("removal.sh", r#"read go < "$MARKS/go""#);
    let scanner = builder
        .config(&format!("scan.removal_command = [\"{}\"]", removal.display()))
        .config(DEADLINE)
        .start()
        .await;
    scanner.place.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.has_bytes(id, format!("{id}\n")));
    scanner.client.get(&path("first")).await.is_clean();

    let both = futures_util::future::select(
        ask(&scanner.client, path("second"), TOKEN),
        ask(&scanner.client, path("third"), TOKEN),
    );
    let (refused, waiting) = both.await.factor_first();
    refused.unwrap().is_error(503, "M_UNKNOWN");
    // It is told when its time is over, and not when a worker gets round to it.
    let late = timeout(PATIENCE, waiting).await.expect("an answer").unwrap();
    late.is_error(503, "M_UNKNOWN");
    assert_eq!(late.json()["info"], "The server was busy for too long");
    scanner.place.let_go("go").await;
    scanner.idle().await;
    assert_eq!(scanner.place.mark("runs"), "first\n");
    assert_eq!(homeserver.downloads(), 1);
}

#[tokio::test]
async fn a_job_whose_time_is_over_while_it_downloads_or_is_scanned_is_answered() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS)
        .homeserver(&homeserver)
        .config(DEADLINE)
        .config("result_cache.failure_ttl = \"0s\"")
        .start()
        .await;
    scanner.place.make_fifo("go");
    let gate = Gate::default();
    let silent = homeserver.has("silent", Media::new("image/png", png()).behind(&gate));
    let held = homeserver.has_bytes("held", "held HOLD\n");

    let reply = scanner.client.get(&format!("/scan/{silent}")).await;
    reply.is_error(504, "MCS_MEDIA_REQUEST_FAILED");
    scanner.idle().await;
    scanner.client.get(&format!("/download/{held}")).await.is_error(500, "M_UNKNOWN");
    scanner.idle().await;
    // Neither is held against the media.
    gate.open();
    scanner.client.get(&format!("/scan/{silent}")).await.is_clean();
    let again = ask(&scanner.client, format!("/scan/{held}"), TOKEN);
    scanner.place.let_go("go").await;
    again.await.unwrap().is_clean();
    scanner.idle().await;
}

#[tokio::test]
async fn the_removal_command_gets_the_media_after_the_answer() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let removal = builder.place().write_script(
        "removal.sh",
        r#"
        read go < "$MARKS/go"
        echo "$1 $2 $(cat "$2")" >> "$MARKS/removed"
        rm -f "$2"
        exit 1
        "#,
    );
    let config = format!("scan.removal_command = [\"{}\", \"-u\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "content");

    scanner.client.get(&format!("/download/{media}")).await.is_media(b"content");
    assert_eq!(scanner.helpers(), 1, "it is still there to be removed");
    assert_eq!(scanner.place.marks("removed"), 0);
    scanner.place.let_go("go").await;
    scanner.idle().await;
    let removed = scanner.place.mark("removed");
    assert!(removed.starts_with("-u /") && removed.ends_with("/media content\n"), "{removed}");
    // That it said 1 changes nothing.
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
}

#[tokio::test]
async fn a_removal_command_that_is_gone_changes_nothing() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let removal = builder.place().write_script("removal.sh", "exit 0");
    let config = format!("scan.removal_command = [\"{}\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    std::fs::remove_file(removal).unwrap();
    let media = homeserver.has_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    scanner.idle().await;
    scanner.logged("removal_command could not be run", 1).await;
}

#[tokio::test]
async fn clients_that_dawdle_are_closed() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new("exit 0")
        .homeserver(&homeserver)
        // The first is ample for a header that comes at once.
        .config("web.header_timeout = \"2s\"\nweb.idle_timeout = \"300ms\"")
        .start()
        .await;
    let begun = Instant::now();
    let mut silent = Caller::connect(&scanner.address).await;
    assert_eq!(silent.read_to_end().await, b"");
    let mut half = Caller::connect(&scanner.address).await;
    half.write(format!("GET {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\n").as_bytes()).await;
    assert!(!half.read_to_end().await.starts_with(b"HTTP/1.1 200"));
    // A body that stops coming is answered, with the contract's words.
    let mut body = Caller::connect(&scanner.address).await;
    let head =
        format!("POST {PREFIX}/scan_encrypted HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    body.write(head.as_bytes()).await;
    let answer = String::from_utf8(body.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.ends_with('}') && answer.contains(r#""reason":"M_UNKNOWN""#), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(20), "they were not closed by these limits");
    scanner.idle().await;
}

#[tokio::test]
async fn a_client_that_waits_longer_than_the_time_limits_gets_its_answer() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS)
        .homeserver(&homeserver)
        .config("web.header_timeout = \"2s\"\nweb.idle_timeout = \"2s\"")
        .start()
        .await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "abc HOLD\n");
    let mut caller = Caller::get(&scanner.address, &format!("/scan/{media}"), TOKEN).await;
    until("it is scanned", || scanner.place.marks("runs") == 1).await;
    assert!(caller.is_silent_for(Duration::from_millis(2500)).await);
    scanner.place.let_go("go").await;
    let answer = caller.read_to_end().await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    scanner.idle().await;
}

#[tokio::test]
async fn beyond_the_connection_limit_clients_wait_for_a_place() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new("exit 0")
        .homeserver(&homeserver)
        .config("web.max_connections = 2")
        .start()
        .await;
    let first = Caller::connect(&scanner.address).await;
    let second = Caller::get(&scanner.address, "/public_key", TOKEN).await;
    let mut third = Caller::get(&scanner.address, "/public_key", TOKEN).await;
    assert!(third.is_silent_for(Duration::from_millis(300)).await, "it has no place");
    first.hang_up();
    let answer = third.read(15).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    second.hang_up();
    third.hang_up();
    assert_eq!(scanner.client.public_key().await.len(), 43);
}

#[tokio::test]
async fn public_key_answers_while_every_worker_and_every_script_is_busy() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(r#"until [ -e "$MARKS/end" ]; do :; done"#)
        .homeserver(&homeserver)
        .config("scan.workers = 4\nscan.max_scripts = 4")
        .start()
        .await;
    let mut busy = Vec::new();
    for index in 0..4 {
        let token = format!("t{index}");
        homeserver.knows(&token);
        homeserver.has_bytes(&token, token.clone());
        busy.push(ask(&scanner.client, format!("/scan/s{index}.example/{token}"), &token));
    }
    until("four scripts run", || scanner.place.processes().len() >= 4).await;
    for _ in 0..20 {
        assert_eq!(scanner.client.public_key().await.len(), 43);
    }
    assert!(busy.iter().all(|scan| !scan.is_finished()), "they were not busy all the time");
    std::fs::write(scanner.place.path("marks/end"), "").unwrap();
    for reply in busy {
        reply.await.unwrap().is_clean();
    }
    scanner.idle().await;
}
