//! Lack of descriptors and of processes: at the start an error of the configuration, later overload.

use std::{fs, os::unix::fs::chown, path::Path, sync::Arc};

use nix::unistd::Pid;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixSocket, UnixStream},
};

use crate::harness::{
    MockHomeserver, ScannerBuilder, ScannerProcess, TestClient, png, report_skipped,
    scanner::{is_root, list_dir},
};

#[test]
fn too_few_descriptors_at_the_start_are_a_configuration_error() {
    let builder = ScannerBuilder::new("exit 0").config("web.max_connections = 300");
    let config = "scan.workers = 2\nscan.max_scripts = 1";
    let builder = builder.config(config).wrapped_by(&["prlimit", "--nofile=459"]);
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    let text = "the limit of open files is 459, but web.max_connections = 300 and scan.workers = 2 need 460";
    assert!(output.contains(text), "{output}");
}

#[test]
fn too_few_processes_at_the_start_are_a_configuration_error() {
    if !is_root() {
        return report_skipped("too_few_processes", "only root can become an unused user");
    }
    // The kernel does not apply the limit to root.
    let user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let wrapper = [&["prlimit", "--nproc=1"], &user[..]].concat();
    let builder = ScannerBuilder::new("exit 0").wrapped_by(&wrapper);
    chown(builder.dir().path("temp"), Some(54321), Some(54321)).unwrap();
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("cannot start") && output.contains("TasksMax="), "{output}");
    assert!(!output.contains("panicked"), "{output}");
}

/// Sets the soft limit of a process to the number of its first free descriptor, so that it can open no file. Returns
/// the previous limit.
fn take_descriptors(pid: Pid) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let previous = line.split_whitespace().nth(3).unwrap().to_owned();
    let number = |path: &std::path::PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    let open: Vec<_> =
        list_dir(format!("/proc/{pid}/fd").as_ref()).iter().filter_map(number).collect();
    let free = (0..=open.len() as u64).find(|number| !open.contains(number)).unwrap();
    set_descriptors(pid, &free.to_string());
    previous
}

fn set_descriptors(pid: Pid, soft: &str) {
    let (pid, limit) = (format!("--pid={pid}"), format!("--nofile={soft}:"));
    #[expect(clippy::disallowed_methods, reason = "changes the limit of the running service")]
    let status = std::process::Command::new("prlimit").args([pid, limit]).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn lack_of_descriptors_is_overload_and_passes() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
    let media = homeserver.add_bytes("one", png());
    // Opens the connection that the next requests use.
    scanner.client.public_key().await;
    let limit = take_descriptors(scanner.pid());
    for path in [format!("/download/{media}"), format!("/scan/{media}")] {
        let response = scanner.client.get(&path).await;
        response.assert_error(503, "M_UNKNOWN");
        assert_eq!(response.header("retry-after"), "10");
    }
    // A new connection waits until it can be accepted.
    let address = scanner.address.clone();
    let waiting = tokio::spawn(async move { TestClient::new(&address).public_key().await });
    scanner.wait_for_log("cannot accept connections", 1).await;
    set_descriptors(scanner.pid(), &limit);
    assert!(!waiting.await.unwrap().is_empty());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

/// Opens connections that nothing accepts, until the backlog of the socket is full.
async fn fill_backlog(path: &Path) -> Vec<UnixStream> {
    let mut waiting = Vec::new();
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::libc::EAGAIN));
                return waiting;
            }
        }
    }
}

/// Accepts connections and responds like clamd: with its version, or "OK" for any file.
async fn respond_like_clamd(listener: &UnixListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Either "zVERSION\0", or "zFILDES\0" and a byte with the descriptor.
        let mut request = [0; 9];
        if stream.read_exact(&mut request).await.is_ok() {
            let version = b"ClamAV 1.4.3/27000/Mon Nov 23 10:00:00 2026\0".as_slice();
            let response = if request == *b"zVERSION\0" { version } else { b"fd[9]: OK\0" };
            stream.write_all(response).await.unwrap();
        }
    }
}

#[tokio::test]
async fn full_backlog_of_clamd_is_overload_of_clamd_and_passes() {
    let homeserver = MockHomeserver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clamd.ctl");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = Arc::new(socket.listen(1).unwrap());
    let accept = || {
        let listener = Arc::clone(&listener);
        tokio::spawn(async move { respond_like_clamd(&listener).await })
    };
    let accepting = accept();
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{path:?}]\nscan.canary = \"off\"\n\
         scan.version_interval = \"1h\"\nresult_cache.failure_ttl = \"1h\""
    );
    let scanner = ScannerBuilder::new("").homeserver(&homeserver).config(&config).start().await;
    let media = homeserver.add_bytes("one", png());
    accepting.abort();
    assert!(accepting.await.unwrap_err().is_cancelled());
    let waiting = fill_backlog(&path).await;
    for path in [format!("/download/{media}"), format!("/scan/{media}")] {
        let response = scanner.client.get(&path).await;
        response.assert_error(503, "M_UNKNOWN");
        assert_eq!(response.header("retry-after"), "10");
        assert_eq!(response.json()["info"], "A scan engine is busy");
    }
    let log = scanner.log();
    let cause = "the engine clamd failed: too many connections wait for the engine to accept them";
    assert!(log.contains(cause), "{log}");
    assert!(!log.contains("engine unavailable"), "{log}");
    // The failure is not cached: the next request is scanned as soon as clamd accepts.
    drop(waiting);
    let accepting = accept();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    accepting.abort();
}
