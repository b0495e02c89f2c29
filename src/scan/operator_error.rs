//! Errors of requests by operators.

use super::cache::OperatorStoreError;

/// Reason why a request of an operator fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OperatorError {
    /// The keys of verdicts depend on the engines.
    #[error("the engines cannot be identified: the script's file cannot be read")]
    NoIdentity,
    #[error(transparent)]
    Store(#[from] OperatorStoreError),
}
