//! Connections to a simulated server.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::Arg;
use tokio::time::sleep;

use super::{
    super::connection::{CallError, CallResult, StoreCall, StoreConnection, StoreConnector},
    server::{CallFault, SimulatedServer},
};

/// Connects one replica to a simulated server.
#[derive(Clone)]
pub(crate) struct SimulatedConnector {
    server: SimulatedServer,
    client: u32,
}

impl SimulatedConnector {
    pub(crate) fn new(server: SimulatedServer, client: u32) -> Self {
        Self { server, client }
    }
}

/// Connection of one replica.
#[derive(Clone)]
struct SimulatedConnection {
    connector: SimulatedConnector,
    /// Number of the server's start. A restart ends the connection.
    start: u64,
}

fn closed() -> CallError {
    CallError::Connection("the simulated connection was closed".to_owned())
}

impl StoreConnector for SimulatedConnector {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn StoreConnection>, CallError>> {
        async {
            let plan = self.server.plan_call(self.client);
            sleep(plan.request_delay).await;
            match plan.fault {
                CallFault::None | CallFault::AfterExecution => {}
                CallFault::BeforeExecution => return Err(closed()),
                CallFault::NoReply => std::future::pending().await,
            }
            let start = self.server.running_start().ok_or_else(closed)?;
            let connection = SimulatedConnection { connector: self.clone(), start };
            Ok(Arc::new(connection) as Arc<dyn StoreConnection>)
        }
        .boxed()
    }
}

impl StoreConnection for SimulatedConnection {
    fn call<'a>(&'a self, call: &'a StoreCall) -> BoxFuture<'a, CallResult> {
        let own = self.clone();
        let commands = call.pipeline.cmd_iter().map(|command| {
            let arguments = command.args_iter().map(|argument| match argument {
                Arg::Simple(bytes) => bytes.to_owned(),
                _ => b"0".to_vec(),
            });
            arguments.collect::<Vec<_>>()
        });
        let commands: Vec<_> = commands.collect();
        // A server executes a command also if the caller has stopped waiting for its reply.
        let task = tokio::spawn(async move { own.execute(commands).await });
        async { task.await.unwrap_or_else(|_| Err(closed())) }.boxed()
    }

    fn primaries(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn StoreConnection>>, CallError>> {
        let own: Arc<dyn StoreConnection> = Arc::new(self.clone());
        std::future::ready(Ok(vec![own])).boxed()
    }
}

impl SimulatedConnection {
    async fn execute(&self, commands: Vec<Vec<Vec<u8>>>) -> CallResult {
        let server = &self.connector.server;
        let plan = server.plan_call(self.connector.client);
        sleep(plan.request_delay).await;
        match plan.fault {
            CallFault::None | CallFault::AfterExecution => {}
            CallFault::BeforeExecution => return Err(closed()),
            CallFault::NoReply => return std::future::pending().await,
        }
        server.wait_until_running().await;
        if server.running_start() != Some(self.start) {
            return Err(closed());
        }
        let replies = server.execute(&commands);
        sleep(plan.reply_delay).await;
        if plan.fault == CallFault::AfterExecution || server.running_start() != Some(self.start) {
            return Err(closed());
        }
        Ok(replies)
    }
}
