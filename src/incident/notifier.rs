//! Sends the notifications of one target.

use super::{
    message::Notice,
    notice_limit::{NextNotice, NoticeLimit},
    room::NoticeRoom,
    step::StepResult,
    step_plan::StepKind,
    step_worker::StepWorker,
    webhook::Webhook,
};

/// Maximum number of tries of a webhook: an hour.
const MAX_WEBHOOK_TRIES: u32 = 5;

/// Where notifications are sent.
#[derive(Clone, Debug)]
pub(super) enum NoticeTarget {
    Webhook(Webhook),
    Room(NoticeRoom),
}

impl NoticeTarget {
    /// Returns the name of the step in the log and in metrics.
    pub(super) fn step_name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Room(_) => "room",
        }
    }

    /// Returns the maximum number of tries.
    fn max_tries(&self) -> u32 {
        match self {
            Self::Webhook(_) => MAX_WEBHOOK_TRIES,
            Self::Room(_) => u32::MAX,
        }
    }

    async fn send(&self, notice: &Notice<'_>, personal_data: bool) -> StepResult {
        match self {
            Self::Webhook(webhook) => webhook.send(notice, personal_data).await,
            Self::Room(room) => room.send(notice, personal_data).await,
        }
    }
}

/// Sends the notifications of one target until dropped.
pub(super) async fn run(
    mut worker: StepWorker,
    index: usize,
    target: NoticeTarget,
    personal_data: bool,
) {
    let kind = StepKind::Notify(index);
    let mut limit = NoticeLimit::default();
    let mut changes = worker.outbox.subscribe();
    loop {
        let due = worker.outbox.due_step(kind, &mut changes).await;
        if !worker.is_wanted(&due).await {
            continue;
        }
        match limit.next(tokio::time::Instant::now()) {
            NextNotice::Single => {
                let notice = Notice::Single(&due.incident);
                let result = target.send(&notice, personal_data).await;
                worker.finish(&[due], result, target.max_tries()).await;
            }
            NextNotice::Summary => {
                let all = worker.outbox.all(kind);
                let incidents: Vec<_> = all.iter().map(|due| &*due.incident).collect();
                let result = target.send(&Notice::Summary(&incidents), personal_data).await;
                worker.finish(&all, result, target.max_tries()).await;
            }
            NextNotice::Wait(time) => tokio::time::sleep_until(time).await,
        }
    }
}
