//! Fair shares between tenants: workers, queue, scan slots and spool.

use reqwest::Method;
use tokio::task::JoinHandle;

use crate::{
    faults_load::{BLOCKS_ON_HOLD, spawn_get},
    harness::{
        MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, TestClient, TestResponse,
        client::send,
        homeserver::{Gate, RecordedRequest, TOKEN},
        noise, wait_until,
    },
};

/// Adds media whose response headers are delayed until the gate opens.
fn add_pending(homeserver: &MockHomeserver, id: &str, gate: &Gate) -> String {
    let media = MockMedia::new("image/png", format!("{id}\n")).gated_by(gate);
    homeserver.add_media(id, media)
}

async fn assert_all_clean(responses: Vec<JoinHandle<TestResponse>>) {
    for response in responses {
        response.await.unwrap().assert_clean();
    }
}

#[tokio::test]
async fn ten_users_with_fifteen_files_each_get_150_times_200() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0").homeserver(&homeserver).start().await;
    let mut responses = Vec::new();
    for user in 0..10 {
        let token = format!("user{user}");
        homeserver.add_token(&token);
        for file in 0..15 {
            let id = format!("m{user}x{file}");
            let media = homeserver.add_bytes(&id, id.clone());
            responses.push(spawn_get(&scanner.client, format!("/scan/{media}"), &token));
        }
    }
    assert_eq!(responses.len(), 150);
    assert_all_clean(responses).await;
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn pending_uploads_of_one_token_delay_no_other_token() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config("scan.workers = 4\nscan.queue_capacity = 64\ndownload.idle_timeout = \"1h\"")
        .start()
        .await;
    homeserver.add_token("attacker");
    let gate = Gate::default();
    let attack: Vec<_> = (0..40)
        .map(|index| {
            let media = add_pending(&homeserver, &format!("pending{index}"), &gate);
            spawn_get(&scanner.client, format!("/scan/{media}"), "attacker")
        })
        .collect();
    // The attacker may use all workers while no other tenant waits.
    homeserver.wait_for_requests(4).await;
    // Answered before any of the attacker's downloads ends: the gate is closed.
    for index in 0..10 {
        let media = homeserver.add_bytes(&format!("local{index}"), format!("local{index}\n"));
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    }
    let requests = homeserver.requests();
    let pending = requests.iter().filter(|request| request.uri.contains("pending")).count();
    assert_eq!(pending, 4, "the attacker starts no download while its others are demoted");
    gate.open();
    assert_all_clean(attack).await;
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn another_token_precedes_a_flood_even_for_the_same_media() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config("scan.workers = 1\nscan.queue_capacity = 64\ndownload.idle_timeout = \"1h\"")
        .start()
        .await;
    homeserver.add_token("flood");
    let gate = Gate::default();
    let first = add_pending(&homeserver, "first", &gate);
    let mut flood = vec![spawn_get(&scanner.client, format!("/scan/{first}"), "flood")];
    homeserver.wait_for_requests(1).await;
    let media: Vec<_> = (0..9)
        .map(|index| homeserver.add_bytes(&format!("m{index}"), format!("m{index}\n")))
        .collect();
    flood.extend(
        media.iter().map(|media| spawn_get(&scanner.client, format!("/scan/{media}"), "flood")),
    );
    for media in &media {
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    }
    gate.open();
    assert_all_clean(flood).await;
    scanner.wait_until_idle().await;
}

fn spawn_from(client: &TestClient, address: &str, path: &str) -> JoinHandle<TestResponse> {
    let request = client.request(Method::GET, path).header("x-forwarded-for", address);
    tokio::spawn(send(request))
}

#[tokio::test]
async fn requests_without_a_token_are_counted_by_forwarded_address() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config(
            "scan.workers = 2\nscan.queue_capacity = 64\ndownload.idle_timeout = \"1h\"\n\
             download.trusted_proxies = [\"127.0.0.0/8\"]",
        )
        .start()
        .await;
    let gate = Gate::default();
    let mut attack = Vec::new();
    // Requests that differ only in the server name, or in the host part of the client's IPv6 address, belong to the
    // same tenant.
    for index in 0..10 {
        let id = format!("slow{index}");
        let media = MockMedia::new("image/png", format!("{id}\n"));
        homeserver.add_media(&id, media.gated_by(&gate).served_without_token());
        let path = format!("/scan/s{index}.flood.example/{id}");
        attack.push(spawn_from(&scanner.client, &format!("2001:db8::{index}"), &path));
    }
    homeserver.wait_for_requests(2).await;
    for index in 0..5 {
        let id = format!("quick{index}");
        homeserver.add_media(&id, MockMedia::new("image/png", id.clone()).served_without_token());
        let path = format!("/scan/s{index}.flood.example/{id}");
        spawn_from(&scanner.client, "2001:db8:0:1::1", &path).await.unwrap().assert_clean();
    }
    gate.open();
    assert_all_clean(attack).await;
    scanner.wait_until_idle().await;
}

/// Records the first line of each file. If that is `ID HOLD`, blocks on the FIFO `ID`: two readers of one FIFO would
/// share what is written.
const BLOCKS_ON_OWN_FIFO: &str = r#"
    head -n 1 "$1" >> "$MARKS/runs"
    if grep -q HOLD "$1"; then read go < "$MARKS/$(head -n 1 "$1" | cut -d ' ' -f 1)"; fi
"#;

#[tokio::test]
async fn slow_scans_of_one_token_are_demoted_for_others() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_OWN_FIFO)
        .homeserver(&homeserver)
        .config("scan.max_scripts = 2\nscan.slow_after = \"10ms\"")
        .start()
        .await;
    homeserver.add_token("attacker");
    // All requests of the attacker have one tenant: the homeserver has accepted the token before.
    let media = homeserver.add_bytes("accepted", "accepted\n");
    spawn_get(&scanner.client, format!("/scan/{media}"), "attacker").await.unwrap().assert_clean();
    let runs = scanner.dir.mark_count("runs");
    let attack: Vec<_> = (0..8)
        .map(|index| {
            let id = format!("h{index}");
            scanner.dir.make_fifo(&id);
            let media = homeserver.add_bytes(&id, format!("{id} HOLD\n"));
            spawn_get(&scanner.client, format!("/scan/{media}"), "attacker")
        })
        .collect();
    wait_until("two scripts run", || scanner.dir.mark_count("runs") == runs + 2).await;
    // Each is answered although no hanging scan has ended.
    for index in 0..6 {
        let media = homeserver.add_bytes(&format!("q{index}"), format!("q{index}\n"));
        spawn_get(&scanner.client, format!("/scan/{media}"), TOKEN).await.unwrap().assert_clean();
    }
    let hanging = || {
        let runs = scanner.dir.read_mark("runs");
        let ids = runs.lines().filter_map(|line| line.strip_suffix(" HOLD"));
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(hanging().len(), 2, "the attacker starts no scan while its others are demoted");
    for finished in 0..8 {
        wait_until("the next script runs", || hanging().len() >= (finished + 2).min(8)).await;
        scanner.dir.release_fifo(&hanging()[finished]).await;
    }
    assert_all_clean(attack).await;
    scanner.wait_until_idle().await;
}

/// Returns the requests for this media with this token.
fn requests_for(homeserver: &MockHomeserver, id: &str, token: &str) -> Vec<RecordedRequest> {
    let authorization = format!("Bearer {token}");
    let is_match = |request: &RecordedRequest| {
        request.uri.contains(id)
            && request.headers.get("authorization").is_some_and(|value| *value == authorization)
    };
    homeserver.requests().into_iter().filter(is_match).collect()
}

/// Requests scans of four files of at least `size` bytes that wait for the FIFOs `h0` to `h3`.
async fn hold_four_scans(
    homeserver: &MockHomeserver,
    scanner: &ScannerProcess,
    size: usize,
    token: &str,
) -> Vec<JoinHandle<TestResponse>> {
    let held = (0..4).map(|index| {
        let id = format!("h{index}");
        scanner.dir.make_fifo(&id);
        let content = [format!("{id} HOLD\n").as_bytes(), &noise(index, size)].concat();
        let media = homeserver.add_bytes(&id, content);
        spawn_get(&scanner.client, format!("/scan/{media}"), token)
    });
    let held: Vec<_> = held.collect();
    let count = || scanner.dir.read_mark("runs").matches("HOLD").count();
    wait_until("all scripts run", || count() == 4).await;
    held
}

#[tokio::test]
async fn full_spool_share_of_the_initiator_fails_no_other_token() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_OWN_FIFO)
        .homeserver(&homeserver)
        .config("download.max_size = 2000000\nscan.max_spool_size = 10000000")
        .config("scan.workers = 16\nscan.max_scripts = 8")
        .start()
        .await;
    homeserver.add_token("greedy");
    // Tokens are tenants from their first success on.
    let known = homeserver.add_bytes("known", "known\n");
    for token in ["greedy", TOKEN] {
        let response = spawn_get(&scanner.client, format!("/scan/{known}"), token);
        response.await.unwrap().assert_clean();
    }
    // Of the four fifths of the spool that one tenant may use, 400 kB are left.
    let held = hold_four_scans(&homeserver, &scanner, 1_900_000, "greedy").await;

    let gate = Gate::default();
    let media = MockMedia::new("image/png", "").gated_after("shared\n", noise(9, 1_500_000), &gate);
    let path = format!("/scan/{}", homeserver.add_media("shared", media));
    let requests_with = |token| requests_for(&homeserver, "shared", token);
    let initiator = spawn_get(&scanner.client, &path, "greedy");
    wait_until("the download has started", || requests_with("greedy").len() == 1).await;
    let joined = spawn_get(&scanner.client, &path, TOKEN);
    wait_until("the other token is authorised", || requests_with(TOKEN).len() == 1).await;
    assert!(requests_with(TOKEN)[0].headers.contains_key("if-none-match"), "no download");
    gate.open();
    initiator.await.unwrap().assert_error(503, "M_UNKNOWN");
    joined.await.unwrap().assert_clean();
    assert_eq!(requests_with(TOKEN).len(), 2, "a download of its own");
    for index in 0..4 {
        scanner.dir.release_fifo(&format!("h{index}")).await;
    }
    assert_all_clean(held).await;
    scanner.wait_until_idle().await;
}
