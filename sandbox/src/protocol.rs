//! What server and helper say to each other: one packet a message, JSON, at most [`MAX_PACKET`] bytes. Descriptors travel
//! beside a packet, see `channel`. Both ends are of the same build, so nothing here is kept compatible; but neither trusts
//! the other's bytes to be well-formed.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::Refusal;
use crate::plan::Plan;
use crate::policy::{Limits, User};
use crate::view::View;

/// Bytes. Far above any real command line, far below what a unix socket takes at once (`net.core.wmem_default`).
pub(crate) const MAX_PACKET: usize = 64 * 1024;

/// From the server. End-of-file instead of a message: finish, remove everything, exit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message, once. Answered by `Prepared` or `Refused`.
    Prepare(Box<Prepare>),
    /// Then any number of these, each with two descriptors (standard output and error) or three (standard input as well), each
    /// answered by `Refused`, or by `Started` and then `Ended` or `Refused`.
    Run(Run),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub(crate) build: String,
    /// Where the job's directory is to be made; it exists, its path is absolute.
    pub(crate) parent: Text,
    /// The name of the job's directory, which does not exist.
    pub(crate) directory: String,
    /// The name of the media's file.
    pub(crate) media: String,
    pub(crate) plan: Plan,
    /// Where the job's control group is made, if the plan has one.
    pub(crate) cgroup: Option<Text>,
    pub(crate) view: View,
    pub(crate) user: Option<User>,
    pub(crate) limits: Limits,
    /// Exactly what the programs get.
    pub(crate) environment: Vec<(Text, Text)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) program: Text,
    pub(crate) arguments: Vec<Text>,
    pub(crate) time_limit: Duration,
    /// Whether what it is refused is noted.
    pub(crate) watched: bool,
}

/// From the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// With one descriptor: the media's file, empty, to read and write.
    Prepared,
    /// With one descriptor: a pidfd of the program's process, or of the first process of its pid namespace, which dies last.
    /// It leads a session and process group of its own. The program has not been executed yet.
    Started { pid: i32 },
    /// The program ran and is gone.
    Ended {
        /// As wait(2) gives it.
        status: i32,
        timed_out: bool,
        usage: Usage,
        /// The program's file, if it was the same before and after.
        program: Option<FileState>,
        /// Something that it left behind could not be killed in time.
        survivors: bool,
        /// What a watched one was refused.
        attempts: Vec<Attempt>,
    },
    /// The program did not run.
    Refused(Refusal),
}

/// What a watched program was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Attempt {
    /// A system call, by name.
    Call(String),
    Read(Text),
    Write(Text),
    Connect(Text),
    /// TCP, by the port.
    Port(u16),
}

impl Attempt {
    /// Bytes, as they are in a packet at the least.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Call(name) => name.len(),
            Self::Port(_) => 0,
            Self::Read(path) | Self::Write(path) | Self::Connect(path) => path.0.len(),
        }
    }
}

/// What the program cost, with those of its children that it waited for. getrusage(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time outside the kernel.
    pub user_time: Duration,
    /// Processor time in the kernel.
    pub system_time: Duration,
    /// The largest resident set of one process, bytes.
    pub max_rss: u64,
}

/// What changes when a file does: cheap to read, and enough to know that its content need not be. The time of change cannot
/// be set back, so a file that was put in its place for a moment is seen too; a link that led elsewhere for a moment is not.
/// stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    /// Of the file that this path leads to; none where it cannot be looked at. Blocks on the disk.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).as_ref().map(Self::from).ok()
    }
}

impl From<&Metadata> for FileState {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A path or argument of the operating system: a string in JSON if it is one, else its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub(crate) struct Text(pub(crate) OsString);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl From<Wire> for Text {
    fn from(wire: Wire) -> Self {
        Self(match wire {
            Wire::Utf8(text) => text.into(),
            Wire::Bytes(bytes) => OsString::from_vec(bytes),
        })
    }
}

impl From<Text> for Wire {
    fn from(text: Text) -> Self {
        match text.0.into_string() {
            Ok(text) => Self::Utf8(text),
            Err(bytes) => Self::Bytes(bytes.into_vec()),
        }
    }
}

impl From<std::path::PathBuf> for Text {
    fn from(path: std::path::PathBuf) -> Self {
        Self(path.into())
    }
}

impl From<&std::ffi::OsStr> for Text {
    fn from(text: &std::ffi::OsStr) -> Self {
        Self(text.to_owned())
    }
}

pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let packet = serde_json::to_vec(message).map_err(|_| Error::Protocol("unspeakable message"))?;
    if packet.len() > MAX_PACKET {
        return Err(Error::Argument("the command line and environment are too long"));
    }
    Ok(packet)
}

pub(crate) fn decode<M: DeserializeOwned>(packet: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(packet).map_err(|_| Error::Protocol("malformed message"))
}

/// Whether `name` is one component of a path that no shell reads as anything else.
pub(crate) fn is_safe_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The same for an absolute path.
pub(crate) fn is_safe_path(path: &Path) -> bool {
    path.is_absolute()
        && path
            .as_os_str()
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_of_the_operating_system_arrive_as_they_were(bytes in any::<Vec<u8>>()) {
            let text = Text(OsString::from_vec(bytes));
            let packet = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(decode::<Text>(&packet).unwrap(), text);
        }

        #[test]
        fn no_packet_makes_decoding_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }
    }

    #[test]
    fn a_message_that_fits_no_packet_is_refused() {
        assert!(encode(&"a".repeat(MAX_PACKET - 2)).is_ok());
        assert!(encode(&"a".repeat(MAX_PACKET - 1)).is_err());
    }
}
