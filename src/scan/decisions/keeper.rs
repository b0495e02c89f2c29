//! Keeps the list of decisions: in a file, and in the store that replicas share.

use std::{fmt, path::PathBuf, sync::Arc};

use mcs_store::{MAX_VALUE, SealError, SharedStore, StoreSecret, StoreUnavailable};
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::{error, info, warn};

use super::{
    current::{Decisions, now},
    list::{DecisionChange, DecisionList},
    list_file::{self, ListFileError},
};
use crate::{chain::Chain, scan::cache::StoreMessage};

/// Number of attempts to change a list that other replicas change at the same time.
const ATTEMPTS: usize = 5;

/// Changes the decisions in force. Cheap to clone.
#[derive(Clone)]
pub struct DecisionKeeper(Arc<KeeperState>);

struct KeeperState {
    decisions: Decisions,
    secret: StoreSecret,
    file: Option<PathBuf>,
    shared: Option<SharedStore>,
    /// Locked during a change.
    changing: Mutex<()>,
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
    /// The file cannot be written.
    #[error("the decision was not made")]
    File(#[from] ListFileError),
    /// The system returns no random bytes.
    #[error("the decision cannot be encrypted")]
    Seal(#[from] SealError),
}

impl DecisionKeeper {
    /// Reads the file, if there is one. A file that cannot be used is renamed, so that the next change does not replace
    /// it; the service runs without its decisions.
    #[must_use]
    pub fn open(secret: StoreSecret, file: Option<PathBuf>, shared: Option<SharedStore>) -> Self {
        let decisions = Decisions::default();
        if let Some(path) = &file {
            match list_file::read(path, &secret) {
                Ok(list) => drop(list.map(|list| decisions.replace(&list))),
                Err(error) => {
                    error!(error = %Chain(&error), "decisions of operators are not in force");
                    list_file::set_aside(path);
                }
            }
        }
        let changing = Mutex::default();
        Self(Arc::new(KeeperState { decisions, secret, file, shared, changing }))
    }

    /// Returns the decisions in force.
    #[must_use]
    pub fn decisions(&self) -> &Decisions {
        &self.0.decisions
    }

    /// Takes a newer list from the shared store. If the store has none, for example because it was emptied, writes the
    /// list of this process, so that replicas that start later have it.
    ///
    /// # Errors
    /// If the shared store is not available.
    pub async fn refresh(&self) -> Result<(), StoreUnavailable> {
        let Some(shared) = &self.0.shared else { return Ok(()) };
        let known = self.0.decisions.list();
        let Some((number, list)) = shared.latest_decisions(known.number).await? else {
            if known.number > 0 && !shared.has_decisions(known.number).await? {
                let restored = shared.add_decisions(known.number, &known.encode()).await?;
                if matches!(restored, Ok(true)) {
                    info!(
                        number = known.number,
                        "wrote the decisions of operators to the store again"
                    );
                }
            }
            return Ok(());
        };
        match DecisionList::decode(&list) {
            Ok(list) if list.number == number && self.0.decisions.replace(&list) => {
                info!(number, "took over the decisions of operators from another replica");
                if let Err(error) = self.write_file(&list).await {
                    warn!(error = %Chain(&error), "the decisions are not kept on this replica");
                }
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the decisions in the store are of another version"),
        }
        Ok(())
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
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            let before = state.decisions.list();
            let after = before.changed(change, now()).ok_or(DecisionError::Missing)?;
            let encoded = after.encode();
            if encoded.len() > MAX_VALUE {
                return Err(DecisionError::TooMany);
            }
            if let Some(shared) = &state.shared {
                if !shared.add_decisions(after.number, &encoded).await?? {
                    // Another replica was faster: its list first.
                    continue;
                }
                state.decisions.replace(&after);
                shared.publish(&StoreMessage::Decided { number: after.number }.encode());
                if let Err(error) = self.write_file(&after).await {
                    warn!(error = %Chain(&error), "the decisions are not kept on this replica");
                }
            } else {
                self.write_file(&after).await?;
                state.decisions.replace(&after);
            }
            return Ok((before, after));
        }
        Err(DecisionError::Busy)
    }

    async fn write_file(&self, list: &DecisionList) -> Result<(), ListFileError> {
        let Some(path) = self.0.file.clone() else { return Ok(()) };
        let (secret, list) = (self.0.secret.clone(), list.clone());
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
    use std::time::Duration;

    use mcs_store::{SimulatedNode, SimulatedServer};
    use tokio::time::sleep;

    use super::*;
    use crate::scan::decisions::{DecisionAction, OperatorDecision};

    fn keeper(server: &SimulatedServer, client: u32) -> DecisionKeeper {
        let clock = server.clone();
        let now = Arc::new(move || clock.now_ms() / 1000);
        let timeout = Duration::from_millis(250);
        let node = SimulatedNode { client, seed: client.into(), timeout, now };
        let secret = StoreSecret::derive(b"secret");
        let (store, _events) = SharedStore::start_simulated(server, node, secret.clone()).unwrap();
        DecisionKeeper::open(secret, None, Some(store))
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
}
