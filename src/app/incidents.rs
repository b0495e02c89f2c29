//! Incidents: quarantine, notifications and rescans.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::store::OpenStore;
use crate::{
    config::Config,
    http::CurrentState,
    incident::{
        IncidentAdmin, IncidentObserver, IncidentParts, IncidentService, IncidentSettings,
        IncidentSetupError, IncidentStore, OutboxStatus, RescanParts, RescanService, SeenRecorder,
        check_secrets,
    },
    media::service_client::ServiceClient,
    metrics::Metrics,
    scan::{cache::VerdictRecords, engines::ListedFile, report::PlainMediaObserver},
    telemetry::audit::AuditLog,
};

/// The handling of incidents; nothing by default.
#[derive(Default)]
pub(super) struct RunningIncidents {
    /// Receives plain media.
    pub(super) observer: Option<PlainMediaObserver>,
    pub(super) status: Option<OutboxStatus>,
    /// What operators see and change.
    pub(super) admin: Option<IncidentAdmin>,
    pub(super) workers: JoinSet<()>,
    rescan: Option<WaitingRescan>,
}

/// Rescans that begin when there is a scanner.
struct WaitingRescan {
    settings: IncidentSettings,
    store: IncidentStore,
    client: ServiceClient,
    metrics: Arc<Metrics>,
}

impl RunningIncidents {
    /// Starts to scan served media again after changes of the engines, if that is configured.
    pub(super) fn start_rescans(&mut self, current: &CurrentState, stopping: CancellationToken) {
        let Some(WaitingRescan { settings, store, client, metrics }) = self.rescan.take() else {
            return;
        };
        let Some(rescan) = settings.rescan() else { return };
        let current = current.clone();
        let parts = RescanParts {
            store,
            keep: settings.keep(),
            client,
            metrics,
            current: Arc::new(move || {
                let app = current.load();
                (app.scanner.clone(), Arc::clone(&app.homeservers))
            }),
            has_incidents: settings.has_incidents(),
        };
        info!("served media is scanned again when the engines change");
        let service = RescanService::new(rescan, parts);
        self.workers.spawn(service.run(async move { stopping.cancelled().await }));
    }
}

/// Starts the handling of incidents, unless nothing is to be done about them, or the service runs without its store.
///
/// # Errors
/// If a file with a secret cannot be used.
pub(super) fn start_incidents(
    config: &Config,
    store: &OpenStore,
    metrics: &Arc<Metrics>,
    audit: Option<&AuditLog>,
) -> Result<RunningIncidents, IncidentSetupError> {
    let Some(settings) = IncidentSettings::from_config(config) else {
        return Ok(RunningIncidents::default());
    };
    check_secrets(&settings)?;
    let client = ServiceClient::new(&config.download)?;
    let Some(incident_store) = store.records.as_ref().and_then(incident_store) else {
        error!("no incidents are created, because the verdict store cannot be used");
        return Ok(RunningIncidents::default());
    };
    let mut running = if settings.has_incidents() {
        let decisions = store.decisions.clone();
        let parts = IncidentParts {
            client: client.clone(),
            store: incident_store.clone(),
            metrics: Arc::clone(metrics),
            observer: audit_observer(audit.cloned()),
            is_allowed: Arc::new(move |content| {
                decisions.decisions().find(content) == Some(ListedFile::Allowed)
            }),
        };
        info!("malware in plain media causes incidents");
        let IncidentService { recorder, status, admin, workers } =
            IncidentService::start(&settings, parts);
        let (observer, status) = (Some(recorder.into_observer()), Some(status));
        RunningIncidents { observer, status, admin: Some(admin), workers, rescan: None }
    } else {
        keep_seen_media(incident_store.clone(), &settings)
    };
    if settings.rescan().is_some() {
        let metrics = Arc::clone(metrics);
        running.rescan = Some(WaitingRescan { settings, store: incident_store, client, metrics });
    }
    Ok(running)
}

fn incident_store(records: &VerdictRecords) -> Option<IncidentStore> {
    let file = records.file_store().map(|file| IncidentStore::File(Arc::clone(file)));
    file.or_else(|| records.shared_store().cloned().map(IncidentStore::Shared))
}

/// Keeps which media was served, for rescans without incidents.
fn keep_seen_media(store: IncidentStore, settings: &IncidentSettings) -> RunningIncidents {
    let (recorder, task) = SeenRecorder::start(store, settings.keep());
    let mut running = RunningIncidents {
        observer: Some(recorder.into_observer()),
        ..RunningIncidents::default()
    };
    running.workers.spawn(task);
    running
}

fn audit_observer(audit: Option<AuditLog>) -> IncidentObserver {
    Arc::new(move |event| {
        if let Some(audit) = &audit {
            audit.record_incident(event);
        }
    })
}
