//! Starts everything that creates incidents and does their steps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    admin::IncidentAdmin,
    event::IncidentObserver,
    incident_store::IncidentStore,
    notifier::{self, NoticeTarget},
    outbox::Outbox,
    outbox_follower::OutboxFollower,
    outbox_reader::OutboxReader,
    outbox_status::{OutboxStatus, SharedStatus},
    quarantine::QuarantineClient,
    quarantiner,
    recorder::IncidentRecorder,
    rescan::RESCAN_TOKEN,
    room::NoticeRoom,
    secret_source::SecretSource,
    seen::SeenIndex,
    seen_recorder::{SeenRecorder, keep_seen},
    step_plan::{StepPlan, StepTarget},
    step_worker::{AllowedContents, StepWorker},
    webhook::Webhook,
};
use crate::{
    config::{
        Config,
        sections::{
            incident::RescanSettings,
            notify::{NotifyAddress, NotifyTarget},
            quarantine,
        },
    },
    media::{OutboundSetupError, hex, service_client::ServiceClient},
    metrics::Metrics,
    token_file::TokenError,
};

/// What is done about incidents.
#[derive(Clone, Debug)]
pub struct IncidentSettings {
    keep: Duration,
    quarantine: Option<(quarantine::Settings, reqwest::Url)>,
    targets: Vec<NotifyTarget>,
    rescan: Option<RescanSettings>,
}

/// What incidents need besides their settings.
pub struct IncidentParts {
    pub client: ServiceClient,
    pub store: IncidentStore,
    pub metrics: Arc<Metrics>,
    /// Receives what happens to incidents.
    pub observer: IncidentObserver,
    pub is_allowed: AllowedContents,
}

/// Reason why incidents cannot be handled.
#[derive(Debug, thiserror::Error)]
pub enum IncidentSetupError {
    #[error("a secret of incidents cannot be used")]
    Secret(#[from] TokenError),
    #[error("the client for quarantine and notifications cannot be set up")]
    Client(#[from] OutboundSetupError),
}

/// The running workers. They end when this value is dropped; the outbox keeps what they have not done.
pub struct IncidentService {
    pub recorder: IncidentRecorder,
    pub status: OutboxStatus,
    pub admin: IncidentAdmin,
    pub workers: JoinSet<()>,
}

impl IncidentSettings {
    /// Returns the settings; `None` if no incidents are created, and served media is not scanned again.
    #[must_use]
    pub fn from_config(config: &Config) -> Option<Self> {
        let rescan = config.incident.rescan.clone();
        if !config.has_incidents() && rescan.is_none() {
            return None;
        }
        let quarantine = config.quarantine.clone().zip(config.download.main_homeserver().cloned());
        let (keep, targets) = (config.incident.keep, config.notify.targets.clone());
        Some(Self { keep, quarantine, targets, rescan })
    }

    /// Returns whether malware causes incidents.
    #[must_use]
    pub fn has_incidents(&self) -> bool {
        self.quarantine.is_some() || !self.targets.is_empty()
    }

    /// Returns how long the names of media are kept.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.keep
    }

    /// Returns how served media is scanned again, if it is.
    #[must_use]
    pub fn rescan(&self) -> Option<&RescanSettings> {
        self.rescan.as_ref()
    }

    fn rescan_token(&self) -> Option<SecretSource> {
        let path = self.rescan.as_ref()?.token_path.clone();
        Some(SecretSource::new(path, RESCAN_TOKEN))
    }

    /// Returns the client of the admin API, and the maximum number of calls a second.
    fn quarantine_client(&self, client: &ServiceClient) -> Option<(QuarantineClient, u32)> {
        let (token, (settings, homeserver)) = (self.quarantine_token()?, self.quarantine.as_ref()?);
        let base_url = settings.base_url.as_ref().unwrap_or(homeserver).clone();
        let (api, client) = (settings.at, client.clone());
        Some((QuarantineClient { api, base_url, token, client }, settings.rate))
    }

    fn quarantine_token(&self) -> Option<SecretSource> {
        let (settings, _) = self.quarantine.as_ref()?;
        Some(SecretSource::new(settings.token_path.clone(), "quarantine.token_path"))
    }
}

/// Reads the files with secrets, as a check. Blocks.
///
/// # Errors
/// If a file cannot be read, if scripts could read it, or if it contains no secret.
pub fn check_secrets(settings: &IncidentSettings) -> Result<(), TokenError> {
    let targets = settings.targets.iter().map(|target| secret(&target.address));
    let tokens = settings.quarantine_token().into_iter().chain(settings.rescan_token());
    for source in tokens.chain(targets) {
        source.read_blocking()?;
    }
    Ok(())
}

fn secret(address: &NotifyAddress) -> SecretSource {
    let (key, path): (_, &PathBuf) = address.secret_file();
    SecretSource::new(path.clone(), key)
}

impl IncidentService {
    /// Starts the workers.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(settings: &IncidentSettings, parts: IncidentParts) -> Self {
        let IncidentParts { client, store, metrics, observer, is_allowed } = parts;
        let targets = settings.targets.iter().map(|target| step_target(&target.address)).collect();
        let base_url = settings.quarantine.as_ref().map(|(_, homeserver)| base_text(homeserver));
        let plan = StepPlan { quarantined_at: base_url, targets };
        let outbox = Outbox::new(store.clone(), plan, settings.keep);
        let seen = SeenIndex::new(store.clone(), settings.keep);
        let mut workers = JoinSet::new();
        let worker = |name| StepWorker {
            outbox: outbox.clone(),
            name,
            is_allowed: Arc::clone(&is_allowed),
            metrics: Arc::clone(&metrics),
            is_failing: false,
        };
        let quarantine = settings.quarantine_client(&client);
        if let Some((client, rate)) = &quarantine {
            let (client, observer) = (client.clone(), Arc::clone(&observer));
            workers.spawn(quarantiner::run(worker("quarantine"), client, *rate, observer));
        }
        let admin = IncidentAdmin {
            outbox: outbox.clone(),
            seen: seen.clone(),
            quarantine: quarantine.map(|(client, _)| client),
        };
        for (index, target) in settings.targets.iter().enumerate() {
            let personal_data = target.personal_data;
            let target = notice_target(&target.address, &client);
            workers.spawn(notifier::run(worker(target.step_name()), index, target, personal_data));
        }
        let (seen_recorder, seen_media) = SeenRecorder::new();
        let (written_sender, written) = mpsc::unbounded_channel();
        workers.spawn(keep_seen(seen.clone(), seen_media));
        let shared = SharedStatus::default();
        let reader = OutboxReader { outbox: outbox.clone(), seen, metrics, observer };
        match &store {
            IncidentStore::File(file) => workers.spawn(reader.run_file(Arc::clone(file), written)),
            IncidentStore::Shared(store) => {
                let follower = OutboxFollower::new(reader, store.clone(), shared.clone());
                workers.spawn(follower.run(written))
            }
        };
        let recorder = IncidentRecorder {
            store,
            keep: settings.keep,
            seen: seen_recorder,
            written: written_sender,
        };
        Self { recorder, status: OutboxStatus { outbox, shared }, admin, workers }
    }
}

/// Returns a base URL as jobs have it: without a slash at the end, except of a URL without a path.
fn base_text(url: &reqwest::Url) -> String {
    crate::media::base_url(url).to_string()
}

fn notice_target(address: &NotifyAddress, client: &ServiceClient) -> NoticeTarget {
    let (secret, client) = (secret(address), client.clone());
    match address.clone() {
        NotifyAddress::Webhook { url, .. } => {
            NoticeTarget::Webhook(Webhook { url, secret, client })
        }
        NotifyAddress::Room { room, homeserver, .. } => {
            NoticeTarget::Room(NoticeRoom { room, homeserver, token: secret, client })
        }
    }
}

fn step_target(address: &NotifyAddress) -> StepTarget {
    let (kind, text) = match address {
        NotifyAddress::Webhook { url, .. } => ("webhook", url.origin().ascii_serialization()),
        NotifyAddress::Room { room, .. } => ("room", room.clone()),
    };
    StepTarget { name: target_name(address), kind, address: text }
}

/// Returns the name of a target in the outbox, equal after restarts: the start of a digest of its address.
fn target_name(address: &NotifyAddress) -> String {
    let digest = match address {
        NotifyAddress::Webhook { url, .. } => Sha256::digest(format!("webhook {url}")),
        NotifyAddress::Room { room, homeserver, .. } => {
            Sha256::digest(format!("room {room} {homeserver}"))
        }
    };
    hex(&digest.into()).chars().take(16).collect()
}
