//! Fair shares between tenants: workers, queue, scan slots and spool.

use reqwest::Method;
use tokio::task::JoinHandle;

use crate::{
    faults_load::{BLOCKS_ON_HOLD, spawn_get},
    harness::{
        MockHomeserver, MockMedia, ScannerBuilder, TestClient, TestResponse,
        client::send,
        homeserver::{Gate, TOKEN},
        wait_until,
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
    // Server names, and the host part of an IPv6 address, make no tenant.
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

#[tokio::test]
async fn slow_scans_of_one_token_are_demoted_for_others() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"
        head -n 1 "$1" >> "$MARKS/runs"
        if grep -q HOLD "$1"; then read go < "$MARKS/$(cut -d ' ' -f 1 "$1")"; fi
    "#;
    let scanner = ScannerBuilder::new(script)
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
            // One FIFO for each file, because two readers of one FIFO would share what is written.
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
