//! Listener for operators: `/metrics` for Prometheus, `/health/live` and `/health/ready` for orchestrators and load
//! balancers. Separate from the listener for clients, so that a reverse proxy does not publish it. Read-only.

mod gauges;
mod health;
mod process;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::service::TowerToHyperService;
use prometheus_client::{
    encoding::prometheus_text::{CONTENT_TYPE, encode},
    registry::Registry,
};

pub use gauges::Gauges;
pub use health::Health;

use crate::http::{ConnectionLimits, Listen, listener::Listener, server};

/// Maximum number of connections: enough for Prometheus and probes, too few to affect the service.
const MAX_CONNECTIONS: usize = 32;

const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    header: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    min_rate: 4 << 10,
};

/// Validated `[operations]` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub listen: Listen,
}

/// Serves until dropped.
pub async fn serve(listener: Listener, mut registry: Registry, gauges: Gauges) {
    let health = gauges.health.clone();
    registry.register_collector(Box::new(gauges));
    let state = Arc::new(OperationsState { registry, health });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(ready))
        .with_state(state);
    // Requests to this listener are not recorded in the service's metrics.
    let (unregistered, never) = (Arc::default(), std::future::pending());
    let routes = |_| TowerToHyperService::new(routes.clone());
    server::serve(listener, routes, MAX_CONNECTIONS, || CONNECTION_LIMITS, &unregistered, never)
        .await;
}

struct OperationsState {
    registry: Registry,
    health: Health,
}

async fn metrics(State(state): State<Arc<OperationsState>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(state): State<Arc<OperationsState>>) -> Response {
    match state.health.not_ready_reason() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
