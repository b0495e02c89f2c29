//! c-icap: verdicts, returned and replaced media, a new `ISTag`, failures.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    CANARY, EICAR_SIGNATURE, assert_scan_errors, assert_verdicts, builder_with, free_port, scan,
    socket_count, write_file,
};
use crate::{
    clamav::ClamdDaemon,
    harness::{MockHomeserver, ScannerBuilder, eicar, report_skipped, wait_until},
    icap::{self, IcapDaemon},
    skip_without,
};

const ICAP_PROGRAMS: [&str; 3] = ["c-icap", "clamd", "python3"];

fn builder_with_icap(icap: &IcapDaemon) -> ScannerBuilder {
    builder_with_icap_urls(&[icap.port], "avscan")
}

fn builder_with_icap_urls(ports: &[u16], service: &str) -> ScannerBuilder {
    let urls: Vec<_> =
        ports.iter().map(|port| format!("icap://127.0.0.1:{port}/{service}")).collect();
    builder_with(&format!("scan.engines = [\"icap\"]\nicap.urls = {urls:?}"))
}

#[tokio::test]
async fn c_icap_returns_correct_verdicts() {
    if skip_without("c_icap_returns_correct_verdicts", &ICAP_PROGRAMS) {
        return;
    }
    let mut clamd = ClamdDaemon::start().await;
    let mut icap = IcapDaemon::start(&clamd).await;
    assert_icap_verdicts(&builder_with_icap(&icap).config(CANARY));
    assert_icap_verdicts(
        &builder_with_icap(&icap).config(CANARY).config("icap.method = \"reqmod\""),
    );
    assert_icap_verdicts(
        &builder_with_icap_urls(&[free_port(), icap.port], "avscan").config(CANARY),
    );
    let builder = builder_with_icap(&icap).config("icap.max_size = \"1MiB\"");
    let (code, output) = scan(&builder, &write_file(&builder, "large", &vec![b'x'; 2 << 20]));
    assert_eq!(code, Some(2), "{output}");
    // A file below the limit that is larger than all buffers in between.
    let builder = builder_with_icap(&icap).config("icap.max_size = \"32MiB\"");
    let (code, output) = scan(&builder, &write_file(&builder, "large", &vec![b'x'; 20 << 20]));
    assert_eq!(code, Some(0), "{output}");
    assert_scan_errors(&builder_with_icap_urls(&[icap.port], "nothing"), "ICAP status 404");
    let both = format!(
        "scan.engines = [\"icap\", \"clamd\"]\nclamd.addresses = [{:?}]\n\
         icap.urls = [\"icap://127.0.0.1:{}/avscan\"]",
        clamd.socket(),
        icap.port
    );
    assert_verdicts(&builder_with(&both).config(CANARY));
    // The ICAP server responds, but its engine is down.
    clamd.stop();
    assert_scan_errors(&builder_with_icap(&icap), "icap failed");
    icap.stop();
    assert_scan_errors(&builder_with_icap(&icap), "cannot connect");
}

#[tokio::test]
async fn media_returned_unchanged_by_c_icap_is_clean() {
    let test = "media_returned_unchanged_by_c_icap_is_clean";
    if skip_without(test, &ICAP_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    // A service that echoes the media, and one that scans without support for status 204.
    let lines = "Service echo srv_echo.so\n\
                 ServiceAlias whole virus_scan?allow204=off&sizelimit=off&mode=simple\n";
    let icap = IcapDaemon::start_with(&clamd, lines).await;
    let large: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let small = b"some text".to_vec();
    for method in ["respmod", "reqmod"] {
        for (service, media) in [
            // The echo service responds with 204 to every second request.
            ("echo", vec![(&small, 0), (&small, 0), (&large, 0), (&large, 0)]),
            ("whole", vec![(&small, 0), (&large, 0), (&eicar(), 1)]),
        ] {
            let config = format!("icap.method = {method:?}");
            let builder = builder_with_icap_urls(&[icap.port], service).config(&config);
            let count = if service == "echo" { media.len() / 2 } else { media.len() };
            for (content, expected) in media {
                let (code, output) = scan(&builder, &write_file(&builder, "media", content));
                assert_eq!(code, Some(expected), "{service}, {} bytes: {output}", content.len());
                assert_eq!(output.contains("not clean: Test.EICAR"), expected == 1, "{output}");
            }
            let method = method.to_uppercase();
            wait_until("responses", || icap.response_count(&method, service, 200) >= count).await;
        }
    }
}

#[tokio::test]
async fn media_replaced_by_c_icap_is_not_clean() {
    let test = "media_replaced_by_c_icap_is_not_clean";
    if skip_without(test, &ICAP_PROGRAMS) {
        return;
    }
    if !icap::modules().join("srv_url_check.so").exists() {
        return report_skipped(test, "not installed: c-icap's url_check");
    }
    let clamd = ClamdDaemon::start().await;
    // This service sends no infection headers. It blocks the host in the URL that the service sends for all media.
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(&hosts, "media.invalid\n").unwrap();
    fs::set_permissions(&hosts, fs::Permissions::from_mode(0o644)).unwrap();
    let lines = format!(
        "Service url_check srv_url_check.so\n\
         url_check.LookupTableDB blocked host hash:{}\n\
         url_check.Profile default block blocked\n",
        hosts.path().display()
    );
    let icap = IcapDaemon::start_with(&clamd, &lines).await;
    let builder =
        builder_with_icap_urls(&[icap.port], "url_check").config("icap.method = \"reqmod\"");
    for content in [b"some text".to_vec(), vec![b'x'; 2 << 20]] {
        let (code, output) = scan(&builder, &write_file(&builder, "media", &content));
        assert_eq!(code, Some(1), "{output}");
        // The server sends `X-Response-Info: BLOCKED`.
        assert!(output.contains("not clean: blocked by the ICAP server"), "{output}");
    }
    wait_until("responses", || icap.response_count("REQMOD", "url_check", 200) == 2).await;
    // The service does not offer RESPMOD.
    let (code, output) = scan(
        &builder_with_icap_urls(&[icap.port], "url_check"),
        &write_file(&builder, "media", b"x"),
    );
    assert_eq!(code, Some(2), "{output}");
}

#[tokio::test]
async fn new_istag_invalidates_clean_verdict() {
    let test = "new_istag_invalidates_clean_verdict";
    if skip_without(test, &["c-icap", "clamd", "sigtool", "python3"]) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    clamd.replace_signatures(1, EICAR_SIGNATURE).await;
    let mut icap = IcapDaemon::start(&clamd).await;
    let homeserver = MockHomeserver::start().await;
    // MD5 6cd3556deb0da54bca060b4c39479839.
    let second = homeserver.add_bytes("second", "Hello, world!");
    let scanner = builder_with_icap(&icap)
        .config("scan.version_interval = \"1s\"")
        .homeserver(&homeserver)
        .start()
        .await;
    let path = format!("/scan/{second}");
    scanner.client.get(&path).await.assert_clean();
    scanner.client.get(&path).await.assert_clean();
    wait_until("response", || icap.response_count("RESPMOD", "avscan", 204) == 1).await;

    clamd.replace_signatures(2, "6cd3556deb0da54bca060b4c39479839:13:Test.Worse\n").await;
    // c-icap reads its engine's version at the start.
    icap.stop();
    icap.run().await;
    scanner.wait_for_log("engine version", 2).await;
    let name = "File not clean. Output: 'Test.Worse.UNOFFICIAL'";
    scanner.client.get(&path).await.assert_not_clean(name);
}

fn assert_icap_verdicts(builder: &ScannerBuilder) {
    assert_verdicts(builder);
    let (_, stdout, _) = builder.run(&["check-config", "--show"]);
    assert!(stdout.contains("# icap: \""), "expected the ISTag: {stdout}");
}

#[tokio::test]
async fn returns_500_when_icap_server_is_killed_during_scan() {
    let test = "returns_500_when_icap_server_is_killed_during_scan";
    if skip_without(test, &ICAP_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    let mut icap = IcapDaemon::start(&clamd).await;
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", "some text");
    let scanner = builder_with_icap(&icap).homeserver(&homeserver).start().await;
    // The ICAP server is killed while it waits for its suspended engine.
    clamd.freeze();
    let path = format!("/scan/{media}");
    let killed = async {
        wait_until("connection to the engine", || socket_count(&clamd.socket()) >= 2).await;
        icap.kill();
    };
    let (response, ()) = tokio::join!(scanner.client.get(&path), killed);
    response.assert_error(500, "M_UNKNOWN");
}
