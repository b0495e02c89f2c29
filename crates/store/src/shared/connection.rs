//! Connections to servers, and calls: a pipeline of commands for the keys of one slot.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use redis::{ErrorKind, Pipeline, RedisError, ServerError, ServerErrorKind, Value};

/// Commands that are sent together, for keys of one slot.
pub(crate) struct StoreCall {
    /// One of the keys, by which a cluster selects the node.
    pub(crate) key: Vec<u8>,
    pub(crate) pipeline: Pipeline,
}

impl StoreCall {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self { key: key.to_owned(), pipeline: Pipeline::new() }
    }

    /// Adds a command.
    #[must_use]
    pub(crate) fn command(mut self, name: &str, arguments: &[&[u8]]) -> Self {
        self.push(name, arguments);
        self
    }

    pub(crate) fn push(&mut self, name: &str, arguments: &[&[u8]]) {
        self.pipeline.cmd(name);
        for argument in arguments {
            self.pipeline.arg(argument);
        }
    }
}

/// Reason why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the store has failed several times, and is not used for some seconds")]
    OutOfUse,
    #[error("the store was closed")]
    Closed,
    #[error("the server did not reply in time")]
    Timeout,
    #[error("the connection failed: {0}")]
    Connection(String),
    #[error("the server replied: {0}")]
    Server(String),
    #[error("the server sent an invalid reply: {0}")]
    Reply(&'static str),
}

impl CallError {
    /// Converts an error reply. Only its beginning is kept, because a server may send any text.
    pub(crate) fn from_server(error: &ServerError) -> Self {
        let detail = error.details().unwrap_or_default();
        let text = format!("{} {detail}", error.code());
        Self::Server(text.escape_debug().take(200).collect())
    }
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) => Self::Server(escape(&error.to_string())),
            _ => Self::Connection(escape(&error.to_string())),
        }
    }
}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(escape(&error.to_string()))
    }
}

/// Returns the beginning of a text that a server may have chosen, for the log.
fn escape(text: &str) -> String {
    text.escape_debug().take(200).collect()
}

/// Returns the first error among replies.
pub(crate) fn first_error(replies: &[Value]) -> Option<&ServerError> {
    replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    })
}

/// Returns whether a slot is being moved between two nodes, and its keys are at both. Not a sign of a failing server.
pub(crate) fn is_moving(error: &ServerError) -> bool {
    error.kind() == Some(ServerErrorKind::TryAgain)
}

/// Replies to a call, one for each command. Errors of commands are values.
pub(crate) type CallResult = Result<Vec<Value>, CallError>;

/// Connection to a server or a cluster, used by any number of calls at once.
pub(crate) trait StoreConnection: Send + Sync {
    fn call<'a>(&'a self, call: &'a StoreCall) -> BoxFuture<'a, CallResult>;

    /// Returns connections to each server that has keys, for commands about all keys.
    fn primaries(&self) -> BoxFuture<'_, Result<Vec<Arc<dyn StoreConnection>>, CallError>>;
}

/// Opens connections.
pub(crate) trait StoreConnector: Send + Sync {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn StoreConnection>, CallError>>;
}
