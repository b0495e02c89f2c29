//! Captures the beginning of a program's output stream and discards the rest. The reading end stays open until
//! end-of-file: a closed pipe would kill the program by SIGPIPE and change its verdict. pipe(7).

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::error::Error;

/// Size of one read, bytes; the capacity of a pipe is 64 KiB.
const CHUNK: usize = 16 * 1024;

pub(crate) struct Capture {
    pipe: Receiver,
    max: usize,
    pub(crate) captured: Vec<u8>,
    pub(crate) truncated: bool,
}

impl Capture {
    /// Creates a capture of up to `max` bytes and the writing end of its pipe.
    pub(crate) fn new(max: usize) -> Result<(Self, OwnedFd), Error> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::errno("creating a pipe"))?;
        let pipe = Receiver::from_owned_fd(read)
            .map_err(Error::io("registering a pipe with the runtime"))?;
        Ok((Self { pipe, max, captured: Vec::new(), truncated: false }, write))
    }

    /// Reads until no process holds the writing end. Cancellation safe: bytes read so far stay in `captured`.
    pub(crate) async fn fill(&mut self) {
        let mut chunk = vec![0; CHUNK];
        // A read error is not the program's fault; the bytes before it are kept.
        while let Ok(length @ 1..) = self.pipe.read(&mut chunk).await {
            let read = chunk.get(..length).unwrap_or_default();
            let (captured, rest) = read.split_at(read.len().min(self.max - self.captured.len()));
            self.captured.extend_from_slice(captured);
            self.truncated |= !rest.is_empty();
        }
    }
}
