//! List of incidents.

use std::{sync::Arc, time::SystemTime};

use axum::{
    extract::State,
    http::{StatusCode, Uri},
};

use super::{
    error::{AdminError, json},
    protocol::{IncidentMediaView, IncidentView, IncidentsReply, NotificationView, StepView},
    query,
    state::{AdminResult, AdminState},
    views::time,
};
use crate::incident::{IncidentList, IncidentOverview, StepOverview, TargetOverview};

pub(super) async fn handle(State(state): State<Arc<AdminState>>, uri: Uri) -> AdminResult {
    let filter = query::incident_filter(&uri)?;
    let list = state.incidents()?.list(&filter).await;
    let IncidentList { incidents, next } = list.ok_or(AdminError::Outbox)?;
    let incidents = incidents.iter().map(incident_view).collect();
    let next = next.as_ref().map(query::format_position);
    Ok(json(StatusCode::OK, &IncidentsReply { incidents, next }))
}

pub(super) fn incident_view(incident: &IncidentOverview) -> IncidentView {
    let media = incident.media.iter().map(|(mxc, homeserver, quarantine)| IncidentMediaView {
        mxc: mxc.clone(),
        homeserver: homeserver.clone(),
        quarantine: quarantine.as_ref().map(step_view),
    });
    let notifications = incident.targets.iter().map(|target| {
        let TargetOverview { kind, address, step } = target;
        NotificationView {
            kind: (*kind).to_owned(),
            address: address.clone(),
            step: step_view(step),
        }
    });
    IncidentView {
        id: incident.id.clone(),
        found: millis(incident.found),
        content: incident.content.clone(),
        engine: incident.engine.clone(),
        finding: incident.finding.clone(),
        state: incident.state.to_owned(),
        expires: time(incident.expires),
        ended: incident.ended.map(millis),
        media: media.collect(),
        notifications: notifications.collect(),
    }
}

fn step_view(step: &StepOverview) -> StepView {
    StepView { state: step.state.to_owned(), tries: step.tries, next: time(step.next) }
}

fn millis(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
