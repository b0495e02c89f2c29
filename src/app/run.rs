//! Runs the service until it is stopped.

use std::{sync::Arc, time::Duration};

use mcs_filetype::Detector;
use mcs_sandbox::{EffectiveLimits, Mode, Sandbox};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{info, warn};

use super::{
    build::{SandboxEnv, Shared, canary, log_key_notice, remote_engines, unknown_types},
    drain::{CLEANUP_TIMEOUT, drain, wait_for_cleanup},
    error::StartError,
    limits::raise_descriptor_limit,
    reload::{CanaryTask, Reload, Reloader},
    service_manager::{PassedSocket, ServiceManager},
    supervision::{self, ObservedState},
};
use crate::{
    audit::AuditLog,
    config::Config,
    http::{self, CurrentState, Listen, listener::Listener},
    keys::{Keyring, RequestKey},
    media::Homeservers,
    metrics::Metrics,
    scan::{Scanner, cache::ResultCache, canary::CanaryState, engines::slots::ScanSlots},
    telemetry::operations::{self, Gauges, Health},
};

/// Time limit for running scans and requests after the stop signal.
pub const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Service manager, and the socket that it passed.
#[derive(Debug)]
pub struct ServiceContext {
    /// Receives status notifications.
    pub manager: ServiceManager,
    /// Listening socket that replaces the address in `[web]`.
    pub socket: Option<PassedSocket>,
}

/// Runs the service until `shutdown` completes, then waits at most [`GRACE_PERIOD`] for running requests and scans.
/// Reloads the configuration on each notification of `reload`.
///
/// # Errors
/// [`StartError`]; only before the first connection is accepted.
pub async fn serve(
    config: Config,
    context: ServiceContext,
    reload: Reload,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let ServiceContext { manager, socket } = context;
    raise_descriptor_limit(config.web.max_connections, config.scan.workers)?;
    manager.set_status("Starting: probing the sandbox");
    let (key, notices) = RequestKey::load(&config.crypto)?;
    notices.iter().for_each(log_key_notice);
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let homeservers = Arc::new(Homeservers::new(&config.download, Arc::clone(&metrics))?);
    let remote_engines = remote_engines(&config).await?;
    // Concurrently: these two steps take most of the time to start.
    let detector = async { Detector::load().await.map_err(StartError::from) };
    let (sandbox_env, detector) = tokio::try_join!(SandboxEnv::for_service(&config), detector)?;
    let detector = Arc::new(detector);
    for name in unknown_types(&config, &detector) {
        warn!(name, "MIME type in [scan] is never detected");
    }
    log_sandbox(&sandbox_env.sandbox, &config.sandbox.mode);
    let audit =
        config.audit.clone().map(|settings| AuditLog::start(settings, Arc::clone(&metrics)));
    let audit = audit.transpose()?;
    let initial =
        if config.scan.canary.is_some() { CanaryState::Pending } else { CanaryState::Passed };
    let (canary_sender, canary_state) = watch::channel(initial);
    let canary = canary(&config, &sandbox_env, &detector, &remote_engines)?;
    let shared = Shared {
        spool: sandbox_env.spool(&config),
        scan_slots: ScanSlots::new(config.scan.max_scripts, config.scan.slow_after),
        detector,
        canary: canary_state.clone(),
        metrics: Arc::clone(&metrics),
        audit,
    };
    let (scanner, workers) = Scanner::start(shared.pipeline(
        &config,
        &sandbox_env,
        &homeservers,
        &remote_engines,
        ResultCache::new(config.result_cache.clone()),
    )?);
    let mut canary_task = CanaryTask { state: canary_sender, task: None };
    canary_task.start(canary, scanner.clone());
    let keys = Keyring::new(key, config.previous_key_ttl);
    let current = CurrentState::new(shared.state(&config, scanner.clone(), homeservers, keys));
    let routes = http::routes::Routes::new(current.clone());
    let max_connections = config.web.max_connections;
    let listener = listen(&config.web.listen, socket).await?;
    let run_directory = Arc::clone(&sandbox_env.directory);
    let mut reloader = Reloader {
        reload,
        running: config,
        current: current.clone(),
        sandbox_env,
        shared,
        canary: canary_task,
        manager: manager.clone(),
    };
    let stopping = watch::Sender::new(None);
    let gauges = Gauges {
        current: current.clone(),
        health: Health {
            canary: canary_state.clone(),
            stopping: stopping.subscribe(),
            run_directory,
        },
        max_connections,
    };
    let observed_state = ObservedState {
        load: Box::new({
            let current = current.clone();
            move || current.load().scanner.load()
        }),
        canary: canary_state,
        stopping: stopping.subscribe(),
    };
    let operations = reloader.running.operations.clone();
    // Aborted when this function returns.
    let _background_tasks =
        start_background_tasks(operations, registry, gauges, &manager, observed_state).await?;
    let stop = begin_stop(shutdown, &manager, &stopping);
    let grace_ends = grace_period_ends(stopping.subscribe());
    let limits = || current.load().limits;
    let select_routes = |peer| routes.for_peer(peer);
    let serving =
        http::server::serve(listener, select_routes, max_connections, limits, &metrics, stop);
    tokio::select! {
        () = serving => {}
        () = reloader.run(stopping.subscribe()) => {}
        () = grace_ends => warn!("grace period expired, aborting requests"),
    }
    let end = stopping.borrow().unwrap_or_else(Instant::now);
    drain(&scanner, workers, end).await;
    reloader.canary.stop().await;
    wait_for_cleanup(&reloader.sandbox_env.directory).await;
    if let Some(audit) = &reloader.shared.audit {
        audit.flush(CLEANUP_TIMEOUT).await;
    }
    info!("stopped");
    Ok(())
}

/// Starts the operator's listener, if configured, and the reports to the service manager, if the process has one.
async fn start_background_tasks(
    settings: Option<operations::Settings>,
    registry: Registry,
    gauges: Gauges,
    manager: &ServiceManager,
    observed_state: ObservedState,
) -> Result<JoinSet<()>, StartError> {
    let mut tasks = JoinSet::new();
    if let Some(settings) = settings {
        tasks.spawn(operations(settings, registry, gauges).await?);
    }
    if manager.is_connected() {
        tasks.spawn(supervision::run(manager.clone(), observed_state));
    }
    Ok(tasks)
}

/// Waits for `shutdown`, then starts the grace period.
async fn begin_stop(
    shutdown: impl Future<Output = ()>,
    manager: &ServiceManager,
    stopping: &watch::Sender<Option<Instant>>,
) {
    shutdown.await;
    manager.notify_stopping();
    info!(
        grace_seconds = GRACE_PERIOD.as_secs(),
        "stopping, waiting for running requests and scans"
    );
    stopping.send_replace(Some(Instant::now() + GRACE_PERIOD));
}

/// Waits for the end of the grace period, which begins when the service stops.
async fn grace_period_ends(mut stopping: watch::Receiver<Option<Instant>>) {
    if let Ok(end) = stopping.wait_for(Option::is_some).await.map(|end| *end) {
        tokio::time::sleep_until(end.unwrap_or_else(Instant::now)).await;
    }
}

pub(super) fn log_sandbox(sandbox: &Sandbox, mode: &Mode) {
    let (layers, helper) = (sandbox.layers(), sandbox.helper().display());
    info!(%layers, %helper, "the sandbox is active");
    let EffectiveLimits { limits, notes, .. } = sandbox.limits();
    let (processes, open_files) = (limits.processes, limits.open_files);
    info!(?processes, ?open_files, "limits of each job");
    for note in notes {
        warn!("{note}");
    }
    if *mode == Mode::Degraded {
        warn!("sandbox.mode is degraded: missing sandbox layers are ignored");
    }
}

/// Listens on the passed socket, or on the address in `[web]`.
async fn listen(address: &Listen, passed: Option<PassedSocket>) -> Result<Listener, StartError> {
    if passed.is_some() {
        info!(
            "using the socket passed by the service manager, ignoring web.host, web.port and web.socket"
        );
    }
    let listener = match passed {
        None => Listener::bind(address).await?,
        Some(PassedSocket::Tcp(socket)) => {
            Listener::from_std_tcp(socket).map_err(StartError::PassedSocket)?
        }
        Some(PassedSocket::Unix(socket)) => {
            Listener::from_std_unix(socket).map_err(StartError::PassedSocket)?
        }
    };
    match listener.local_addr() {
        Ok(address) => info!(%address, "listening"),
        Err(error) => warn!(%error, "listening on an unknown address"),
    }
    Ok(listener)
}

/// Listens for operators. The returned future serves metrics and health until it is dropped.
async fn operations(
    settings: operations::Settings,
    registry: Registry,
    gauges: Gauges,
) -> Result<impl Future<Output = ()>, StartError> {
    let listener = Listener::bind(&settings.listen).await.map_err(StartError::Operations)?;
    match listener.local_addr() {
        Ok(address) => info!(%address, "serving metrics and health"),
        Err(error) => warn!(%error, "serving metrics and health on an unknown address"),
    }
    Ok(operations::serve(listener, registry, gauges))
}
