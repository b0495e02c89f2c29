//! Errors of scans. The HTTP module maps them to responses.

use std::sync::Arc;

use super::engines::error::{EngineFailure, ScriptFailure};
use crate::media::{FetchError, ingest::IngestError};

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
    /// The contents need a password, and `scan.on_encrypted` is "fail". Contains what is encrypted.
    #[error("the contents need a password: {0}")]
    Encrypted(String),
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
    /// Returns the value of the metrics label `cause`, from a fixed list.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.cause(),
            Self::Authorisation(error) => error.cause(),
            Self::HashMismatch => "hash_mismatch",
            Self::CounterWraps { .. } => "counter_wraps",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::SpoolFull => "spool_full",
            Self::Deadline(Phase::Queued) => "deadline_queued",
            Self::Deadline(Phase::Downloading) => "deadline_downloading",
            Self::Deadline(Phase::Scanning) => "deadline_scanning",
            Self::Script(ScriptFailure::TimedOut) => "script_timeout",
            Self::Script(ScriptFailure::Signaled(_)) => "script_signal",
            Self::Script(ScriptFailure::FailureExitCode(_)) => "script_exit_code",
            Self::Engine(_, error) => error.cause(),
            Self::Encrypted(_) => "encrypted",
            Self::NoEngine => "no_engine",
            Self::Sandbox(_) => "sandbox",
            Self::Disk(_) => "disk",
            Self::Panicked => "panicked",
            Self::Stopping => "stopping",
        }
    }

    /// Returns whether a failure before the homeserver granted the media may be specific to the initiator of the job,
    /// so that another waiting request retries with its own token.
    ///
    /// The homeserver's response may depend on the token, the forwarded headers and `timeout_ms` of the request: a 429
    /// is for one user, a malformed token may cause a 500, and a request that waits one millisecond for an upload gets
    /// "not yet uploaded". The wait in the queue depends on the tenant. All other failures are the same for all
    /// requests: the homeserver cannot be reached, or the fault is in this service.
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
            | Self::SpoolFull
            | Self::Script(_)
            | Self::Engine(..)
            | Self::Encrypted(_)
            | Self::NoEngine
            | Self::Sandbox(_)
            | Self::Disk(_)
            | Self::Panicked
            | Self::Stopping => false,
            Self::Fetch(_) | Self::Authorisation(_) | Self::Overloaded | Self::Deadline(_) => true,
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
    use std::{sync::Arc, time::Duration};

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
        assert!(is_requester_specific(FetchError::Upstream { status: 500 }));
        // Occurs before the homeserver grants the media.
        assert!(is_requester_specific(FetchError::TooLarge { limit: 1 }));
        assert!(is_requester_specific(FetchError::Unreachable("closed after the request".into())));
        assert!(ScanError::Overloaded.is_requester_specific());
        assert!(ScanError::Deadline(Phase::Queued).is_requester_specific());
    }

    #[test]
    fn metrics_list_the_causes_of_server_faults() {
        let disk = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let causes = [
            ScanError::NotReady,
            ScanError::Overloaded,
            ScanError::SpoolFull,
            ScanError::Deadline(Phase::Queued),
            ScanError::Deadline(Phase::Scanning),
            ScanError::Script(ScriptFailure::TimedOut),
            ScanError::Script(ScriptFailure::Signaled(9)),
            ScanError::Script(ScriptFailure::FailureExitCode(2)),
            ScanError::Sandbox(mcs_sandbox::Error::HelperNotFound),
            ScanError::Disk(disk()),
            ScanError::Panicked,
        ];
        assert_eq!(causes.map(|error| error.cause()), crate::metrics::SERVER_FAULT_CAUSES);
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
            homeservers: Vec::new(),
            proxy: None,
            additional_headers: reqwest::header::HeaderMap::new(),
            headers_to_forward: Vec::new(),
            forward_client_address: false,
            max_size: 1,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(10),
            min_rate: 0,
            allow_private_addresses: false,
            ca_certificates: None,
            authorisation_ttl: Duration::ZERO,
        };
        let homeservers = Homeservers::new(&settings, Arc::default());
        let mut request = ScanRequest::for_test("a.example", None).fetch;
        request.origin = crate::media::Origin::Configured(Arc::new(base));
        let error = homeservers.unwrap().open(&request).await.unwrap_err();
        assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
        error
    }
}
