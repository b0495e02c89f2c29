//! Connections that the caller supplies.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A TCP connection, or TLS over one.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Asks the system for unread bytes. The runtime may not have noticed bytes that arrived a moment ago.
    fn unread(&self) -> Unread;
}

/// Unread bytes on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// The connection is open, and nothing was sent.
    Nothing,
    /// The server has sent bytes.
    Bytes,
    /// The server has closed the connection, or the connection has failed.
    End,
}

impl Transport for TcpStream {
    fn unread(&self) -> Unread {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.as_fd().as_raw_fd(), &mut [0], flags) {
            Ok(0) => Unread::End,
            Ok(_) => Unread::Bytes,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Unread::Nothing,
            Err(_) => Unread::End,
        }
    }
}

impl Transport for TlsStream<TcpStream> {
    fn unread(&self) -> Unread {
        self.get_ref().0.unread()
    }
}

/// Opens connections to one server.
pub trait Connect: Sync {
    /// Opens a connection. Limits the time for it.
    ///
    /// # Errors
    /// No connection, or one that TLS does not accept.
    fn connect(&self) -> impl Future<Output = io::Result<Box<dyn Transport>>> + Send;
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;
    use crate::connection::Connection;

    #[tokio::test]
    async fn finds_bytes_that_the_runtime_has_not_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for has_bytes in [true, false] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let mut connection = Connection::new(Box::new(stream));
            assert_eq!(connection.unread(), Unread::Nothing);
            // Blocking, so that the runtime does not poll its sockets until the last check.
            if has_bytes {
                server.write_all(b"x").unwrap();
                assert_eq!(connection.unread(), Unread::Bytes);
            } else {
                drop(server);
                assert_eq!(connection.unread(), Unread::End);
            }
        }
    }
}
