//! The helper and packets that no server of ours sends: it ends, without a panic, and leaves nothing.

use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ExitStatus, Stdio};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use proptest::prelude::*;

use crate::place::{HELPER, Place, is_root, outside};

/// Sends the packets, each with `fds` descriptors beside it, reads up to `replies`, and waits for the helper's end.
fn talk(packets: &[Vec<u8>], fds: usize, replies: usize) -> ExitStatus {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut helper = outside(HELPER);
    helper.arg0("mcs-sandbox-helper").stdin(theirs).stdout(Stdio::null());
    let mut child = helper.spawn().unwrap();
    drop(helper);
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let rights = vec![null.as_raw_fd(); fds];
    for packet in packets {
        let beside = [ControlMessage::ScmRights(&rights)];
        let beside = if fds == 0 { &[][..] } else { &beside[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        // It may have ended over an earlier one.
        let _ = sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(packet)], beside, flags, None);
    }
    for _ in 0..replies {
        let _ = recv(ours.as_raw_fd(), &mut [0; 1000], MsgFlags::empty());
    }
    drop(ours);
    child.wait().unwrap()
}

fn ended_by_itself(status: ExitStatus) -> bool {
    matches!(status.code(), Some(0 | 1))
}

/// A message that is well-formed but for what `change` does to it.
fn prepare(place: &Place, directory: &str, media: &str) -> Vec<u8> {
    let jobs = place.jobs();
    let user = if is_root() { r#"{"uid":61234,"gid":61235}"# } else { "null" };
    let limits = r#"{"cpu_time":null,"file_size":null,"open_files":null,"processes":null,"address_space":null,"disk":1000000}"#;
    let plan = r#"{"seccomp":false,"landlock":0,"namespaces":false,"own_network":false,"own_users":false,"cgroup":null}"#;
    let view = r#"{"network":"None","paths":{"read_only":[],"writable":[],"unix_sockets":[]}}"#;
    format!(
        r#"{{"Prepare":{{"build":"{}","parent":"{}","directory":"{directory}","media":"{media}","plan":{plan},"view":{view},"user":{user},"limits":{limits},"environment":[]}}}}"#,
        build(),
        jobs.display()
    )
    .into_bytes()
}

fn build() -> String {
    let output = outside(HELPER).arg0("mcs-sandbox-helper").arg("--build").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_message_that_these_tests_change_is_a_right_one() {
    let place = Place::new();
    assert_eq!(talk(&[prepare(&place, "job-1", "media")], 0, 1).code(), Some(0));
    assert_eq!(talk(&[prepare(&place, "job-1", "media"), b"[]".to_vec()], 0, 1).code(), Some(1));
    assert!(place.is_empty());
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_the_helper_too() {
    let place = Place::new();
    for name in ["..", "../outside", "a/b", "", "/tmp"] {
        assert!(ended_by_itself(talk(&[prepare(&place, name, "media")], 0, 1)));
        assert!(ended_by_itself(talk(&[prepare(&place, "job-1", name)], 0, 1)));
    }
    assert!(place.is_empty());
    assert!(!place.root.join("outside").exists());
}

#[test]
fn a_program_without_its_two_streams_is_not_run() {
    let place = Place::new();
    let open = place.root.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mark = open.join("mark");
    let run = format!(
        r#"{{"Run":{{"program":"touch","arguments":["{}"],"time_limit":{{"secs":60,"nanos":0}},"watched":false}}}}"#,
        mark.display()
    );
    // Prepared, Started and Ended; fewer where the helper closes its end.
    let talk_of =
        |fds| talk(&[prepare(&place, "job-1", "media"), run.clone().into_bytes()], fds, 3);
    for fds in [0, 1, 4, 200] {
        assert_eq!(talk_of(fds).code(), Some(1));
        assert!(!mark.exists(), "with {fds}");
    }
    // With and without a standard input.
    for fds in [2, 3] {
        assert_eq!(talk_of(fds).code(), Some(0));
        assert!(mark.exists(), "the control, with {fds}");
        std::fs::remove_file(&mark).unwrap();
    }
    assert!(place.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_makes_the_helper_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..4), fds in 0_usize..4) {
        prop_assert!(ended_by_itself(talk(&packets, fds, 0)));
    }

    #[test]
    fn no_change_to_a_right_message_makes_the_helper_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let place = Place::new();
        let mut packet = prepare(&place, "job-1", "media");
        let at = at.index(packet.len());
        packet[at] = byte;
        if cut {
            packet.truncate(at);
        }
        prop_assert!(ended_by_itself(talk(&[packet], 0, 0)));
        prop_assert!(place.is_empty());
    }
}

#[test]
fn a_packet_that_is_too_long_ends_the_helper() {
    assert_eq!(talk(&[vec![b' '; 70_000]], 0, 1).code(), Some(1));
}
