//! Why an engine says nothing, of one media or of any.

use std::io;

/// Why an engine has no word on a media.
#[derive(Debug, thiserror::Error)]
pub enum EngineFailure {
    /// Beyond `max_size`, and `larger` is "fail".
    #[error("the media is larger than the {limit} bytes that it may be asked about")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// No server took the connection.
    #[error("it cannot be reached")]
    Unreachable(#[source] io::Error),
    /// `timeout` passed.
    #[error("it took longer than its time limit")]
    TimedOut,
    /// The connection ended before the answer did.
    #[error("its answer broke off")]
    CutShort(#[source] Option<io::Error>),
    /// A verdict on a part of the media.
    #[error("it had a verdict before it had the media")]
    Early,
    /// It says itself that it could not tell.
    #[error("it says: {0}")]
    Said(String),
    /// Not an answer.
    #[error("its answer makes no sense: {0}")]
    NoSense(String),
    /// The media could not be read.
    #[error("the media cannot be read")]
    Media(#[source] io::Error),
    /// A program without a place to be run in.
    #[error("it was not asked")]
    NotAsked,
}

impl EngineFailure {
    /// One word for it, of a fixed list; for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "engine_too_large",
            Self::Unreachable(_) => "engine_unreachable",
            Self::TimedOut => "engine_timeout",
            Self::CutShort(_) => "engine_cut_short",
            Self::Early | Self::NoSense(_) => "engine_no_sense",
            Self::Said(_) => "engine_error",
            Self::Media(_) => "disk",
            Self::NotAsked => "engine_not_asked",
        }
    }
}

/// Why engines cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Of an engine that is listed.
    #[error("the engine {0} is listed, and what it is made of is not there")]
    Missing(&'static str),
    /// A URL of `icap.urls`.
    #[error("icap.urls: {0} has no host that TLS can be spoken with")]
    NoHost(String),
    /// For `icaps`.
    #[error("icap.urls: icaps cannot be spoken")]
    Tls(#[from] crate::media::SetupError),
}
