//! Reloads the configuration: reads it, builds and checks everything that depends on it while the service continues to
//! run, and then replaces the state of the service atomically. An error before that changes nothing. Requests and jobs
//! that have already started use the previous state.

use std::{sync::Arc, time::Duration};

use mcs_sandbox::Layer;
use mcs_store::StoreSecret;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    error::StartError,
    notices::{log_configuration, log_key_notice},
    parts::{Shared, canary},
    sandbox_env::SandboxEnv,
    service_manager::ServiceManager,
};
use crate::{
    admin::{AdminTokenList, AdminTokens, TokenError},
    chain::Chain,
    config::{Changes, Config, ConfigErrors, Warning},
    http::{AppState, CurrentState},
    keys::{KeyError, KeyNotice, Keyring, RequestKey},
    media::{FetchCounters, Homeservers, OutboundSetupError},
    scan::{
        Scanner,
        canary::{Canary, CanaryError, CanaryState},
        decisions::ListFileError,
        engines::{self, RemoteEngines},
    },
    telemetry::{log::LevelHandle, operations},
};

/// Time allowed for a reload in addition to the time limits of the engines.
const RELOAD_ALLOWANCE: Duration = Duration::from_secs(60);

/// Reads the configuration. Blocking.
pub type ReadConfig = dyn Fn() -> Result<(Config, Vec<Warning>), ConfigErrors> + Send + Sync;

/// Reload requests, and the means to apply them.
pub struct Reload {
    /// Notified for each request. Several notifications during a reload cause one more reload.
    pub requested: Arc<Notify>,
    /// Reads the same sources as at the start.
    pub read: Arc<ReadConfig>,
    /// Sets the log level.
    pub level: LevelHandle,
}

/// Reason why a reload is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// Each problem is logged separately.
    #[error("the configuration is invalid")]
    Config(ConfigErrors),
    #[error("the request key cannot be used")]
    Key(#[from] KeyError),
    #[error("the tokens of [admin] cannot be used")]
    AdminTokens(#[from] TokenError),
    #[error("[download] cannot be used")]
    Download(#[from] OutboundSetupError),
    #[error("the engines cannot be used")]
    Engines(#[from] engines::EngineSetupError),
    #[error(transparent)]
    SandboxEnv(#[from] StartError),
    #[error("the new sandbox would lack active layers: {0}")]
    Weaker(String),
    #[error("the decisions of operators cannot be protected with the new request key")]
    Decisions(#[from] ListFileError),
    #[error("the canary failed")]
    Canary(#[from] CanaryError),
    #[error("reading the configuration panicked")]
    Panicked,
}

/// Executes reloads.
pub(super) struct Reloader {
    pub(super) reload: Reload,
    /// The active configuration: the last one read, except for keys that need a restart.
    pub(super) running: Config,
    pub(super) current: CurrentState,
    pub(super) sandbox_env: SandboxEnv,
    pub(super) shared: Shared,
    pub(super) canary: CanaryTask,
    pub(super) manager: ServiceManager,
    /// The tokens in force; `None` without `[admin]`.
    pub(super) admin_tokens: Option<AdminTokens>,
}

/// Background task that runs the canary of the active configuration.
pub(super) struct CanaryTask {
    state: watch::Sender<CanaryState>,
    /// Address of `/health/ready`, for the log.
    health_address: Option<Arc<str>>,
    task: Option<JoinHandle<()>>,
}

/// A configuration that passed all checks that run no program, and the objects created from it.
struct ValidatedConfig {
    config: Config,
    changes: Changes,
    warnings: Vec<Warning>,
    key: RequestKey,
    notices: Vec<KeyNotice>,
    homeservers: Homeservers,
    remote_engines: RemoteEngines,
    admin_tokens: Option<AdminTokenList>,
}

impl Reloader {
    /// Executes reloads until the service stops. Never completes.
    pub(super) async fn run(&mut self, stopping: &CancellationToken) {
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = self.handle_events() => {}
        }
        std::future::pending::<()>().await;
    }

    async fn handle_events(&mut self) {
        loop {
            let requested = Arc::clone(&self.reload.requested);
            let key_expiry = self.current.load().keys.next_expiry();
            tokio::select! {
                () = requested.notified() => self.handle_reload_request().await,
                () = sleep_until_some(key_expiry) => self.remove_expired_keys().await,
            }
        }
    }

    async fn handle_reload_request(&mut self) {
        info!("reload requested");
        // While the service starts, a reload notification would end the "activating" state.
        let notifies = self.manager.has_notified_ready();
        if notifies {
            self.manager.notify_reloading();
        }
        if let Some(audit) = &self.shared.audit {
            // Log rotation depends on this, even if the configuration is invalid.
            audit.reopen().await;
        }
        let key_before = self.current.load().keys.fingerprint();
        let result = self.apply().await;
        self.shared.metrics.record_reload(result.is_ok());
        match result {
            Ok((changes, warnings)) => {
                for warning in warnings {
                    warn!("{warning}");
                }
                for key in &changes.needs_restart {
                    warn!(key, "setting changed, restart required");
                }
                log_reload(changes.applied, self.current.load().keys.fingerprint() != key_before);
            }
            Err(error) => {
                if let ReloadError::Config(errors) = &error {
                    for problem in errors.problems() {
                        error!("{problem}");
                    }
                }
                error!(error = %Chain(&error), "reload rejected, configuration unchanged");
            }
        }
        if notifies {
            self.manager.notify_ready();
        }
    }

    async fn apply(&mut self) -> Result<(Changes, Vec<Warning>), ReloadError> {
        let (read, running) = (Arc::clone(&self.reload.read), self.running.clone());
        let counters = Arc::clone(&self.shared.metrics.homeservers);
        let read = spawn_blocking(move || ValidatedConfig::read(&*read, &running, counters));
        let ValidatedConfig {
            config,
            changes,
            warnings,
            key,
            notices,
            homeservers,
            remote_engines,
            admin_tokens,
        } = read.await.map_err(|_| ReloadError::Panicked)??;
        let sandbox_env = if changes.affects_sandbox() || changes.affects_limits() {
            self.update_sandbox(&config).await?
        } else {
            self.sandbox_env.clone()
        };
        // Before the engines are used, so that verdicts of the same versions remain valid.
        remote_engines.read_versions().await;
        let remote_engines = Arc::new(remote_engines);
        let homeservers = homeservers.with_tenants_of(&self.current.load().homeservers);
        let homeservers = Arc::new(homeservers);
        let cache = self.current.load().scanner.cache_with_settings(config.result_cache.clone());
        let pipeline = self.shared.pipeline(
            &config,
            &sandbox_env,
            &homeservers,
            &remote_engines,
            cache,
            &key,
        )?;
        let canary = canary(&config, &sandbox_env, &remote_engines)?;
        if changes.affects_verdicts()
            && let Some(canary) = &canary
        {
            // The two samples are scanned one after the other, and by the rules a third one.
            let packed = config.scan.rules().map_or(Duration::ZERO, |rules| rules.timeout);
            let samples = config.scan.time_limits().saturating_mul(2).saturating_add(packed);
            self.manager.extend_timeout(samples.saturating_add(RELOAD_ALLOWANCE));
            canary.check().await?;
        }
        let keys = self.current.load().keys.with_current_key(key, config.previous_key_ttl);
        let has_new_secret = self.use_for_store(&keys).await?;
        // Nothing below fails.
        notices.iter().for_each(log_key_notice);
        log_configuration(&config);
        self.canary.stop().await;
        let state = self.current.load();
        let scanner = state.scanner.with_pipeline(pipeline);
        if has_new_secret {
            scanner.drop_stored();
        }
        self.reload.level.set_level(&config.log);
        self.current.replace(self.shared.state(&config, scanner.clone(), homeservers, keys));
        self.canary.start(canary, scanner);
        self.replace_admin_tokens(admin_tokens);
        self.sandbox_env = sandbox_env;
        self.running = config;
        Ok((changes, warnings))
    }

    /// Puts the tokens of operators into force that the file has now.
    fn replace_admin_tokens(&self, list: Option<AdminTokenList>) {
        if let (Some(tokens), Some(list)) = (&self.admin_tokens, list) {
            tokens.replace(list);
        }
    }

    /// Derives the secrets of the store from these keys, unless the store has a secret of its own. Returns whether the
    /// current one has changed.
    ///
    /// # Errors
    /// If the file with the decisions of operators cannot be written.
    async fn use_for_store(&self, keys: &Keyring) -> Result<bool, ListFileError> {
        if self.running.store.as_ref().is_some_and(|store| store.secret_path.is_some()) {
            return Ok(false);
        }
        let (secret, former) = keys.derive(StoreSecret::derive);
        let has_new_secret = self.shared.decisions.replace_secrets(secret, former).await?;
        if has_new_secret && let Some(outbox) = &self.shared.outbox {
            outbox.store_again();
        }
        Ok(has_new_secret)
    }

    /// Builds and probes the sandbox of another configuration.
    ///
    /// # Errors
    /// [`ReloadError::Weaker`] if the sandbox lacks a layer that the current one has.
    async fn update_sandbox(&self, config: &Config) -> Result<SandboxEnv, ReloadError> {
        let sandbox_env = self.sandbox_env.with_policy(config).await?;
        let (before, after) = (self.sandbox_env.sandbox.layers(), sandbox_env.sandbox.layers());
        let lost = Layer::ALL
            .into_iter()
            .filter(|layer| before.is_active(*layer) && !after.is_active(*layer));
        let lost: Vec<_> = lost.map(Layer::name).collect();
        if lost.is_empty() { Ok(sandbox_env) } else { Err(ReloadError::Weaker(lost.join(", "))) }
    }

    /// Also erases the keys from memory.
    async fn remove_expired_keys(&self) {
        let state = self.current.load();
        let keys = Arc::new(state.keys.without_expired());
        if let Err(error) = self.use_for_store(&keys).await {
            error!(error = %Chain(&error), "the secrets of the store cannot be replaced");
        }
        self.current.replace(AppState { keys, ..AppState::clone(&state) });
        info!("replaced request key expired");
    }
}

impl ValidatedConfig {
    fn read(
        read: &ReadConfig,
        running: &Config,
        counters: Arc<FetchCounters>,
    ) -> Result<Self, ReloadError> {
        let (config, warnings) = read().map_err(ReloadError::Config)?;
        let (config, changes) = config.keep_startup_keys(running);
        let (key, notices) = RequestKey::reload(&config.crypto)?;
        // Also reads the certificates again.
        let homeservers = Homeservers::new(&config.download, counters)?;
        let remote_engines = RemoteEngines::new(&config.scan.engines)?;
        let admin = config.admin.as_ref();
        let admin_tokens =
            admin.map(|admin| AdminTokenList::load(&admin.token_path)).transpose()?;
        Ok(Self {
            config,
            changes,
            warnings,
            key,
            notices,
            homeservers,
            remote_engines,
            admin_tokens,
        })
    }
}

impl CanaryTask {
    /// Creates the holder of a task. The state is pending if a canary is configured, and otherwise passed.
    /// `operations`: where `/health/ready` is served.
    pub(super) fn new(
        is_configured: bool,
        operations: Option<&operations::Settings>,
    ) -> (Self, watch::Receiver<CanaryState>) {
        let initial = if is_configured { CanaryState::Pending } else { CanaryState::Passed };
        let (state, receiver) = watch::channel(initial);
        let health_address = operations.map(|settings| settings.listen.to_string().into());
        (Self { state, health_address, task: None }, receiver)
    }

    /// Starts to run a canary, immediately and then periodically. Without a canary, the state is set to passed.
    pub(super) fn start(&mut self, canary: Option<Canary>, scanner: Scanner) {
        if canary.is_none() {
            self.state.send_replace(CanaryState::Passed);
        }
        let state = self.state.clone();
        self.task = canary.map(|canary| {
            let invalidate = move || scanner.invalidate_verdicts();
            tokio::spawn(canary.run_periodically(state, invalidate, self.health_address.clone()))
        });
    }

    /// Stops the canary. The last state remains.
    pub(super) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Waits for the end of the task, which may change the state until then.
            let _cancelled = task.await;
        }
    }
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Logs which keys of the configuration have changed, and whether the request key has: its file may have a new content.
fn log_reload(mut changed: Vec<String>, has_new_key: bool) {
    if has_new_key {
        changed.push("the request key".to_owned());
    }
    if changed.is_empty() {
        info!("reloaded, no changes");
    } else {
        info!(changed = changed.join(", "), "reloaded");
    }
}
