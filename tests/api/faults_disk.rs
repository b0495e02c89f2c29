//! Disk faults: full disk, exhausted spool budget, missing temporary directory. Each request gets a
//! response, and no files remain.

use std::{fs, path::PathBuf, time::Duration};

use crate::harness::{
    MockHomeserver, MockMedia, RawClient, ScannerBuilder, ScannerProcess,
    homeserver::{Gate, TOKEN},
    noise, png, report_skipped,
    scanner::{is_root, list_dir},
    wait_until,
};

const CLEAN: &str = r#"echo run >> "$MARKS/runs""#;

/// Blocks on a FIFO if the file contains `HOLD`.
const BLOCKS_ON_HOLD: &str = r#"
    echo run >> "$MARKS/runs"
    if grep -q HOLD "$1"; then read go < "$MARKS/go"; fi
"#;

/// Content on which [`BLOCKS_ON_HOLD`] blocks.
fn blocking_content(length: usize) -> Vec<u8> {
    [b"HOLD", noise(1, length - 4).as_slice()].concat()
}

/// Lists job directories of a scanner whose temporary directory is mounted in its own mount namespace.
fn jobs_in_mount_namespace(scanner: &ScannerProcess) -> Vec<PathBuf> {
    let temp = scanner.dir.path("temp");
    let path = format!("/proc/{}/root{}", scanner.pid(), temp.display());
    let runs = list_dir(path.as_ref());
    assert_eq!(runs.len(), 1, "expected only this server's directory: {runs:?}");
    runs.iter().flat_map(|run| list_dir(run)).collect()
}

/// Returns whether no directory but that of the evaluator is left.
fn are_jobs_removed(scanner: &ScannerProcess) -> bool {
    jobs_in_mount_namespace(scanner).len() == scanner.evaluators().len()
}

#[tokio::test]
async fn returns_500_on_full_disk_and_removes_files() {
    if !is_root() {
        report_skipped("returns_500_on_full_disk_and_removes_files", "only root mounts a disk");
        return;
    }
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(CLEAN).homeserver(&homeserver);
    let temp = builder.dir().path("temp");
    // Without CAP_SYS_ADMIN there are no namespaces. With namespaces, the job's files would be in memory instead.
    let mount = format!(
        "mount -t tmpfs -o size=1500k,mode=0755 small {} && \
         exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"",
        temp.display()
    );
    let wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", &mount, "sh"];
    let scanner = builder.wrapped_by(&wrapper).start().await;
    let without_length =
        MockMedia::new("image/png", "").dripping(vec![7; 100_000], 30, Duration::ZERO);
    let attachment = crate::harness::Attachment::encrypt(&noise(3, 3_000_000), 3);
    let encrypted = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());

    for media in [
        homeserver.add_bytes("large", noise(1, 3_000_000)),
        homeserver.add_media("without_length", without_length),
    ] {
        for route in ["scan", "download"] {
            let response = scanner.client.get(&format!("/{route}/{media}")).await;
            response.assert_error(500, "M_UNKNOWN");
            wait_until("job directories are removed", || are_jobs_removed(&scanner)).await;
        }
    }
    let body = attachment.body(&format!("mxc://{encrypted}"));
    scanner.client.post("/download_encrypted", &body).await.assert_error(500, "M_UNKNOWN");
    assert_eq!(scanner.dir.mark_count("runs"), 0, "a partial file was scanned");
    // Media that fits is accepted, because the disk space of the failed jobs has been freed.
    let small = noise(2, 1_200_000);
    let media = homeserver.add_bytes("small", small.clone());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&small);
    wait_until("job directories are removed", || are_jobs_removed(&scanner)).await;
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_500_when_temporary_directory_cannot_be_created() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    // The service creates a directory that has disappeared again, but not in place of another file.
    for run in list_dir(&scanner.dir.path("temp")) {
        fs::remove_dir_all(&run).unwrap();
        fs::write(&run, "in the way").unwrap();
    }
    for (index, bytes) in [png(), noise(1, 3_000_000)].into_iter().enumerate() {
        let media = homeserver.add_bytes(&format!("m{index}"), bytes);
        for route in ["scan", "download"] {
            let response = scanner.client.get(&format!("/{route}/{media}")).await;
            response.assert_error(500, "M_UNKNOWN");
        }
    }
    assert_eq!(scanner.dir.mark_count("runs"), 0);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn download_waits_for_spool_space_if_its_size_is_known() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKS_ON_HOLD)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000\nscan.max_spool_size = 1500000")
        .config("scan.workers = 8")
        .start()
        .await;
    scanner.dir.make_fifo("go");
    let first = homeserver.add_bytes("first", blocking_content(900_000));
    let second = homeserver.add_bytes("second", noise(2, 900_000));
    let chunked = MockMedia::new("image/png", "").dripping(noise(3, 90_000), 10, Duration::ZERO);
    let without_length = homeserver.add_media("third", chunked);
    let client = scanner.client.clone();
    let path = format!("/scan/{first}");
    let waiting = tokio::spawn(async move { client.get(&path).await });
    wait_until("first scan has started", || scanner.dir.mark_count("runs") == 1).await;

    // The size is unknown, and the rest of the spool is too small.
    let response = scanner.client.get(&format!("/scan/{without_length}")).await;
    response.assert_error(503, "M_UNKNOWN");
    assert!(response.header("retry-after").parse::<u32>().unwrap() > 0);
    let (client, path) = (scanner.client.clone(), format!("/scan/{second}"));
    let announced = tokio::spawn(async move { client.get(&path).await });
    homeserver.wait_for_requests(3).await;
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    assert!(!announced.is_finished(), "the download waits for space");
    scanner.dir.release_fifo("go").await;
    waiting.await.unwrap().assert_clean();
    announced.await.unwrap().assert_clean();
    scanner.wait_until_idle().await;
    for media in [&second, &without_length] {
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
        scanner.wait_until_idle().await;
    }
}

#[tokio::test]
async fn disconnect_during_download_frees_spool_space() {
    let homeserver = MockHomeserver::start().await;
    // Room for two copies of the largest file, which a job needs where the script can modify its copy.
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 20000000\nscan.max_spool_size = 40000000")
        .start()
        .await;
    // More than the socket buffers hold.
    let large = noise(1, 19_000_000);
    // If a disconnect leaked its share, no space would be left. The share may be freed only after the
    // next request has been refused.
    let end = tokio::time::Instant::now() + crate::harness::TEST_TIMEOUT;
    let mut round = 0;
    while round < 4 {
        assert!(tokio::time::Instant::now() < end, "spool space is not freed");
        let media = homeserver.add_bytes(&format!("m{round}"), large.clone());
        let path = format!("/download/{media}");
        let mut client = RawClient::get(&scanner.address, &path, TOKEN).await;
        if !client.read(12).await.starts_with(b"HTTP/1.1 503") {
            client.read(100_000).await;
            round += 1;
        }
        client.disconnect();
    }
    loop {
        let response = scanner.client.get("/download/hs.example/m0").await;
        if response.status == 200 {
            response.assert_media(&large);
            break;
        }
        response.assert_error(503, "M_UNKNOWN");
        assert!(tokio::time::Instant::now() < end, "spool space is not freed");
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn failed_download_frees_spool_space() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000\nscan.max_spool_size = 1000000")
        .start()
        .await;
    for round in 0..5 {
        let truncated = MockMedia::new("image/png", "").truncated(900_000, noise(round, 400_000));
        let media = homeserver.add_media(&format!("cut{round}"), truncated);
        let response = scanner.client.get(&format!("/scan/{media}")).await;
        response.assert_error(502, "MCS_MEDIA_REQUEST_FAILED");
        scanner.wait_until_idle().await;
    }
    let media = homeserver.add_bytes("whole", noise(9, 1_000_000));
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn creates_job_on_first_data_and_removes_it_before_response_ends() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let media =
        homeserver.add_media("m", MockMedia::new("image/png", noise(1, 2_000_000)).gated_by(&gate));
    let path = format!("/download/{media}");
    let mut client = RawClient::get(&scanner.address, &path, TOKEN).await;
    homeserver.wait_for_requests(1).await;
    assert_eq!(scanner.helper_count(), 0, "created a job before any data arrived");
    gate.open();
    client.read(1000).await;
    // The rest of the body is served from an unlinked file.
    scanner.wait_until_idle().await;
    client.read(2_000_000 - 1000).await;
}
