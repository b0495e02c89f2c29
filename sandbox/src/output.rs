//! One output stream of a program: its beginning is kept, the rest is read and thrown away. The reading end stays open to
//! the last byte, since a program that is told of a closed pipe by SIGPIPE ends with another verdict. pipe(7).

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::Error;

/// Bytes read at once; a pipe holds 64 KiB.
const CHUNK: usize = 16 * 1024;

pub(crate) struct Capture {
    pipe: Receiver,
    max: usize,
    pub(crate) kept: Vec<u8>,
    pub(crate) truncated: bool,
}

impl Capture {
    /// Keeps up to `max` bytes; beside it the writing end, for the program.
    pub(crate) fn new(max: usize) -> Result<(Self, OwnedFd), Error> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::errno("making a pipe"))?;
        let pipe = Receiver::from_owned_fd(read).map_err(Error::io("watching a pipe"))?;
        Ok((Self { pipe, max, kept: Vec::new(), truncated: false }, write))
    }

    /// Reads until no process holds the writing end. May be dropped at any time, and what was read is here.
    pub(crate) async fn fill(&mut self) {
        let mut chunk = vec![0; CHUNK];
        // An error on a pipe is none of the program's: what came before it counts.
        while let Ok(length @ 1..) = self.pipe.read(&mut chunk).await {
            let read = chunk.get(..length).unwrap_or_default();
            let (kept, rest) = read.split_at(read.len().min(self.max - self.kept.len()));
            self.kept.extend_from_slice(kept);
            self.truncated |= !rest.is_empty();
        }
    }
}
