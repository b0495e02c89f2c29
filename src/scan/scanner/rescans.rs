//! Scans of media that was served before, because the engines have changed. No client waits for them.

use std::sync::Arc;

use tokio::time::timeout;

use super::Scanner;
use crate::scan::{
    cache::{ContentKey, MediaKey},
    content_state::ContentState,
    engines::{EngineState, ListedFile},
    error::{Phase, ScanError},
    job::JobOutcome,
    request::ScanRequest,
};

/// File for testing whether engines give verdicts.
const PROBE: &[u8] = b"matrix-content-scanner: do the engines give verdicts?\n";

impl Scanner {
    /// Returns the state of the engines. `None` if a version is not known, or the engines may not scan because the canary has
    /// not passed.
    pub async fn engine_state(&self) -> Option<EngineState> {
        if !self.pipeline.is_ready() {
            return None;
        }
        self.pipeline.context.engines.identity().await?.state()
    }

    /// Returns what is known about a content. Takes nothing over into memory from the store.
    pub async fn content_state(&self, content: &[u8; 32]) -> ContentState {
        let engines = &self.pipeline.context.engines;
        match (self.pipeline.decisions.decisions().find(content), engines.listed(content)) {
            (None, Some(ListedFile::Blocked(_))) => return ContentState::Blocked,
            (None, None) => {}
            _ => return ContentState::Known,
        }
        let Some(identity) = engines.identity().await else { return ContentState::Unknown };
        let key =
            ContentKey { content: *content, engines_fingerprint: identity.engines_fingerprint };
        let policies = engines.policies();
        if self.pipeline.cache.has_outcome(&key, identity.versions, policies).await {
            ContentState::Known
        } else {
            ContentState::Unknown
        }
    }

    /// Downloads media and scans it, unless its content has a verdict. Joins the job of a client for the same media.
    ///
    /// Cancellation safe, as [`scan`](Self::scan).
    ///
    /// # Errors
    /// The error of the job.
    pub async fn rescan(&self, request: &ScanRequest) -> Result<JobOutcome, Arc<ScanError>> {
        let key = MediaKey::from_request(request);
        // The end of a job is later by what follows the scan.
        let limit = 2 * self.pipeline.context.settings.deadline;
        loop {
            let mut waiter = self.in_flight.join_or_start(&self.queue, key, request)?;
            let Ok(ended) = timeout(limit, waiter.ended()).await else {
                return Err(Arc::new(ScanError::Deadline(Phase::Queued)));
            };
            match ended {
                // Of the token of a client.
                Err(error) if !waiter.is_initiator && error.is_requester_specific() => {}
                ended => return ended,
            }
        }
    }

    /// Returns whether each engine gives a verdict on a small file.
    pub async fn engines_work(&self) -> bool {
        let context = &self.pipeline.context;
        for name in context.engines.names() {
            let engine = context.engines.with_only(name);
            if context.scan_with(&engine, PROBE, PROBE.len() as u64).await.is_err() {
                return false;
            }
        }
        self.pipeline.is_ready()
    }
}
