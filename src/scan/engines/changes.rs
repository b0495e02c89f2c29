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

/// An announced change.
#[derive(Debug)]
struct Announcement {
    change: EngineChange,
    /// Confirms that the receiver has processed the announcement.
    confirm: oneshot::Sender<()>,
    /// Ends when the change has taken effect.
    applying: oneshot::Receiver<()>,
}

/// Permission for a change to take effect, which it must have done when the permission is dropped.
#[derive(Debug)]
pub(super) struct ChangePermission(
    #[expect(dead_code, reason = "ends the wait of the receiver")] Option<oneshot::Sender<()>>,
);

/// Announces changes to at most one receiver.
#[derive(Default, Debug)]
pub(super) struct ChangeNotifier(Mutex<Option<mpsc::Sender<Announcement>>>);

/// Receives changes that are announced after its creation.
#[derive(Debug)]
pub struct ChangeReceiver {
    announcements: mpsc::Receiver<Announcement>,
    /// The last received change, until it has taken effect.
    applying: Option<oneshot::Receiver<()>>,
}

impl ChangeNotifier {
    /// Replaces the receiver.
    pub(super) fn subscribe(&self) -> ChangeReceiver {
        let (sender, announcements) = mpsc::channel(1);
        *self.0.lock() = Some(sender);
        ChangeReceiver { announcements, applying: None }
    }

    /// Announces a change, and waits until the receiver has processed the announcement. Returns no permission if the
    /// receiver did not process it in time. Returns at once without a receiver.
    pub(super) async fn announce(&self, change: EngineChange) -> Option<ChangePermission> {
        let Some(sender) = self.0.lock().clone() else { return Some(ChangePermission(None)) };
        let (confirm, confirmed) = oneshot::channel();
        let (applied, applying) = oneshot::channel();
        let announcing = async {
            if sender.send(Announcement { change, confirm, applying }).await.is_ok() {
                let _confirmed_or_stopped = confirmed.await;
            }
        };
        timeout(ANNOUNCEMENT_TIMEOUT, announcing).await.ok()?;
        Some(ChangePermission(Some(applied)))
    }
}

impl ChangeReceiver {
    /// Waits for a change, and confirms it after `process`. Waits forever when no engine remains. Cancellation safe.
    pub async fn receive<T>(&mut self, process: impl FnOnce(EngineChange) -> T) -> T {
        while let Some(Announcement { change, confirm, applying }) = self.announcements.recv().await
        {
            // The announcement has timed out, so the change does not take effect.
            if confirm.is_closed() {
                continue;
            }
            let result = process(change);
            self.applying = Some(applying);
            let _ = confirm.send(());
            return result;
        }
        std::future::pending().await
    }

    /// Waits until the last received change has taken effect. Cancellation safe.
    pub async fn settled(&mut self) {
        if let Some(applying) = &mut self.applying {
            let _applied = applying.await;
            self.applying = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

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

    #[tokio::test]
    async fn receiver_waits_until_the_change_has_taken_effect() {
        let notifier = ChangeNotifier::default();
        let mut receiver = notifier.subscribe();
        receiver.settled().await;
        let announcing = notifier.announce(EngineChange::Behaviour);
        let (permission, ()) = tokio::join!(announcing, receiver.receive(|_| ()));
        assert!(receiver.settled().now_or_never().is_none());
        drop(permission);
        receiver.settled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn change_without_confirmation_may_not_take_effect() {
        let notifier = ChangeNotifier::default();
        let mut receiver = notifier.subscribe();
        assert!(notifier.announce(EngineChange::Behaviour).await.is_none());
        let late = receiver.receive(|_| ());
        assert!(timeout(ANNOUNCEMENT_TIMEOUT, late).await.is_err(), "the announcement is void");
        drop(receiver);
        assert!(notifier.announce(EngineChange::Behaviour).await.is_some(), "there is no canary");
    }

    #[tokio::test]
    async fn new_receiver_replaces_the_earlier_one() {
        let notifier = ChangeNotifier::default();
        let mut first = notifier.subscribe();
        let mut second = notifier.subscribe();
        let received = second.receive(|change| change);
        let (_, change) = tokio::join!(notifier.announce(EngineChange::Version), received);
        assert_eq!(change, EngineChange::Version);
        assert!(first.announcements.recv().await.is_none());
    }
}
