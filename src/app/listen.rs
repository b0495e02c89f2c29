//! Listeners for clients and for operators.

use tracing::{info, warn};

use super::{error::StartError, service_manager::PassedSocket};
use crate::{
    http::{Listen, listener::Listener},
    telemetry::operations,
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
