//! Requests that are sent during reloads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::task::JoinHandle;

use crate::harness::{MockHomeserver, TestClient, png, wait_until};

/// Three clients that request new and cached files until they are stopped.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(super) fn start(homeserver: &Arc<MockHomeserver>, client: &TestClient) -> Self {
        let (stop, answered) = (Arc::default(), Arc::default());
        let tasks = (0..3)
            .map(|client_number| {
                let (homeserver, client) = (Arc::clone(homeserver), client.clone());
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                let send_requests = async move {
                    for turn in 0.. {
                        if AtomicBool::load(&stop, Ordering::Relaxed) {
                            return;
                        }
                        let id =
                            format!("traffic{client_number}x{}", turn % 5 * (turn % 2) + turn / 3);
                        let bytes = [png(), id.clone().into_bytes()].concat();
                        let media = homeserver.add_bytes(&id, bytes.clone());
                        client.get(&format!("/download/{media}")).await.assert_media(&bytes);
                        AtomicUsize::fetch_add(&answered, 1, Ordering::Relaxed);
                    }
                };
                tokio::spawn(send_requests)
            })
            .collect();
        Self { stop, answered, tasks }
    }

    /// Waits until more requests have been answered.
    pub(super) async fn wait_for_progress(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("more responses", || {
            self.answered.load(Ordering::Relaxed) > before + 6
                || self.tasks.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every request got the expected response");
        }
    }
}
