//! Failures of engines, of the script, and of their setup.

use std::io;

use crate::{cause::Cause, exhaustion::is_exhaustion};

/// Reason why an engine gave no verdict on a file.
#[derive(Debug, thiserror::Error)]
pub enum EngineFailure {
    /// No server accepted a connection.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// The backlog of the server's socket is full: more connections wait than the server accepts, connect(2). Without
    /// the error of the system, which would look like a lack of this service's own resources.
    #[error("too many connections wait for the engine to accept them")]
    Busy,
    /// The evaluator of rules, or its process for the file, was not started.
    #[error("cannot start the evaluator")]
    NotStarted(#[source] io::Error),
    /// The engine's `timeout` expired.
    #[error("the time limit expired")]
    TimedOut,
    /// The connection ended before the response did.
    #[error("connection lost before the response was complete")]
    ConnectionLost(#[source] Option<io::Error>),
    /// A verdict on a part of the file.
    #[error("verdict sent before the whole file was received")]
    PrematureVerdict,
    /// The engine reported a failure.
    #[error("engine reported: {0}")]
    Reported(String),
    /// The response does not follow the protocol.
    #[error("invalid response: {0}")]
    BadResponse(String),
    /// The file could not be read.
    #[error("cannot read the file")]
    Media(#[source] io::Error),
    /// An engine that needs a sandbox job was called without one.
    #[error("the engine was not run")]
    NotRun,
}

impl EngineFailure {
    /// Returns whether the engine, or this machine, lacks resources at the moment. That says nothing about the file, and
    /// not that the engine is unavailable.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Busy) || is_exhaustion(self)
    }

    /// Returns the cause, for metrics.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unreachable(_) | Self::NotStarted(_) => Cause::EngineUnreachable,
            Self::Busy => Cause::EngineBusy,
            Self::TimedOut => Cause::EngineTimeout,
            Self::ConnectionLost(_) => Cause::EngineConnectionLost,
            Self::PrematureVerdict | Self::BadResponse(_) => Cause::EngineBadResponse,
            Self::Reported(_) => Cause::EngineError,
            Self::Media(_) => Cause::Disk,
            Self::NotRun => Cause::EngineNotRun,
        }
    }
}

/// Reason why a script that ran gave no verdict.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptFailure {
    /// `scan.timeout` expired.
    #[error("the time limit expired")]
    TimedOut,
    /// A signal terminated the script.
    #[error("terminated by signal {0}")]
    Signaled(i32),
    /// An exit code in `scan.failure_exit_codes`.
    #[error("exit code {0}, which scan.failure_exit_codes lists")]
    FailureExitCode(i32),
}

/// Reason why engines could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineSetupError {
    /// A configured engine lacks its settings or its program.
    #[error("the engine {0} is configured, but its settings or its program are missing")]
    Missing(&'static str),
    /// A URL of `icap.urls` without a host name that TLS can verify.
    #[error("icap.urls: {0} has no host name or address that is valid for TLS")]
    NoHost(String),
    /// TLS for `icaps` URLs could not be set up.
    #[error("icap.urls: cannot set up TLS for icaps")]
    Tls(#[from] crate::media::OutboundSetupError),
}
