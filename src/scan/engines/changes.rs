//! Announces changes of remote engines to the canary, whose last result may be invalid after a change.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Time limit of the canary for receiving an announcement.
const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A change of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineChange {
    /// Other signatures or another configuration.
    Version,
    /// Other files may be scanned, or scanned in another way.
    Behaviour,
}

/// An announced change, and the confirmation of its receipt.
type Announcement = (EngineChange, oneshot::Sender<()>);

/// Announces changes to at most one receiver.
#[derive(Default, Debug)]
pub(super) struct ChangeNotifier(Mutex<Option<mpsc::Sender<Announcement>>>);

/// Receives changes that are announced after its creation.
#[derive(Debug)]
pub struct ChangeReceiver(mpsc::Receiver<Announcement>);

impl ChangeNotifier {
    /// Replaces the receiver.
    pub(super) fn subscribe(&self) -> ChangeReceiver {
        let (sender, receiver) = mpsc::channel(1);
        *self.0.lock() = Some(sender);
        ChangeReceiver(receiver)
    }

    /// Announces a change, and waits until the receiver has processed the announcement. Returns whether the change may
    /// take effect: not if the receiver did not process it in time. Returns at once without a receiver.
    pub(super) async fn announce(&self, change: EngineChange) -> bool {
        let Some(sender) = self.0.lock().clone() else { return true };
        let (confirm, confirmed) = oneshot::channel();
        let announcing = async {
            if sender.send((change, confirm)).await.is_ok() {
                let _confirmed_or_stopped = confirmed.await;
            }
        };
        timeout(ANNOUNCEMENT_TIMEOUT, announcing).await.is_ok()
    }
}

impl ChangeReceiver {
    /// Waits for a change, and confirms it after `process`. Waits forever when no engine remains. Cancellation safe.
    pub async fn receive<T>(&mut self, process: impl FnOnce(EngineChange) -> T) -> T {
        let Some((change, confirm)) = self.0.recv().await else {
            return std::future::pending().await;
        };
        let result = process(change);
        let _ = confirm.send(());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn change_waits_for_its_receiver() {
        let notifier = ChangeNotifier::default();
        notifier.announce(EngineChange::Version).await;
        let mut receiver = notifier.subscribe();
        let order = Mutex::new(Vec::new());
        let announcing = async {
            notifier.announce(EngineChange::Behaviour).await;
            order.lock().push("announced");
        };
        let receiving = receiver.receive(|change| {
            assert_eq!(change, EngineChange::Behaviour, "only later changes");
            order.lock().push("received");
        });
        tokio::join!(announcing, receiving);
        assert_eq!(*order.lock(), ["received", "announced"]);
        drop(receiver);
        notifier.announce(EngineChange::Behaviour).await;
    }

    #[tokio::test(start_paused = true)]
    async fn change_without_confirmation_may_not_take_effect() {
        let notifier = ChangeNotifier::default();
        let receiver = notifier.subscribe();
        assert!(!notifier.announce(EngineChange::Behaviour).await);
        drop(receiver);
        assert!(notifier.announce(EngineChange::Behaviour).await, "there is no canary");
    }

    #[tokio::test]
    async fn new_receiver_replaces_the_earlier_one() {
        let notifier = ChangeNotifier::default();
        let mut first = notifier.subscribe();
        let mut second = notifier.subscribe();
        let received = second.receive(|change| change);
        let (_, change) = tokio::join!(notifier.announce(EngineChange::Version), received);
        assert_eq!(change, EngineChange::Version);
        assert!(first.0.recv().await.is_none());
    }
}
