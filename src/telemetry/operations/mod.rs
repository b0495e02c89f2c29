//! Listener for operators: `/metrics` for Prometheus, `/health/live` and `/health/ready` for orchestrators and load
//! balancers, and the description of the HTTP interface. Separate from the listener for clients, so that a reverse proxy does not publish it. Changes nothing but the run
//! directory, which the check of readiness creates again if it has disappeared.

mod gauges;
mod health;
mod homeserver_metrics;
mod page;
mod process;
mod reminder;
mod store_metrics;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use prometheus_client::{
    encoding::prometheus_text::{CONTENT_TYPE, encode},
    registry::Registry,
};
use tokio::sync::Semaphore;

pub use crate::config::sections::operations::Settings;
pub use gauges::Gauges;
pub use health::Health;

use crate::http::{ConnectionLimits, listener::Listener, server};

/// Description of the HTTP interface of all listeners (`OpenAPI` 3.1).
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Common prefix of the paths of probes.
const PROBE_PREFIX: &str = "/health/";

/// Maximum number of connections: enough for Prometheus and probes, too few to affect the service.
const MAX_CONNECTIONS: usize = 32;

/// Maximum number of connections with a request other than a probe. One connection is reserved for probes.
const MAX_UNRESERVED: usize = MAX_CONNECTIONS - 1;

/// `idle` limits blocked writes only: each response closes its connection.
const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    header: Duration::from_secs(2),
    idle: Duration::from_secs(10),
    min_rate: 4 << 10,
};

/// Serves until dropped. Reminds in the log that the service is not ready, while that lasts.
pub async fn serve(listener: Listener, mut registry: Registry, gauges: Gauges) {
    let health = gauges.health.clone();
    let address =
        listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
    let reminder = reminder::remind(health.clone(), move |reason| {
        tracing::warn!(reason, %address, "still not ready, see /health/ready");
    });
    registry.register_collector(Box::new(gauges));
    let state = Arc::new(OperationsState { registry, health });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "alive\n" }))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(openapi))
        .with_state(state);
    let unreserved = Arc::new(Semaphore::new(MAX_UNRESERVED));
    let services = |_| connection_service(routes.clone(), Arc::clone(&unreserved));
    // Requests to this listener are not recorded in the service's metrics.
    let (unregistered, never) = (Arc::default(), std::future::pending());
    let limits = || CONNECTION_LIMITS;
    let server = server::serve(listener, services, MAX_CONNECTIONS, limits, &unregistered, never);
    tokio::join!(server, reminder);
}

/// Returns the service of one connection. Each response closes the connection: probes and scrapes are rare, and idle
/// connections would occupy connections that others need.
fn connection_service(
    routes: Router,
    unreserved: Arc<Semaphore>,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send {
    let routes = TowerToHyperService::new(routes);
    // Held until the connection closes.
    let held = Arc::new(OnceLock::new());
    service_fn(move |request: Request| {
        let is_probe = request.uri().path().starts_with(PROBE_PREFIX);
        let may_run = is_probe
            || Arc::clone(&unreserved).try_acquire_owned().map(|permit| held.set(permit)).is_ok();
        let response = may_run.then(|| routes.call(request));
        async move {
            let mut response = match response {
                Some(response) => response.await?,
                None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            };
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
    })
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

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn ready(State(state): State<Arc<OperationsState>>) -> Response {
    match state.health.not_ready_reason() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_place_is_reserved_for_probes() {
        let routes = Router::new()
            .route("/metrics", get(std::future::pending::<&str>))
            .route("/health/live", get(|| async { "alive" }));
        let unreserved = Arc::new(Semaphore::new(MAX_UNRESERVED));
        let connect = || connection_service(routes.clone(), Arc::clone(&unreserved));
        let request = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
        let status = async |service: &dyn Fn(Request) -> _, path: &str| {
            let response: Result<Response, Infallible> = service(request(path)).await;
            response.unwrap().status()
        };
        let mut busy = Vec::new();
        for _ in 0..MAX_UNRESERVED {
            let connection = connect();
            let mut response = Box::pin(connection.call(request("/metrics")));
            assert!(response.as_mut().now_or_never().is_none());
            busy.push((connection, response));
        }
        let last = connect();
        let call = |request| last.call(request);
        assert_eq!(status(&call, "/metrics").await, 503);
        assert_eq!(status(&call, "/health/live").await, 200);
        // The permit is released with the connection, not with the response.
        let (connection, response) = busy.pop().unwrap();
        drop(response);
        assert_eq!(status(&call, "/none").await, 503);
        drop(connection);
        assert_eq!(status(&call, "/none").await, 404);
    }
}
