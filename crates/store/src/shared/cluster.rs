//! Connections to a cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use parking_lot::Mutex;
use redis::{Pipeline, ServerError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout};

use super::{
    connection::{CallError, CallResult, StoreCall, StoreConnection, first_error},
    dial::{ServerConnection, ServerDialer},
    limits::CONNECT_TIMEOUT,
    servers::ServerAddress,
    slots::SlotMap,
};

/// Maximum number of redirections of one call.
const MAX_REDIRECTS: usize = 4;

/// Minimum time between two requests for the map of slots.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// Time limit of one node for the map of slots.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that is being opened, or is open. Opening continues if callers stop waiting.
type NodeFuture = Shared<BoxFuture<'static, Result<ServerConnection, CallError>>>;

/// Connection to all nodes of a cluster that have slots.
pub(crate) struct ClusterConnection(Arc<ClusterInner>);

struct ClusterInner {
    dialer: ServerDialer,
    seeds: Vec<ServerAddress>,
    state: Mutex<ClusterState>,
    weak: Weak<ClusterInner>,
}

#[derive(Default)]
struct ClusterState {
    slots: SlotMap,
    nodes: HashMap<ServerAddress, NodeFuture>,
    /// End of the last request for the map of slots.
    refreshed: Option<Instant>,
    is_refreshing: bool,
}

impl ClusterConnection {
    /// Reads the map of slots from the first seed that replies.
    pub(crate) async fn connect(
        dialer: ServerDialer,
        seeds: Vec<ServerAddress>,
    ) -> Result<Self, CallError> {
        let inner = Arc::new_cyclic(|weak| ClusterInner {
            dialer,
            seeds,
            state: Mutex::default(),
            weak: weak.clone(),
        });
        inner.refresh().await?;
        Ok(Self(inner))
    }
}

/// Requests the map of slots if a call did not complete, for example because the node does not reply.
struct RefreshOnDrop<'a> {
    inner: &'a ClusterInner,
    is_complete: bool,
}

impl Drop for RefreshOnDrop<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.inner.refresh_in_background();
        }
    }
}

/// Where a node sends a call instead.
enum Redirection {
    Moved(ServerAddress),
    /// For this call only.
    Ask(ServerAddress),
}

impl StoreConnection for ClusterConnection {
    fn call<'a>(&'a self, call: &'a StoreCall) -> BoxFuture<'a, CallResult> {
        async {
            let mut guard = RefreshOnDrop { inner: &self.0, is_complete: false };
            let replies = self.0.call(call).await?;
            guard.is_complete = true;
            Ok(replies)
        }
        .boxed()
    }

    fn primaries(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn StoreConnection>>, CallError>> {
        async {
            self.0.refresh().await?;
            let mut primaries: Vec<Arc<dyn StoreConnection>> = Vec::new();
            let nodes = self.0.state.lock().slots.nodes();
            for node in nodes {
                primaries.push(Arc::new(self.0.node(&node).await?));
            }
            Ok(primaries)
        }
        .boxed()
    }
}

impl ClusterInner {
    async fn call(&self, call: &StoreCall) -> CallResult {
        let node = self.state.lock().slots.node(&call.key).cloned();
        let mut node = node.ok_or(CallError::Reply("no node of the cluster has the slot"))?;
        let mut is_asking = false;
        for _ in 0..MAX_REDIRECTS {
            let connection = self.node(&node).await?;
            let result = if is_asking {
                call_asking(&connection, call).await
            } else {
                connection.call(call).await
            };
            let replies = result.inspect_err(|_| self.forget_node(&node))?;
            let Some(error) = first_error(&replies) else { return Ok(replies) };
            let (target, asks) = match parse_redirection(error, &node) {
                Some(Redirection::Moved(target)) => (target, false),
                Some(Redirection::Ask(target)) => (target, true),
                None => {
                    self.check_error(error);
                    return Ok(replies);
                }
            };
            if !asks {
                self.refresh_in_background();
            }
            (node, is_asking) = (target, asks);
        }
        Err(CallError::Reply("the nodes of the cluster redirect to each other"))
    }

    /// Requests the map of slots after errors that a fail-over causes.
    fn check_error(&self, error: &ServerError) {
        let is_by_failover = matches!(
            error.kind(),
            Some(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
            )
        );
        if is_by_failover {
            self.refresh_in_background();
        }
    }

    /// Returns the connection to a node. Connects in the background if there is none.
    async fn node(&self, address: &ServerAddress) -> Result<ServerConnection, CallError> {
        let node = {
            let mut state = self.state.lock();
            let entry = state.nodes.entry(address.clone());
            entry.or_insert_with(|| self.start_dialing(address.clone())).clone()
        };
        node.await.inspect_err(|_| self.forget_node(address))
    }

    fn start_dialing(&self, address: ServerAddress) -> NodeFuture {
        let dialer = self.dialer.clone();
        let task = tokio::spawn(async move {
            let result = timeout(CONNECT_TIMEOUT, dialer.dial(&address)).await;
            result.unwrap_or(Err(CallError::Timeout))
        });
        let aborted = || CallError::Connection("the attempt to connect was aborted".to_owned());
        async move { task.await.unwrap_or_else(|_| Err(aborted())) }.boxed().shared()
    }

    /// Removes a connection that has failed. One that is still being opened, or that replaced it, remains.
    fn forget_node(&self, address: &ServerAddress) {
        let mut state = self.state.lock();
        if state.nodes.get(address).is_some_and(|node| node.peek().is_some()) {
            state.nodes.remove(address);
        }
    }

    /// Requests the map of slots, at most twice a second.
    fn refresh_in_background(&self) {
        let Some(inner) = self.weak.upgrade() else { return };
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_refreshing, true) {
            return;
        }
        let pause = state.refreshed.map_or(Duration::ZERO, |refreshed| {
            REFRESH_INTERVAL.saturating_sub(refreshed.elapsed())
        });
        drop(state);
        tokio::spawn(async move {
            sleep(pause).await;
            if let Err(error) = inner.refresh().await {
                tracing::debug!(%error, "no node of the shared verdict store returns the slots");
            }
            inner.state.lock().is_refreshing = false;
        });
    }

    /// Reads the map of slots from the first node that replies.
    async fn refresh(&self) -> Result<(), CallError> {
        let mut nodes = self.state.lock().slots.nodes();
        nodes.extend(self.seeds.iter().cloned());
        nodes.dedup();
        let mut last_error = CallError::Reply("no node of the cluster is known");
        for node in nodes {
            let result = timeout(REFRESH_TIMEOUT, self.read_slots(&node)).await;
            match result.unwrap_or(Err(CallError::Timeout)) {
                Ok(slots) => {
                    let mut state = self.state.lock();
                    let nodes = slots.nodes();
                    state.nodes.retain(|address, _| nodes.contains(address));
                    state.slots = slots;
                    state.refreshed = Some(Instant::now());
                    return Ok(());
                }
                Err(error) => last_error = error,
            }
        }
        self.state.lock().refreshed = Some(Instant::now());
        Err(last_error)
    }

    async fn read_slots(&self, node: &ServerAddress) -> Result<SlotMap, CallError> {
        let connection = self.node(node).await?;
        let call = StoreCall::new(b"").command("CLUSTER", &[b"SLOTS"]);
        let replies = connection.call(&call).await.inspect_err(|_| self.forget_node(node))?;
        match replies.first() {
            Some(Value::ServerError(error)) => Err(CallError::from_server(error)),
            Some(reply) => SlotMap::parse(reply, node)
                .ok_or(CallError::Reply("the map of the cluster's slots is invalid")),
            None => Err(CallError::Reply("the map of the cluster's slots is missing")),
        }
    }
}

/// Sends a call to the node that a slot is being moved to.
async fn call_asking(connection: &ServerConnection, call: &StoreCall) -> CallResult {
    let mut pipeline = Pipeline::new();
    for command in call.pipeline.cmd_iter() {
        pipeline.cmd("ASKING");
        pipeline.add_command(command.clone());
    }
    let replies = connection.call(&StoreCall { key: call.key.clone(), pipeline }).await?;
    Ok(replies.into_iter().skip(1).step_by(2).collect())
}

/// Parses `MOVED SLOT HOST:PORT` and `ASK SLOT HOST:PORT`. Without a host, that of the node `from`.
fn parse_redirection(error: &ServerError, from: &ServerAddress) -> Option<Redirection> {
    let target = || {
        let (_, target) = error.details()?.split_once(' ')?;
        let (host, port) = target.rsplit_once(':')?;
        let host = if host.is_empty() { &from.host } else { host };
        ServerAddress::new(host, port.parse().ok()?)
    };
    match error.kind()? {
        ServerErrorKind::Moved => target().map(Redirection::Moved),
        ServerErrorKind::Ask => target().map(Redirection::Ask),
        _ => None,
    }
}
