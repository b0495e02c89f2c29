//! Errors of scans. The HTTP module maps them to responses.

use std::sync::Arc;

use super::engines::error::{EngineFailure, ScriptFailure};
use crate::{
    cause::Cause,
    exhaustion::is_exhaustion,
    media::{FetchError, ingest::IngestError},
};

/// Reason why there is no verdict. Shared by all requests that waited for the same job.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The download failed, or the homeserver denied the requester access.
    #[error("the media could not be fetched")]
    Fetch(#[source] FetchError),
    /// The homeserver denied access to cached media, or could not be asked.
    #[error("the requester could not be authorised")]
    Authorisation(#[source] Arc<FetchError>),
    /// The ciphertext does not match the hash in the client's request.
    #[error("the ciphertext does not match its SHA-256")]
    HashMismatch,
    /// Clients with a 64-bit counter and clients with a 128-bit counter would decrypt the media to different
    /// plaintexts.
    #[error("the low 64 bits of iv would wrap within the media: more than {limit} bytes")]
    CounterWraps {
        /// Size before the wrap, bytes.
        limit: u64,
    },
    /// The latest run of the canary failed, or the first has not finished. No file is scanned.
    #[error("the canary has not passed")]
    NotReady,
    #[error("the queue is full")]
    Overloaded,
    /// `scan.max_spool_size` is used up.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// `scan.deadline` expired.
    #[error("the deadline passed while the job was {0}")]
    Deadline(Phase),
    /// The script ran and gave no verdict.
    #[error("the script failed")]
    Script(#[source] ScriptFailure),
    /// An engine other than the script gave no verdict.
    #[error("the engine {0} failed")]
    Engine(&'static str, #[source] EngineFailure),
    /// Type and encryption of the file could not be determined.
    #[error("the file could not be inspected")]
    Inspection(#[source] EngineFailure),
    /// The contents need a password, and `scan.on_encrypted` is "fail". Contains what is encrypted.
    #[error("the contents need a password: {0}")]
    Encrypted(String),
    /// An engine stopped at a limit inside the file, and `scan.on_limit` is "fail". Contains the limit.
    #[error("an engine stopped at a limit inside the file: {0}")]
    Limit(String),
    /// An engine could not read contents, and `unpack.on_unreadable` is "fail". Contains the reason.
    #[error("contents cannot be read: {0}")]
    Unreadable(String),
    /// Programs would unpack different contents, and `unpack.on_inconsistent` is "fail". Contains the reason.
    #[error("programs would unpack different contents: {0}")]
    Inconsistent(String),
    /// The file exceeds the limit of an engine for whole files, and the engine's `on_oversize` is "fail", or no other
    /// engine has finished. Contains the engine.
    #[error("the file is too large for the engine {0}")]
    Oversize(&'static str),
    #[error("no engine gave a verdict: all were skipped")]
    NoEngine,
    /// The sandbox could not prepare or run a job, or its helper ended.
    #[error("the sandbox failed")]
    Sandbox(#[source] mcs_sandbox::Error),
    /// A disk that is full or read-only, for example.
    #[error("a file could not be read or written")]
    Disk(#[source] std::io::Error),
    /// The job panicked.
    #[error("the worker panicked")]
    Panicked,
    #[error("the service is stopping")]
    Stopping,
}

/// Phase of a job when its deadline expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Queued,
    Downloading,
    Scanning,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Scanning => "scanning",
        })
    }
}

impl ScanError {
    /// Returns the cause, for metrics.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            _ if is_exhaustion(self) => Cause::NoResources,
            Self::Fetch(error) => error.cause(),
            Self::Authorisation(error) => error.cause(),
            Self::HashMismatch => Cause::HashMismatch,
            Self::CounterWraps { .. } => Cause::CounterWraps,
            Self::NotReady => Cause::NotReady,
            Self::Overloaded => Cause::Overloaded,
            Self::SpoolFull => Cause::SpoolFull,
            Self::Deadline(Phase::Queued) => Cause::DeadlineQueued,
            Self::Deadline(Phase::Downloading) => Cause::DeadlineDownloading,
            Self::Deadline(Phase::Scanning) => Cause::DeadlineScanning,
            Self::Script(ScriptFailure::TimedOut) => Cause::ScriptTimeout,
            Self::Script(ScriptFailure::Signaled(_)) => Cause::ScriptSignal,
            Self::Script(ScriptFailure::FailureExitCode(_)) => Cause::ScriptExitCode,
            Self::Engine(_, error) | Self::Inspection(error) => error.cause(),
            Self::Encrypted(_) => Cause::Encrypted,
            Self::Limit(_) => Cause::Limit,
            Self::Unreadable(_) => Cause::Unreadable,
            Self::Inconsistent(_) => Cause::Inconsistent,
            Self::Oversize(_) => Cause::EngineTooLarge,
            Self::NoEngine => Cause::NoEngine,
            Self::Sandbox(_) => Cause::Sandbox,
            Self::Disk(_) => Cause::Disk,
            Self::Panicked => Cause::Panicked,
            Self::Stopping => Cause::Stopping,
        }
    }

    /// Returns whether the failure passes and does not depend on the content: a lack of resources of this service, or an
    /// engine that accepts no more connections.
    pub(super) fn is_overload(&self) -> bool {
        is_exhaustion(self) || matches!(self, Self::Engine(_, EngineFailure::Busy))
    }

    /// Returns whether the failure may be specific to the tenant of the job's initiator: the tenant's share of the spool
    /// or of the queue is used up. A waiting request of another tenant then retries with a job of its own.
    pub(super) fn is_tenant_specific(&self) -> bool {
        matches!(self, Self::Overloaded | Self::SpoolFull | Self::Deadline(Phase::Queued))
    }

    /// Returns whether a failure before the homeserver granted the media may be specific to the initiator of the job,
    /// so that another waiting request retries with its own token.
    ///
    /// The homeserver's response may depend on the token, the forwarded headers and `timeout_ms` of the request: a 429
    /// is for one user, a malformed token may cause a 500, and a request that waits one millisecond for an upload gets
    /// "not yet uploaded". The wait in the queue and the share of the spool depend on the tenant. All other failures are
    /// the same for all requests: the homeserver cannot be reached, or the fault is in this service.
    pub(super) fn is_requester_specific(&self) -> bool {
        match self {
            // A server that closed the connection after it received the request may accept the next request.
            Self::Fetch(FetchError::Unreachable(cause)) => {
                !cause.downcast_ref().is_some_and(reqwest::Error::is_connect)
            }
            Self::Fetch(FetchError::ForbiddenAddress(_))
            | Self::NotReady
            | Self::HashMismatch
            | Self::CounterWraps { .. }
            | Self::Script(_)
            | Self::Engine(..)
            | Self::Inspection(_)
            | Self::Encrypted(_)
            | Self::Limit(_)
            | Self::Unreadable(_)
            | Self::Inconsistent(_)
            | Self::Oversize(_)
            | Self::NoEngine
            | Self::Sandbox(_)
            | Self::Disk(_)
            | Self::Panicked
            | Self::Stopping => false,
            Self::Fetch(_)
            | Self::Authorisation(_)
            | Self::Overloaded
            | Self::SpoolFull
            | Self::Deadline(_) => true,
        }
    }
}

impl From<IngestError> for ScanError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::HashMismatch => Self::HashMismatch,
            IngestError::CounterWraps { limit } => Self::CounterWraps { limit },
            IngestError::SpoolFull => Self::SpoolFull,
            IngestError::Disk(error) => Self::Disk(error),
            IngestError::TooLarge { limit } => Self::Fetch(FetchError::TooLarge { limit }),
        }
    }
}

impl From<FetchError> for ScanError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Ingest(error) => error.into(),
            error => Self::Fetch(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{media::homeserver::Homeservers, scan::request::ScanRequest};

    fn is_requester_specific(error: FetchError) -> bool {
        ScanError::Fetch(error).is_requester_specific()
    }

    #[test]
    fn failures_that_depend_on_the_request_are_requester_specific() {
        for status in [400, 403, 429] {
            assert!(is_requester_specific(FetchError::Refused { status, retry_after: None }));
        }
        assert!(
            is_requester_specific(FetchError::MissingToken)
                && is_requester_specific(FetchError::UnknownToken)
        );
        assert!(
            is_requester_specific(FetchError::NotFound)
                && is_requester_specific(FetchError::NotYetUploaded)
        );
        assert!(is_requester_specific(FetchError::TimedOut("no answer")));
        assert!(is_requester_specific(FetchError::Upstream { status: 500, retry_after: None }));
        // Occurs before the homeserver grants the media.
        assert!(is_requester_specific(FetchError::TooLarge { limit: 1 }));
        assert!(is_requester_specific(FetchError::Unreachable("closed after the request".into())));
        assert!(ScanError::Overloaded.is_requester_specific());
        assert!(ScanError::SpoolFull.is_requester_specific(), "the share of the tenant");
        assert!(ScanError::Deadline(Phase::Queued).is_requester_specific());
    }

    #[test]
    fn exhaustion_of_descriptors_has_a_cause_of_its_own() {
        let no_descriptor = || std::io::Error::from_raw_os_error(nix::libc::EMFILE);
        let unreachable = FetchError::Unreachable(no_descriptor().into());
        let engine = EngineFailure::Unreachable(no_descriptor());
        for error in [
            ScanError::Disk(no_descriptor()),
            ScanError::Authorisation(Arc::new(FetchError::Unreachable(no_descriptor().into()))),
            ScanError::Fetch(unreachable),
            ScanError::Engine("clamd", engine),
        ] {
            assert_eq!(error.cause(), Cause::NoResources, "{error:?}");
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(ScanError::Disk(full).cause(), Cause::Disk);
    }

    #[tokio::test]
    async fn other_failures_are_shared() {
        assert!(!is_requester_specific(FetchError::ForbiddenAddress("10.0.0.1".to_owned())));
        assert!(!ScanError::Stopping.is_requester_specific());

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let closing = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
            }
        });
        assert!(is_requester_specific(unreachable(&base).await), "closed after the request");
        closing.abort();
        assert!(closing.await.unwrap_err().is_cancelled());
        assert!(!is_requester_specific(unreachable(&base).await), "connection refused");
    }

    async fn unreachable(base: &str) -> FetchError {
        let base: reqwest::Url = base.parse().unwrap();
        let settings = crate::media::Settings {
            base_homeserver_url: Some(base.clone()),
            ..crate::config::Config::for_test().download
        };
        let homeservers = Homeservers::new(&settings, Arc::default());
        let mut request = ScanRequest::for_test("a.example", None).fetch;
        request.origin = crate::media::Origin::Configured(Arc::new(base));
        let error = homeservers.unwrap().open(&request).await.unwrap_err();
        assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
        error
    }
}
