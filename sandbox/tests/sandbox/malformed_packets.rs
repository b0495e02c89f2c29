//! Packets that no server sends: the helper exits without a panic and leaves nothing behind.

use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ExitStatus, Stdio};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use proptest::prelude::*;

use crate::fixture::{Fixture, HELPER, is_root, unsandboxed};

/// Sends the packets, each with `fds` descriptors, receives up to `replies` packets, and waits until the helper exits.
fn talk(packets: &[Vec<u8>], fds: usize, replies: usize) -> ExitStatus {
    let (server_end, helper_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut helper = unsandboxed(HELPER);
    helper.arg0("mcs-sandbox-helper").stdin(helper_end).stdout(Stdio::null());
    let mut child = helper.spawn().unwrap();
    drop(helper);
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let rights = vec![null.as_raw_fd(); fds];
    for packet in packets {
        let control = [ControlMessage::ScmRights(&rights)];
        let control = if fds == 0 { &[][..] } else { &control[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        // The helper may have exited after an earlier packet.
        let _ =
            sendmsg::<()>(server_end.as_raw_fd(), &[IoSlice::new(packet)], control, flags, None);
    }
    for _ in 0..replies {
        let _ = recv(server_end.as_raw_fd(), &mut [0; 1000], MsgFlags::empty());
    }
    drop(server_end);
    child.wait().unwrap()
}

fn exited_normally(status: ExitStatus) -> bool {
    matches!(status.code(), Some(0 | 1))
}

/// Returns a `Prepare` message with the given names.
fn prepare(fixture: &Fixture, directory: &str, media: &str) -> Vec<u8> {
    let jobs = fixture.jobs();
    let user = if is_root() { r#"{"uid":61234,"gid":61235}"# } else { "null" };
    let limits = r#"{"cpu_time":null,"file_size":null,"open_files":null,"processes":null,"address_space":null,"disk":1000000}"#;
    let plan = r#"{"seccomp":false,"landlock":0,"namespaces":false,"own_network":false,"own_users":false,"own_host_name":false,"cgroup":null}"#;
    let view = r#"{"network":"None","paths":{"read_only":[],"writable":[],"unix_sockets":[]}}"#;
    format!(
        r#"{{"Prepare":{{"build":"{}","parent":"{}","directory":"{directory}","media":"{media}","plan":{plan},"view":{view},"user":{user},"limits":{limits},"resident":false,"environment":[]}}}}"#,
        build(),
        jobs.display()
    )
    .into_bytes()
}

fn build() -> String {
    let output = unsandboxed(HELPER).arg0("mcs-sandbox-helper").arg("--build").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn accepts_valid_messages() {
    let fixture = Fixture::new();
    assert_eq!(talk(&[prepare(&fixture, "job-1", "media")], 0, 1).code(), Some(0));
    assert_eq!(talk(&[prepare(&fixture, "job-1", "media"), b"[]".to_vec()], 0, 1).code(), Some(1));
    assert!(fixture.is_empty());
}

#[test]
fn helper_rejects_unsafe_names() {
    let fixture = Fixture::new();
    for name in ["..", "../outside", "a/b", "", "/tmp"] {
        assert!(exited_normally(talk(&[prepare(&fixture, name, "media")], 0, 1)));
        assert!(exited_normally(talk(&[prepare(&fixture, "job-1", name)], 0, 1)));
    }
    assert!(fixture.is_empty());
    assert!(!fixture.root.join("outside").exists());
}

#[test]
fn rejects_run_without_two_descriptors() {
    let fixture = Fixture::new();
    let open = fixture.root.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mark = open.join("mark");
    let run = format!(
        r#"{{"Run":{{"program":"touch","arguments":["{}"],"time_limit":{{"secs":60,"nanos":0}},"monitored":false}}}}"#,
        mark.display()
    );
    // Replies: Prepared, Started and Ended; fewer if the helper exits.
    let talk_with_descriptors =
        |fds| talk(&[prepare(&fixture, "job-1", "media"), run.clone().into_bytes()], fds, 3);
    for fds in [0, 1, 4, 200] {
        assert_eq!(talk_with_descriptors(fds).code(), Some(1));
        assert!(!mark.exists(), "{fds} descriptors");
    }
    // Without and with standard input.
    for fds in [2, 3] {
        assert_eq!(talk_with_descriptors(fds).code(), Some(0));
        assert!(mark.exists(), "control with {fds} descriptors");
        std::fs::remove_file(&mark).unwrap();
    }
    assert!(fixture.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_packets_do_not_panic_helper(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..4), fds in 0_usize..4) {
        prop_assert!(exited_normally(talk(&packets, fds, 0)));
    }

    #[test]
    fn mutated_messages_do_not_panic_helper(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let fixture = Fixture::new();
        let mut packet = prepare(&fixture, "job-1", "media");
        let at = at.index(packet.len());
        packet[at] = byte;
        if cut {
            packet.truncate(at);
        }
        prop_assert!(exited_normally(talk(&[packet], 0, 0)));
        prop_assert!(fixture.is_empty());
    }
}

#[test]
fn oversized_packet_ends_helper() {
    assert_eq!(talk(&[vec![b' '; 70_000]], 0, 1).code(), Some(1));
}
