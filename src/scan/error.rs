//! Why a scan comes to no verdict, and whose affair that is. Knows nothing of how it is told to clients.

use super::{engines, script};
use crate::media::FetchError;

/// Why there is no verdict. Shared by all who waited for it.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The media could not be fetched, or the homeserver does not let this requester have it.
    #[error("the media could not be fetched")]
    Fetch(#[source] FetchError),
    /// The ciphertext is not the one that the client's hash names.
    #[error("the ciphertext's SHA-256 is not the one given")]
    HashMismatch,
    /// Clients with a 64-bit counter and clients with a 128-bit counter would decrypt the media to two
    /// plaintexts.
    #[error("the low 64 bits of iv would wrap within the media: more than {limit} bytes")]
    CounterWraps {
        /// Bytes before the wrap.
        limit: u64,
    },
    /// The canary's last answer was wrong, or is awaited: nothing is scanned.
    #[error("the canary's answer is wrong or awaited")]
    NotReady,
    /// The queue is full.
    #[error("the queue is full")]
    Overloaded,
    /// `scan.max_spool_size` is used up.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// `scan.deadline` passed.
    #[error("the deadline passed while the job was {0}")]
    Deadline(Phase),
    /// The script ran and gave no verdict.
    #[error("the script failed")]
    Script(#[source] script::ScriptFailure),
    /// Another engine gave none.
    #[error("the engine {0} failed")]
    Engine(&'static str, #[source] engines::EngineFailure),
    /// The contents need a password, and `scan.on_encrypted` is "fail".
    #[error("the contents need a password: {0}")]
    Encrypted(String),
    /// Every engine was skipped.
    #[error("no engine had a word on the media: each was skipped")]
    NobodyAsked,
    /// The sandbox refused, or its helper died.
    #[error("the sandbox failed")]
    Sandbox(#[source] mcs_sandbox::Error),
    /// The disk failed: full, read-only, gone.
    #[error("a file could not be read or written")]
    Disk(#[source] std::io::Error),
    /// A worker panicked over this job.
    #[error("the worker panicked")]
    Panicked,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// Where a job was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
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
    /// One word for it, of a fixed list; for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.cause(),
            Self::HashMismatch => "hash_mismatch",
            Self::CounterWraps { .. } => "counter_wraps",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::SpoolFull => "spool_full",
            Self::Deadline(Phase::Queued) => "deadline_queued",
            Self::Deadline(Phase::Downloading) => "deadline_downloading",
            Self::Deadline(Phase::Scanning) => "deadline_scanning",
            Self::Script(script::ScriptFailure::TimedOut) => "script_timeout",
            Self::Script(script::ScriptFailure::Signaled(_)) => "script_signal",
            Self::Script(script::ScriptFailure::FailureExitCode(_)) => "script_exit_code",
            Self::Engine(_, error) => error.cause(),
            Self::Encrypted(_) => "encrypted",
            Self::NobodyAsked => "nobody_asked",
            Self::Sandbox(_) => "sandbox",
            Self::Disk(_) => "disk",
            Self::Panicked => "panicked",
            Self::Stopping => "stopping",
        }
    }

    /// Whether a failure from before the homeserver gave a media out tells others nothing, so that
    /// the next of them asks in their own name.
    ///
    /// What a homeserver answers may hang on the token, the forwarded headers and `timeout_ms` of the
    /// one who asked: a 429 is theirs, so is the 500 for a token that is no text, and who waits one
    /// millisecond for an upload hears that it is not there. A place in the queue, and the time spent
    /// there, are their lane's. What is left is the same for all: nobody was there to ask, or the
    /// fault is ours.
    pub(super) fn is_its_senders_alone(&self) -> bool {
        match self {
            // Not a connection that was closed on a request: the next may be more to the server's taste.
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
            | Self::NobodyAsked
            | Self::Sandbox(_)
            | Self::Disk(_)
            | Self::Panicked
            | Self::Stopping => false,
            Self::Fetch(_) | Self::Overloaded | Self::Deadline(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{media::homeserver::Homeservers, scan::queue};

    fn alone(error: FetchError) -> bool {
        ScanError::Fetch(error).is_its_senders_alone()
    }

    #[test]
    fn what_a_requester_may_have_brought_about_is_theirs_alone() {
        for status in [400, 403, 429] {
            assert!(alone(FetchError::Refused { status, retry_after: None }));
        }
        assert!(alone(FetchError::MissingToken) && alone(FetchError::UnknownToken));
        assert!(alone(FetchError::NotFound) && alone(FetchError::NotYetUploaded));
        assert!(alone(FetchError::TimedOut("no answer")));
        assert!(alone(FetchError::Upstream { status: 500 }));
        // Told before who may have the media is.
        assert!(alone(FetchError::TooLarge { limit: 1 }));
        assert!(alone(FetchError::Unreachable("closed on the request".into())));
        assert!(ScanError::Overloaded.is_its_senders_alone());
        assert!(ScanError::Deadline(Phase::Queued).is_its_senders_alone());
    }

    #[test]
    fn what_metrics_count_from_the_start_are_causes() {
        let disk = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let causes = [
            ScanError::NotReady,
            ScanError::Overloaded,
            ScanError::SpoolFull,
            ScanError::Deadline(Phase::Queued),
            ScanError::Deadline(Phase::Scanning),
            ScanError::Script(script::ScriptFailure::TimedOut),
            ScanError::Script(script::ScriptFailure::Signaled(9)),
            ScanError::Script(script::ScriptFailure::FailureExitCode(2)),
            ScanError::Sandbox(mcs_sandbox::Error::Undispatched),
            ScanError::Disk(disk()),
            ScanError::Panicked,
        ];
        assert_eq!(causes.map(|error| error.cause()), crate::metrics::OUR_CAUSES);
    }

    #[tokio::test]
    async fn what_would_befall_anybody_is_told_to_all() {
        assert!(!alone(FetchError::ForbiddenAddress("10.0.0.1".to_owned())));
        assert!(!ScanError::Stopping.is_its_senders_alone());

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let closing = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
            }
        });
        assert!(alone(unreachable(&base).await), "closed on the request");
        closing.abort();
        assert!(closing.await.unwrap_err().is_cancelled());
        assert!(!alone(unreachable(&base).await), "nobody listens");
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
        let mut request = queue::tests::request("a.example", None).fetch;
        request.origin = crate::media::Origin::Configured(Arc::new(base));
        let error = homeservers.unwrap().open(&request).await.unwrap_err();
        assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
        error
    }
}
