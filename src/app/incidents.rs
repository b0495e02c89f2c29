//! Incidents: quarantine and notifications.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{error, info};

use super::store::OpenStore;
use crate::{
    config::Config,
    incident::{
        IncidentAdmin, IncidentObserver, IncidentParts, IncidentService, IncidentSettings,
        IncidentSetupError, IncidentStore, OutboxStatus, check_secrets,
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
    let decisions = store.decisions.clone();
    let parts = IncidentParts {
        client,
        store: incident_store,
        metrics: Arc::clone(metrics),
        observer: audit_observer(audit.cloned()),
        is_allowed: Arc::new(move |content| {
            decisions.decisions().find(content) == Some(ListedFile::Allowed)
        }),
    };
    info!("malware in plain media causes incidents");
    let IncidentService { recorder, status, admin, workers } =
        IncidentService::start(&settings, parts);
    let observer = Some(recorder.into_observer());
    Ok(RunningIncidents { observer, status: Some(status), admin: Some(admin), workers })
}

fn incident_store(records: &VerdictRecords) -> Option<IncidentStore> {
    let file = records.file_store().map(|file| IncidentStore::File(Arc::clone(file)));
    file.or_else(|| records.shared_store().cloned().map(IncidentStore::Shared))
}

fn audit_observer(audit: Option<AuditLog>) -> IncidentObserver {
    Arc::new(move |event| {
        if let Some(audit) = &audit {
            audit.record_incident(event);
        }
    })
}
