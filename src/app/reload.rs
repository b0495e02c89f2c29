//! A reload: the configuration is read again, what hangs on it is made anew beside what runs and tried
//! out, and then put in force all at once. Whatever goes wrong before that changes nothing. Requests and
//! jobs that have begun end by what was in force when they came.

use std::{sync::Arc, time::Duration};

use mcs_sandbox::Layer;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use super::{Grounds, Lasting, StartError, canary, report, unknown_types};
use crate::{
    chain::Chain,
    config::{Changes, Config, ConfigErrors, Warning},
    http::{AppState, Live},
    keys::{KeyError, KeyNotice, RequestKey},
    logging::Level,
    media::{Homeservers, SetupError},
    metrics::Metrics,
    scan::{
        Scanner,
        canary::{Canary, CanaryError, CanaryState},
        engines::{self, Network},
    },
    service_manager::ServiceManager,
};

/// How much longer than the engines a reload may take.
const TRIALS: Duration = Duration::from_secs(60);

/// Reads a configuration; blocking.
pub type Read = dyn Fn() -> Result<(Config, Vec<Warning>), ConfigErrors> + Send + Sync;

/// How a running service comes by another configuration.
pub struct Reload {
    /// Notified when one is to be read. Who is notified more than once meanwhile reads once more.
    pub asked: Arc<Notify>,
    /// Reads what was read at the start, again.
    pub read: Arc<Read>,
    /// The log's.
    pub level: Level,
}

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// Told one by one.
    #[error("the configuration is wrong")]
    Config(ConfigErrors),
    #[error("the request key cannot be used")]
    Key(#[from] KeyError),
    #[error("[download] cannot be used")]
    Download(#[from] SetupError),
    #[error("the engines cannot be used")]
    Engines(#[from] engines::SetupError),
    #[error(transparent)]
    Grounds(#[from] StartError),
    #[error("the sandbox would hold less than it does: without {0}")]
    Weaker(String),
    #[error("the canary has another answer than the right one")]
    Canary(#[from] CanaryError),
    #[error("reading it panicked")]
    Panicked,
}

/// Sees to reloads, and keeps what they begin from.
pub(super) struct Reloader {
    pub(super) reload: Reload,
    /// What is in force: as read, but for what only a start changes.
    pub(super) running: Config,
    pub(super) live: Live,
    pub(super) grounds: Grounds,
    pub(super) lasting: Lasting,
    pub(super) canary: Watch,
    pub(super) manager: ServiceManager,
}

/// The canary of what is in force.
pub(super) struct Watch {
    pub(super) state: watch::Sender<CanaryState>,
    pub(super) task: Option<JoinHandle<()>>,
}

/// Read, and sound as far as that can be told without running anything.
struct Sound {
    config: Config,
    changes: Changes,
    warnings: Vec<Warning>,
    key: RequestKey,
    notices: Vec<KeyNotice>,
    homeservers: Homeservers,
    network: Network,
}

impl Reloader {
    /// Reloads whenever that is asked for, until the service stops. Never completes.
    pub(super) async fn run(&mut self, mut stopping: watch::Receiver<Option<Instant>>) {
        tokio::select! {
            _ = stopping.wait_for(Option::is_some) => {}
            () = self.follow() => {}
        }
        std::future::pending::<()>().await;
    }

    async fn follow(&mut self) {
        loop {
            let asked = Arc::clone(&self.reload.asked);
            let key_ends = self.live.now().keys.next_end();
            tokio::select! {
                () = asked.notified() => self.answer().await,
                () = until(key_ends) => self.forget_keys(),
            }
        }
    }

    async fn answer(&mut self) {
        info!("asked to reload");
        // A service that is still starting goes on starting.
        let tells = self.manager.is_ready();
        if tells {
            self.manager.reloading();
        }
        if let Some(audit) = &self.lasting.audit {
            // Whoever moves the file away asks for this, whatever has become of the configuration.
            audit.reopen().await;
        }
        let result = self.take_over().await;
        self.lasting.metrics.reload(result.is_ok());
        match result {
            Ok((changes, warnings)) => {
                for warning in warnings {
                    warn!("{warning}");
                }
                for key in &changes.at_start {
                    warn!(key, "changed, and not taken over: that takes a restart");
                }
                if changes.taken.is_empty() {
                    info!("reloaded; the configuration is the same");
                } else {
                    info!(changed = changes.taken.join(", "), "reloaded");
                }
            }
            Err(why) => {
                if let ReloadError::Config(errors) = &why {
                    for problem in errors.problems() {
                        error!("{problem}");
                    }
                }
                error!(why = %Chain(&why), "the reload is refused: everything stays as it was");
            }
        }
        if tells {
            self.manager.ready();
        }
    }

    async fn take_over(&mut self) -> Result<(Changes, Vec<Warning>), ReloadError> {
        let (read, running) = (Arc::clone(&self.reload.read), self.running.clone());
        let metrics = Arc::clone(&self.lasting.metrics);
        let read = spawn_blocking(move || Sound::read(&*read, &running, metrics));
        let Sound { config, changes, warnings, key, notices, homeservers, network } =
            read.await.map_err(|_| ReloadError::Panicked)??;
        let grounds =
            if changes.sandbox() { self.revise(&config).await? } else { self.grounds.clone() };
        // Before they are in force: what was called clean by these versions stays that.
        network.read_versions().await;
        let network = Arc::new(network);
        let homeservers = Arc::new(homeservers);
        let parts = self.lasting.parts(&config, &grounds, &homeservers, &network)?;
        let canary = canary(&config, &grounds, &self.lasting.detector, &network)?;
        if changes.judge()
            && let Some(canary) = &canary
        {
            // Both samples, one after the other.
            self.manager.extend_timeout(config.scan.time_limits().saturating_mul(2) + TRIALS);
            canary.check().await?;
        }
        // From here on nothing fails.
        notices.iter().for_each(report);
        for name in unknown_types(&config, &self.lasting.detector) {
            warn!(name, "a MIME type in [scan] that is never detected: no file is called this");
        }
        self.canary.stop().await;
        let now = self.live.now();
        let scanner = now.scanner.renewed(parts);
        let keys = now.keys.rotated(key, config.previous_key_ttl);
        self.reload.level.change(&config.log);
        self.live.replace(self.lasting.state(&config, scanner.clone(), homeservers, keys));
        self.canary.begin(canary, scanner);
        self.grounds = grounds;
        self.running = config;
        Ok((changes, warnings))
    }

    /// Another sandbox, tried as the first was, that holds no less.
    async fn revise(&self, config: &Config) -> Result<Grounds, ReloadError> {
        let grounds = self.grounds.revised(config).await?;
        let (before, after) = (self.grounds.sandbox.layers(), grounds.sandbox.layers());
        let lost = Layer::ALL.into_iter().filter(|it| before.holds(*it) && !after.holds(*it));
        let lost: Vec<_> = lost.map(Layer::name).collect();
        if lost.is_empty() { Ok(grounds) } else { Err(ReloadError::Weaker(lost.join(", "))) }
    }

    /// Out of memory too.
    fn forget_keys(&self) {
        let now = self.live.now();
        let keys = Arc::new(now.keys.without_ended());
        self.live.replace(AppState { keys, ..AppState::clone(&now) });
        info!("the time of a replaced request key is over");
    }
}

impl Sound {
    fn read(read: &Read, running: &Config, metrics: Arc<Metrics>) -> Result<Self, ReloadError> {
        let (config, warnings) = read().map_err(ReloadError::Config)?;
        let (config, changes) = config.taken_over(running);
        let (key, notices) = RequestKey::load_again(&config.crypto)?;
        // Certificates are read again too.
        let homeservers = Homeservers::new(&config.download, metrics)?;
        let network = Network::new(&config.scan.engines)?;
        Ok(Self { config, changes, warnings, key, notices, homeservers, network })
    }
}

impl Watch {
    /// Begins to ask this one, at once and then from time to time; without one all is well.
    pub(super) fn begin(&mut self, canary: Option<Canary>, distrusted: Scanner) {
        if canary.is_none() {
            self.state.send_replace(CanaryState::Passed);
        }
        let state = self.state.clone();
        self.task = canary
            .map(|canary| tokio::spawn(canary.watch(state, move || distrusted.forget_verdicts())));
    }

    /// Asks no more. What was said last stays.
    pub(super) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Until it is gone, it might say something still.
            let _cancelled = task.await;
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
