//! Scans against fake daemons on loopback, correct and faulty.

use std::{io::Read, time::Duration};

use mcs_testing::{FakeServer, Fault, LONG_TIMEOUT, SHORT_TIMEOUT, linger, read_until, respond};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, recvmsg},
};
use tokio::net::{UnixListener, UnixSocket};

use super::{
    super::{fake::BOUNDS, sample::tests::sample},
    *,
};
use crate::exhaustion::is_exhaustion;

const MEDIA: &[u8] = b"some media";

fn tcp(address: std::net::SocketAddr) -> Address {
    Address::Tcp { host: address.ip().to_string(), port: address.port() }
}

fn clamd(addresses: Vec<Address>, timeout: Duration) -> Clamd {
    Clamd::new(&Settings { addresses, timeout, bounds: BOUNDS })
}

/// Starts a daemon that responds after the end of the stream.
async fn daemon(response: &'static [u8], fault: Fault) -> FakeServer {
    FakeServer::start(move |mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        respond(&mut stream, response, fault).await;
        linger(stream).await;
    })
    .await
}

/// Scans with a daemon that sends this response.
async fn scan_with_response(
    response: &'static [u8],
    fault: Fault,
    timeout: Duration,
) -> Result<Outcome, EngineFailure> {
    let daemon = daemon(response, fault).await;
    clamd(vec![tcp(daemon.address)], timeout).scan(&sample(MEDIA)).await
}

#[tokio::test]
async fn only_complete_ok_response_is_clean() {
    let finding = scan_with_response(b"stream: OK\0", Fault::None, LONG_TIMEOUT).await;
    assert_eq!(finding.unwrap(), Outcome::Clean);
    for (response, fault) in [
        (b"stream: OK\0".as_slice(), Fault::Cut),
        (b"stream: OK\0", Fault::Twice),
        (b"stream: OK", Fault::None),
        (b"stream: OK\n", Fault::None),
        (b"stream: OK\0stream: Eicar FOUND\0", Fault::None),
        (b"", Fault::None),
        (b"\0", Fault::None),
        (b"OK\0", Fault::None),
        (b": OK\0", Fault::None),
        (b"fd[x]: OK\0", Fault::None),
        (b"stream: ok\0", Fault::None),
        (b"stream: OK \0", Fault::None),
        (b"stream: NOT OK\0", Fault::None),
        (b"stream: FOUND\0", Fault::None),
        (b"stream:  FOUND\0", Fault::None),
        (b"stream: Can't allocate memory ERROR\0", Fault::None),
        (b"stream: CL_EREAD ERROR\0", Fault::None),
        (b"UNKNOWN COMMAND\0", Fault::None),
        (b"HTTP/1.1 200 OK\r\n\r\n", Fault::None),
        (b"\xff\xfe\0", Fault::None),
    ] {
        let finding = scan_with_response(response, fault, LONG_TIMEOUT).await;
        assert!(finding.is_err(), "{:?} {fault:?}", String::from_utf8_lossy(response));
    }
    for fault in [Fault::Silent, Fault::Drip] {
        let failure = scan_with_response(b"stream: OK\0", fault, SHORT_TIMEOUT).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::TimedOut), "{fault:?}: {failure}");
    }
}

#[tokio::test]
async fn rejects_response_above_limit() {
    let daemon = FakeServer::start(|mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let clamd = clamd(vec![tcp(daemon.address)], LONG_TIMEOUT);
    let failure = clamd.scan(&sample(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::BadResponse(_)), "{failure}");
}

#[tokio::test]
async fn rejects_verdict_before_end_of_stream() {
    let early_response = |response: &'static [u8]| async move {
        let daemon = FakeServer::start(move |mut stream| async move {
            respond(&mut stream, response, Fault::None).await;
            let _ = stream.shutdown().await;
            // The rest is never read, so that the client cannot send all of it.
            std::future::pending::<()>().await;
        })
        .await;
        let clamd = clamd(vec![tcp(daemon.address)], LONG_TIMEOUT);
        clamd.scan(&sample(&vec![7; 64 << 20])).await
    };
    for response in [
        b"stream: OK\0".as_slice(),
        b"stream: Heuristics.Encrypted.Zip FOUND\0",
        b"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\0",
        b"stream: CL_EMAXFILES ERROR\0",
    ] {
        let failure = early_response(response).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::PrematureVerdict), "{failure}");
    }
    // What follows cannot change these, or was not examined anyway.
    for (response, expected) in [
        (b"INSTREAM size limit exceeded. ERROR\0".as_slice(), "too_large"),
        (b"stream: Eicar FOUND\0", "infected"),
        (b"stream: PUA.Win.Tool FOUND\0", "refused"),
    ] {
        assert_eq!(early_response(response).await.unwrap().name(), expected);
    }
    let failure = early_response(b"stream: Can't allocate memory ERROR\0").await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Reported(_)), "{failure}");
}

#[tokio::test]
async fn reports_signature_name() {
    let response = b"stream: Win.Test.EICAR_HDB-1 FOUND\0";
    let finding = scan_with_response(response, Fault::None, LONG_TIMEOUT).await;
    assert_eq!(finding.unwrap(), Outcome::Infected("Win.Test.EICAR_HDB-1".into()));
}

#[tokio::test]
async fn names_and_errors_determine_outcome() {
    for (response, expected, name) in [
        (
            b"stream: Heuristics.Encrypted.Zip FOUND\0".as_slice(),
            "encrypted",
            "Heuristics.Encrypted.Zip",
        ),
        (b"stream: Heuristics.Encrypted FOUND\0", "infected", "Heuristics.Encrypted"),
        (
            b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0",
            "limit",
            "Heuristics.Limits.Exceeded.MaxFileSize",
        ),
        (b"stream: Heuristics.Limits.Exceeded FOUND\0", "limit", "Heuristics.Limits.Exceeded"),
        (b"stream: CL_EMAXREC ERROR\0", "limit", "CL_EMAXREC"),
        (b"stream: CL_EMAXFILES: File limit reached ERROR\0", "limit", "CL_EMAXFILES"),
        (b"stream: PUA.Win.Packer.Upx-49 FOUND\0", "refused", "PUA.Win.Packer.Upx-49"),
        (
            b"stream: Heuristics.OLE2.ContainsMacros.VBA FOUND\0",
            "refused",
            "Heuristics.OLE2.ContainsMacros.VBA",
        ),
        (
            b"stream: Heuristics.Broken.Executable FOUND\0",
            "refused",
            "Heuristics.Broken.Executable",
        ),
        (
            b"stream: Heuristics.Phishing.Email.SpoofedDomain FOUND\0",
            "infected",
            "Heuristics.Phishing.Email.SpoofedDomain",
        ),
    ] {
        let outcome = scan_with_response(response, Fault::None, LONG_TIMEOUT).await.unwrap();
        assert_eq!((outcome.name(), outcome.text()), (expected, Some(&name.into())));
    }
    let response = b"INSTREAM size limit exceeded. ERROR\0";
    let outcome = scan_with_response(response, Fault::None, LONG_TIMEOUT).await;
    assert_eq!(outcome.unwrap(), Outcome::TooLarge);
}

#[tokio::test]
async fn sends_whole_file_in_chunks() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let daemon = FakeServer::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut command = [0; 10];
            stream.read_exact(&mut command).await.unwrap();
            assert_eq!(&command, b"zINSTREAM\0");
            let mut media = Vec::new();
            loop {
                let length = stream.read_u32().await.unwrap();
                if length == 0 {
                    break;
                }
                let mut chunk = vec![0; length as usize];
                stream.read_exact(&mut chunk).await.unwrap();
                media.extend_from_slice(&chunk);
            }
            sender.send(media).await.unwrap();
            respond(&mut stream, b"stream: OK\0", Fault::None).await;
        }
    })
    .await;
    let clamd = clamd(vec![tcp(daemon.address)], LONG_TIMEOUT);
    for length in [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 1_000_000] {
        let media: Vec<u8> = (0..=250).cycle().take(length).collect();
        assert_eq!(clamd.scan(&sample(&media)).await.unwrap(), Outcome::Clean);
        assert!(receiver.recv().await.unwrap() == media, "{length}");
    }
}

#[tokio::test]
async fn sends_read_only_descriptor_over_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clamd.ctl");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut command = [0; 8];
        stream.read_exact(&mut command).await.unwrap();
        assert_eq!(&command, b"zFILDES\0");
        let descriptor = stream
            .async_io(Interest::READABLE, || {
                let (mut byte, mut space) = ([0], cmsg_space!([i32; 1]));
                let mut buffers = [io::IoSliceMut::new(&mut byte)];
                let flags = MsgFlags::MSG_CMSG_CLOEXEC;
                let message =
                    recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
                let descriptor = message.cmsgs()?.find_map(|message| match message {
                    ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
                    _ => None,
                });
                Ok(descriptor.expect("a descriptor"))
            })
            .await
            .unwrap();
        // Opened through /proc, which needs no unsafe code.
        let mut file = std::fs::File::open(format!("/proc/self/fd/{descriptor}")).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap();
        let mut media = Vec::new();
        file.read_to_end(&mut media).unwrap();
        nix::unistd::close(descriptor).unwrap();
        stream.write_all(b"fd[12]: Eicar FOUND\0").await.unwrap();
        (media, info)
    });
    let clamd = clamd(vec![Address::Unix(path)], LONG_TIMEOUT);
    let finding = clamd.scan(&sample(MEDIA)).await.unwrap();
    assert_eq!(finding, Outcome::Infected("Eicar".into()));
    let (media, info) = daemon.await.unwrap();
    assert_eq!(media, MEDIA);
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 0o3, 0, "read-only: {flags}");
}

#[tokio::test]
async fn full_backlog_is_overload_of_the_daemon_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clamd.ctl");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(EAGAIN));
    let engine = clamd(vec![Address::Unix(path.clone())], LONG_TIMEOUT);
    let failure = engine.scan(&sample(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Busy), "{failure}");
    assert_eq!(failure.cause().as_str(), "engine_busy");
    assert!(!is_exhaustion(&failure), "not a lack of this service's own resources");
    // Another daemon takes the file.
    let running = daemon(b"stream: OK\0", Fault::None).await;
    let both = clamd(vec![Address::Unix(path), tcp(running.address)], LONG_TIMEOUT);
    for _ in 0..4 {
        assert_eq!(both.scan(&sample(MEDIA)).await.unwrap(), Outcome::Clean);
    }
    assert_eq!(running.connections(), 4);
    // The daemon accepts the connections that wait, and the next one.
    for _ in 0..waiting.len() {
        listener.accept().await.unwrap();
    }
    let accepting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 9];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"fd[9]: OK\0").await.unwrap();
    });
    assert_eq!(engine.scan(&sample(MEDIA)).await.unwrap(), Outcome::Clean);
    accepting.await.unwrap();
}

#[tokio::test]
async fn skips_stopped_daemon_and_uses_it_after_restart() {
    let (stopped, reserved) = daemon(b"stream: OK\0", Fault::None).await.stop().await;
    let running = daemon(b"stream: OK\0", Fault::None).await;
    let clamd = clamd(vec![tcp(stopped), tcp(running.address)], LONG_TIMEOUT);
    for _ in 0..4 {
        assert_eq!(clamd.scan(&sample(MEDIA)).await.unwrap(), Outcome::Clean);
    }
    assert_eq!(running.connections(), 4);
    let (_, other_reserved) = running.stop().await;
    let failure = clamd.scan(&sample(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
    // Both are in backoff. The next scan tries one of them nevertheless.
    let restarted =
        FakeServer::from_listener(reserved.listen(16).unwrap(), |mut stream| async move {
            let _ = read_until(&mut stream, b"\0\0\0\0").await;
            respond(&mut stream, b"stream: OK\0", Fault::None).await;
        });
    let _other =
        FakeServer::from_listener(other_reserved.listen(16).unwrap(), |mut stream| async move {
            let _ = read_until(&mut stream, b"\0\0\0\0").await;
            respond(&mut stream, b"stream: OK\0", Fault::None).await;
        });
    assert_eq!(clamd.scan(&sample(MEDIA)).await.unwrap(), Outcome::Clean);
    drop(restarted);
}

#[tokio::test]
async fn tries_another_daemon_after_lost_connection() {
    let closing = FakeServer::start(|stream| async move { drop(stream) }).await;
    let running = daemon(b"stream: OK\0", Fault::None).await;
    let both = vec![tcp(closing.address), tcp(running.address)];
    let engine = clamd(both, LONG_TIMEOUT);
    for _ in 0..4 {
        assert_eq!(engine.scan(&sample(MEDIA)).await.unwrap(), Outcome::Clean);
    }
    let engine = clamd(vec![tcp(closing.address)], LONG_TIMEOUT);
    let failure = engine.scan(&sample(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::ConnectionLost(_)), "{failure}");
}

#[tokio::test]
async fn reads_version_and_rejects_other_responses() {
    let version = async |response: &'static [u8]| {
        let daemon = FakeServer::start(move |mut stream| async move {
            let request = read_until(&mut stream, b"\0").await;
            assert_eq!(request, b"zVERSION\0");
            respond(&mut stream, response, Fault::None).await;
        })
        .await;
        let clamd = clamd(vec![tcp(daemon.address)], LONG_TIMEOUT);
        clamd.read_versions().await;
        clamd.versions()
    };
    let expected = "ClamAV 1.4.6/27000/Mon Nov 23 10:00:00 2026";
    let response = b"ClamAV 1.4.6/27000/Mon Nov 23 10:00:00 2026\0";
    assert_eq!(version(response).await.unwrap(), expected);
    for response in [b"ClamAV 1.4.6".as_slice(), b"UNKNOWN COMMAND\0", b"ERROR\0", b""] {
        assert_eq!(version(response).await, None);
    }
}

#[test]
fn address_display_matches_configuration_syntax() {
    let tcp = |host: &str| Address::Tcp { host: host.into(), port: 3310 }.to_string();
    assert_eq!(tcp("clamd.internal"), "clamd.internal:3310");
    assert_eq!(tcp("::1"), "[::1]:3310");
    assert_eq!(Address::Unix("/run/clamd.ctl".into()).to_string(), "/run/clamd.ctl");
}
