//! Sending and receiving messages in the helper and its children.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{self, Packet};
use crate::protocol::{decode, encode};

/// The server has closed the socket or violated the protocol. In both cases the helper ends the job.
pub(super) struct Disconnected;

/// Receives the next message; blocks. Returns `None` at end-of-file.
pub(super) fn receive_message<M: DeserializeOwned>(
    channel: BorrowedFd<'_>,
) -> Result<Option<(M, Vec<OwnedFd>)>, Disconnected> {
    loop {
        match channel::receive(channel) {
            Ok(Some(Packet { bytes, fds })) => {
                return decode(&bytes)
                    .map(|message| Some((message, fds)))
                    .map_err(|_| Disconnected);
            }
            Ok(None) => return Ok(None),
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(channel, PollFlags::POLLIN)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return Err(Disconnected),
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return Err(Disconnected),
        }
    }
}

/// Sends a message without blocking: the server reads every reply before the next request, so the socket has space.
pub(super) fn reply(
    channel: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Disconnected> {
    let packet = encode(message).map_err(|_| Disconnected)?;
    channel::send(channel, &packet, fds).map_err(|_| Disconnected)
}
