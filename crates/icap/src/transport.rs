//! Connections that the caller supplies.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// A TCP connection, or TLS over one.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Opens connections to one server.
pub trait Connect: Sync {
    /// Opens a connection. Limits the time for it.
    ///
    /// # Errors
    /// No connection, or one that TLS does not accept.
    fn connect(&self) -> impl Future<Output = io::Result<Box<dyn Transport>>> + Send;
}
