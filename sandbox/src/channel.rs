//! Packets with attached descriptors over a `SOCK_SEQPACKET` socket pair: packets arrive whole or not at all, and each
//! side detects immediately that the other has closed its end. Both ends are non-blocking. unix(7), cmsg(3).

use std::io::IoSlice;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::protocol::{MAX_PACKET, decode, encode};
use crate::sys;

pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> nix::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { [].as_slice() } else { rights.as_slice() };
    // Without MSG_NOSIGNAL a closed peer would kill this process before its cleanup.
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).map(drop)
}

/// Receives a packet; `None` at end-of-file, when the peer has closed its end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Packet>> {
    // Sizes the buffer by the pending packet: most packets are small, and a buffer of maximum size would cost each
    // helper its page faults. recv(2), MSG_TRUNC.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let length = recv(socket.as_raw_fd(), &mut [], peek)?;
    let mut bytes = vec![0; length.min(MAX_PACKET)];
    let received = sys::receive_message(socket, &mut bytes)?;
    if received.is_truncated {
        return Err(Errno::EMSGSIZE);
    }
    if received.length == 0 {
        return Ok(None);
    }
    bytes.truncate(received.length);
    Ok(Some(Packet { bytes, fds: received.fds }))
}

/// The server's end of the socket.
#[derive(Debug)]
pub(crate) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, Error> {
        sys::async_fd(socket).map(Self).map_err(Error::io("polling the helper's socket"))
    }

    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let packet = encode(message)?;
        loop {
            let mut ready =
                self.0.writable().await.map_err(Error::io("polling the helper's socket"))?;
            let sent = ready.try_io(|socket| Ok(send(socket.get_ref().as_fd(), &packet, fds)?));
            match sent {
                Err(_would_block) => {}
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    return Err(match Errno::try_from(error) {
                        Ok(Errno::EPIPE | Errno::ECONNRESET) => Error::HelperExited,
                        Ok(errno) => Error::errno("writing to the helper")(errno),
                        Err(error) => Error::io("writing to the helper")(error),
                    });
                }
            }
        }
    }

    /// Receives the next message and its attached descriptors. Cancellation safe.
    pub(crate) async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), Error> {
        loop {
            let mut ready =
                self.0.readable().await.map_err(Error::io("polling the helper's socket"))?;
            match ready.try_io(|socket| Ok(receive(socket.get_ref().as_fd())?)) {
                Err(_would_block) => {}
                Ok(Ok(Some(packet))) => return Ok((decode(&packet.bytes)?, packet.fds)),
                // ECONNRESET below: the helper exited with unread data.
                Ok(Ok(None)) => return Err(Error::HelperExited),
                Ok(Err(error)) => {
                    return Err(match Errno::try_from(error) {
                        Ok(Errno::ECONNRESET) => Error::HelperExited,
                        Ok(Errno::EMSGSIZE) => Error::Protocol("a message is too long"),
                        Ok(errno) => Error::errno("reading from the helper")(errno),
                        Err(error) => Error::io("reading from the helper")(error),
                    });
                }
            }
        }
    }
}
