//! Runs the service until it is stopped.

use std::sync::Arc;

use tokio::{task::JoinSet, time::sleep};
use tracing::{info, warn};

use super::{
    build::{Operations, Service, ServiceContext},
    drain::{CLEANUP_TIMEOUT, drain, wait_for_cleanup},
    error::StartError,
    reload::Reload,
    supervision,
};
use crate::{
    admin,
    config::Config,
    http::{CurrentState, routes::Routes, server},
    media::CHECK_INTERVAL,
    telemetry::operations,
};

/// Runs the service until `shutdown` completes with the name of a signal, then waits at most
/// [`super::GRACE_PERIOD`] for running requests and scans. Reloads the configuration on each notification of `reload`.
///
/// # Errors
/// [`StartError`]; only before the first connection is accepted.
pub async fn serve(
    config: Config,
    context: ServiceContext,
    reload: Reload,
    shutdown: impl Future<Output = &'static str> + Send + 'static,
) -> Result<(), StartError> {
    // Boxed, since both futures are large.
    let service = Box::pin(Service::build(config, context, reload)).await?;
    Box::pin(run(service, shutdown)).await;
    Ok(())
}

async fn run(service: Service, shutdown: impl Future<Output = &'static str> + Send + 'static) {
    let Service { listener, current, workers, stop, observed_state, store, .. } = service;
    let (mut reloader, operations) = (service.reloader, service.operations);
    let manager = &reloader.manager;
    let metrics = Arc::clone(&reloader.shared.metrics);
    // Aborted when this function returns.
    let mut background_tasks = JoinSet::new();
    let Operations { listener: operations, admin, registry, gauges, mut incident_workers } =
        operations;
    if let Some(listener) = operations {
        background_tasks.spawn(operations::serve(listener, registry, gauges));
    }
    if let Some(admin) = admin {
        background_tasks.spawn(admin::serve(admin, current.clone()));
    }
    background_tasks.spawn(check_homeservers(current.clone()));
    // Without a service manager as well: logs overdue workers, and keeps a blocking thread alive.
    background_tasks.spawn(supervision::run(manager.clone(), observed_state));
    background_tasks.spawn(stop.clone().run(shutdown, manager.clone()));
    let routes = Routes::new(current.clone());
    let serving = server::serve(
        listener,
        |peer| routes.for_peer(peer),
        reloader.running.web.max_connections,
        || current.load().limits,
        &metrics,
        stop.stopping.cancelled(),
    );
    tokio::select! {
        () = serving => {}
        () = reloader.run(&stop.stopping) => {}
        () = stop.expired.cancelled() => warn!("grace period expired, aborting requests"),
    }
    // All scanners since the start have the same queue and workers.
    let scanner = current.load().scanner.clone();
    drain(&scanner, workers, &stop.expired).await;
    reloader.canary.stop().await;
    reloader.sandbox_env.evaluator.stop().await;
    // At the same time, since the service manager waits for a limited time.
    let flush_audit = async {
        if let Some(audit) = &reloader.shared.audit {
            reloader.shared.pending_lines.finish().await;
            audit.flush(CLEANUP_TIMEOUT).await;
        }
    };
    let close_store = async {
        // The outbox keeps what they have not done.
        incident_workers.shutdown().await;
        if let Some(store) = store {
            store.close().await;
        }
    };
    tokio::join!(wait_for_cleanup(&reloader.sandbox_env.directory), flush_audit, close_store);
    info!("stopped");
}

/// Checks periodically whether the configured homeservers are reachable.
async fn check_homeservers(current: CurrentState) {
    loop {
        sleep(CHECK_INTERVAL).await;
        let homeservers = Arc::clone(&current.load().homeservers);
        homeservers.check_reachability(CHECK_INTERVAL).await;
    }
}
