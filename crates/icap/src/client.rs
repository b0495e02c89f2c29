//! Client of one server: its options, and idle connections.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::warn;

use crate::{
    answer::IcapReply,
    connection::Connection,
    content::Content,
    error::IcapError,
    options::ServiceOptions,
    request::IcapService,
    response::Exchange,
    transport::{Connect, Unread},
};

/// Maximum idle time of a connection before reuse, and maximum number of idle connections for each server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;

/// Duration for which connections to a server are not reused after the server has sent unsolicited bytes. Such bytes
/// could be taken for the response to the next request, and they may also arrive after the check before reuse.
const NO_REUSE: Duration = Duration::from_secs(600);

/// Client of a service of one server.
pub struct IcapClient<C> {
    service: IcapService,
    preview: bool,
    connector: C,
    idle: Mutex<Idle>,
    options: Mutex<Option<ServiceOptions>>,
}

/// Idle connections, the latest one last, each with the time of its latest use.
#[derive(Default)]
struct Idle {
    connections: Vec<(Connection, Instant)>,
    disabled_until: Option<Instant>,
}

impl<C> fmt::Display for IcapClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service.uri)
    }
}

impl<C> fmt::Debug for IcapClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C: Connect> IcapClient<C> {
    /// Creates a client without connecting. With `preview`, a server that requests a preview gets one, and may answer
    /// after the preview alone.
    pub fn new(service: IcapService, preview: bool, connector: C) -> Self {
        Self { service, preview, connector, idle: Mutex::default(), options: Mutex::default() }
    }

    /// Scans a file.
    ///
    /// # Errors
    /// Everything other than a complete response with an answer.
    pub async fn scan(&self, content: &impl Content) -> Result<IcapReply, IcapError> {
        let requested = self.options.lock().as_ref().and_then(|options| options.preview);
        let preview = requested.filter(|_| self.preview);
        if let Some(mut connection) = self.take_idle() {
            let result = connection.scan(&self.service, preview, content).await;
            match result {
                // The server closed the idle connection at the same time: a new connection is tried.
                Err(IcapError::ConnectionLost(_)) if !connection.has_received() => {}
                result => return self.finish(connection, result),
            }
        }
        let mut connection = self.connect().await?;
        let result = connection.scan(&self.service, preview, content).await;
        self.finish(connection, result)
    }

    /// Keeps the connection if it is reusable. Returns the reply.
    fn finish(
        &self,
        connection: Connection,
        result: Result<Exchange<IcapReply>, IcapError>,
    ) -> Result<IcapReply, IcapError> {
        let Exchange { result, reusable } = result?;
        if reusable {
            self.put_idle(connection);
        }
        Ok(result)
    }

    /// Reads the options of the service. [`Self::apply`] makes them effective.
    ///
    /// # Errors
    /// No options, or options without the configured method.
    pub async fn read_options(&self) -> Result<ServiceOptions, IcapError> {
        let mut connection = self.connect().await?;
        let Exchange { result: options, reusable } = connection.options(&self.service).await?;
        if reusable {
            self.put_idle(connection);
        }
        Ok(options)
    }

    /// Returns the effective options.
    pub fn options(&self) -> Option<ServiceOptions> {
        self.options.lock().clone()
    }

    /// Makes options effective for later scans.
    pub fn apply(&self, options: ServiceOptions) {
        *self.options.lock() = Some(options);
    }

    async fn connect(&self) -> Result<Connection, IcapError> {
        self.connector.connect().await.map(Connection::new).map_err(IcapError::Unreachable)
    }

    /// Takes an idle connection on which the server has sent nothing since the last response.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.remove_old();
        while let Some((mut connection, _)) = idle.connections.pop() {
            match connection.unread() {
                Unread::Nothing => return Some(connection),
                Unread::End => {}
                Unread::Bytes => {
                    warn!(
                        server = %self,
                        pause = ?NO_REUSE,
                        "ICAP server sent bytes without a request, its connections are not reused"
                    );
                    idle.disabled_until = Some(Instant::now() + NO_REUSE);
                    idle.connections.clear();
                }
            }
        }
        None
    }

    fn put_idle(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        idle.remove_old();
        let is_disabled = idle.disabled_until.is_some_and(|end| Instant::now() < end);
        if idle.connections.len() < MAX_IDLE && !is_disabled {
            idle.connections.push((connection, Instant::now()));
        }
    }
}

impl Idle {
    fn remove_old(&mut self) {
        self.connections.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
    }
}
