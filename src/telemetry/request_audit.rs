//! Lines about requests, with their requesters if that is configured. A line waits for the user of the access token; the
//! response does not.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::audit::{
    AuditLine, AuditLog, AuditRecord, RecordedUser, Settings, UserHasher, UserRecord,
};
use crate::media::{Homeservers, MediaRequest, RequestSender, TokenUsers, UserQuestion};

/// Maximum number of lines that wait for a user. Further lines are written without one.
const MAX_PENDING: u32 = 256;

/// Time at the end of the service for homeservers that have been asked.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Time to queue the lines that still wait after that.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Writes lines about requests under the settings of one configuration. Cheap to clone.
#[derive(Clone)]
pub struct RequestAudit {
    log: AuditLog,
    has_client_address: bool,
    users: Option<Arc<UserSource>>,
}

/// Where users come from.
struct UserSource {
    form: UserForm,
    homeservers: Arc<Homeservers>,
    pending: PendingLines,
}

/// How users are written.
enum UserForm {
    Full,
    Hash(UserHasher),
}

/// Lines that wait for a user, and the users that are known. Survives reloads. Cheap to clone.
#[derive(Clone)]
pub struct PendingLines(Arc<PendingState>);

struct PendingState {
    users: TokenUsers,
    permits: Arc<Semaphore>,
    ending: CancellationToken,
}

impl Default for PendingLines {
    fn default() -> Self {
        Self(Arc::new(PendingState {
            users: TokenUsers::default(),
            permits: Arc::new(Semaphore::new(MAX_PENDING as usize)),
            ending: CancellationToken::new(),
        }))
    }
}

impl PendingLines {
    /// Queues all lines that wait, at the end of the service. Lines whose homeserver does not answer within half a second have
    /// no user.
    pub async fn finish(&self) {
        let PendingState { permits, ending, .. } = &*self.0;
        // A line returns its permit after it was queued.
        for limit in [LAST_ANSWERS, LAST_LINES] {
            if timeout(limit, permits.acquire_many(MAX_PENDING)).await.is_ok() {
                return;
            }
            ending.cancel();
        }
    }
}

impl UserForm {
    fn apply(&self, user: Option<Arc<str>>) -> RecordedUser {
        match self {
            Self::Full => RecordedUser::Full(user),
            Self::Hash(hasher) => RecordedUser::Hash(user.map(|user| hasher.hash(&user))),
        }
    }
}

impl RequestAudit {
    /// Returns how lines are written under `settings`. `hasher` is called if users are hashed.
    #[must_use]
    pub fn new(
        log: AuditLog,
        settings: &Settings,
        hasher: impl FnOnce() -> UserHasher,
        homeservers: &Arc<Homeservers>,
        pending: &PendingLines,
    ) -> Self {
        let form = match settings.user {
            UserRecord::Off => None,
            UserRecord::Hash => Some(UserForm::Hash(hasher())),
            UserRecord::Full => Some(UserForm::Full),
        };
        let users = form.map(|form| {
            let (homeservers, pending) = (Arc::clone(homeservers), pending.clone());
            Arc::new(UserSource { form, homeservers, pending })
        });
        Self { log, has_client_address: settings.client_address, users }
    }

    /// Queues a line about a request, at once or when the user is known.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn record(&self, request: &MediaRequest, record: &AuditRecord<'_>) {
        let mut line = AuditLine::new(record);
        if record.rescan {
            // The service itself requested the file.
            return self.log.record(&line);
        }
        if self.has_client_address
            && let RequestSender::Client(address) = request.requester.sender
        {
            line = line.with_client_address(address);
        }
        match (&self.users, UserQuestion::from_request(request)) {
            (Some(source), Some(question)) => self.record_with_user(source, line, question),
            _ => self.log.record(&line),
        }
    }

    fn record_with_user(
        &self,
        source: &Arc<UserSource>,
        line: AuditLine,
        question: UserQuestion<'_>,
    ) {
        let UserSource { form, homeservers, pending } = &**source;
        let PendingState { users, permits, ending } = &*pending.0;
        if let Some(known) = users.known(&question) {
            return self.log.record(&line.with_user(form.apply(known)));
        }
        let permit = Arc::clone(permits).try_acquire_owned();
        let (Ok(permit), false) = (permit, ending.is_cancelled()) else {
            users.record_skipped(homeservers);
            return self.log.record(&line.with_user(form.apply(None)));
        };
        let (source, log) = (Arc::clone(source), self.log.clone());
        let question = question.into_owned();
        tokio::spawn(async move {
            let PendingState { users, ending, .. } = &*source.pending.0;
            let user = tokio::select! {
                user = users.find(&source.homeservers, &question) => user,
                () = ending.cancelled() => None,
            };
            log.record(&line.with_user(source.form.apply(user)));
            drop::<OwnedSemaphorePermit>(permit);
        });
    }
}

#[cfg(test)]
mod tests;
