//! The verdict store.

mod agreement;
mod file;
mod secrets;
mod shared;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    time::Duration,
};

use agreement::{compare_clocks, compare_keys};
use mcs_store::{SecretRing, SharedStore, StoreEvents, StoreInspection, StoreSecret};
use secrets::{StoreSecrets, read_secrets};
use sha2::{Digest as _, Sha256};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{error, warn};

use super::store_error::StoreSetupError;
use crate::{
    chain::Chain,
    config::sections::store::{FileStoreSettings, Settings, StorePlace},
    http::CurrentState,
    keys::{KeyNotice, RequestKey},
    scan::{
        cache::{RecordSettings, ResultCache, VerdictRecords},
        decisions::{DecisionKeeper, ListFileError},
    },
};

/// Maximum time that the start waits for the decisions in a shared store.
const DECISIONS_WAIT: Duration = Duration::from_secs(2);

/// Number of questions to a shared store until it counts as not reachable.
const CHECK_ATTEMPTS: usize = 4;

/// Pause between these questions.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

/// Opening of the store in a thread of its own, beside other work of the start.
pub(super) struct StoreOpening(JoinHandle<Result<OpenStore, StoreSetupError>>);

/// The store after it was opened.
pub(super) struct OpenStore {
    /// `None` if nothing is stored.
    pub(super) records: Option<VerdictRecords>,
    pub(super) decisions: DecisionKeeper,
    /// What other replicas change, if the store is shared.
    events: Option<StoreEvents>,
}

impl OpenStore {
    /// Waits a moment for the decisions of operators in a shared store, then starts to apply what other replicas change, and
    /// to compare request keys and clocks. Returns the records.
    pub(super) async fn follow_replicas(
        self,
        cache: ResultCache,
        current: &CurrentState,
    ) -> Option<VerdictRecords> {
        if let (Some(records), Some(events)) = (&self.records, self.events) {
            let decisions = self.decisions;
            let refreshed = async {
                while decisions.refresh().await.is_err() {
                    sleep(CHECK_PAUSE).await;
                }
            };
            if timeout(DECISIONS_WAIT, refreshed).await.is_err() {
                warn!(
                    "starting without the decisions of operators in the shared store, which cannot be read yet"
                );
            }
            let followed = decisions.clone();
            tokio::spawn(async move { followed.follow_store().await });
            tokio::spawn(async move { cache.follow_replicas(events, decisions).await });
            tokio::spawn(compare_keys(records.clone(), current.clone()));
            tokio::spawn(compare_clocks(records.clone()));
        }
        self.records
    }
}

impl StoreOpening {
    pub(super) fn start(settings: Option<Settings>, key: &RequestKey) -> Self {
        let request_secret = key.derive(StoreSecret::derive);
        Self(spawn_blocking(move || match settings {
            Some(settings) => open(&settings, request_secret),
            None => Ok(OpenStore {
                records: None,
                decisions: DecisionKeeper::open(request_secret.into(), None, None)?,
                events: None,
            }),
        }))
    }

    /// Waits for the result, as [`open`] returns it.
    pub(super) async fn finish(self) -> Result<OpenStore, StoreSetupError> {
        self.0.await.unwrap_or_else(|panicked| Err(StoreSetupError::Panicked(panicked)))
    }
}

/// Opens the store. Without space on the disk, with a state directory that cannot be used, or with a shared store that
/// is not reachable, the service starts without.
///
/// # Errors
/// If the configured file or its directory cannot be used, for example because other users can write to it, or if another
/// process uses the file; if a file with a secret cannot be used.
fn open(settings: &Settings, request_secret: StoreSecret) -> Result<OpenStore, StoreSetupError> {
    let StoreSecrets { secret, password, notices } = read_secrets(settings)?;
    notices.iter().for_each(super::notices::log_key_notice);
    let secrets = SecretRing::from(secret.unwrap_or(request_secret));
    let decisions =
        |shared| DecisionKeeper::open(secrets.clone(), settings.decisions_path.clone(), shared);
    let mut record_settings = RecordSettings {
        not_clean_ttl: settings.not_clean_ttl,
        program: program_digest(),
        wait: Duration::ZERO,
    };
    match &settings.place {
        StorePlace::File(file) => {
            let kept = match decisions(None) {
                Err(error @ ListFileError::File { .. }) if !file.is_required => {
                    error!(error = %Chain(&error), "decisions of operators are not in force");
                    DecisionKeeper::open(secrets.clone(), None, None)
                }
                opened => opened,
            };
            let decisions = kept?;
            let file = file::open(file, secrets)?;
            let records = file.map(|file| VerdictRecords::in_file(file, record_settings));
            Ok(OpenStore { records, decisions, events: None })
        }
        StorePlace::Shared(shared) => {
            record_settings.wait = shared.wait;
            let (store, events) = shared::start(shared, secrets.clone(), password)?;
            let decisions = decisions(Some(store.clone()))?;
            let records = VerdictRecords::in_shared_store(store, record_settings);
            Ok(OpenStore { records: Some(records), decisions, events: Some(events) })
        }
    }
}

/// How a store can be used, for `check-config`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreCheck {
    /// State of the shared store; `None` if the store is not shared.
    pub shared: Option<SharedStoreState>,
    /// What operators should know about the files with secrets.
    pub notices: Vec<KeyNotice>,
}

/// Whether a shared store can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SharedStoreState {
    /// The store responds.
    Reachable {
        /// Number of different request keys of the replicas, this one included.
        replica_keys: usize,
        /// Seconds by which the clock differs from that of the store, if it differs by too much.
        clock_difference: Option<u64>,
    },
    /// The store does not respond, or refuses, for this reason.
    Unreachable(String),
}

/// Checks the files with secrets, and whether a shared store is reachable. Opens no file of verdicts, which a running
/// service may use.
///
/// # Errors
/// If the files or the addresses cannot be used.
pub async fn check_store(
    settings: &Settings,
    key: Option<&RequestKey>,
) -> Result<StoreCheck, StoreSetupError> {
    let StoreSecrets { password, notices, .. } = read_secrets(settings)?;
    let mut check = StoreCheck { shared: None, notices };
    if let StorePlace::Shared(shared) = &settings.place {
        // Neither reads nor writes records.
        let (store, _events) = shared::start(shared, StoreSecret::derive(b"").into(), password)?;
        check.shared = Some(shared_state(&store, key).await);
        store.close().await;
    }
    Ok(check)
}

/// Examines the file of verdicts, which a running service may use: reads it only, and delays no other process. The check of
/// its structure takes at most `time_limit`.
///
/// # Errors
/// If the file or its directory cannot be used.
pub async fn inspect_store(
    settings: &FileStoreSettings,
    time_limit: Duration,
) -> Result<StoreInspection, StoreSetupError> {
    let path = settings.path.clone();
    let inspection = spawn_blocking(move || StoreInspection::of_file(&path, time_limit)).await;
    Ok(inspection.map_err(StoreSetupError::Panicked)??)
}

/// Asks a store that has just been started, which may still be connecting.
async fn shared_state(store: &SharedStore, key: Option<&RequestKey>) -> SharedStoreState {
    for _ in 0..CHECK_ATTEMPTS {
        let replica_keys = match key {
            Some(key) => {
                let own = [key.fingerprint()];
                // Not published: this key may not be in use yet.
                let found = store.published_fingerprints().await;
                found.map(|found| found.iter().chain(&own).collect::<BTreeSet<_>>().len())
            }
            // The key is generated at the first start.
            None => store.published_fingerprints().await.map(|_| 1),
        };
        if let Some(replica_keys) = replica_keys {
            let clock_difference = store.clock_difference().await;
            let clock_difference = clock_difference.filter(|seconds| agreement::differs(*seconds));
            return SharedStoreState::Reachable { replica_keys, clock_difference };
        }
        sleep(CHECK_PAUSE).await;
    }
    SharedStoreState::Unreachable(store.last_error().unwrap_or_default())
}

/// Returns the SHA-256 of this program, or of its version if the program cannot be read.
fn program_digest() -> [u8; 32] {
    let digest = || -> io::Result<[u8; 32]> {
        let mut file = File::open("/proc/self/exe")?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finalize().into()),
                length => hash.update(buffer.get(..length).unwrap_or_default()),
            }
        }
    };
    digest().unwrap_or_else(|error| {
        warn!(%error, "the program cannot be read; stored verdicts are valid for its version");
        Sha256::digest(env!("CARGO_PKG_VERSION")).into()
    })
}
