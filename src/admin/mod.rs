//! Listener for operators' requests that show and change stored verdicts: a socket of its own, off by default. Each request
//! to the API needs a token, because a sandboxed script may reach the socket, and may have the service's user. The operator
//! page needs a session, which the token opens.

mod decisions;
mod error;
mod failures;
mod forget;
mod guard;
mod handlers;
mod incidents;
mod page;
pub mod protocol;
mod query;
mod release;
mod rescan;
mod state;
pub mod token;
mod token_list;
mod views;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;

pub use crate::config::sections::admin::Settings;
pub use token::{AdminTokenList, AdminTokens, TokenError};

use crate::{
    http::{ConnectionLimits, CurrentState, Peer, listener::Listener, server},
    incident::IncidentAdmin,
    telemetry::{audit::AuditLog, operations::Health},
};
use failures::FailureLimit;
use guard::RequestGuard;
use page::{PageError, PageState};
use state::AdminState;

/// Maximum number of connections. A browser uses six at a time.
const MAX_CONNECTIONS: usize = 32;

/// `idle` limits blocked writes only: each response closes its connection.
const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    header: Duration::from_secs(2),
    idle: Duration::from_secs(10),
    min_rate: 4 << 10,
};

/// Interval of the samples of the load for the plots.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Prefix of the API's paths. All others belong to the operator page.
const API_PREFIX: &str = "/v1/";

/// Headers of all responses, errors included. Scripts, styles and pictures come from this listener only, forms are sent to
/// it only, and no page may embed it.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
];

/// What the listener needs.
pub struct Admin {
    pub listener: Listener,
    pub tokens: AdminTokens,
    /// See [`Settings::hosts`].
    pub hosts: Vec<String>,
    pub audit: AuditLog,
    pub health: Health,
    /// `None` if no incidents are created.
    pub incidents: Option<IncidentAdmin>,
}

/// Serves until dropped.
pub async fn serve(admin: Admin, current: CurrentState) {
    let Admin { listener, tokens, hosts, audit, health, incidents } = admin;
    let guard = Arc::new(RequestGuard { tokens, hosts, failures: FailureLimit::default() });
    let state = Arc::new(AdminState { current: current.clone(), audit, incidents });
    let page = PageState::new(Arc::clone(&state), Arc::clone(&guard), health);
    let routes = AdminRoutes { api: handlers::routes(state), page: page::routes(page) };
    let services = |peer| connection_service(&routes, Arc::clone(&guard), peer);
    // Requests to this listener are not recorded in the service's metrics.
    let (unregistered, never) = (Arc::default(), std::future::pending());
    let serving = server::serve(
        listener,
        services,
        MAX_CONNECTIONS,
        || CONNECTION_LIMITS,
        &unregistered,
        never,
    );
    tokio::join!(serving, sample_load(current));
}

/// Samples the load for the plots until dropped.
async fn sample_load(current: CurrentState) {
    loop {
        let scanner = current.load().scanner.clone();
        let load = scanner.load();
        scanner.recent().sample(load.waiting, load.busy);
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

struct AdminRoutes {
    api: Router,
    page: Router,
}

/// Returns the service of one connection. Each response closes the connection, because requests are rare.
fn connection_service(
    routes: &AdminRoutes,
    guard: Arc<RequestGuard>,
    peer: Peer,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + use<> {
    let api = TowerToHyperService::new(routes.api.clone());
    let page = TowerToHyperService::new(routes.page.clone());
    service_fn(move |mut request: Request| {
        let is_api = request.uri().path().starts_with(API_PREFIX);
        let checked = if is_api {
            guard.check_api(&request, peer).map(|token| {
                request.extensions_mut().insert(token);
            })
        } else {
            guard.check_page(&request)
        };
        request.extensions_mut().insert(peer);
        let response =
            checked.map(|()| if is_api { api.call(request) } else { page.call(request) });
        async move {
            let mut response = match response {
                Ok(response) => response.await?,
                Err(error) if is_api => error.into_response(),
                Err(error) => PageError::from(error).into_response(),
            };
            let headers = response.headers_mut();
            for (name, value) in SECURITY_HEADERS {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
    })
}
