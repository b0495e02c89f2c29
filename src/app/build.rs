//! Builds the service: each object once, in the order of their dependencies.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::JoinSet};

use super::{
    drain::StopTokens,
    error::StartError,
    incidents::{RunningIncidents, start_incidents},
    limits::raise_descriptor_limit,
    listen::{listen, listen_for_changes, listen_for_operators},
    notices::{log_configuration, log_key_notice, log_sandbox},
    parts::{Shared, canary, remote_engines},
    reload::{CanaryTask, Reload, Reloader},
    sandbox_env::SandboxEnv,
    service_manager::{PassedSocket, ServiceManager},
    store::StoreOpening,
    supervision::ObservedState,
};
use crate::{
    admin::Admin,
    config::Config,
    http::{CurrentState, listener::Listener},
    keys::{Keyring, RequestKey},
    media::Homeservers,
    metrics::Metrics,
    scan::{
        Scanner,
        cache::{ResultCache, VerdictRecords},
        canary::CanaryState,
        engines::slots::ScanSlots,
    },
    telemetry::{
        audit::{AuditError, AuditLog},
        operations::{Gauges, Health},
        request_audit::PendingLines,
    },
};

/// Service manager, and the socket that it passed.
#[derive(Debug)]
pub struct ServiceContext {
    /// Receives status notifications.
    pub manager: ServiceManager,
    /// Listening socket that replaces the address in `[web]`.
    pub socket: Option<PassedSocket>,
}

/// The service with its workers and its canary running, and with open listeners from which nothing is accepted yet.
pub(super) struct Service {
    pub(super) listener: Listener,
    pub(super) current: CurrentState,
    pub(super) workers: JoinSet<()>,
    pub(super) reloader: Reloader,
    pub(super) operations: Operations,
    pub(super) observed_state: ObservedState,
    pub(super) stop: StopTokens,
    /// Closed last.
    pub(super) store: Option<VerdictRecords>,
}

/// What operators see and change: the listeners, if configured, and the metrics.
pub(super) struct Operations {
    pub(super) listener: Option<Listener>,
    pub(super) admin: Option<Admin>,
    pub(super) registry: Registry,
    pub(super) gauges: Gauges,
    /// End before the store is closed.
    pub(super) incident_workers: JoinSet<()>,
}

impl Service {
    pub(super) async fn build(
        config: Config,
        context: ServiceContext,
        reload: Reload,
    ) -> Result<Self, StartError> {
        let (ServiceContext { manager, socket }, stop) = (context, StopTokens::default());
        raise_descriptor_limit(config.web.max_connections, config.scan.workers)?;
        manager.set_status("Starting: probing the sandbox");
        let (key, notices) = RequestKey::load(&config.crypto)?;
        notices.iter().for_each(log_key_notice);
        let store_opening = StoreOpening::start(config.store.clone(), &key);
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let homeservers =
            Arc::new(Homeservers::new(&config.download, Arc::clone(&metrics.homeservers))?);
        let remote_engines = remote_engines(&config).await?;
        let sandbox_env = SandboxEnv::for_service(&config).await?;
        log_configuration(&config);
        log_sandbox(&sandbox_env.sandbox);
        let audit = start_audit(&config, &metrics)?;
        let canary = canary(&config, &sandbox_env, &remote_engines)?;
        let (mut canary_task, canary_state) =
            CanaryTask::new(canary.is_some(), config.operations.as_ref());
        let store = store_opening.finish().await?;
        let mut incidents = start_incidents(&config, &store, &metrics, audit.as_ref())?;
        let shared = Shared {
            spool: sandbox_env.spool(&config),
            scan_slots: ScanSlots::new(config.scan.max_scripts, config.scan.slow_after),
            canary: canary_state.clone(),
            metrics,
            audit,
            pending_lines: PendingLines::default(),
            decisions: store.decisions.clone(),
            recent: Arc::default(),
            plain_media_observer: incidents.observer.clone(),
            outbox: incidents.status.clone(),
        };
        let cache = ResultCache::with_records(config.result_cache.clone(), store.records.clone());
        let replica_cache = cache.clone();
        let pipeline =
            shared.pipeline(&config, &sandbox_env, &homeservers, &remote_engines, cache, &key)?;
        let (scanner, workers) = Scanner::start(pipeline);
        canary_task.start(canary, scanner.clone());
        let keys = Keyring::new(key, config.previous_key_ttl);
        let current = CurrentState::new(shared.state(&config, scanner.clone(), homeservers, keys));
        let store = store.follow_replicas(replica_cache, &current).await;
        incidents.start_rescans(&current, stop.stopping.clone());
        let listener = listen(&config.web.listen, socket).await?;
        let operations =
            operations(&config, &shared, &current, &stop, &sandbox_env, registry, incidents)
                .await?;
        let observed_state = observed_state(&current, canary_state, &stop);
        let reloader = Reloader {
            reload,
            running: config,
            current: current.clone(),
            sandbox_env,
            shared,
            canary: canary_task,
            manager,
            admin_tokens: operations.admin.as_ref().map(|admin| admin.tokens.clone()),
        };
        Ok(Self { listener, current, workers, reloader, operations, observed_state, stop, store })
    }
}

fn start_audit(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<AuditLog>, AuditError> {
    let destination = config.audit.path.clone();
    destination.map(|destination| AuditLog::start(destination, Arc::clone(metrics))).transpose()
}

/// Listens for operators.
async fn operations(
    config: &Config,
    shared: &Shared,
    current: &CurrentState,
    stop: &StopTokens,
    sandbox_env: &SandboxEnv,
    registry: Registry,
    incidents: RunningIncidents,
) -> Result<Operations, StartError> {
    let health = Health {
        canary: shared.canary.clone(),
        stopping: stop.stopping.clone(),
        run_directory: Arc::clone(&sandbox_env.directory),
    };
    Ok(Operations {
        listener: listen_for_operators(config.operations.as_ref()).await?,
        admin: listen_for_changes(
            config.admin.as_ref(),
            shared.audit.as_ref(),
            &health,
            incidents.admin,
        )
        .await?,
        registry,
        gauges: Gauges {
            current: current.clone(),
            health,
            max_connections: config.web.max_connections,
            has_store: config.store.is_some(),
            incidents: incidents.status,
        },
        incident_workers: incidents.workers,
    })
}

fn observed_state(
    current: &CurrentState,
    canary: watch::Receiver<CanaryState>,
    stop: &StopTokens,
) -> ObservedState {
    let current = current.clone();
    let load = Box::new(move || current.load().scanner.load());
    ObservedState { load, canary, stopping: stop.stopping.clone() }
}
