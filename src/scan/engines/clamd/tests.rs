//! Against daemons on loopback, right ones and wrong ones.

use std::{io::Read, time::Duration};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, recvmsg},
};
use tokio::net::UnixListener;

use super::{
    super::{
        fake::{BOUNDS, Fake, Fault, IMPATIENCE, PATIENCE, answer, linger, read_until},
        specimen::tests::specimen,
    },
    *,
};

const MEDIA: &[u8] = b"some media";

fn tcp(address: std::net::SocketAddr) -> Address {
    Address::Tcp { host: address.ip().to_string(), port: address.port() }
}

fn asking(addresses: Vec<Address>, timeout: Duration) -> Clamd {
    Clamd::new(&Settings { addresses, timeout, bounds: BOUNDS })
}

/// A daemon that says this when it has the media's end.
async fn daemon(said: &'static [u8], fault: Fault) -> Fake {
    Fake::serving(move |mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        answer(&mut stream, said, fault).await;
        linger(stream).await;
    })
    .await
}

/// What comes of this answer.
async fn of(
    said: &'static [u8],
    fault: Fault,
    timeout: Duration,
) -> Result<Finding, EngineFailure> {
    let daemon = daemon(said, fault).await;
    asking(vec![tcp(daemon.address)], timeout).scan(&specimen(MEDIA)).await
}

#[tokio::test]
async fn only_a_whole_ok_is_clean() {
    assert_eq!(of(b"stream: OK\0", Fault::None, PATIENCE).await.unwrap(), Finding::Clean);
    for (said, fault) in [
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
        (b"INSTREAM size limit exceeded. ERROR\0", Fault::None),
        (b"UNKNOWN COMMAND\0", Fault::None),
        (b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0", Fault::None),
        (b"HTTP/1.1 200 OK\r\n\r\n", Fault::None),
        (b"\xff\xfe\0", Fault::None),
    ] {
        let finding = of(said, fault, PATIENCE).await;
        assert!(finding.is_err(), "{:?} {fault:?}", String::from_utf8_lossy(said));
    }
    for fault in [Fault::Silent, Fault::Drip] {
        let failure = of(b"stream: OK\0", fault, IMPATIENCE).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::TimedOut), "{fault:?}: {failure}");
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_taken_in() {
    let daemon = Fake::serving(|mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let clamd = asking(vec![tcp(daemon.address)], PATIENCE);
    let failure = clamd.scan(&specimen(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::NoSense(_)), "{failure}");
}

#[tokio::test]
async fn a_verdict_before_the_end_of_the_media_is_none() {
    let early = |said: &'static [u8]| async move {
        let daemon = Fake::serving(move |mut stream| async move {
            answer(&mut stream, said, Fault::None).await;
            let _ = stream.shutdown().await;
            // The rest is not read, so that it cannot all be sent.
            std::future::pending::<()>().await;
        })
        .await;
        let clamd = asking(vec![tcp(daemon.address)], PATIENCE);
        clamd.scan(&specimen(&vec![7; 64 << 20])).await.unwrap_err()
    };
    assert!(matches!(early(b"stream: OK\0").await, EngineFailure::Early));
    let failure = early(b"INSTREAM size limit exceeded. ERROR\0").await;
    assert!(
        matches!(&failure, EngineFailure::Said(said) if said.contains("size limit")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_signature_has_a_name() {
    let found = of(b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Fault::None, PATIENCE).await;
    assert_eq!(found.unwrap(), Finding::NotClean { name: "Win.Test.EICAR_HDB-1".into() });
}

#[tokio::test]
async fn encrypted_contents_are_neither_clean_nor_an_infection() {
    let zip = of(b"stream: Heuristics.Encrypted.Zip FOUND\0", Fault::None, PATIENCE).await;
    assert_eq!(zip.unwrap(), Finding::Encrypted { name: "Heuristics.Encrypted.Zip".into() });
    let other = of(b"stream: Heuristics.Encrypted FOUND\0", Fault::None, PATIENCE).await;
    assert!(matches!(other, Ok(Finding::NotClean { .. })), "{other:?}");
}

#[tokio::test]
async fn the_stream_is_the_media_in_chunks() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let daemon = Fake::serving(move |mut stream| {
        let tell = tell.clone();
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
            tell.send(media).await.unwrap();
            answer(&mut stream, b"stream: OK\0", Fault::None).await;
        }
    })
    .await;
    let clamd = asking(vec![tcp(daemon.address)], PATIENCE);
    for length in [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 1_000_000] {
        let media: Vec<u8> = (0..=250).cycle().take(length).collect();
        assert_eq!(clamd.scan(&specimen(&media)).await.unwrap(), Finding::Clean);
        assert!(told.recv().await.unwrap() == media, "{length}");
    }
}

#[tokio::test]
async fn a_unix_socket_gets_a_descriptor_of_the_media_that_cannot_be_written_by() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clamd.ctl");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut command = [0; 8];
        stream.read_exact(&mut command).await.unwrap();
        assert_eq!(&command, b"zFILDES\0");
        let file = stream
            .async_io(Interest::READABLE, || {
                let (mut byte, mut space) = ([0], cmsg_space!([i32; 1]));
                let mut into = [io::IoSliceMut::new(&mut byte)];
                let flags = MsgFlags::MSG_CMSG_CLOEXEC;
                let message =
                    recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut space), flags)?;
                let descriptor = message.cmsgs()?.find_map(|message| match message {
                    ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
                    _ => None,
                });
                Ok(descriptor.expect("a descriptor"))
            })
            .await
            .unwrap();
        // Through /proc rather than as it is: nothing unsafe is needed for that.
        let mut given = std::fs::File::open(format!("/proc/self/fd/{file}")).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap();
        let mut media = Vec::new();
        given.read_to_end(&mut media).unwrap();
        nix::unistd::close(file).unwrap();
        stream.write_all(b"fd[12]: Eicar FOUND\0").await.unwrap();
        (media, info)
    });
    let clamd = asking(vec![Address::Unix(path)], PATIENCE);
    let finding = clamd.scan(&specimen(MEDIA)).await.unwrap();
    assert_eq!(finding, Finding::NotClean { name: "Eicar".into() });
    let (media, info) = daemon.await.unwrap();
    assert_eq!(media, MEDIA);
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 0o3, 0, "read-only: {flags}");
}

#[tokio::test]
async fn a_dead_daemon_of_two_costs_nothing_and_one_that_is_back_is_asked_again() {
    let (dead, held) = daemon(b"stream: OK\0", Fault::None).await.dies().await;
    let well = daemon(b"stream: OK\0", Fault::None).await;
    let clamd = asking(vec![tcp(dead), tcp(well.address)], PATIENCE);
    for _ in 0..4 {
        assert_eq!(clamd.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    }
    assert_eq!(well.connections(), 4);
    let (_, well) = well.dies().await;
    let failure = clamd.scan(&specimen(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
    // All rest; the next scan finds the one that is back all the same.
    let back = Fake::on(held.listen(16).unwrap(), |mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        answer(&mut stream, b"stream: OK\0", Fault::None).await;
    });
    let _other = Fake::on(well.listen(16).unwrap(), |mut stream| async move {
        let _ = read_until(&mut stream, b"\0\0\0\0").await;
        answer(&mut stream, b"stream: OK\0", Fault::None).await;
    });
    assert_eq!(clamd.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    drop(back);
}

#[tokio::test]
async fn a_daemon_that_breaks_off_is_followed_by_another() {
    let breaks = Fake::serving(|stream| async move { drop(stream) }).await;
    let well = daemon(b"stream: OK\0", Fault::None).await;
    let both = vec![tcp(breaks.address), tcp(well.address)];
    let clamd = asking(both, PATIENCE);
    for _ in 0..4 {
        assert_eq!(clamd.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    }
    let alone = asking(vec![tcp(breaks.address)], PATIENCE);
    let failure = alone.scan(&specimen(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::CutShort(_)), "{failure}");
}

#[tokio::test]
async fn its_version_is_the_daemons_own_line() {
    let version = async |said: &'static [u8]| {
        let daemon = Fake::serving(move |mut stream| async move {
            let asked = read_until(&mut stream, b"\0").await;
            assert_eq!(asked, b"zVERSION\0");
            answer(&mut stream, said, Fault::None).await;
        })
        .await;
        let clamd = asking(vec![tcp(daemon.address)], PATIENCE);
        clamd.read_versions().await;
        clamd.versions()
    };
    let told = "ClamAV 1.4.6/27000/Mon Nov 23 10:00:00 2026";
    assert_eq!(version(b"ClamAV 1.4.6/27000/Mon Nov 23 10:00:00 2026\0").await.unwrap(), told);
    for wrong in [b"ClamAV 1.4.6".as_slice(), b"UNKNOWN COMMAND\0", b"ERROR\0", b""] {
        assert_eq!(version(wrong).await, None);
    }
}

#[test]
fn addresses_are_shown_as_they_are_written() {
    let tcp = |host: &str| Address::Tcp { host: host.into(), port: 3310 }.to_string();
    assert_eq!(tcp("clamd.internal"), "clamd.internal:3310");
    assert_eq!(tcp("::1"), "[::1]:3310");
    assert_eq!(Address::Unix("/run/clamd.ctl".into()).to_string(), "/run/clamd.ctl");
}
