//! The scanner: authorises a request, answers from the cache, or waits for a job.

mod operators;
mod rescans;

use std::{pin::pin, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use mcs_sandbox::Sandbox;
use reqwest::header::HeaderValue;
use tokio::{task::JoinSet, time::timeout};

use super::{
    cache::{self, MediaKey, ResultCache, VerdictRecords},
    cached_media::{CachedMedia, MediaHeaders},
    engines::{Engines, RemoteEngines},
    error::{Phase, ScanError},
    in_flight::{InFlightScans, Waiter},
    job::JobOutcome,
    pipeline::Pipeline,
    queue::Queue,
    report::AnswerReport,
    request::{ScanRequest, Wants},
    response::{Media, ResponseSource, ScanResponse, Timings},
    verdict::Verdict,
    worker,
    worker_activity::WorkerActivity,
};
use crate::media::Body;

/// `Content-Type` of media that the homeserver serves without one.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// The scanner that the HTTP handlers call. Its settings do not change; a reload creates another scanner with the same
/// workers and the same cache. Cheap to clone.
#[derive(Clone)]
pub struct Scanner {
    pipeline: Arc<Pipeline>,
    queue: Queue,
    activity: Arc<WorkerActivity>,
    in_flight: InFlightScans,
}

/// Current load of the workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerLoad {
    /// Workers with a job.
    pub busy: usize,
    /// Busy workers whose job should have been finished already: they are stuck.
    pub overdue: usize,
    /// All workers.
    pub workers: usize,
    /// Jobs in the queue.
    pub waiting: usize,
}

/// Current use of disk and memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScannerUsage {
    /// Used part of the spool's budget, bytes.
    pub spool_used: u64,
    /// The spool's budget, bytes.
    pub spool_capacity: u64,
    /// Sizes of the cache.
    pub cache: cache::CacheSizes,
}

/// Returns whether the job failed for a reason specific to the tenant of its initiator.
fn failed_for_its_tenant(outcome: &Result<JobOutcome, Arc<ScanError>>) -> bool {
    let error = match outcome {
        Ok(outcome) => outcome.verdict.as_ref().err(),
        Err(error) => Some(error),
    };
    error.is_some_and(|error| error.is_tenant_specific())
}

impl Scanner {
    /// Creates a scanner and starts its workers. The workers end after [`Scanner::close`], when all queued jobs are
    /// done. Dropping them ends them at once; the sandbox then kills the programs that they run.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(pipeline: Pipeline) -> (Self, JoinSet<()>) {
        let settings = &pipeline.context.settings;
        let queue = Queue::new(settings.queue_capacity, settings.workers);
        let activity = Arc::new(WorkerActivity::new(2 * settings.workers));
        let workers = worker::start(settings.workers, &queue, &activity);
        (Self::new(pipeline, queue, activity), workers)
    }

    /// Creates the scanner that replaces this one after a reload: another pipeline, same queue and workers. This
    /// scanner finishes the requests that it has accepted.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn with_pipeline(&self, pipeline: Pipeline) -> Self {
        let settings = &pipeline.context.settings;
        let scan_slots = pipeline.context.engines.scan_slots();
        scan_slots.change(settings.max_scripts, settings.slow_after);
        Self::new(pipeline, self.queue.clone(), Arc::clone(&self.activity))
    }

    fn new(pipeline: Pipeline, queue: Queue, activity: Arc<WorkerActivity>) -> Self {
        tokio::spawn(RemoteEngines::poll_versions(
            Arc::downgrade(pipeline.context.engines.remote_engines()),
            pipeline.context.settings.version_interval,
        ));
        let pipeline = Arc::new(pipeline);
        let worker_pipeline = Arc::clone(&pipeline);
        let work = move |job| -> BoxFuture<'static, ()> {
            let pipeline = Arc::clone(&worker_pipeline);
            Box::pin(async move { pipeline.run_job(job).await })
        };
        let deadline = pipeline.context.settings.deadline;
        let in_flight = InFlightScans::new(deadline, Arc::new(work), pipeline.cache.clone());
        Self { pipeline, queue, activity, in_flight }
    }

    /// Returns the cache under other settings, for the pipeline after a reload.
    #[must_use]
    pub(crate) fn cache_with_settings(&self, settings: cache::Settings) -> ResultCache {
        self.pipeline.cache.with_settings(settings)
    }

    /// Rejects further jobs.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Returns the current load of the workers.
    #[must_use]
    pub fn load(&self) -> WorkerLoad {
        WorkerLoad {
            busy: self.activity.busy(),
            overdue: self.activity.overdue(Instant::now()),
            workers: self.pipeline.context.settings.workers,
            waiting: self.queue.len(),
        }
    }

    /// Returns the maximum number of waiting jobs.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.pipeline.context.settings.queue_capacity
    }

    /// Returns the sandbox that programs run in.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.pipeline.context.sandbox
    }

    /// Returns the engines.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.pipeline.context.engines
    }

    /// Returns whether a canary is configured.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        self.pipeline.context.settings.canary.is_some()
    }

    /// Returns the current use of disk and memory.
    #[must_use]
    pub fn usage(&self) -> ScannerUsage {
        let Pipeline { context, cache, .. } = &*self.pipeline;
        let spool = &context.spool;
        let (spool_used, spool_capacity) = (spool.used(), spool.capacity());
        ScannerUsage { spool_used, spool_capacity, cache: cache.sizes() }
    }

    /// Returns the stored verdicts, if there is a store.
    #[must_use]
    pub fn verdict_records(&self) -> Option<&VerdictRecords> {
        self.pipeline.cache.records()
    }

    /// Invalidates all cached verdicts, those in the store included, because an engine gave a wrong result to the canary.
    pub fn invalidate_verdicts(&self) {
        self.pipeline.cache.invalidate_verdicts();
    }

    /// Drops from memory what is in the store, because the secret of the store was replaced: what is looked up there is stored
    /// again under the new one.
    pub fn drop_stored(&self) {
        self.pipeline.cache.drop_stored();
    }

    /// Answers one request within `scan.deadline`.
    ///
    /// Cancellation safe: a request that is dropped, or that exceeds the deadline, cancels neither a job that other
    /// requests wait for nor one that a worker has taken.
    ///
    /// # Errors
    /// [`ScanError`], shared by all requests that waited for the same job.
    pub async fn scan(&self, request: &ScanRequest) -> Result<ScanResponse, Arc<ScanError>> {
        let mut waiter = None;
        let result = {
            // Pinned here because moving this large future would copy it.
            let respond = pin!(self.respond(request, &mut waiter));
            timeout(self.pipeline.context.settings.deadline, respond).await
        };
        match result {
            Ok(result) => result,
            Err(_elapsed) => {
                // Without a waiter the request was waiting for the homeserver's authorisation.
                let phase = waiter.as_ref().map_or(Phase::Downloading, Waiter::phase);
                Err(Arc::new(ScanError::Deadline(phase)))
            }
        }
    }

    /// Answers from the cache, or waits for a job. Retries when the shared job failed for a reason specific to its
    /// initiator, or returned a verdict without the body that this request needs.
    async fn respond(
        &self,
        request: &ScanRequest,
        waiter: &mut Option<Waiter>,
    ) -> Result<ScanResponse, Arc<ScanError>> {
        let key = MediaKey::from_request(request);
        loop {
            *waiter = None;
            let cached_media = self.known_media(key, request).await?;
            if let Some(cached_media) = &cached_media
                && let Some(result) = self.respond_from_cache(request, cached_media).await
            {
                self.authorise(request, cached_media.headers.etag.as_ref()).await?;
                // Only after the authorisation: the first call fixes the time that all later answers show.
                let response = result?.for_entry(cached_media);
                self.pipeline.recent.record_answer(request, cached_media, &response.verdict);
                self.report_answer(request, cached_media, &response);
                return Ok(response);
            }
            if !self.pipeline.is_ready()
                && !self.has_verdict(cached_media.as_deref()).await
                && !self.pipeline.wait_until_ready().await
            {
                return Err(Arc::new(ScanError::NotReady));
            }
            let waiter = waiter.insert(self.in_flight.join_or_start(&self.queue, key, request)?);
            if !waiter.is_initiator {
                if let Some(granted) = waiter.media_granted().await {
                    self.authorise(request, granted.etag.as_ref()).await?;
                } else {
                    match waiter.ended().await {
                        Err(error) if !error.is_requester_specific() => return Err(error),
                        _ => continue,
                    }
                }
            }
            let source =
                if waiter.has_started { ResponseSource::OwnJob } else { ResponseSource::SharedJob };
            let outcome = waiter.ended().await;
            if !waiter.is_own_tenant && failed_for_its_tenant(&outcome) {
                continue;
            }
            let JobOutcome { media, verdict, body, timings } = outcome?;
            if let Some((verdict, body)) = self.select_media(request, &media, verdict?, body) {
                let response = ScanResponse { verdict, media: body, source, timings };
                let response = response.for_entry(&media);
                self.report_answer(request, &media, &response);
                return Ok(response);
            }
            // The job served requests for the verdict alone, and its body was too large to keep. The next job downloads
            // the body again and uses the cached verdict.
        }
    }

    /// Reports an answer from memory, or from the job of another request. A job of the request's own has been reported.
    fn report_answer(
        &self,
        request: &ScanRequest,
        media: &CachedMedia,
        ScanResponse { verdict, source, .. }: &ScanResponse,
    ) {
        if let Some(observer) = &self.pipeline.answer_observer
            && *source != ResponseSource::OwnJob
        {
            observer(&AnswerReport { request, media, verdict, source: *source });
        }
    }

    /// Returns the media entry, which is taken over from the store if the requester may access the media.
    async fn known_media(
        &self,
        key: MediaKey,
        request: &ScanRequest,
    ) -> Result<Option<Arc<CachedMedia>>, Arc<ScanError>> {
        let cache = &self.pipeline.cache;
        if let Some(media) = cache.cached_media(&key) {
            return Ok(Some(media));
        }
        if let Some(recalled) = cache.recall_media(&key).await {
            self.authorise(request, recalled.media().headers.etag.as_ref()).await?;
            cache.admit_media(key, recalled);
        }
        Ok(cache.cached_media(&key))
    }

    /// Returns whether the verdict on this media is cached, so that it can be served without a scan.
    async fn has_verdict(&self, cached_media: Option<&CachedMedia>) -> bool {
        match cached_media {
            Some(cached_media) => self.pipeline.cached_verdict(cached_media).await.is_some(),
            None => false,
        }
    }

    /// Returns the response from the cache; `None` if a part of it is not cached.
    async fn respond_from_cache(
        &self,
        request: &ScanRequest,
        cached_media: &CachedMedia,
    ) -> Option<Result<ScanResponse, Arc<ScanError>>> {
        let verdict = match self.pipeline.cached_verdict(cached_media).await? {
            Ok(verdict) => verdict,
            Err(failure) => return Some(Err(failure)),
        };
        let body = match (&verdict, request.wants) {
            (Verdict::Clean { .. }, Wants::Media) => {
                self.pipeline.cache.body(&cached_media.body_hash(request)).map(Body::Memory)
            }
            _ => None,
        };
        let (verdict, media) = self.select_media(request, cached_media, verdict, body)?;
        let (source, timings) = (ResponseSource::Cache, Timings::default());
        Some(Ok(ScanResponse { verdict, media, source, timings }))
    }

    /// Returns the verdict, and the media if it was requested and is clean; `None` if that media's body is not
    /// available.
    fn select_media(
        &self,
        request: &ScanRequest,
        cached_media: &CachedMedia,
        verdict: Verdict,
        body: Option<Body>,
    ) -> Option<(Verdict, Option<Media>)> {
        let media = match (&verdict, request.wants) {
            (Verdict::Clean { .. }, Wants::Media) => Some(self.media(request, cached_media, body?)),
            _ => None,
        };
        Some((verdict, media))
    }

    fn media(&self, request: &ScanRequest, cached_media: &CachedMedia, body: Body) -> Media {
        let encrypted = request.decryption.is_some();
        let MediaHeaders { content_type: declared, disposition, .. } = &cached_media.headers;
        let essence = declared.as_ref().and_then(|value| value.to_str().ok());
        let essence = essence.unwrap_or(DEFAULT_CONTENT_TYPE);
        // The declared type of plain media must be allowed as well. Otherwise a client would handle the media as a type
        // that the lists forbid.
        let content_type = if encrypted || self.pipeline.context.settings.mime.allows(essence) {
            declared.clone()
        } else {
            // With lists, the type is always known.
            let detected = cached_media.detected.as_ref();
            detected.and_then(|detected| HeaderValue::from_str(detected.as_str()).ok())
        };
        Media {
            body,
            body_hash: cached_media.body_hash(request),
            content_type,
            disposition: disposition.clone(),
            encrypted,
        }
    }

    async fn authorise(
        &self,
        request: &ScanRequest,
        etag: Option<&HeaderValue>,
    ) -> Result<(), Arc<ScanError>> {
        let result = self.pipeline.authoriser.check(&request.fetch, etag).await;
        result.map_err(|error| Arc::new(ScanError::Authorisation(error)))
    }
}
