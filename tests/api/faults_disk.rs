//! The disk is full, its budget is used up, or it has gone: an answer, and nothing left behind.

use std::{fs, path::PathBuf, time::Duration};

use crate::harness::{
    Builder, Caller, Homeserver, Media, Scanner,
    homeserver::{Gate, TOKEN},
    noise, png,
    scanner::{as_root, entries},
    skipped, until,
};

const CLEAN: &str = r#"echo run >> "$MARKS/runs""#;

/// Holds a job for as long as a test likes: its media says so.
const HOLDS: &str = r#"
    echo run >> "$MARKS/runs"
    if grep -q HOLD "$1"; then read go < "$MARKS/go"; fi
"#;

fn held(length: usize) -> Vec<u8> {
    [b"HOLD", noise(1, length - 4).as_slice()].concat()
}

/// The jobs of a scanner that has a temporary directory of its own, which this process cannot see.
fn jobs_inside(scanner: &Scanner) -> Vec<PathBuf> {
    let temp = scanner.place.path("temp");
    let seen = format!("/proc/{}/root{}", scanner.pid(), temp.display());
    let runs = entries(seen.as_ref());
    assert_eq!(runs.len(), 1, "the server's own directory: {runs:?}");
    runs.iter().flat_map(|run| entries(run)).collect()
}

#[tokio::test]
async fn a_full_disk_is_a_failure_and_leaves_nothing() {
    if !as_root() {
        skipped("a_full_disk_is_a_failure_and_leaves_nothing", "only root mounts a disk");
        return;
    }
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(CLEAN).homeserver(&homeserver);
    let temp = builder.place().path("temp");
    // Without CAP_SYS_ADMIN there are no namespaces, in which a media would lie in memory instead.
    let mount = format!(
        "mount -t tmpfs -o size=1500k,mode=0755 small {} && \
         exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"",
        temp.display()
    );
    let wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", &mount, "sh"];
    let scanner = builder.inside(&wrapper).start().await;
    let unannounced = Media::new("image/png", "").dripping(vec![7; 100_000], 30, Duration::ZERO);
    let attachment = crate::harness::Attachment::encrypt(&noise(3, 3_000_000), 3);
    let encrypted = homeserver.has_bytes("encrypted", attachment.ciphertext.clone());

    for media in [
        homeserver.has_bytes("large", noise(1, 3_000_000)),
        homeserver.has("unannounced", unannounced),
    ] {
        for route in ["scan", "download"] {
            let reply = scanner.client.get(&format!("/{route}/{media}")).await;
            reply.is_error(500, "M_UNKNOWN");
            until("the disk is empty again", || jobs_inside(&scanner).is_empty()).await;
        }
    }
    let body = attachment.body(&format!("mxc://{encrypted}"));
    scanner.client.post("/download_encrypted", &body).await.is_error(500, "M_UNKNOWN");
    assert_eq!(scanner.place.marks("runs"), 0, "half a file was scanned");
    // What fits passes, since nothing of the others is left.
    let small = noise(2, 1_200_000);
    let media = homeserver.has_bytes("small", small.clone());
    scanner.client.get(&format!("/download/{media}")).await.is_media(&small);
    until("the disk is empty again", || jobs_inside(&scanner).is_empty()).await;
    scanner.idle().await;
}

#[tokio::test]
async fn a_temporary_directory_that_has_gone_is_a_failure() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    // As somebody's cleaning up of old files would.
    for run in entries(&scanner.place.path("temp")) {
        fs::remove_dir_all(run).unwrap();
    }
    for (index, bytes) in [png(), noise(1, 3_000_000)].into_iter().enumerate() {
        let media = homeserver.has_bytes(&format!("m{index}"), bytes);
        for route in ["scan", "download"] {
            let reply = scanner.client.get(&format!("/{route}/{media}")).await;
            reply.is_error(500, "M_UNKNOWN");
        }
    }
    assert_eq!(scanner.place.marks("runs"), 0);
    scanner.idle().await;
}

#[tokio::test]
async fn a_spool_that_is_used_up_is_busy_until_a_job_gives_its_share_back() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000\nscan.max_spool_size = 1500000")
        .config("scan.workers = 8")
        .start()
        .await;
    scanner.place.make_fifo("go");
    let first = homeserver.has_bytes("first", held(900_000));
    let second = homeserver.has_bytes("second", noise(2, 900_000));
    let pieces = Media::new("image/png", "").dripping(noise(3, 90_000), 10, Duration::ZERO);
    let unannounced = homeserver.has("third", pieces);
    let client = scanner.client.clone();
    let path = format!("/scan/{first}");
    let waiting = tokio::spawn(async move { client.get(&path).await });
    until("the first is scanned", || scanner.place.marks("runs") == 1).await;

    for media in [&second, &unannounced] {
        let reply = scanner.client.get(&format!("/scan/{media}")).await;
        reply.is_error(503, "M_UNKNOWN");
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.place.let_go("go").await;
    waiting.await.unwrap().is_clean();
    scanner.idle().await;
    for media in [&second, &unannounced] {
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
        scanner.idle().await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_receives_gives_its_share_of_the_disk_back() {
    let homeserver = Homeserver::start().await;
    // Of two copies of the largest media, where the script could rewrite its own.
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 20000000\nscan.max_spool_size = 40000000")
        .start()
        .await;
    // More than sockets hold on their way.
    let large = noise(1, 19_000_000);
    // With a share lost each time, there would be none left; it may come back after the next one has asked.
    let end = tokio::time::Instant::now() + crate::harness::PATIENCE;
    let mut round = 0;
    while round < 4 {
        assert!(tokio::time::Instant::now() < end, "the disk's budget never comes back");
        let media = homeserver.has_bytes(&format!("m{round}"), large.clone());
        let path = format!("/download/{media}");
        let mut caller = Caller::get(&scanner.address, &path, TOKEN).await;
        if !caller.read(12).await.starts_with(b"HTTP/1.1 503") {
            caller.read(100_000).await;
            round += 1;
        }
        caller.hang_up();
    }
    loop {
        let reply = scanner.client.get("/download/hs.example/m0").await;
        if reply.status == 200 {
            reply.is_media(&large);
            break;
        }
        reply.is_error(503, "M_UNKNOWN");
        assert!(tokio::time::Instant::now() < end, "the disk's budget never comes back");
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_download_that_fails_halfway_gives_its_share_of_the_disk_back() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000\nscan.max_spool_size = 1000000")
        .start()
        .await;
    for round in 0..5 {
        let cut = Media::new("image/png", "").cut_short(900_000, noise(round, 400_000));
        let media = homeserver.has(&format!("cut{round}"), cut);
        let reply = scanner.client.get(&format!("/scan/{media}")).await;
        reply.is_error(502, "MCS_MEDIA_REQUEST_FAILED");
        scanner.idle().await;
    }
    let media = homeserver.has_bytes("whole", noise(9, 1_000_000));
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.idle().await;
}

#[tokio::test]
async fn nothing_of_a_media_is_on_the_disk_once_it_is_answered() {
    let homeserver = Homeserver::start().await;
    let gate = Gate::default();
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let media = homeserver.has("m", Media::new("image/png", noise(1, 2_000_000)).behind(&gate));
    let path = format!("/download/{media}");
    let mut caller = Caller::get(&scanner.address, &path, TOKEN).await;
    homeserver.was_asked(1).await;
    assert_eq!(scanner.helpers(), 0, "a job before there is anything to put in it");
    gate.open();
    caller.read(1000).await;
    // The rest is still being served, from a file without a name.
    scanner.idle().await;
    caller.read(2_000_000 - 1000).await;
}
