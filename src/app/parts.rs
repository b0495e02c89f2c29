//! Objects that are built from a configuration at startup and at each reload.

use std::sync::Arc;

use tokio::sync::watch;

use super::sandbox_env::SandboxEnv;
use crate::{
    config::Config,
    http::{AppState, RequestSettings},
    incident::OutboxStatus,
    keys::{Keyring, RequestKey},
    media::{Authoriser, Homeservers, spool::Spool},
    metrics::Metrics,
    scan::{
        Pipeline, ScanContext, Scanner,
        cache::ResultCache,
        canary::{Canary, CanaryState},
        decisions::DecisionKeeper,
        engines::{self, RemoteEngines, slots::ScanSlots},
        recent::RecentScans,
        report::PlainMediaObserver,
    },
    single_flight::SingleFlight,
    telemetry::{
        audit::{AuditLog, UserHasher},
        job_records,
        request_audit::{PendingLines, RequestAudit},
    },
};

/// Creates the clients of engines on sockets, and requests their versions. Engines that do not answer have no version
/// yet.
pub async fn remote_engines(
    config: &Config,
) -> Result<Arc<RemoteEngines>, engines::EngineSetupError> {
    let remote_engines = RemoteEngines::new(&config.scan.engines)?;
    remote_engines.read_versions().await;
    Ok(Arc::new(remote_engines))
}

/// Creates the context for scans of local files, which run one program at a time.
pub fn scan_context(
    config: &Config,
    sandbox_env: &SandboxEnv,
    remote_engines: &Arc<RemoteEngines>,
) -> Result<ScanContext, engines::EngineSetupError> {
    let scan_slots = ScanSlots::new(1, config.scan.slow_after);
    Ok(ScanContext {
        engines: sandbox_env.engines(config, &scan_slots, remote_engines)?,
        settings: config.scan.clone(),
        sandbox: sandbox_env.sandbox.clone(),
        spool: sandbox_env.spool(config),
        max_size: config.download.max_size,
    })
}

pub(super) fn canary(
    config: &Config,
    sandbox_env: &SandboxEnv,
    remote_engines: &Arc<RemoteEngines>,
) -> Result<Option<Canary>, engines::EngineSetupError> {
    let Some(settings) = config.scan.canary.clone() else { return Ok(None) };
    let context = scan_context(config, sandbox_env, remote_engines)?;
    Ok(Some(Canary::new(context, settings)))
}

/// Objects that are created once and survive reloads.
pub(super) struct Shared {
    pub(super) spool: Spool,
    pub(super) scan_slots: ScanSlots,
    pub(super) canary: watch::Receiver<CanaryState>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Option<AuditLog>,
    pub(super) pending_lines: PendingLines,
    pub(super) decisions: DecisionKeeper,
    pub(super) recent: Arc<RecentScans>,
    pub(super) plain_media_observer: Option<PlainMediaObserver>,
    pub(super) outbox: Option<OutboxStatus>,
}

impl Shared {
    /// Returns the pipeline for a configuration.
    pub(super) fn pipeline(
        &self,
        config: &Config,
        sandbox_env: &SandboxEnv,
        homeservers: &Arc<Homeservers>,
        remote_engines: &Arc<RemoteEngines>,
        cache: ResultCache,
        key: &RequestKey,
    ) -> Result<Pipeline, engines::EngineSetupError> {
        let audit = self.request_audit(config, homeservers, key);
        let all_responses = config.audit.all_responses;
        let (max_size, ttl) = (config.download.max_size, config.download.authorisation_ttl);
        let context = ScanContext {
            engines: sandbox_env.engines(config, &self.scan_slots, remote_engines)?,
            settings: config.scan.clone(),
            sandbox: sandbox_env.sandbox.clone(),
            spool: self.spool.with_bounds(config.scan.max_spool_size, max_size),
            max_size,
        };
        Ok(Pipeline {
            context,
            homeservers: Arc::clone(homeservers),
            authoriser: Arc::new(Authoriser::new(Arc::clone(homeservers), ttl)),
            canary: self.canary.clone(),
            cache,
            decisions: self.decisions.clone(),
            scans: SingleFlight::new(),
            plain_media_observer: self.plain_media_observer.clone(),
            answer_observer: audit
                .clone()
                .filter(|_| all_responses)
                .map(job_records::answer_observer),
            job_observer: job_records::observer(Arc::clone(&self.metrics), audit),
            recent: Arc::clone(&self.recent),
        })
    }

    /// Returns how requests are written to the audit log, if there is one.
    fn request_audit(
        &self,
        config: &Config,
        homeservers: &Arc<Homeservers>,
        key: &RequestKey,
    ) -> Option<RequestAudit> {
        let log = self.audit.clone()?;
        let hasher = || key.derive(UserHasher::derive);
        Some(RequestAudit::new(log, &config.audit, hasher, homeservers, &self.pending_lines))
    }

    /// Returns the state for requests.
    pub(super) fn state(
        &self,
        config: &Config,
        scanner: Scanner,
        homeservers: Arc<Homeservers>,
        keys: Keyring,
    ) -> AppState {
        AppState {
            scanner,
            homeservers,
            keys: Arc::new(keys),
            settings: Arc::new(RequestSettings::new(&config.web, &config.download)),
            limits: config.web.connection_limits(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}
