//! Listener for operators' requests that show and change stored verdicts: a socket of its own, off by default. Each request
//! needs a token, because a sandboxed script may reach the socket, and may have the service's user.

mod decisions;
mod error;
mod failures;
mod guard;
mod handlers;
pub mod protocol;
mod query;
mod state;
pub mod token;
mod views;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;

pub use crate::config::sections::admin::Settings;
pub use token::{AdminToken, TokenError};

use crate::{
    http::{ConnectionLimits, CurrentState, Peer, listener::Listener, server},
    telemetry::audit::AuditLog,
};
use failures::FailureLimit;
use guard::RequestGuard;
use state::AdminState;

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 16;

/// `idle` limits blocked writes only: each response closes its connection.
const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    header: Duration::from_secs(2),
    idle: Duration::from_secs(10),
    min_rate: 4 << 10,
};

/// What the listener needs.
pub struct Admin {
    pub listener: Listener,
    pub token: AdminToken,
    /// See [`Settings::hosts`].
    pub hosts: Vec<String>,
    pub audit: AuditLog,
}

/// Serves until dropped.
pub async fn serve(admin: Admin, current: CurrentState) {
    let Admin { listener, token, hosts, audit } = admin;
    let guard = Arc::new(RequestGuard { token, hosts, failures: FailureLimit::default() });
    let routes = handlers::routes(AdminState { current, audit });
    let services = |peer| connection_service(routes.clone(), Arc::clone(&guard), peer);
    // Requests to this listener are not recorded in the service's metrics.
    let (unregistered, never) = (Arc::default(), std::future::pending());
    server::serve(listener, services, MAX_CONNECTIONS, || CONNECTION_LIMITS, &unregistered, never)
        .await;
}

/// Returns the service of one connection. Each response closes the connection, because requests are rare.
fn connection_service(
    routes: Router,
    guard: Arc<RequestGuard>,
    peer: Peer,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send {
    let routes = TowerToHyperService::new(routes);
    service_fn(move |mut request: Request| {
        let checked = guard.check(&request, peer);
        request.extensions_mut().insert(peer);
        let response = checked.map(|()| routes.call(request));
        async move {
            let mut response = match response {
                Ok(response) => response.await?,
                Err(error) => error.into_response(),
            };
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
    })
}
