//! Errors of exchanges with a server.

use std::io;

use crate::message::Malformed;

/// Reason why a server gave no answer about a file.
#[derive(Debug, thiserror::Error)]
pub enum IcapError {
    /// The server did not accept a connection.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// The connection ended before the response did.
    #[error("connection lost before the response was complete")]
    ConnectionLost(#[source] Option<io::Error>),
    /// An answer that relies on the rest of the file, about a part of the file.
    #[error("answer sent before the whole file was received")]
    PrematureAnswer,
    /// The server reported a failure.
    #[error("server reported: {0}")]
    Reported(String),
    /// The response does not follow the protocol.
    #[error("invalid response: {0}")]
    BadResponse(String),
    /// The file could not be read.
    #[error("cannot read the file")]
    Content(#[source] io::Error),
}

impl IcapError {
    pub(crate) fn bad_response(reason: &str) -> Self {
        Self::BadResponse(reason.to_owned())
    }

    pub(crate) fn connection_lost(error: io::Error) -> Self {
        Self::ConnectionLost(Some(error))
    }
}

impl From<Malformed> for IcapError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::bad_response(reason)
    }
}
