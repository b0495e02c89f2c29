//! Connections to one server.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;

use super::{
    connection::{CallError, CallResult, StoreCall, StoreConnection},
    limited_stream::LimitedStream,
    servers::{ServerAddress, StoreCredentials, StoreServers},
};

/// Opens connections to single servers.
#[derive(Clone)]
pub(crate) struct ServerDialer {
    tls: Option<Arc<ClientConfig>>,
    credentials: StoreCredentials,
    database: i64,
}

/// Connection to one server. Clones share it; dropping the last one closes it.
#[derive(Clone)]
pub(crate) struct ServerConnection {
    connection: MultiplexedConnection,
    _driver: Arc<ConnectionDriver>,
}

/// Task that transfers the bytes of a connection. Dropping ends the task, also while replies are missing.
struct ConnectionDriver(AbortHandle);

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ServerDialer {
    pub(crate) fn new(servers: &StoreServers) -> Self {
        let StoreServers { credentials, database, tls, .. } = servers.clone();
        Self { tls, credentials, database }
    }

    /// Returns a dialer for sentinels, which have no databases and usually no users.
    pub(crate) fn for_sentinels(&self, has_credentials: bool) -> Self {
        let credentials =
            if has_credentials { self.credentials.clone() } else { StoreCredentials::default() };
        Self { tls: self.tls.clone(), credentials, database: 0 }
    }

    /// Connects, authenticates and selects the database. Without a time limit.
    pub(crate) async fn dial(
        &self,
        address: &ServerAddress,
    ) -> Result<ServerConnection, CallError> {
        let stream = TcpStream::connect((&*address.host, address.port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return self.set_up(stream).await };
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|error| CallError::Connection(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(config));
        self.set_up(connector.connect(name, stream).await?).await
    }

    async fn set_up<S>(&self, stream: S) -> Result<ServerConnection, CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Without CLIENT SETINFO, which an ACL may forbid; the default protocol is RESP2, which the limits require.
        let mut info = RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(user) = &self.credentials.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.credentials.password {
            info = info.set_password(&**password);
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let stream = LimitedStream::new(stream);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&info, stream, config).await?;
        let driver = ConnectionDriver(tokio::spawn(driver).abort_handle());
        Ok(ServerConnection { connection, _driver: Arc::new(driver) })
    }
}

impl StoreConnection for ServerConnection {
    fn call<'a>(&'a self, call: &'a StoreCall) -> BoxFuture<'a, CallResult> {
        let mut connection = self.connection.clone();
        async move {
            let count = call.pipeline.len();
            let mut commands = call.pipeline.cmd_iter();
            if let (Some(command), None) = (commands.next(), commands.next()) {
                return Ok(vec![connection.send_packed_command(command).await?]);
            }
            Ok(connection.send_packed_commands(&call.pipeline, 0, count).await?)
        }
        .boxed()
    }

    fn primaries(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn StoreConnection>>, CallError>> {
        let own: Arc<dyn StoreConnection> = Arc::new(self.clone());
        std::future::ready(Ok(vec![own])).boxed()
    }
}
