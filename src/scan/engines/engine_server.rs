//! State of one server of a remote engine.

use std::sync::Arc;

/// State of one server of a remote engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineServer {
    /// As in the configuration.
    pub address: String,
    /// Last known version.
    pub version: Option<Arc<str>>,
    /// Why the last request got no response, on one line; `None` if the server responded.
    pub failure: Option<Arc<str>>,
}
