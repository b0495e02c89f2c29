//! Events that replicas publish for each other.

/// Event for the caches of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreEvent {
    /// Message that another replica has published.
    Message(Vec<u8>),
    /// Messages may have been lost. What this process remembers of the store may be outdated.
    Lost,
}

/// Events published by other replicas. Dropping it ends the polls for events.
pub struct StoreEvents(());

impl StoreEvents {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Waits for the next event. Cancellation safe. Never returns after the store was closed.
    pub async fn next(&mut self) -> StoreEvent {
        std::future::pending().await
    }
}
