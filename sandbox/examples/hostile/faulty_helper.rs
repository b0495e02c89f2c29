//! Faulty helper, which sends prepared packets.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// Acts as a helper that sends the packets, with descriptors, from the file `replies` next to the jobs' directory: one
/// for each received message. Asked for its build, it prints that of the real helper.
pub(crate) fn act_as_helper(argument: Option<&str>) {
    use std::io::IoSlice;
    use std::os::unix::process::CommandExt as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
    if let Some(argument) = argument {
        let own = std::env::current_exe().unwrap();
        let real = own.parent().and_then(Path::parent).unwrap().join("mcs-sandbox");
        #[expect(clippy::disallowed_methods, reason = "runs the real helper for its build id")]
        let mut real = std::process::Command::new(real);
        panic!("{}", real.arg0("mcs-sandbox-helper").arg(argument).exec());
    }
    let mut packet = vec![0; 1 << 16];
    let mut receive = || {
        recv(0, &mut packet, MsgFlags::empty())
            .map(|length| packet.iter().take(length).copied().collect::<Vec<_>>())
    };
    let prepare: serde_json::Value = serde_json::from_slice(&receive().unwrap()).unwrap();
    let jobs =
        Path::new(prepare.pointer("/Prepare/parent").and_then(serde_json::Value::as_str).unwrap());
    let replies = fs::read(jobs.with_file_name("replies")).unwrap();
    let replies: Vec<(Vec<u8>, usize)> = serde_json::from_slice(&replies).unwrap();
    let null = File::open("/dev/null").unwrap();
    for (index, (bytes, fds)) in replies.iter().enumerate() {
        if index > 0 && receive().is_ok_and(|packet| packet.is_empty()) {
            return;
        }
        let fds = vec![null.as_raw_fd(); *fds];
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let _ = sendmsg::<()>(0, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    }
}
