//! clamd, the `ClamAV` daemon, over its own protocol, clamd(8). Over a unix socket it receives the file's
//! descriptor (FILDES), over TCP the file's bytes (INSTREAM). Only a complete response "OK" is "clean". Names of
//! findings and some errors of the daemon determine the other outcomes; further errors and unknown responses are
//! failures.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

pub use crate::config::sections::clamd::{Address, Settings};

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use nix::{
    libc::EAGAIN,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpStream, UnixStream},
};

use super::{
    engine_server::EngineServer,
    error::EngineFailure,
    outcome::Outcome,
    pool::{Pool, PoolMember, connect_with_timeout},
    sample::Sample,
};

/// Maximum length of a response, bytes. A response is one line.
const MAX_RESPONSE: u64 = 4096;

/// The clamd engine.
#[derive(Debug)]
pub struct Clamd {
    pool: Pool<Address>,
    timeout: Duration,
}

impl Clamd {
    /// Creates the engine without connecting.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            pool: Pool::new("clamd", settings.addresses.iter().cloned()),
            timeout: settings.timeout,
        }
    }

    /// Scans a file with the first available daemon.
    ///
    /// # Errors
    /// Everything other than a complete response with a verdict.
    pub async fn scan(&self, sample: &Sample) -> Result<Outcome, EngineFailure> {
        self.pool.request(self.timeout, |member| exchange(member, sample)).await
    }

    /// Reads the versions of all daemons.
    pub(super) async fn read_versions(&self) {
        self.pool.read_versions(read_member_version).await;
    }

    pub(super) fn versions(&self) -> Option<String> {
        self.pool.versions()
    }

    pub(super) fn servers(&self) -> Vec<EngineServer> {
        self.pool.servers()
    }

    pub(super) fn has_all_versions(&self) -> bool {
        self.pool.has_all_versions()
    }
}

/// Response to INSTREAM if the file exceeds `StreamMaxLength`. The daemon has examined nothing.
const STREAM_TOO_LARGE: &str = "INSTREAM size limit exceeded. ERROR";

/// Errors of libclamav, `cl_strerror()`, for limits inside the file: recursion, size and number of files.
const LIMIT_ERRORS: [&str; 3] = ["CL_EMAXREC", "CL_EMAXSIZE", "CL_EMAXFILES"];

/// Prefixes of names that report a policy that an option of clamd.conf(5) enables, rather than malware:
/// `DetectPUA`, `AlertOLE2Macros`, `AlertBrokenExecutables`, `AlertBrokenMedia`, `AlertPartitionIntersection` and
/// `StructuredDataDetection`.
const POLICY_NAMES: [&str; 5] = [
    "PUA.",
    "Heuristics.OLE2.ContainsMacros",
    "Heuristics.Broken.",
    "Heuristics.PartitionIntersection",
    "Heuristics.Structured.",
];

fn parse_outcome(response: &str) -> Result<Outcome, EngineFailure> {
    if response == STREAM_TOO_LARGE {
        return Ok(Outcome::TooLarge);
    }
    // "stream: OK" or "fd[12]: OK".
    let parts = response.split_once(": ").filter(|(subject, _)| {
        let number = subject.strip_prefix("fd[").and_then(|rest| rest.strip_suffix(']'));
        *subject == "stream"
            || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let Some((_, result)) = parts else { return Err(unexpected_response(response)) };
    if result == "OK" {
        return Ok(Outcome::Clean);
    }
    if let Some(error) = result.strip_suffix(" ERROR")
        && let Some(limit) = LIMIT_ERRORS.iter().find(|limit| error.starts_with(*limit))
    {
        return Ok(Outcome::Limit((*limit).into()));
    }
    let Some(name) = result.strip_suffix(" FOUND").filter(|name| !name.trim().is_empty()) else {
        return Err(unexpected_response(result));
    };
    Ok(classify(name))
}

/// Returns the outcome that the name of a finding reports.
fn classify(name: &str) -> Outcome {
    let is_policy = POLICY_NAMES.iter().any(|prefix| name.starts_with(prefix));
    let text = name.into();
    // Reported with `AlertExceedsMax`.
    if name.starts_with("Heuristics.Limits.Exceeded") {
        Outcome::Limit(text)
    // Reported with `AlertEncrypted`.
    } else if name.starts_with("Heuristics.Encrypted.") {
        Outcome::Encrypted(text)
    } else if is_policy {
        Outcome::Refused(text)
    } else {
        Outcome::Infected(text)
    }
}

/// Returns the failure for a response without a verdict: an error of the daemon, or an unknown response.
fn unexpected_response(response: &str) -> EngineFailure {
    if response.trim_end().ends_with("ERROR") {
        EngineFailure::Reported(response.to_owned())
    } else {
        EngineFailure::BadResponse(format!("{response:?}"))
    }
}

async fn exchange(member: &PoolMember<Address>, sample: &Sample) -> Result<Outcome, EngineFailure> {
    match &member.endpoint {
        Address::Unix(path) => {
            let mut stream = connect_unix(path).await?;
            scan_by_descriptor(&mut stream, sample).await
        }
        Address::Tcp { host, port } => {
            let stream = connect_with_timeout(TcpStream::connect((host.as_str(), *port))).await?;
            scan_by_stream(stream, sample).await
        }
    }
}

/// Connects to a unix socket. EAGAIN from connect(2) means there, unlike with TCP and other calls, that the backlog of
/// the server's socket is full.
async fn connect_unix(path: &Path) -> Result<UnixStream, EngineFailure> {
    connect_with_timeout(UnixStream::connect(path)).await.map_err(|failure| match failure {
        EngineFailure::Unreachable(error) if error.raw_os_error() == Some(EAGAIN) => {
            EngineFailure::Busy
        }
        failure => failure,
    })
}

async fn scan_by_descriptor(
    stream: &mut UnixStream,
    sample: &Sample,
) -> Result<Outcome, EngineFailure> {
    let file = sample.descriptor().map_err(EngineFailure::Media)?;
    let sending = async {
        stream.write_all(b"zFILDES\0").await?;
        let stream = &*stream;
        stream
            .async_io(Interest::WRITABLE, || {
                let descriptors = [file.as_fd().as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&descriptors)];
                // Descriptors need at least one byte of data, which clamd ignores.
                let byte = [io::IoSlice::new(b"\0")];
                sendmsg::<()>(stream.as_raw_fd(), &byte, &rights, MsgFlags::MSG_NOSIGNAL, None)
                    .map_err(io::Error::from)
            })
            .await
    };
    sending.await.map_err(connection_lost)?;
    parse_outcome(&read_response(stream).await?)
}

async fn scan_by_stream(
    stream: impl AsyncRead + AsyncWrite,
    sample: &Sample,
) -> Result<Outcome, EngineFailure> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut sending, mut receiving) =
        (pin!(send_stream(&mut writer, sample)), pin!(read_response(&mut reader)));
    let mut sent = None;
    let response = loop {
        tokio::select! {
            biased;
            result = &mut sending, if sent.is_none() => sent = Some(match result {
                Ok(()) => true,
                Err(failure @ EngineFailure::Media(_)) => return Err(failure),
                // A daemon that closes its receiving side early has usually sent the reason.
                Err(_) => false,
            }),
            response = &mut receiving => break response?,
        }
    };
    let outcome = parse_outcome(&response)?;
    if outcome.needs_whole_file() && sent != Some(true) {
        return Err(EngineFailure::PrematureVerdict);
    }
    Ok(outcome)
}

async fn send_stream(
    writer: &mut (impl AsyncWrite + Unpin),
    sample: &Sample,
) -> Result<(), EngineFailure> {
    let mut buffer = b"zINSTREAM\0".to_vec();
    let mut offset = 0;
    while offset < sample.len() {
        let chunk = sample.read_chunk(offset, u64::MAX).await.map_err(EngineFailure::Media)?;
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(&chunk);
        offset += u64::from(length);
        // The last chunk is sent together with the end marker.
        if offset < sample.len() {
            writer.write_all(&buffer).await.map_err(connection_lost)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&0_u32.to_be_bytes());
    writer.write_all(&buffer).await.map_err(connection_lost)
}

async fn read_member_version(member: &PoolMember<Address>) -> Result<Arc<str>, EngineFailure> {
    match &member.endpoint {
        Address::Unix(path) => read_version(connect_unix(path).await?).await,
        Address::Tcp { host, port } => {
            let connect = TcpStream::connect((host.as_str(), *port));
            read_version(connect_with_timeout(connect).await?).await
        }
    }
}

async fn read_version(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Arc<str>, EngineFailure> {
    stream.write_all(b"zVERSION\0").await.map_err(connection_lost)?;
    let version = read_response(&mut stream).await?;
    if !version.starts_with("ClamAV ") {
        return Err(unexpected_response(&version));
    }
    Ok(version.into())
}

/// Reads one response, which ends with a NUL byte followed by the end of the connection.
async fn read_response(reader: &mut (impl AsyncRead + Unpin)) -> Result<String, EngineFailure> {
    let mut response = Vec::new();
    reader.take(MAX_RESPONSE + 1).read_to_end(&mut response).await.map_err(connection_lost)?;
    if response.len() as u64 > MAX_RESPONSE {
        return Err(EngineFailure::BadResponse("response too long".into()));
    }
    match response.split_last() {
        Some((0, line)) if !line.contains(&0) => Ok(String::from_utf8_lossy(line).into_owned()),
        Some((0, _)) => Err(EngineFailure::BadResponse("more than one response".into())),
        _ => Err(EngineFailure::ConnectionLost(None)),
    }
}

fn connection_lost(error: io::Error) -> EngineFailure {
    EngineFailure::ConnectionLost(Some(error))
}

#[cfg(test)]
mod tests;
