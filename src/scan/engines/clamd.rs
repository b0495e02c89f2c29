//! `ClamAV`'s daemon, asked over its own protocol: by a unix socket it gets the media's descriptor
//! (FILDES), over TCP the media's bytes (INSTREAM). Only a whole answer that says OK is "clean"; what
//! the daemon says of its own limits, of errors or of anything unknown is a failure. clamd(8).

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpStream, UnixStream},
};

use super::{
    Bounds, EngineFailure, Finding,
    servers::{Server, Servers, connected, said_and_sent},
    specimen::Specimen,
};

/// Bytes of an answer. Real ones are a line.
const MAX_ANSWER: u64 = 4096;

/// `[clamd]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where daemons listen; at least one.
    pub addresses: Vec<Address>,
    /// For one media, whatever number of servers is tried.
    pub timeout: Duration,
    /// Which media, and what no answer means.
    pub bounds: Bounds,
}

/// Where a daemon listens.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Clamd {
    servers: Servers<Address>,
    timeout: Duration,
}

impl Clamd {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            servers: Servers::new("clamd", settings.addresses.iter().cloned()),
            timeout: settings.timeout,
        }
    }

    /// What the first daemon that can be reached says of a media.
    ///
    /// # Errors
    /// [`EngineFailure`], whatever is not a whole and known answer.
    pub async fn scan(&self, specimen: &Specimen) -> Result<Finding, EngineFailure> {
        let ask = |server| exchange(server, specimen);
        let answer = self.servers.ask(self.timeout, ask).await?;
        finding(&answer)
    }

    /// Asks every daemon for its version.
    pub(super) async fn read_versions(&self) {
        self.servers.read_versions(version_of).await;
    }

    pub(super) fn versions(&self) -> Option<String> {
        self.servers.versions()
    }
}

fn finding(answer: &str) -> Result<Finding, EngineFailure> {
    // "stream: " or "fd[12]: ".
    let said = answer.split_once(": ").filter(|(of, _)| {
        let number = of.strip_prefix("fd[").and_then(|rest| rest.strip_suffix(']'));
        *of == "stream" || number.is_some_and(|number| number.bytes().all(|it| it.is_ascii_digit()))
    });
    let Some((_, said)) = said else { return Err(not_understood(answer)) };
    if said == "OK" {
        return Ok(Finding::Clean);
    }
    let Some(name) = said.strip_suffix(" FOUND").filter(|name| !name.trim().is_empty()) else {
        return Err(not_understood(said));
    };
    if name.starts_with("Heuristics.Limits.Exceeded") {
        return Err(EngineFailure::Said(name.to_owned()));
    }
    let name = name.to_owned();
    // With `AlertEncrypted`; what it means is `scan.on_encrypted`.
    if name.starts_with("Heuristics.Encrypted.") {
        return Ok(Finding::Encrypted { name });
    }
    Ok(Finding::NotClean { name })
}

/// An error that the daemon tells, or what makes no sense.
fn not_understood(answer: &str) -> EngineFailure {
    if answer.trim_end().ends_with("ERROR") {
        EngineFailure::Said(answer.to_owned())
    } else {
        EngineFailure::NoSense(format!("{answer:?}"))
    }
}

async fn exchange(server: &Server<Address>, specimen: &Specimen) -> Result<String, EngineFailure> {
    match &server.endpoint {
        Address::Unix(path) => {
            let mut stream = connected(UnixStream::connect(path)).await?;
            by_descriptor(&mut stream, specimen).await
        }
        Address::Tcp { host, port } => {
            let stream = connected(TcpStream::connect((host.as_str(), *port))).await?;
            by_stream(stream, specimen).await
        }
    }
}

async fn by_descriptor(
    stream: &mut UnixStream,
    specimen: &Specimen,
) -> Result<String, EngineFailure> {
    let file = specimen.descriptor().map_err(EngineFailure::Media)?;
    let give = async {
        stream.write_all(b"zFILDES\0").await?;
        let stream = &*stream;
        stream
            .async_io(Interest::WRITABLE, || {
                let descriptors = [file.as_fd().as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&descriptors)];
                // Rights travel beside a byte, which means nothing.
                let byte = [io::IoSlice::new(b"\0")];
                sendmsg::<()>(stream.as_raw_fd(), &byte, &rights, MsgFlags::MSG_NOSIGNAL, None)
                    .map_err(io::Error::from)
            })
            .await
    };
    give.await.map_err(cut_short)?;
    whole_answer(stream).await
}

async fn by_stream(
    stream: impl AsyncRead + AsyncWrite,
    specimen: &Specimen,
) -> Result<String, EngineFailure> {
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = stream_out(&mut to, specimen);
    let (answer, sent) = said_and_sent(sending, whole_answer(&mut from)).await?;
    // Errors come early; a verdict on the half of a media is none.
    if !sent && !answer.ends_with("ERROR") {
        return Err(EngineFailure::Early);
    }
    Ok(answer)
}

async fn stream_out(
    to: &mut (impl AsyncWrite + Unpin),
    specimen: &Specimen,
) -> Result<(), EngineFailure> {
    let mut out = b"zINSTREAM\0".to_vec();
    let mut at = 0;
    while at < specimen.len() {
        let piece = specimen.piece(at, u64::MAX).await.map_err(EngineFailure::Media)?;
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&piece);
        at += u64::from(length);
        // The last one goes together with the end.
        if at < specimen.len() {
            to.write_all(&out).await.map_err(cut_short)?;
            out.clear();
        }
    }
    out.extend_from_slice(&0_u32.to_be_bytes());
    to.write_all(&out).await.map_err(cut_short)
}

async fn version_of(server: &Server<Address>) -> Result<Arc<str>, EngineFailure> {
    match &server.endpoint {
        Address::Unix(path) => version(connected(UnixStream::connect(path)).await?).await,
        Address::Tcp { host, port } => {
            version(connected(TcpStream::connect((host.as_str(), *port))).await?).await
        }
    }
}

async fn version(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Arc<str>, EngineFailure> {
    stream.write_all(b"zVERSION\0").await.map_err(cut_short)?;
    let version = whole_answer(&mut stream).await?;
    if !version.starts_with("ClamAV ") {
        return Err(not_understood(&version));
    }
    Ok(version.into())
}

/// One answer, which ends with a NUL and the connection.
async fn whole_answer(from: &mut (impl AsyncRead + Unpin)) -> Result<String, EngineFailure> {
    let mut answer = Vec::new();
    from.take(MAX_ANSWER + 1).read_to_end(&mut answer).await.map_err(cut_short)?;
    if answer.len() as u64 > MAX_ANSWER {
        return Err(EngineFailure::NoSense("an answer without an end".into()));
    }
    match answer.split_last() {
        Some((0, line)) if !line.contains(&0) => Ok(String::from_utf8_lossy(line).into_owned()),
        Some((0, _)) => Err(EngineFailure::NoSense("more than one answer".into())),
        _ => Err(EngineFailure::CutShort(None)),
    }
}

fn cut_short(error: io::Error) -> EngineFailure {
    EngineFailure::CutShort(Some(error))
}

#[cfg(test)]
mod tests;
