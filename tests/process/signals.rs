//! Tests of shutdown and of cleanup after it.

use std::{fs, path::Path, time::Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use crate::harness::{
    Attachment, MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse,
    scanner::{ScannerDir, is_root, list_dir, restart},
    wait_until,
};

const BLOCKING_SCRIPT: &str = r#"
    echo run >> "$MARKS/runs"
    read go < "$MARKS/go"
"#;

/// Never ends, and ignores signals; starts a child that never ends either.
pub(super) const HANGING_SCRIPT: &str = r#"
    trap '' TERM INT HUP
    cp "$1" "$TMPDIR/copy"
    setsid sleep 1000 &
    echo run >> "$MARKS/runs"
    while :; do sleep 1000; done
"#;

fn spawn_get(scanner: &ScannerProcess, path: String) -> JoinHandle<TestResponse> {
    let client = scanner.client.clone();
    tokio::spawn(async move { client.get(&path).await })
}

/// Starts a scanner with the FIFO `go`.
async fn start_with_fifo(homeserver: &MockHomeserver, script: &str) -> ScannerProcess {
    let scanner = ScannerProcess::start(homeserver, script).await;
    scanner.dir.make_fifo("go");
    scanner
}

/// Requests a file whose scan never ends, and waits until the script runs.
pub(super) async fn start_hanging_scan(scanner: &ScannerProcess, homeserver: &MockHomeserver) {
    let media = homeserver.add_bytes("abc", "plaintext");
    let request = scanner.client.request(reqwest::Method::GET, &format!("/scan/{media}"));
    // The response is not awaited: the program ends first.
    tokio::spawn(request.bearer_auth("good-token").send());
    wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;
    assert!(!scanner.dir.processes().is_empty(), "no process of the script was found");
    assert_eq!(scanner.helper_count(), 1);
}

pub(super) async fn assert_nothing_left(place: &ScannerDir) {
    let start = Instant::now();
    wait_until("the script is killed", || place.processes().is_empty()).await;
    wait_until("the job directory is removed", || place.jobs().is_empty()).await;
    // Takes less than a second on an idle machine.
    let took = start.elapsed();
    assert!(took.as_secs() < 10, "the cleanup took {took:?}");
}

#[tokio::test]
async fn first_signal_finishes_running_jobs() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let homeserver = MockHomeserver::start().await;
        let mut scanner = start_with_fifo(&homeserver, BLOCKING_SCRIPT).await;
        let media = homeserver.add_bytes("abc", "content");
        let download = spawn_get(&scanner, format!("/download/{media}"));
        wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;

        scanner.signal(signal);
        scanner.wait_for_log("stopping, waiting for running requests and scans", 1).await;
        wait_until("new connections are refused", || {
            std::net::TcpStream::connect(&scanner.address).is_err()
        })
        .await;
        scanner.dir.release_fifo("go").await;

        download.await.unwrap().assert_media(b"content");
        assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
        let log = scanner.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("stopping")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains(&format!("\"signal\":\"{signal}\"")), "{log}");
        assert!(list_dir(&scanner.dir.path("temp")).is_empty(), "the run directory remains");
        assert!(scanner.dir.processes().is_empty());
    }
}

#[tokio::test]
async fn first_signal_finishes_queued_jobs() {
    let homeserver = MockHomeserver::start().await;
    let builder =
        ScannerBuilder::new(BLOCKING_SCRIPT).homeserver(&homeserver).config("scan.workers = 1");
    let mut scanner = builder.config("scan.max_scripts = 1\nscan.queue_capacity = 1").start().await;
    scanner.dir.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.add_bytes(id, id.to_owned()));
    let first = spawn_get(&scanner, path("first"));
    wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;
    // The queue has one place, so one request is refused and the other one is queued.
    let requests = futures_util::future::select(
        spawn_get(&scanner, path("second")),
        spawn_get(&scanner, path("third")),
    );
    let (refused, queued) = requests.await.factor_first();
    refused.unwrap().assert_error(503, "M_UNKNOWN");

    scanner.signal(Signal::SIGTERM);
    scanner.wait_for_log("stopping, waiting for running requests and scans", 1).await;
    scanner.dir.release_fifo("go").await;
    first.await.unwrap().assert_clean();
    scanner.dir.release_fifo("go").await;
    queued.await.unwrap().assert_clean();
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(list_dir(&scanner.dir.path("temp")).is_empty());
}

#[tokio::test]
async fn idle_server_stops_immediately() {
    let homeserver = MockHomeserver::start().await;
    let mut scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    // An idle connection does not delay the shutdown.
    scanner.client.public_key().await;
    let start = Instant::now();
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    assert!(list_dir(&scanner.dir.path("temp")).is_empty());
}

#[tokio::test]
async fn second_signal_stops_immediately_and_kills_scripts() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGTERM, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGINT, 130),
    ] {
        let homeserver = MockHomeserver::start().await;
        let mut scanner = start_with_fifo(&homeserver, HANGING_SCRIPT).await;
        start_hanging_scan(&scanner, &homeserver).await;

        scanner.signal(first);
        scanner.wait_for_log("stopping, waiting for running requests and scans", 1).await;
        assert!(!scanner.dir.processes().is_empty(), "the first signal killed a running job");
        scanner.signal(second);

        assert_eq!(scanner.wait_for_exit().await.code(), Some(code));
        assert_nothing_left(&scanner.dir).await;
    }
}

#[tokio::test]
async fn start_removes_directory_of_killed_server() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start_with_fifo(&homeserver, HANGING_SCRIPT).await;
    start_hanging_scan(&scanner, &homeserver).await;
    let place = scanner.kill();
    assert_nothing_left(&place).await;

    let temp = place.path("temp");
    let remaining = list_dir(&temp);
    assert_eq!(remaining.len(), 1, "{remaining:?}");
    // Adds files as left by a killed helper, and entries that belong to other programs.
    fs::create_dir_all(remaining[0].join("job-x/tmp")).unwrap();
    fs::write(remaining[0].join("job-x/media"), "plaintext").unwrap();
    for other in ["mcs-mine", "mcs-abcdef12345-", "unrelated", "mcs-abcdef1234567"] {
        fs::create_dir(temp.join(other)).unwrap();
        fs::write(temp.join(other).join("file"), "foreign").unwrap();
    }
    fs::write(temp.join("mcs-abcdef123456"), "a file").unwrap();
    std::os::unix::fs::symlink(temp.join("unrelated"), temp.join("mcs-fedcba654321")).unwrap();

    let scanner = restart(place).await;
    assert!(!remaining[0].exists(), "the directory of the killed server remains");
    assert!(scanner.log().contains("removed directory of a killed server"));
    // A file, a link, four directories and the run directory of this server.
    assert_eq!(list_dir(&temp).len(), 2 + 4 + 1);
    for other in ["mcs-mine", "mcs-abcdef12345-", "unrelated", "mcs-abcdef1234567"] {
        assert_eq!(fs::read(temp.join(other).join("file")).unwrap(), b"foreign");
    }
}

#[tokio::test]
async fn kill_during_scan_leaves_no_plaintext() {
    // As root, also without CAP_SYS_ADMIN, as in a container: namespaces are then unavailable.
    let without_sys_admin = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let wrappers = if is_root() { vec![&[][..], &without_sys_admin] } else { vec![&[][..]] };
    for wrapper in wrappers {
        let homeserver = MockHomeserver::start().await;
        let scanner = ScannerBuilder::new(HANGING_SCRIPT)
            .homeserver(&homeserver)
            .wrapped_by(wrapper)
            .start()
            .await;
        scanner.dir.make_fifo("go");
        // Assembled at run time, so that neither the test program nor its sources contain the
        // string.
        let marker = ["plaintext", "of", "test", &std::process::id().to_string()].join("-");
        let attachment = Attachment::encrypt(marker.as_bytes(), 7);
        let media = homeserver.add_bytes("secret", attachment.ciphertext.clone());
        let body = attachment.body(&format!("mxc://{media}")).to_string();
        let request = scanner.client.request(reqwest::Method::POST, "/scan_encrypted");
        tokio::spawn(request.bearer_auth("good-token").body(body).send());
        wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;

        let place = scanner.dir.path("");
        let searched = [place.as_path(), "/var/tmp".as_ref(), "/dev/shm".as_ref()];
        let in_memory = !scanner.log().contains("namespaces: OFF");
        // Control: without namespaces the plaintext is on disk during the scan.
        assert_eq!(contains_marker(&marker, &searched), !in_memory, "{wrapper:?}");
        if in_memory {
            let control = place.join("control");
            fs::write(&control, &marker).unwrap();
            assert!(contains_marker(&marker, &searched));
            fs::remove_file(control).unwrap();
        }
        let place = scanner.kill();
        assert_nothing_left(&place).await;
        assert!(!contains_marker(&marker, &searched), "{wrapper:?}");
    }
}

/// Returns whether a file below `directories` contains the marker.
fn contains_marker(marker: &str, directories: &[&Path]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "grep is not the program under test")]
    let mut grep = std::process::Command::new("/bin/grep");
    grep.args(["-rqsF", "--devices=skip", marker]).args(directories);
    grep.status().unwrap().success()
}

#[tokio::test]
async fn two_servers_share_temporary_directory() {
    let homeserver = MockHomeserver::start().await;
    let mut first = start_with_fifo(&homeserver, BLOCKING_SCRIPT).await;
    let media = homeserver.add_bytes("abc", "content");
    let download = spawn_get(&first, format!("/download/{media}"));
    wait_until("the script runs", || first.dir.mark_count("runs") == 1).await;
    let runs = list_dir(&first.dir.path("temp"));
    assert_eq!(runs.len(), 1);

    let shared = format!("scan.temp_directory = \"{}\"", first.dir.path("temp").display());
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&shared);
    let mut second = builder.start().await;
    assert!(runs[0].exists(), "the second server removed the directory of the first");
    let other = homeserver.add_bytes("def", "other");
    second.client.get(&format!("/download/{other}")).await.assert_media(b"other");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait_for_exit().await.code(), Some(0));

    assert_eq!(list_dir(&first.dir.path("temp")), runs);
    first.dir.release_fifo("go").await;
    download.await.unwrap().assert_media(b"content");
    first.wait_until_idle().await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit().await.code(), Some(0));
    assert!(list_dir(&first.dir.path("temp")).is_empty());
}
