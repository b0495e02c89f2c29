//! How the program ends, and what is left when it does.

use std::{fs, path::Path, time::Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use crate::harness::{
    Attachment, Builder, Homeserver, Reply, Scanner,
    scanner::{Place, as_root, entries, start_again},
    until,
};

const HOLDS: &str = r#"
    echo run >> "$MARKS/runs"
    read go < "$MARKS/go"
"#;

/// Runs for ever, with a child that does so too.
pub(super) const STAYS: &str = r#"
    trap '' TERM INT HUP
    cp "$1" "$TMPDIR/copy"
    setsid sleep 1000 &
    echo run >> "$MARKS/runs"
    while :; do sleep 1000; done
"#;

fn ask(scanner: &Scanner, path: String) -> JoinHandle<Reply> {
    let client = scanner.client.clone();
    tokio::spawn(async move { client.get(&path).await })
}

/// With a script at work on a media.
async fn at_work(homeserver: &Homeserver, script: &str) -> Scanner {
    let scanner = Scanner::start(homeserver, script).await;
    scanner.place.make_fifo("go");
    scanner
}

/// Asks for a media whose scan never ends, and waits until it is under way.
pub(super) async fn begin(scanner: &Scanner, homeserver: &Homeserver) {
    let media = homeserver.has_bytes("abc", "plaintext");
    let request = scanner.client.request(reqwest::Method::GET, &format!("/scan/{media}"));
    // Nobody is there to answer when the program has gone.
    tokio::spawn(request.bearer_auth("good-token").send());
    until("the script runs", || scanner.place.marks("runs") == 1).await;
    assert!(!scanner.place.processes().is_empty(), "scripts are found by their environment");
    assert_eq!(scanner.helpers(), 1);
}

pub(super) async fn nothing_survives(place: &Place) {
    let died = Instant::now();
    until("the script is dead", || place.processes().is_empty()).await;
    until("its directory is gone", || place.jobs().is_empty()).await;
    // Within a second, on a machine that is not busy.
    let took = died.elapsed();
    assert!(took.as_secs() < 10, "{took:?} until nothing was left");
}

#[tokio::test]
async fn the_first_signal_lets_jobs_end_and_answers_their_clients() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let homeserver = Homeserver::start().await;
        let mut scanner = at_work(&homeserver, HOLDS).await;
        let media = homeserver.has_bytes("abc", "content");
        let download = ask(&scanner, format!("/download/{media}"));
        until("the script runs", || scanner.place.marks("runs") == 1).await;

        scanner.signal(signal);
        scanner.logged("asked to stop", 1).await;
        until("nobody new is let in", || std::net::TcpStream::connect(&scanner.address).is_err())
            .await;
        scanner.place.let_go("go").await;

        download.await.unwrap().is_media(b"content");
        assert_eq!(scanner.ended().await.code(), Some(0));
        assert!(entries(&scanner.place.path("temp")).is_empty(), "its directory is left");
        assert!(scanner.place.processes().is_empty());
    }
}

#[tokio::test]
async fn jobs_in_the_queue_are_done_before_the_end_too() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(HOLDS).homeserver(&homeserver).config("scan.workers = 1");
    let mut scanner = builder.config("scan.max_scripts = 1\nscan.queue_capacity = 1").start().await;
    scanner.place.make_fifo("go");
    let path = |id: &str| format!("/scan/{}", homeserver.has_bytes(id, id.to_owned()));
    let first = ask(&scanner, path("first"));
    until("the script runs", || scanner.place.marks("runs") == 1).await;
    // One of two is turned away, so the other is in the queue.
    let both =
        futures_util::future::select(ask(&scanner, path("second")), ask(&scanner, path("third")));
    let (refused, queued) = both.await.factor_first();
    refused.unwrap().is_error(503, "M_UNKNOWN");

    scanner.signal(Signal::SIGTERM);
    scanner.logged("asked to stop", 1).await;
    scanner.place.let_go("go").await;
    first.await.unwrap().is_clean();
    scanner.place.let_go("go").await;
    queued.await.unwrap().is_clean();
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(entries(&scanner.place.path("temp")).is_empty());
}

#[tokio::test]
async fn without_work_a_signal_ends_it_at_once() {
    let homeserver = Homeserver::start().await;
    let mut scanner = Scanner::start(&homeserver, "exit 0").await;
    // A connection that rests keeps nobody waiting.
    scanner.client.public_key().await;
    let asked = Instant::now();
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    assert!(entries(&scanner.place.path("temp")).is_empty());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_nothing_survives() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGTERM, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGINT, 130),
    ] {
        let homeserver = Homeserver::start().await;
        let mut scanner = at_work(&homeserver, STAYS).await;
        begin(&scanner, &homeserver).await;

        scanner.signal(first);
        scanner.logged("asked to stop", 1).await;
        assert!(!scanner.place.processes().is_empty(), "the first signal lets jobs go on");
        scanner.signal(second);

        assert_eq!(scanner.ended().await.code(), Some(code));
        nothing_survives(&scanner.place).await;
    }
}

#[tokio::test]
async fn killed_it_leaves_nothing_but_a_directory_that_the_next_start_sweeps() {
    let homeserver = Homeserver::start().await;
    let scanner = at_work(&homeserver, STAYS).await;
    begin(&scanner, &homeserver).await;
    let place = scanner.kill();
    nothing_survives(&place).await;

    let temp = place.path("temp");
    let left = entries(&temp);
    assert_eq!(left.len(), 1, "{left:?}");
    // What a helper that was killed as well would have left, and what is none of ours.
    fs::create_dir_all(left[0].join("job-x/tmp")).unwrap();
    fs::write(left[0].join("job-x/media"), "plaintext").unwrap();
    for other in ["mcs-mine", "mcs-abcdef12345-", "somebody", "mcs-abcdef1234567"] {
        fs::create_dir(temp.join(other)).unwrap();
        fs::write(temp.join(other).join("file"), "theirs").unwrap();
    }
    fs::write(temp.join("mcs-abcdef123456"), "a file").unwrap();
    std::os::unix::fs::symlink(temp.join("somebody"), temp.join("mcs-fedcba654321")).unwrap();

    let scanner = start_again(place).await;
    assert!(!left[0].exists(), "it is not swept");
    assert!(scanner.log().contains("removed what a killed server left"));
    // The two files, the four directories, and its own.
    assert_eq!(entries(&temp).len(), 2 + 4 + 1);
    for other in ["mcs-mine", "mcs-abcdef12345-", "somebody", "mcs-abcdef1234567"] {
        assert_eq!(fs::read(temp.join(other).join("file")).unwrap(), b"theirs");
    }
}

#[tokio::test]
async fn killed_in_a_scan_it_leaves_no_plaintext_anywhere() {
    // With namespaces, and as in a container: root without CAP_SYS_ADMIN.
    let without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let plans = if as_root() { vec![&[][..], &without] } else { vec![&[][..]] };
    for inside in plans {
        let homeserver = Homeserver::start().await;
        let scanner = Builder::new(STAYS).homeserver(&homeserver).inside(inside).start().await;
        scanner.place.make_fifo("go");
        // Put together only here, so that neither this program nor its sources have it.
        let marker = ["plaintext", "of", "somebody", &std::process::id().to_string()].join("-");
        let attachment = Attachment::encrypt(marker.as_bytes(), 7);
        let media = homeserver.has_bytes("secret", attachment.ciphertext.clone());
        let body = attachment.body(&format!("mxc://{media}")).to_string();
        let request = scanner.client.request(reqwest::Method::POST, "/scan_encrypted");
        tokio::spawn(request.bearer_auth("good-token").body(body).send());
        until("the script runs", || scanner.place.marks("runs") == 1).await;

        let place = scanner.place.path("");
        let searched = [place.as_path(), "/var/tmp".as_ref(), "/dev/shm".as_ref()];
        let in_memory = !scanner.log().contains("namespaces: OFF");
        // Without namespaces this is the control.
        assert_eq!(is_anywhere(&marker, &searched), !in_memory, "{inside:?}");
        if in_memory {
            let control = place.join("control");
            fs::write(&control, &marker).unwrap();
            assert!(is_anywhere(&marker, &searched));
            fs::remove_file(control).unwrap();
        }
        let place = scanner.kill();
        nothing_survives(&place).await;
        assert!(!is_anywhere(&marker, &searched), "{inside:?}");
    }
}

/// Whether a file below these directories has the marker in it.
fn is_anywhere(marker: &str, directories: &[&Path]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a program outside of what is tested")]
    let mut grep = std::process::Command::new("/bin/grep");
    grep.args(["-rqsF", "--devices=skip", marker]).args(directories);
    grep.status().unwrap().success()
}

#[tokio::test]
async fn two_servers_share_a_temporary_directory_without_harm() {
    let homeserver = Homeserver::start().await;
    let mut first = at_work(&homeserver, HOLDS).await;
    let media = homeserver.has_bytes("abc", "content");
    let download = ask(&first, format!("/download/{media}"));
    until("the script runs", || first.place.marks("runs") == 1).await;
    let runs = entries(&first.place.path("temp"));
    assert_eq!(runs.len(), 1);

    let shared = format!("scan.temp_directory = \"{}\"", first.place.path("temp").display());
    let builder = Builder::new("exit 0").homeserver(&homeserver).config(&shared);
    let mut second = builder.start().await;
    assert!(runs[0].exists(), "the second start swept what the first was using");
    let other = homeserver.has_bytes("def", "other");
    second.client.get(&format!("/download/{other}")).await.is_media(b"other");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ended().await.code(), Some(0));

    assert_eq!(entries(&first.place.path("temp")), runs);
    first.place.let_go("go").await;
    download.await.unwrap().is_media(b"content");
    first.idle().await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().await.code(), Some(0));
    assert!(entries(&first.place.path("temp")).is_empty());
}
