//! Keeps the list of decisions: in a file, and in the store that replicas share.

use std::{fmt, iter::once, path::PathBuf, sync::Arc, time::Duration};

use mcs_store::{
    LatestDecisions, MAX_VALUE, SealError, SecretRing, SharedStore, StoreSecret, StoreUnavailable,
};
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    current::{Decisions, now},
    list::{DecisionChange, DecisionList},
    list_file::{self, ListFileError},
};
use crate::{chain::Chain, scan::cache::StoreMessage};

/// Time between two comparisons with the shared store, in case that a message about a change is missing.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Time between two attempts to compare.
const RETRY: Duration = Duration::from_secs(1);

/// Number of attempts to change a list that other replicas change at the same time.
const ATTEMPTS: usize = 5;

/// Changes the decisions in force. Cheap to clone.
#[derive(Clone)]
pub struct DecisionKeeper(Arc<KeeperState>);

struct KeeperState {
    decisions: Decisions,
    secrets: SecretRing,
    file: Option<PathBuf>,
    shared: Option<SharedStore>,
    /// Locked during a change.
    changing: Mutex<()>,
    /// Locked while the file is written.
    writing: Mutex<()>,
    outdated: Notify,
}

/// Reason why a decision was not made.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// There is no place where decisions are kept.
    #[error("decisions are not kept: set store.path or $STATE_DIRECTORY, or use a shared store")]
    NotKept,
    /// There is no decision to remove.
    #[error("there is no decision about this file")]
    Missing,
    /// The list is too long.
    #[error("there are too many decisions; use a list of [hashes] for many files")]
    TooMany,
    /// Other replicas change the list all the time.
    #[error("other replicas have changed the decisions at the same time; try again")]
    Busy,
    /// The shared store is not available, so other replicas would not know of the decision.
    #[error("the decision was not made")]
    Shared(#[from] StoreUnavailable),
    /// The shared store did not confirm the list.
    #[error("the decision may have been made; see `store decisions` after some minutes")]
    Uncertain(#[source] StoreUnavailable),
    /// The store states that there is a newer list, and does not return a valid one.
    #[error(
        "the decision was not made: the shared store has a newer list of decisions that cannot be read"
    )]
    Unreadable,
    /// The file cannot be written.
    #[error("the decision was not made")]
    File(#[from] ListFileError),
    /// The system returns no random bytes.
    #[error("the decision cannot be encrypted")]
    Seal(#[from] SealError),
}

impl DecisionKeeper {
    /// Reads the file, if there is one. A file that was altered, or that belongs to another secret, is renamed, so that the
    /// next change does not replace it; the service runs without its decisions.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(
        secrets: SecretRing,
        file: Option<PathBuf>,
        shared: Option<SharedStore>,
    ) -> Result<Self, ListFileError> {
        let decisions = Decisions::default();
        if let Some(path) = &file {
            match list_file::read(path, &secrets.current()) {
                Ok(list) => drop(list.map(|list| decisions.replace(&list))),
                Err(error @ ListFileError::Altered { .. }) => {
                    error!(error = %Chain(&error), "decisions of operators are not in force");
                    list_file::set_aside(path);
                }
                Err(error) => return Err(error),
            }
        }
        let (changing, writing, outdated) = (Mutex::default(), Mutex::default(), Notify::new());
        let state = KeeperState { decisions, secrets, file, shared, changing, writing, outdated };
        Ok(Self(Arc::new(state)))
    }

    /// Returns the decisions in force.
    #[must_use]
    pub fn decisions(&self) -> &Decisions {
        &self.0.decisions
    }

    /// Compares the list with the shared store each minute, and after [`set_outdated`](Self::set_outdated), until the future
    /// is dropped.
    pub async fn follow_store(&self) {
        loop {
            while self.refresh().await.is_err() {
                sleep(RETRY).await;
            }
            // The limit has passed, or another replica has changed the list.
            let _ = timeout(REFRESH_INTERVAL, self.0.outdated.notified()).await;
        }
    }

    /// States that another replica may have changed the decisions.
    pub fn set_outdated(&self) {
        self.0.outdated.notify_one();
    }

    /// Takes a newer list from the shared store. If the store has none, for example because it was emptied, writes the
    /// list of this process, so that replicas that start later have it.
    ///
    /// # Errors
    /// If the shared store is not available, or its newest list cannot be read.
    pub async fn refresh(&self) -> Result<(), DecisionError> {
        let lists = self.shared_lists();
        for shared in &lists {
            match shared.latest_decisions(self.0.decisions.number()).await? {
                LatestDecisions::List { number, list } => {
                    let list = DecisionList::decode(&list).ok();
                    let list = list.filter(|list| list.number == number);
                    let list = list.ok_or(DecisionError::Unreadable)?;
                    if self.0.decisions.replace(&list) {
                        info!(number, "took over the decisions of operators from another replica");
                        self.keep(&list).await;
                    }
                }
                LatestDecisions::Unreadable => return Err(DecisionError::Unreadable),
                LatestDecisions::None => {}
            }
        }
        let known = self.0.decisions.list();
        for shared in lists.iter().filter(|_| known.number > 0) {
            if shared.restore_decisions(known.number, &known.encode()).await? {
                let number = known.number;
                info!(number, "wrote the decisions of operators to the store again");
            }
        }
        Ok(())
    }

    /// Returns the shared store with each secret, the current one first: there is one list for each, so that replicas without
    /// the current secret take part.
    fn shared_lists(&self) -> Vec<SharedStore> {
        let Some(shared) = &self.0.shared else { return Vec::new() };
        let secrets = once(self.0.secrets.current()).chain(self.0.secrets.former());
        secrets.map(|secret| shared.with_secret(secret)).collect()
    }

    /// Replaces the secrets of the store, and protects the list with the current one. `former`: most recent first. Returns
    /// whether the current one has changed.
    ///
    /// # Errors
    /// If the file cannot be written. The secrets are not changed then.
    pub async fn replace_secrets(
        &self,
        current: StoreSecret,
        former: Vec<StoreSecret>,
    ) -> Result<bool, ListFileError> {
        let state = &*self.0;
        let _changing = state.changing.lock().await;
        let _writing = state.writing.lock().await;
        let list = state.decisions.list();
        let is_new = !current.is_same(&state.secrets.current());
        if is_new && list.number > 0 {
            self.write_sealed(&list, current.clone()).await?;
        }
        state.secrets.replace(current, former);
        // Also written to the shared store.
        self.set_outdated();
        Ok(is_new)
    }

    /// Makes or removes a decision. Returns the list before and after.
    ///
    /// # Errors
    /// If nothing was changed.
    pub async fn change(
        &self,
        change: &DecisionChange,
    ) -> Result<(DecisionList, DecisionList), DecisionError> {
        let state = &*self.0;
        if state.file.is_none() && state.shared.is_none() {
            return Err(DecisionError::NotKept);
        }
        let _changing = state.changing.lock().await;
        'attempt: for _ in 0..ATTEMPTS {
            self.refresh().await?;
            let before = state.decisions.list();
            let after = before.changed(change, now()).ok_or(DecisionError::Missing)?;
            let encoded = after.encode();
            if encoded.len() > MAX_VALUE {
                return Err(DecisionError::TooMany);
            }
            if let Some(shared) = &state.shared {
                // The current secret last: replicas without it compete for the number in the other lists.
                for list in self.shared_lists().iter().rev() {
                    let added = list.add_decisions(after.number, &encoded).await;
                    if !added.map_err(DecisionError::Uncertain)?? {
                        // Another replica was faster: its list first.
                        continue 'attempt;
                    }
                }
                state.decisions.replace(&after);
                shared.publish(&StoreMessage::Decided { number: after.number }.encode());
                self.keep(&after).await;
            } else {
                self.write_file(&after).await?;
                state.decisions.replace(&after);
            }
            return Ok((before, after));
        }
        Err(DecisionError::Busy)
    }

    /// Writes a list of the shared store to the file. Failure costs only what the file is for.
    async fn keep(&self, list: &DecisionList) {
        if let Err(error) = self.write_file(list).await {
            warn!(error = %Chain(&error), "the decisions are not kept on this replica");
        }
    }

    async fn write_file(&self, list: &DecisionList) -> Result<(), ListFileError> {
        let _writing = self.0.writing.lock().await;
        self.write_sealed(list, self.0.secrets.current()).await
    }

    /// Writes the file. Called with the lock.
    async fn write_sealed(
        &self,
        list: &DecisionList,
        secret: StoreSecret,
    ) -> Result<(), ListFileError> {
        let Some(path) = self.0.file.clone() else { return Ok(()) };
        let list = list.clone();
        let failed_path = path.clone();
        let written = spawn_blocking(move || list_file::write(&path, &secret, &list)).await;
        written.unwrap_or_else(|panicked| {
            Err(ListFileError::File { path: failed_path, source: panicked.into() })
        })
    }
}

impl fmt::Debug for DecisionKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DecisionKeeper").field(&self.0.decisions).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::decisions::{DecisionAction, OperatorDecision};
    use mcs_store::{SimulatedNode, SimulatedServer};

    fn keeper(server: &SimulatedServer, client: u32) -> DecisionKeeper {
        keeper_with(server, client, secret("secret"), None)
    }

    fn secret(name: &str) -> StoreSecret {
        StoreSecret::derive(name.as_bytes())
    }

    fn keeper_with(
        server: &SimulatedServer,
        client: u32,
        secret: StoreSecret,
        file: Option<PathBuf>,
    ) -> DecisionKeeper {
        let clock = server.clone();
        let now = Arc::new(move || clock.now_ms() / 1000);
        let timeout = Duration::from_millis(250);
        let node = SimulatedNode { client, seed: client.into(), timeout, now };
        let secrets = SecretRing::from(secret);
        let (store, _events) = SharedStore::start_simulated(server, node, secrets.clone()).unwrap();
        DecisionKeeper::open(secrets, file, Some(store)).unwrap()
    }

    fn block(content: u8) -> DecisionChange {
        DecisionChange::Add(OperatorDecision {
            content: [content; 32],
            action: DecisionAction::Block,
            comment: "why".to_owned(),
            made: 0,
            end: u64::MAX,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_changes_are_all_in_the_list() {
        let server = SimulatedServer::new(1);
        server.set_delay(Duration::ZERO, Duration::from_millis(20));
        let keepers: Vec<_> = (1..=3).map(|client| keeper(&server, client)).collect();
        sleep(Duration::from_secs(1)).await;
        let changes = keepers.iter().zip(1..);
        let changes = changes.map(|(keeper, content)| async move {
            while let Err(error) = keeper.change(&block(content)).await {
                assert!(matches!(error, DecisionError::Busy), "{error}");
            }
        });
        futures_util::future::join_all(changes).await;
        for keeper in &keepers {
            keeper.refresh().await.unwrap();
            let list = keeper.decisions().list();
            assert_eq!((list.number, list.decisions.len()), (3, 3));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn decisions_survive_in_the_replicas_if_the_store_is_emptied() {
        let server = SimulatedServer::new(1);
        let first = keeper(&server, 1);
        sleep(Duration::from_secs(1)).await;
        first.change(&block(1)).await.unwrap();
        first.change(&block(2)).await.unwrap();
        server.flush_all();
        first.refresh().await.unwrap();
        let later = keeper(&server, 2);
        sleep(Duration::from_secs(1)).await;
        later.refresh().await.unwrap();
        assert_eq!(later.decisions().list(), first.decisions().list());
        server.set_partitioned(2, true);
        let error = later.change(&block(3)).await.unwrap_err();
        assert!(matches!(error, DecisionError::Shared(_)), "{error}");
        assert_eq!(later.decisions().number(), 2, "nothing has changed");
    }

    /// Replicas change the request key one after the other. Each makes a decision before, between and after.
    #[tokio::test(start_paused = true)]
    async fn no_decision_is_lost_by_new_secrets() {
        let server = SimulatedServer::new(1);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("decisions");
        let first = keeper_with(&server, 1, secret("old"), Some(file.clone()));
        let second = keeper_with(&server, 2, secret("old"), None);
        let keepers = [&first, &second];
        sleep(Duration::from_secs(1)).await;
        let mut made = 0;
        let mut decide = async || {
            for keeper in keepers {
                made += 1;
                keeper.change(&block(made)).await.unwrap();
            }
            for keeper in keepers {
                keeper.refresh().await.unwrap();
                let list = keeper.decisions().list();
                assert_eq!((list.number, list.decisions.len()), (made.into(), made.into()));
            }
        };
        decide().await;
        for keeper in keepers {
            keeper.replace_secrets(secret("new"), vec![secret("old")]).await.unwrap();
            decide().await;
        }
        for keeper in keepers {
            keeper.replace_secrets(secret("new"), Vec::new()).await.unwrap();
        }
        decide().await;
        let later = keeper_with(&server, 3, secret("new"), None);
        sleep(Duration::from_secs(1)).await;
        later.refresh().await.unwrap();
        assert_eq!(later.decisions().list(), first.decisions().list());
        let restarted = DecisionKeeper::open(secret("new").into(), Some(file), None).unwrap();
        assert_eq!(restarted.decisions().list(), first.decisions().list());
    }

    #[tokio::test(start_paused = true)]
    async fn decisions_reach_the_store_under_a_new_secret_without_a_change() {
        let server = SimulatedServer::new(1);
        let first = keeper_with(&server, 1, secret("old"), None);
        sleep(Duration::from_secs(1)).await;
        first.change(&block(1)).await.unwrap();
        first.replace_secrets(secret("new"), Vec::new()).await.unwrap();
        first.refresh().await.unwrap();
        let later = keeper_with(&server, 2, secret("new"), None);
        sleep(Duration::from_secs(1)).await;
        later.refresh().await.unwrap();
        assert_eq!(later.decisions().list(), first.decisions().list());
    }

    #[tokio::test]
    async fn secrets_are_not_replaced_if_the_file_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lists/decisions");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        let secrets = SecretRing::from(secret("old"));
        let keeper = DecisionKeeper::open(secrets.clone(), Some(file.clone()), None).unwrap();
        keeper.change(&block(1)).await.unwrap();
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
        let error = keeper.replace_secrets(secret("new"), Vec::new()).await.unwrap_err();
        assert!(matches!(error, ListFileError::File { .. }), "{error}");
        assert!(secrets.current().is_same(&secret("old")));
        // Nothing is written if only former secrets end.
        let former = vec![secret("older")];
        assert!(!keeper.replace_secrets(secret("old"), former).await.unwrap());
        assert_eq!(secrets.former().len(), 1);
    }
}
