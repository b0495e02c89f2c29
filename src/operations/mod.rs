//! A listener for the operator alone: `/metrics` for Prometheus, `/health/live` and `/health/ready` for
//! whoever starts, restarts and routes to this service. Apart from the contract's listener, so that no
//! reverse proxy ever publishes it. Knows the scanner's state; changes nothing.

mod gauges;
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
use tokio::{sync::watch, time::Instant};

pub use gauges::Gauges;

use crate::{
    http::{Limits, Listen, listener::Listener, server},
    scan::canary::CanaryState,
};

/// Far more than Prometheus and probes need, far fewer than would disturb the service.
const MAX_CONNECTIONS: usize = 32;

const LIMITS: Limits =
    Limits { header: Duration::from_secs(10), idle: Duration::from_secs(60), min_rate: 4 << 10 };

/// `[operations]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Listen,
}

/// Whether requests may be sent here.
#[derive(Clone, Debug)]
pub struct Health {
    /// What the canary says of the script.
    pub canary: watch::Receiver<CanaryState>,
    /// The end of the grace time, once the service stops.
    pub stopping: watch::Receiver<Option<Instant>>,
}

impl Health {
    /// Why none should, if none should.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        if self.stopping.borrow().is_some() {
            return Some("the service is stopping".to_owned());
        }
        match &*self.canary.borrow() {
            CanaryState::Passed => None,
            CanaryState::Awaited => Some("the canary's first answer is awaited".to_owned()),
            CanaryState::Failed(why) => Some(format!("the canary's answer is wrong: {why}")),
        }
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: Listener, mut registry: Registry, gauges: Gauges) {
    let health = gauges.health.clone();
    registry.register_collector(Box::new(gauges));
    let state = Arc::new(Shared { registry, health });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(ready))
        .with_state(state);
    // What is asked here is counted for nobody.
    let (nobody, never) = (Arc::default(), std::future::pending());
    let routes = |_| TowerToHyperService::new(routes.clone());
    server::serve(listener, routes, MAX_CONNECTIONS, || LIMITS, &nobody, never).await;
}

struct Shared {
    registry: Registry,
    health: Health,
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.health.refusal() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_while_the_canary_lives_and_it_does_not_stop() {
        let (canary, canary_seen) = watch::channel(CanaryState::Awaited);
        let (stopping, stopping_seen) = watch::channel(None);
        let health = Health { canary: canary_seen, stopping: stopping_seen };
        assert_eq!(health.refusal().unwrap(), "the canary's first answer is awaited");
        canary.send_replace(CanaryState::Failed("x".into()));
        assert_eq!(health.refusal().unwrap(), "the canary's answer is wrong: x");
        canary.send_replace(CanaryState::Passed);
        assert_eq!(health.refusal(), None);
        stopping.send_replace(Some(Instant::now()));
        assert_eq!(health.refusal().unwrap(), "the service is stopping");
    }
}
