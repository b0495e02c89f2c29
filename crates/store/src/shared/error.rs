//! Reasons why the shared store cannot be used. The messages are for operators.

/// Reason why a shared store cannot be started. An unreachable server is none.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum SharedStoreError {
    #[error("the shared store was started outside of a Tokio runtime")]
    NoRuntime,
    #[error("the system returns no random bytes for the name of this node: {0}")]
    Random(getrandom::Error),
}

/// The records could not be read: the store is not available, or the server returned an invalid reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the shared store is not available; the cause is in the log")]
pub struct StoreUnavailable;
