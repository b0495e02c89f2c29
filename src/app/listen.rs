//! Listeners for clients and for operators.

use tracing::{info, warn};

use super::{error::StartError, service_manager::PassedSocket};
use crate::{
    admin::{self, Admin, AdminTokenList, AdminTokens},
    http::{Listen, listener::Listener},
    incident::IncidentAdmin,
    telemetry::{
        audit::AuditLog,
        operations::{self, Health},
    },
};

/// Listens on the passed socket, or on the address in `[web]`.
pub(super) async fn listen(
    address: &Listen,
    passed: Option<PassedSocket>,
) -> Result<Listener, StartError> {
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

/// Listens for operators, if configured.
pub(super) async fn listen_for_operators(
    settings: Option<&operations::Settings>,
) -> Result<Option<Listener>, StartError> {
    let Some(settings) = settings else { return Ok(None) };
    let listener = Listener::bind(&settings.listen).await.map_err(StartError::Operations)?;
    match listener.local_addr() {
        Ok(address) => info!(%address, "serving metrics and health"),
        Err(error) => warn!(%error, "serving metrics and health on an unknown address"),
    }
    Ok(Some(listener))
}

/// Listens for operators' changes, if configured. Changes are recorded in the audit log, which the configuration requires
/// then.
pub(super) async fn listen_for_changes(
    settings: Option<&admin::Settings>,
    audit: Option<&AuditLog>,
    health: &Health,
    incidents: Option<IncidentAdmin>,
) -> Result<Option<Admin>, StartError> {
    let (Some(settings), Some(audit)) = (settings, audit) else { return Ok(None) };
    let tokens = AdminTokens::new(AdminTokenList::load(&settings.token_path)?);
    let listener = Listener::bind_private(&settings.listen).await.map_err(StartError::Admin)?;
    match listener.local_addr() {
        Ok(address) => info!(%address, "listening for operators' changes ([admin])"),
        Err(error) => warn!(%error, "listening for operators' changes on an unknown address"),
    }
    let hosts = settings.hosts.clone();
    let (audit, health) = (audit.clone(), health.clone());
    Ok(Some(Admin { listener, tokens, hosts, audit, health, incidents }))
}
