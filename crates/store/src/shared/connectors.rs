//! Connectors by the topology of the servers.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    cluster::ClusterConnection,
    connection::{CallError, StoreConnection, StoreConnector},
    dial::ServerDialer,
    sentinel::dial_primary,
    servers::{ServerTopology, StoreServers},
};

/// Connects to the servers of a configuration.
pub(crate) struct ServerConnector {
    topology: ServerTopology,
    dialer: ServerDialer,
}

impl ServerConnector {
    pub(crate) fn new(servers: &StoreServers) -> Self {
        Self { topology: servers.topology.clone(), dialer: ServerDialer::new(servers) }
    }
}

impl StoreConnector for ServerConnector {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn StoreConnection>, CallError>> {
        async {
            let connection: Arc<dyn StoreConnection> = match &self.topology {
                ServerTopology::Single(address) => Arc::new(self.dialer.dial(address).await?),
                ServerTopology::Cluster(seeds) => {
                    Arc::new(ClusterConnection::connect(self.dialer.clone(), seeds.clone()).await?)
                }
                ServerTopology::Sentinel { sentinels, service } => {
                    Arc::new(dial_primary(&self.dialer, sentinels, service).await?)
                }
            };
            Ok(connection)
        }
        .boxed()
    }
}
