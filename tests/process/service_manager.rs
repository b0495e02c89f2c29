//! Tests of notifications to a service manager and of passed sockets. The test acts as the manager.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixListener},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{net::UnixDatagram, time::timeout};

use crate::{
    harness::{
        MockHomeserver, ScannerBuilder, ScannerProcess, TEST_TIMEOUT, png, scanner::PROGRAM,
    },
    listening::public_key_over,
};

/// Detects the EICAR test file.
const EICAR_SCRIPT: &str = r#"if grep -q EICAR-STANDARD "$1"; then exit 1; fi"#;

/// Service manager; receives the notifications of one scanner.
pub(crate) struct Manager {
    socket: UnixDatagram,
    messages: Vec<String>,
}

impl Manager {
    /// Attaches a manager to a scanner that is not started yet.
    pub(crate) fn attach(builder: ScannerBuilder) -> (Self, ScannerBuilder) {
        let path = builder.dir().path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let builder = builder.env("NOTIFY_SOCKET", path.to_str().unwrap());
        (Self { socket, messages: Vec::new() }, builder)
    }

    /// Waits for the next message that begins with `text`, and returns it.
    ///
    /// # Panics
    ///
    /// After [`TEST_TIMEOUT`].
    pub(crate) async fn expect_message(&mut self, text: &str) -> String {
        loop {
            let mut message = [0; 1024];
            let received = timeout(TEST_TIMEOUT, self.socket.recv(&mut message)).await;
            let received =
                received.unwrap_or_else(|_| panic!("no message {text}: {:?}", self.messages));
            let message = std::str::from_utf8(&message[..received.unwrap()]).unwrap().to_owned();
            self.messages.push(message.clone());
            if message.starts_with(text) {
                return message;
            }
        }
    }

    pub(crate) fn has_received(&self, text: &str) -> bool {
        self.messages.iter().any(|message| message.starts_with(text))
    }
}

#[tokio::test]
async fn listens_immediately_and_is_ready_after_canary_success() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder =
        ScannerBuilder::new("exit 0").homeserver(&homeserver).config("scan.canary = \"eicar\"");
    let (mut manager, builder) = Manager::attach(builder);
    let mut scanner = builder.start().await;
    manager
        .expect_message("STATUS=Not ready, scans are rejected: the script reports the infected")
        .await;
    scanner.client.public_key().await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_error(503, "M_UNKNOWN");
    // Each failed canary run extends the start timeout by a minute.
    manager.expect_message("EXTEND_TIMEOUT_USEC=60000000").await;
    assert!(!manager.has_received("READY=1"), "{:?}", manager.messages);

    scanner.dir.write_script("script.sh", EICAR_SCRIPT);
    manager.expect_message("READY=1").await;
    manager.expect_message("STATUS=Scanning; 0 of ").await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();

    scanner.signal(Signal::SIGTERM);
    manager.expect_message("STOPPING=1").await;
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
}

#[tokio::test]
async fn requests_wait_for_first_canary_result() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let script = r#"if grep -q EICAR-STANDARD "$1"; then read go < "$MARKS/go"; exit 1; fi"#;
    let builder =
        ScannerBuilder::new(script).homeserver(&homeserver).config("scan.canary = \"eicar\"");
    builder.dir().make_fifo("go");
    let scanner = builder.start().await;
    assert!(!scanner.log().contains("ready: "), "ready before the first canary result");
    let client = scanner.client.clone();
    let path = format!("/download/{media}");
    let mut download = tokio::spawn(async move { client.get(&path).await });
    let early_response = timeout(Duration::from_millis(300), &mut download).await;
    assert!(early_response.is_err(), "{early_response:?}");
    scanner.dir.release_fifo("go").await;
    download.await.unwrap().assert_media(&png());
}

#[tokio::test]
async fn pings_watchdog_during_scan_and_shutdown() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", "content");
    let builder = ScannerBuilder::new(r#"read go < "$MARKS/go""#).homeserver(&homeserver);
    builder.dir().make_fifo("go");
    let (mut manager, builder) = Manager::attach(builder);
    let mut scanner = builder.env("WATCHDOG_USEC", "300000").start().await;
    manager.expect_message("READY=1").await;
    let client = scanner.client.clone();
    let path = format!("/scan/{media}");
    let scan = tokio::spawn(async move { client.get(&path).await });
    manager.expect_message("STATUS=Scanning; 1 of ").await;
    for _ in 0..5 {
        manager.expect_message("WATCHDOG=1").await;
    }
    scanner.signal(Signal::SIGTERM);
    manager.expect_message("STATUS=Stopping; 1 of ").await;
    for _ in 0..5 {
        manager.expect_message("WATCHDOG=1").await;
    }
    scanner.dir.release_fifo("go").await;
    scan.await.unwrap().assert_clean();
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
}

#[tokio::test]
async fn restart_with_passed_socket_refuses_no_connection() {
    let homeserver = MockHomeserver::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Not an address of this machine: it is not used.
    let start = || {
        let config = "web.host = \"192.0.2.1\"\nweb.port = 1";
        let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).config(config);
        builder.with_socket(listener.try_clone().unwrap()).start()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let connector = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut connected = 0;
            while !stop.load(Ordering::Relaxed) {
                TcpStream::connect(address).expect("connection accepted");
                connected += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            connected
        })
    };

    let mut first = start().await;
    assert_eq!(first.address, address.to_string());
    assert!(first.log().contains("ignoring web.host, web.port and web.socket"));
    first.client.public_key().await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit().await.code(), Some(0));

    // The second server answers requests that arrive between the two.
    let pending = tokio::spawn(public_key(address));
    let mut second = start().await;
    let response = pending.await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains(&second.client.public_key().await), "other public key: {response}");

    stop.store(true, Ordering::Relaxed);
    assert!(connector.join().expect("no connection was refused") > 0);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait_for_exit().await.code(), Some(0));
}

async fn public_key(address: SocketAddr) -> String {
    public_key_over(tokio::net::TcpStream::connect(address).await.expect("connection")).await
}

#[tokio::test]
async fn listens_on_passed_unix_socket_and_keeps_it() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let path = builder.dir().path("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut scanner: ScannerProcess = builder.with_socket(listener).start().await;
    assert_eq!(Path::new(&scanner.address), path);
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let response = public_key_over(stream).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(path.exists(), "the passed socket was removed");
}

#[tokio::test]
async fn reports_unusable_passed_sockets() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = tcp();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let cases: [(OwnedFd, &str, &str); 4] = [
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "1", "no TCP or unix stream socket"),
        (std::fs::File::open("/dev/null").unwrap().into(), "1", "no TCP or unix stream socket"),
        (connection.into(), "1", "does not listen"),
        (tcp().into(), "2", "passes 2 sockets, expected one"),
    ];
    for (socket, count, message) in cases {
        let builder = ScannerBuilder::new("exit 0").with_socket(socket).env("LISTEN_FDS", count);
        let (code, stderr) = builder.run_to_exit();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[tokio::test]
async fn ignores_variables_meant_for_another_process() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", "not a socket");
    let scanner = builder.start().await;
    assert!(scanner.address.starts_with("127.0.0.1:"), "{}", scanner.address);
    scanner.client.public_key().await;
}

/// Standard error is a file here, whose device and inode are in the variable, as those of a journal stream are.
#[test]
#[expect(clippy::disallowed_methods, reason = "starts the program with a file as standard error")]
fn lines_for_the_journal_begin_with_their_priority() {
    let builder = ScannerBuilder::new(EICAR_SCRIPT).config("web.port = \"none\"");
    let (_, _, plain) = builder.run(&["check-config"]);
    let file = std::fs::File::create_new(builder.dir().path("journal")).unwrap();
    let metadata = file.metadata().unwrap();
    let identity = format!("{}:{}", metadata.dev(), metadata.ino());
    let run = |stream: &str| {
        let config = builder.dir().path("config.toml");
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["-c", config.to_str().unwrap()]).env("JOURNAL_STREAM", stream);
        let before = std::fs::metadata(builder.dir().path("journal")).unwrap().len();
        command.stderr(file.try_clone().unwrap()).status().unwrap();
        let text = std::fs::read(builder.dir().path("journal")).unwrap();
        String::from_utf8(text[usize::try_from(before).unwrap()..].to_vec()).unwrap()
    };
    let lines = run(&identity);
    assert!(!plain.is_empty() && !lines.is_empty(), "{plain}");
    assert!(lines.lines().all(|line| line.starts_with("<3>")), "{lines}");
    // Another stream: that of a parent process, whose variable was inherited.
    assert_eq!(run(&format!("{}:0", metadata.dev())), lines.replace("<3>", ""));
}
