//! What a service manager is told, and the socket that it passes. The manager is the test.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixListener},
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
    harness::{Builder, Homeserver, PATIENCE, Scanner, png},
    listening::public_key_over,
};

/// Knows the test file.
const KNOWS: &str = r#"if grep -q EICAR-STANDARD "$1"; then exit 1; fi"#;

/// Who is told.
pub(crate) struct Manager {
    socket: UnixDatagram,
    said: Vec<String>,
}

impl Manager {
    /// Of this program, which is not started yet.
    pub(crate) fn of(builder: Builder) -> (Self, Builder) {
        let path = builder.place().path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let builder = builder.environment("NOTIFY_SOCKET", path.to_str().unwrap());
        (Self { socket, said: Vec::new() }, builder)
    }

    /// The next message that begins like this.
    pub(crate) async fn hears(&mut self, text: &str) -> String {
        loop {
            let mut message = [0; 1024];
            let received = timeout(PATIENCE, self.socket.recv(&mut message)).await;
            let received = received.unwrap_or_else(|_| panic!("never {text}: {:?}", self.said));
            let message = std::str::from_utf8(&message[..received.unwrap()]).unwrap().to_owned();
            self.said.push(message.clone());
            if message.starts_with(text) {
                return message;
            }
        }
    }

    pub(crate) fn has_heard(&self, text: &str) -> bool {
        self.said.iter().any(|said| said.starts_with(text))
    }
}

#[tokio::test]
async fn it_listens_at_once_and_is_ready_when_the_canary_has_passed() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new("exit 0").homeserver(&homeserver).config("scan.canary = \"eicar\"");
    let (mut manager, builder) = Manager::of(builder);
    let mut scanner = builder.start().await;
    manager.hears("STATUS=Not ready, nothing is scanned: the script calls the infected").await;
    scanner.client.public_key().await;
    scanner.client.get(&format!("/scan/{media}")).await.is_error(503, "M_UNKNOWN");
    // Each time that the canary is asked in vain the start may take a minute more.
    manager.hears("EXTEND_TIMEOUT_USEC=60000000").await;
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.said);

    scanner.place.write_script("script.sh", KNOWS);
    manager.hears("READY=1").await;
    manager.hears("STATUS=Scanning; 0 of ").await;
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();

    scanner.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1").await;
    assert_eq!(scanner.ended().await.code(), Some(0));
}

#[tokio::test]
async fn requests_wait_for_the_canarys_first_answer_and_are_not_turned_away() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let script = r#"if grep -q EICAR-STANDARD "$1"; then read go < "$MARKS/go"; exit 1; fi"#;
    let builder = Builder::new(script).homeserver(&homeserver).config("scan.canary = \"eicar\"");
    builder.place().make_fifo("go");
    let scanner = builder.start().await;
    assert!(!scanner.log().contains("ready: "), "it listens before there is an answer");
    let client = scanner.client.clone();
    let path = format!("/download/{media}");
    let mut download = tokio::spawn(async move { client.get(&path).await });
    let early = timeout(Duration::from_millis(300), &mut download).await;
    assert!(early.is_err(), "{early:?}");
    scanner.place.let_go("go").await;
    download.await.unwrap().is_media(&png());
}

#[tokio::test]
async fn the_watchdog_is_fed_while_a_script_works_and_until_the_end() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", "content");
    let builder = Builder::new(r#"read go < "$MARKS/go""#).homeserver(&homeserver);
    builder.place().make_fifo("go");
    let (mut manager, builder) = Manager::of(builder);
    let mut scanner = builder.environment("WATCHDOG_USEC", "300000").start().await;
    manager.hears("READY=1").await;
    let client = scanner.client.clone();
    let path = format!("/scan/{media}");
    let scan = tokio::spawn(async move { client.get(&path).await });
    manager.hears("STATUS=Scanning; 1 of ").await;
    for _ in 0..5 {
        manager.hears("WATCHDOG=1").await;
    }
    scanner.signal(Signal::SIGTERM);
    manager.hears("STATUS=Stopping; 1 of ").await;
    for _ in 0..5 {
        manager.hears("WATCHDOG=1").await;
    }
    scanner.place.let_go("go").await;
    scan.await.unwrap().is_clean();
    assert_eq!(scanner.ended().await.code(), Some(0));
}

#[tokio::test]
async fn nobody_is_refused_while_a_service_with_a_passed_socket_restarts() {
    let homeserver = Homeserver::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // An address that nobody has: it is not used.
    let start = || {
        let config = "web.host = \"192.0.2.1\"\nweb.port = 1";
        let builder = Builder::new("exit 0").homeserver(&homeserver).config(config);
        builder.passed(listener.try_clone().unwrap()).start()
    };
    let over = Arc::new(AtomicBool::new(false));
    let knocking = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut connected = 0;
            while !over.load(Ordering::Relaxed) {
                TcpStream::connect(address).expect("nobody is refused");
                connected += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            connected
        })
    };

    let mut first = start().await;
    assert_eq!(first.address, address.to_string());
    assert!(first.log().contains("web.host, web.port and web.socket are not used"));
    first.client.public_key().await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().await.code(), Some(0));

    // Who comes between the two is answered by the second.
    let between = tokio::spawn(public_key(address));
    let mut second = start().await;
    let answer = between.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&second.client.public_key().await), "another's answer: {answer}");

    over.store(true, Ordering::Relaxed);
    assert!(knocking.join().expect("nobody was refused") > 0);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ended().await.code(), Some(0));
}

async fn public_key(address: SocketAddr) -> String {
    public_key_over(tokio::net::TcpStream::connect(address).await.expect("it listens")).await
}

#[tokio::test]
async fn a_passed_unix_socket_is_listened_on_and_left_where_it_is() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let path = builder.place().path("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut scanner: Scanner = builder.passed(listener).start().await;
    assert_eq!(Path::new(&scanner.address), path);
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let answer = public_key_over(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(path.exists(), "it is the manager's");
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_a_clear_error() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = tcp();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let cases: [(OwnedFd, &str, &str); 4] = [
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "1", "no TCP or unix stream socket"),
        (std::fs::File::open("/dev/null").unwrap().into(), "1", "no TCP or unix stream socket"),
        (connection.into(), "1", "does not listen"),
        (tcp().into(), "2", "passes 2 sockets, expected one"),
    ];
    for (socket, count, words) in cases {
        let builder = Builder::new("exit 0").passed(socket).environment("LISTEN_FDS", count);
        let (code, said) = builder.fails();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn what_was_meant_for_another_process_is_left_alone() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0")
        .homeserver(&homeserver)
        .environment("LISTEN_PID", "1")
        .environment("LISTEN_FDS", "1")
        .environment("NOTIFY_SOCKET", "nothing of the kind");
    let scanner = builder.start().await;
    assert!(scanner.address.starts_with("127.0.0.1:"), "{}", scanner.address);
    scanner.client.public_key().await;
}
