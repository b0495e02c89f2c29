//! clamd: verdicts by descriptor and by stream, limits, encrypted contents, failures, new signatures.

use std::fs;

use super::{
    CANARY, CLAMD_PROGRAMS, EICAR_SIGNATURE, assert_scan_errors, assert_verdicts, builder_with,
    free_port, scan, socket_count, write_file,
};
use crate::{
    clamav::ClamdDaemon,
    harness::{MockHomeserver, ScannerBuilder, eicar, wait_until},
    host_command, skip_without,
};

fn builder_with_clamd(address: &str) -> ScannerBuilder {
    builder_with(&format!("scan.engines = [\"clamd\"]\nclamd.addresses = [\"{address}\"]"))
}

fn builder_with_clamd_socket(clamd: &ClamdDaemon) -> ScannerBuilder {
    builder_with_clamd(clamd.socket().to_str().unwrap())
}

#[tokio::test]
async fn clamd_by_descriptor_returns_correct_verdicts() {
    if skip_without("clamd_by_descriptor_returns_correct_verdicts", &CLAMD_PROGRAMS) {
        return;
    }
    let mut clamd = ClamdDaemon::start().await;
    let builder = builder_with_clamd_socket(&clamd).config(CANARY);
    assert_verdicts(&builder);
    let (_, stdout, _) = builder.run(&["check-config", "--show"]);
    assert!(stdout.contains("# clamd: ClamAV "), "{stdout}");
    clamd.stop();
    assert_scan_errors(&builder, "clamd failed: cannot connect");
    let (code, _, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(1));
    let socket = clamd.socket();
    let expected = format!("clamd ({}) gives no verdict on the infected sample", socket.display());
    assert!(stderr.contains(&expected), "{stderr}");
    clamd.run().await;
    assert_verdicts(&builder);
}

#[tokio::test]
async fn clamd_by_stream_tolerates_one_dead_address() {
    if skip_without("clamd_by_stream_tolerates_one_dead_address", &CLAMD_PROGRAMS) {
        return;
    }
    let clamd_port = free_port();
    let lines = format!("TCPAddr 127.0.0.1\nTCPSocket {clamd_port}");
    let _clamd = ClamdDaemon::start_with(&lines).await;
    assert_verdicts(&builder_with_clamd(&format!("127.0.0.1:{clamd_port}")).config(CANARY));
    let two = format!("[\"127.0.0.1:{}\", \"127.0.0.1:{clamd_port}\"]", free_port());
    assert_verdicts(&builder_with(&format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = {two}\n{CANARY}"
    )));
}

#[tokio::test]
async fn encrypted_contents_are_handled_as_configured() {
    if skip_without("encrypted_contents_are_handled_as_configured", &CLAMD_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start_with("AlertEncrypted yes").await;
    for (on_encrypted, expected) in [("refuse", 1), ("fail", 2), ("pass", 0)] {
        let setting = format!("scan.on_encrypted = {on_encrypted:?}");
        let builder = builder_with_clamd_socket(&clamd).config(&setting);
        write_file(&builder, "in.txt", b"some text in an archive\n");
        let create_zip = |name: &str, content: &str| {
            let mut python = host_command("python3");
            python.current_dir(builder.dir().path(""));
            assert!(
                python.args(["-m", "zipfile", "-c", name, content]).status().unwrap().success()
            );
            fs::read(builder.dir().path(name)).unwrap()
        };
        let zip = with_encrypted_flag(create_zip("a.zip", "in.txt"));
        let encrypted = write_file(&builder, "encrypted.zip", &zip);
        // clamd examines nested archives, the service does not.
        create_zip("outer.zip", "encrypted.zip");
        let outer = builder.dir().path("outer.zip");
        for (path, name) in [(encrypted, "zip"), (outer, "Heuristics.Encrypted.Zip")] {
            let (code, output) = scan(&builder, &path);
            assert_eq!(code, Some(expected), "{on_encrypted}: {output}");
            assert_eq!(output.contains(name), expected != 0 || name == "zip", "{output}");
        }
    }
}

#[tokio::test]
async fn rejects_encrypted_office_document_that_clamd_reports_clean() {
    if skip_without("rejects_encrypted_office_document_that_clamd_reports_clean", &CLAMD_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start_with("AlertEncrypted yes").await;
    let document = include_bytes!("../../../fuzz/corpus/encrypted/encrypted.docx");
    for (on_encrypted, expected) in [("refuse", 1), ("pass", 0)] {
        let setting = format!("scan.on_encrypted = {on_encrypted:?}");
        let builder = builder_with_clamd_socket(&clamd).config(&setting);
        let (code, output) = scan(&builder, &write_file(&builder, "encrypted.docx", document));
        assert_eq!(code, Some(expected), "{on_encrypted}: {output}");
    }
}

#[tokio::test]
async fn infected_file_beside_encrypted_file_is_found_without_heuristic_precedence() {
    let test = "infected_file_beside_encrypted_file_is_found_without_heuristic_precedence";
    if skip_without(test, &CLAMD_PROGRAMS) {
        return;
    }
    for (precedence, expected) in [("no", 1), ("yes", 0)] {
        let lines = format!("AlertEncrypted yes\nHeuristicScanPrecedence {precedence}");
        let clamd = ClamdDaemon::start_with(&lines).await;
        let builder = builder_with_clamd_socket(&clamd).config("scan.on_encrypted = \"pass\"");
        write_file(&builder, "in.txt", b"some text in an archive\n");
        write_file(&builder, "eicar.txt", &eicar());
        let mut python = host_command("python3");
        python.current_dir(builder.dir().path(""));
        python.args(["-m", "zipfile", "-c", "a.zip", "in.txt", "eicar.txt"]);
        assert!(python.status().unwrap().success());
        let zip = with_encrypted_flag(fs::read(builder.dir().path("a.zip")).unwrap());
        let (code, output) = scan(&builder, &write_file(&builder, "encrypted.zip", &zip));
        assert_eq!(code, Some(expected), "{precedence}: {output}");
        assert_eq!(output.contains("Test.EICAR"), expected == 1, "{output}");
    }
}

#[tokio::test]
async fn returns_500_when_clamd_is_killed_during_scan() {
    let test = "returns_500_when_clamd_is_killed_during_scan";
    if skip_without(test, &CLAMD_PROGRAMS) {
        return;
    }
    let mut clamd = ClamdDaemon::start().await;
    let socket = clamd.socket();
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", "some text");
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{socket:?}]\n\
         result_cache.failure_ttl = \"1ms\""
    );
    let scanner = builder_with(&config).homeserver(&homeserver).start().await;
    clamd.freeze();
    let path = format!("/scan/{media}");
    let response = scanner.client.get(&path);
    let killed = async {
        // The daemon's listener and the service's connection.
        wait_until("connection", || socket_count(&socket) >= 2).await;
        clamd.kill();
    };
    let (response, ()) = tokio::join!(response, killed);
    response.assert_error(500, "M_UNKNOWN");
    scanner.wait_for_log("connection lost before the response was complete", 1).await;
    // The daemon is back, and the cached failure has expired.
    clamd.run().await;
    scanner.client.get(&path).await.assert_clean();
}

#[tokio::test]
async fn new_signatures_invalidate_clean_verdicts_only() {
    let test = "new_signatures_invalidate_clean_verdicts_only";
    if skip_without(test, &["clamd", "sigtool", "python3"]) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    clamd.replace_signatures(1, EICAR_SIGNATURE).await;
    let homeserver = MockHomeserver::start().await;
    let infected = homeserver.add_bytes("eicar", eicar());
    // MD5 6cd3556deb0da54bca060b4c39479839.
    let second = homeserver.add_bytes("second", "Hello, world!");
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{:?}]\nscan.version_interval = \"1s\"",
        clamd.socket()
    );
    let scanner = builder_with(&config).homeserver(&homeserver).start().await;
    let name = "File not clean. Output: 'Test.EICAR.UNOFFICIAL'";
    scanner.client.get(&format!("/scan/{infected}")).await.assert_not_clean(name);
    scanner.client.get(&format!("/scan/{second}")).await.assert_clean();
    scanner.client.get(&format!("/download/{second}")).await.assert_media(b"Hello, world!");

    clamd.replace_signatures(2, "6cd3556deb0da54bca060b4c39479839:13:Test.Worse\n").await;
    // One log line for each version.
    scanner.wait_for_log("engine version", 2).await;
    let new_name = "File not clean. Output: 'Test.Worse.UNOFFICIAL'";
    scanner.client.get(&format!("/scan/{second}")).await.assert_not_clean(new_name);
    scanner
        .client
        .get(&format!("/download/{second}"))
        .await
        .assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    // The new signatures do not detect this file, but its cached verdict stays "not clean".
    scanner.client.get(&format!("/scan/{infected}")).await.assert_not_clean(name);
}

/// Sets the "encrypted" flag in the local and central header of the archive's first file.
fn with_encrypted_flag(mut zip: Vec<u8>) -> Vec<u8> {
    for (signature, flags_offset) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let header = zip.windows(4).position(|window| window == signature).unwrap();
        zip[header + flags_offset] |= 1;
    }
    zip
}

#[tokio::test]
async fn file_above_size_limit_is_never_clean() {
    if skip_without("file_above_size_limit_is_never_clean", &CLAMD_PROGRAMS) {
        return;
    }
    let tcp = free_port();
    let lines = format!(
        "MaxFileSize 1M\nMaxScanSize 1M\nStreamMaxLength 1M\nTCPAddr 127.0.0.1\nTCPSocket {tcp}"
    );
    let clamd = ClamdDaemon::start_with(&lines).await;
    let large = vec![b'x'; 3 << 20];
    // The daemon's limits.
    let builder = builder_with_clamd_socket(&clamd);
    let (code, output) = scan(&builder, &write_file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("Heuristics.Limits.Exceeded"), "{output}");
    let builder = builder_with_clamd(&format!("127.0.0.1:{tcp}"));
    let (code, output) = scan(&builder, &write_file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{output}");
    // The service's limit, checked before anything is sent.
    let builder = builder_with_clamd_socket(&clamd).config("clamd.max_size = \"1MiB\"");
    let (code, output) = scan(&builder, &write_file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("too large for the engine clamd"), "{output}");
    // Skipped by the only engine, there is no verdict. Beside a script, the script's verdict counts.
    let skip_config = "clamd.max_size = \"1MiB\"\nclamd.on_oversize = \"skip\"";
    let builder = builder_with_clamd_socket(&clamd).config(skip_config);
    let (code, output) = scan(&builder, &write_file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("too large for the engine clamd"), "{output}");
    let socket = clamd.socket();
    let builder = builder_with(&format!(
        "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{socket:?}]\n{skip_config}"
    ));
    let (code, output) = scan(&builder, &write_file(&builder, "large", &large));
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("engine skipped"), "the skip must be logged: {output}");
}
