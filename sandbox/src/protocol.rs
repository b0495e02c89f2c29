//! Messages between server and helper: one packet per message, JSON, at most [`MAX_PACKET`] bytes. Descriptors are
//! attached to packets, see `channel`. Both sides come from the same build, so the format needs no compatibility
//! between versions. Each side treats the other's bytes as untrusted.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Refusal};
use crate::layers::Plan;
use crate::limits::ResourceLimits;
use crate::policy::User;
use crate::usage::Usage;
use crate::view::View;

/// Maximum size of a packet, bytes: far above real command lines and below a unix socket's default send buffer
/// (`net.core.wmem_default`).
pub(crate) const MAX_PACKET: usize = 64 * 1024;

/// Message from the server. End-of-file tells the helper to kill all programs, remove the directory and exit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First message, sent once. The reply is `Prepared` or `Refused`.
    Prepare(Box<Prepare>),
    /// Any number of runs, each with two descriptors (standard output and error) or three (also standard input). The
    /// reply is `Refused`, or `Started` followed by `Ended` or `Refused`.
    Run(RunCommand),
    /// Lowers the priority of the running program, or of one of its processes, with one descriptor: a pidfd. Ignored
    /// between runs. There is no reply.
    Demote,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub(crate) build: String,
    /// Existing directory for the job's directory; absolute path.
    pub(crate) parent: Text,
    /// Name of the job's directory, which must not exist.
    pub(crate) directory: String,
    /// Name of the media's file.
    pub(crate) media: String,
    pub(crate) plan: Plan,
    /// Parent of the job's control group, if the plan uses one.
    pub(crate) cgroup: Option<Text>,
    pub(crate) view: View,
    pub(crate) user: Option<User>,
    pub(crate) limits: ResourceLimits,
    /// Whether the program is a resident one, whose children are jobs of their own: a child that exceeds the memory of the
    /// control group ends alone.
    pub(crate) resident: bool,
    /// Additional environment variables of programs.
    pub(crate) environment: Vec<(Text, Text)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunCommand {
    pub(crate) program: Text,
    pub(crate) arguments: Vec<Text>,
    pub(crate) time_limit: Duration,
    /// Whether denied accesses are recorded.
    pub(crate) monitored: bool,
}

/// Message from the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Carries one descriptor: the empty media's file, readable and writable.
    Prepared,
    /// Carries one descriptor: a pidfd of the program's process or, with a pid namespace, of that namespace's first
    /// process, which dies last. This process leads its own session and process group. The program has not been
    /// executed yet.
    Started { pid: i32 },
    /// The program ran and has ended.
    Ended {
        /// Wait status, see wait(2).
        status: i32,
        timed_out: bool,
        usage: Usage,
        /// State of the program's file, if it was the same before and after the run.
        program: Option<FileState>,
        /// Whether descendants of the program could not be killed in time.
        survivors: bool,
        /// Denied accesses of a monitored program.
        attempts: Vec<Attempt>,
    },
    /// The program did not run.
    Refused(Refusal),
}

/// A denied access of a monitored program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Attempt {
    /// System call, by name.
    Call(String),
    Read(Text),
    Write(Text),
    Connect(Text),
    /// TCP connection, by port.
    Port(u16),
}

impl Attempt {
    /// Returns a lower bound of the size in a packet, bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Call(name) => name.len(),
            Self::Port(_) => 0,
            Self::Read(path) | Self::Write(path) | Self::Connect(path) => path.0.len(),
        }
    }
}

/// Metadata that changes with a file's content: cheap to read, and sufficient to detect a changed file without reading
/// it. The change time (ctime) cannot be set back, so a temporary replacement of the file is detected too. A temporary
/// change of a link on the path is not. stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    /// Reads the state of the file at `path`; `None` if its metadata is inaccessible. Blocks on file system access.
    #[must_use]
    pub fn from_path(path: &Path) -> Option<Self> {
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

/// A path or argument of the operating system: a JSON string if it is valid UTF-8, else an array of bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "TextEncoding", into = "TextEncoding")]
pub(crate) struct Text(pub(crate) OsString);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TextEncoding {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl From<TextEncoding> for Text {
    fn from(encoding: TextEncoding) -> Self {
        Self(match encoding {
            TextEncoding::Utf8(text) => text.into(),
            TextEncoding::Bytes(bytes) => OsString::from_vec(bytes),
        })
    }
}

impl From<Text> for TextEncoding {
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
    let packet =
        serde_json::to_vec(message).map_err(|_| Error::Protocol("message cannot be encoded"))?;
    if packet.len() > MAX_PACKET {
        return Err(Error::Argument("the command line and environment are too long"));
    }
    Ok(packet)
}

pub(crate) fn decode<M: DeserializeOwned>(packet: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(packet).map_err(|_| Error::Protocol("malformed message"))
}

/// Whether `name` is a single path component without characters that a shell interprets.
pub(crate) fn is_safe_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether `path` is absolute and free of characters that a shell interprets.
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
        fn text_round_trips_arbitrary_bytes(bytes in any::<Vec<u8>>()) {
            let text = Text(OsString::from_vec(bytes));
            let packet = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(decode::<Text>(&packet).unwrap(), text);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }
    }

    #[test]
    fn rejects_message_above_packet_limit() {
        assert!(encode(&"a".repeat(MAX_PACKET - 2)).is_ok());
        assert!(encode(&"a".repeat(MAX_PACKET - 1)).is_err());
    }
}
