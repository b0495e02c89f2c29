//! Lack of descriptors and of processes in a running service: overload, at whichever step of a request, and it passes.

use std::{
    fs,
    os::unix::fs::chown,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mcs_testing::{FakeServer, Fault, linger, read_until, respond};
use nix::unistd::Pid;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Notify};

use crate::harness::{
    MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse, noise, png, report_skipped,
    scanner::{is_root, list_dir},
};

/// Larger than media in memory, so that bodies are on the spool.
const SIZE: usize = 2 << 20;

/// More descriptors than any job needs.
const MANY: usize = 40;

/// Returns the soft limit of a process in a line of `/proc/PID/limits`.
fn soft_limit(pid: Pid, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// Sets the soft limit `option` of prlimit(1).
pub(crate) fn set_soft_limit(pid: Pid, option: &str, soft: &str) {
    set_soft_limit_as(&[], pid, option, soft);
}

/// Sets a soft limit with a command that changes the user: root may lack the capability for processes of other users.
fn set_soft_limit_as(user: &[&str], pid: Pid, option: &str, soft: &str) {
    let (pid, limit) = (format!("--pid={pid}"), format!("--{option}={soft}:"));
    let command = [user, &["prlimit", &pid, &limit]].concat();
    #[expect(clippy::disallowed_methods, reason = "changes the limit of the running service")]
    let status = std::process::Command::new(command[0]).args(&command[1..]).status();
    assert!(status.unwrap().success());
}

/// Lets a process open only `spare` more descriptors. Returns the previous limit.
pub(crate) fn take_descriptors(pid: Pid, spare: usize) -> String {
    let previous = soft_limit(pid, "Max open files");
    let number = |path: &std::path::PathBuf| path.file_name()?.to_str()?.parse::<usize>().ok();
    let open: Vec<_> =
        list_dir(format!("/proc/{pid}/fd").as_ref()).iter().filter_map(number).collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(spare).unwrap();
    set_soft_limit(pid, "nofile", &limit.to_string());
    previous
}

#[track_caller]
pub(crate) fn assert_overloaded(response: &TestResponse) {
    response.assert_error(503, "M_UNKNOWN");
    assert_eq!(response.header("retry-after"), "10");
}

/// Requests media with 0, 1, 2… descriptors to spare until a request succeeds. Each failure is a 503, and the same
/// request succeeds when the limit is raised. Returns the causes of the failures.
async fn failures_by_spare_descriptors(
    scanner: &ScannerProcess,
    homeserver: &MockHomeserver,
) -> Vec<String> {
    // Opens the connection of the client.
    scanner.client.public_key().await;
    for spare in 0..MANY {
        let bytes = noise(spare as u64, SIZE);
        let path =
            format!("/download/{}", homeserver.add_bytes(&format!("m{spare}"), bytes.clone()));
        scanner.wait_until_idle().await;
        let limit = take_descriptors(scanner.pid(), spare);
        let response = scanner.client.get(&path).await;
        set_soft_limit(scanner.pid(), "nofile", &limit);
        if response.status == 200 {
            response.assert_media(&bytes);
            return causes(scanner, spare).await;
        }
        assert_overloaded(&response);
        scanner.client.get(&path).await.assert_media(&bytes);
    }
    panic!("{MANY} descriptors do not suffice");
}

/// Returns the causes of the first `count` failures from the log.
async fn causes(scanner: &ScannerProcess, count: usize) -> Vec<String> {
    scanner.wait_for_log("\"message\":\"failed\"", count).await;
    let log = scanner.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let failures = lines.filter(|line: &serde_json::Value| line["message"] == "failed");
    failures.map(|line| line["cause"].as_str().unwrap().to_owned()).collect()
}

/// Asserts that each failure is a lack of descriptors, and that they include these steps of a job.
fn assert_steps(causes: &[String], steps: &[&str]) {
    // "No buffer space": a received descriptor does not fit into the table.
    let is_lack = |cause: &String| {
        cause.ends_with("(os error 24)")
            || cause.ends_with("(os error 105)")
            || cause.ends_with("No buffer space available")
    };
    assert!(causes.iter().all(is_lack), "{causes:#?}");
    for step in steps {
        assert!(causes.iter().any(|cause| cause.contains(step)), "{step}: {causes:#?}");
    }
}

#[tokio::test]
async fn each_step_of_a_scan_by_script_or_rules_may_lack_a_descriptor() {
    let test = "each_step_of_a_scan_by_script_or_rules_may_lack_a_descriptor";
    if !is_root() {
        return report_skipped(test, "only root sees the descriptors of the service");
    }
    let homeserver = MockHomeserver::start().await;
    // The socket, the helper and the pipes of the script at least; and without the start of an evaluator, the socket, the
    // files and the pipe of a job.
    for (engine, config, step, count) in [
        ("script", "", "the sandbox failed", 7),
        ("rules", "rules.paths = [\"none.yar\"]", "cannot start the evaluator", 5),
    ] {
        let builder = ScannerBuilder::new("exit 0").config(config);
        let builder = builder.config(&format!("scan.engines = [{engine:?}]"));
        fs::write(builder.dir().path("none.yar"), "rule None { condition: false }").unwrap();
        let scanner = builder.homeserver(&homeserver).start().await;
        let causes = failures_by_spare_descriptors(&scanner, &homeserver).await;
        assert_steps(&causes, &["the homeserver could not be reached", step]);
        assert!(causes.len() >= count, "{causes:#?}");
    }
}

/// Controls servers that lose the first connection over which they receive a file, once armed.
#[derive(Clone, Default)]
struct LostConnection(Arc<LostConnectionState>);

#[derive(Default)]
struct LostConnectionState {
    is_armed: AtomicBool,
    reached: Notify,
    lose: Notify,
}

impl LostConnection {
    /// Called by a server that has received a file. Returns whether to close the connection without an answer.
    async fn is_lost(&self) -> bool {
        let is_lost = self.0.is_armed.swap(false, Ordering::SeqCst);
        if is_lost {
            self.0.reached.notify_one();
            self.0.lose.notified().await;
        }
        is_lost
    }
}

/// Answers VERSION, and every stream with "clean".
async fn answer_clamd(mut stream: TcpStream, lost: LostConnection) {
    let mut received = Vec::new();
    let response: &[u8] = loop {
        if received.ends_with(b"VERSION\0") {
            break b"ClamAV 1.4.6/27000/Thu Nov 26 09:00:00 2026\0";
        }
        if received.ends_with(&[0; 4]) {
            break b"stream: OK\0";
        }
        match stream.read_buf(&mut received).await {
            Ok(length) if length > 0 => {}
            _ => return,
        }
    };
    if response.starts_with(b"ClamAV") || !lost.is_lost().await {
        respond(&mut stream, response, Fault::None).await;
        linger(stream).await;
    }
}

/// Answers OPTIONS, and every file with "unmodified". Closes each connection, so that none is reused.
async fn answer_icap(mut stream: TcpStream, lost: LostConnection) {
    let mut request = read_until(&mut stream, b"\r\n\r\n").await;
    let is_options = request.starts_with(b"OPTIONS");
    while !is_options && !request.ends_with(b"\r\n0\r\n\r\n") {
        let more = read_until(&mut stream, b"\r\n\r\n").await;
        if more.is_empty() {
            return;
        }
        request.extend(more);
    }
    let response: &[u8] = if is_options {
        b"ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: \"one\"\r\nAllow: 204\r\n\
          Connection: close\r\nEncapsulated: null-body=0\r\n\r\n"
    } else {
        b"ICAP/1.0 204 No Content\r\nISTag: \"one\"\r\nConnection: close\r\n\
          Encapsulated: null-body=0\r\n\r\n"
    };
    if is_options || !lost.is_lost().await {
        respond(&mut stream, response, Fault::None).await;
        linger(stream).await;
    }
}

/// Starts two servers of an engine. Returns them with the configuration.
async fn engine_servers(engine: &str, lost: &LostConnection) -> ([FakeServer; 2], String) {
    let start = async |engine: &str| {
        let (lost, is_icap) = (lost.clone(), engine == "icap");
        FakeServer::start(move |stream| {
            let lost = lost.clone();
            async move {
                if is_icap {
                    answer_icap(stream, lost).await;
                } else {
                    answer_clamd(stream, lost).await;
                }
            }
        })
        .await
    };
    let servers = [start(engine).await, start(engine).await];
    let [one, other] = [0, 1].map(|index: usize| servers[index].address);
    let addresses = match engine {
        "icap" => format!("icap.urls = [\"icap://{one}/avscan\", \"icap://{other}/avscan\"]"),
        _ => format!("clamd.addresses = [\"{one}\", \"{other}\"]"),
    };
    (servers, format!("scan.engines = [{engine:?}]\n{addresses}"))
}

#[tokio::test]
async fn each_step_of_a_scan_by_clamd_or_icap_may_lack_a_descriptor() {
    let test = "each_step_of_a_scan_by_clamd_or_icap_may_lack_a_descriptor";
    if !is_root() {
        return report_skipped(test, "only root sees the descriptors of the service");
    }
    let homeserver = MockHomeserver::start().await;
    for engine in ["clamd", "icap"] {
        let (_servers, config) = engine_servers(engine, &LostConnection::default()).await;
        let builder = ScannerBuilder::new("exit 0").config(&config);
        let scanner = builder.homeserver(&homeserver).start().await;
        scanner.wait_for_log("engine version", 2).await;
        let causes = failures_by_spare_descriptors(&scanner, &homeserver).await;
        let steps = ["the homeserver could not be reached", "a file could not be read or written"];
        assert_steps(&causes, &steps);
    }
}

#[tokio::test]
async fn connection_to_an_engine_may_lack_a_descriptor() {
    let homeserver = MockHomeserver::start().await;
    for engine in ["clamd", "icap"] {
        let lost = LostConnection::default();
        let (_servers, config) = engine_servers(engine, &lost).await;
        let builder = ScannerBuilder::new("exit 0").config(&config);
        let scanner = builder.homeserver(&homeserver).start().await;
        scanner.wait_for_log("engine version", 2).await;
        // Starts the evaluator. The connection to the other server is the only descriptor that is opened after the limit
        // is lowered.
        let first = homeserver.add_bytes(&format!("{engine}-first"), b"first".to_vec());
        scanner.client.get(&format!("/scan/{first}")).await.assert_clean();
        lost.0.is_armed.store(true, Ordering::SeqCst);
        let path = format!("/download/{}", homeserver.add_bytes(engine, png()));
        let (client, request) = (scanner.client.clone(), path.clone());
        let waiting = tokio::spawn(async move { client.get(&request).await });
        lost.0.reached.notified().await;
        // The inspection, which nothing else shows, ends meanwhile.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let limit = soft_limit(scanner.pid(), "Max open files");
        set_soft_limit(scanner.pid(), "nofile", "3");
        lost.0.lose.notify_one();
        assert_overloaded(&waiting.await.unwrap());
        set_soft_limit(scanner.pid(), "nofile", &limit);
        let step = format!("the engine {engine} failed: cannot connect");
        assert_steps(&causes(&scanner, 1).await, &[&step]);
        assert!(!scanner.log().contains("engine unavailable"), "{}", scanner.log());
        scanner.client.get(&path).await.assert_media(&png());
    }
}

#[tokio::test]
async fn name_that_cannot_be_looked_up_for_lack_of_descriptors_is_overload() {
    let test = "name_that_cannot_be_looked_up_for_lack_of_descriptors_is_overload";
    if !is_root() {
        return report_skipped(test, "only root sees the descriptors of the service");
    }
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("one", png());
    let url = format!("http://localhost:{}", homeserver.address.port());
    let scanner = ScannerBuilder::new("exit 0").base_url(&url).start().await;
    scanner.client.public_key().await;
    let limit = take_descriptors(scanner.pid(), 0);
    assert_overloaded(&scanner.client.get(&format!("/scan/{media}")).await);
    set_soft_limit(scanner.pid(), "nofile", &limit);
    assert_steps(&causes(&scanner, 1).await, &["cannot resolve localhost"]);
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
}

#[tokio::test]
async fn lack_of_processes_is_overload_and_passes() {
    if !is_root() {
        let reason = "only root can become an unused user";
        return report_skipped("lack_of_processes_is_overload_and_passes", reason);
    }
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("one", png());
    // The kernel does not apply the limit to root, and counts all processes of the user.
    let user = ["setpriv", "--reuid=54322", "--regid=54322", "--clear-groups"];
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).wrapped_by(&user);
    for directory in ["", "temp"] {
        chown(builder.dir().path(directory), Some(54322), Some(54322)).unwrap();
    }
    let scanner = builder.start().await;
    let limit = soft_limit(scanner.pid(), "Max processes");
    set_soft_limit_as(&user, scanner.pid(), "nproc", "1");
    for route in ["download", "scan"] {
        assert_overloaded(&scanner.client.get(&format!("/{route}/{media}")).await);
    }
    set_soft_limit_as(&user, scanner.pid(), "nproc", &limit);
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    // Fork fails in the service, not the script.
    for cause in causes(&scanner, 2).await {
        assert!(cause.starts_with("the sandbox failed: "), "{cause}");
        assert!(cause.contains("(os error 11)"), "{cause}");
    }
    assert!(!scanner.log().contains("panicked"), "{}", scanner.log());
}
