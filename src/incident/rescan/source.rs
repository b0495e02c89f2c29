//! What a pass needs of the rest of the service.

use futures_util::future::BoxFuture;

use super::end::RescanEnd;
use crate::{
    incident::seen::SeenMedia,
    scan::{ContentState, engines::EngineState},
};

/// A question to the rest of the service.
pub(super) type Ask<I, O> = Box<dyn Fn(I) -> BoxFuture<'static, O> + Send + Sync>;

/// What a pass needs of the rest of the service.
pub(super) struct RescanSource {
    /// Returns the state of the engines; `None` while nothing can be scanned.
    pub(super) engines: Ask<(), Option<EngineState>>,
    /// Returns whether each engine gives a verdict on harmless content.
    pub(super) engines_work: Ask<(), bool>,
    /// Returns what is known about a content.
    pub(super) content: Ask<[u8; 32], ContentState>,
    /// Downloads media and scans it.
    pub(super) fetch: Ask<SeenMedia, RescanEnd>,
    /// Returns whether media is of the homeserver that the token is for.
    pub(super) is_local: Box<dyn Fn(&SeenMedia) -> bool + Send + Sync>,
}
