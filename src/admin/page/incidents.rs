//! The list of incidents.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};

use super::{
    response::{PageLayout, PageResult, html},
    state::PageState,
};
use crate::{
    admin::{
        error::AdminError,
        incidents::incident_view,
        protocol::IncidentView,
        query::{self, format_position},
        state::AdminState,
    },
    incident::{IncidentFilter, IncidentList, IncidentOverview},
};

/// Number of incidents on the first page.
const FIRST_INCIDENTS: usize = 5;

/// Number of incidents on a page of the list.
const PAGE_INCIDENTS: usize = 50;

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    layout: PageLayout,
    state: &'static str,
    incidents: Vec<IncidentRow>,
    /// Position of the next page.
    next: Option<String>,
}

/// An incident of the table.
pub(super) struct IncidentRow {
    pub(super) view: IncidentView,
    pub(super) class: &'static str,
    /// First digits of the SHA-256.
    pub(super) digits: String,
}

impl IncidentRow {
    fn new(incident: &IncidentOverview) -> Self {
        let view = incident_view(incident);
        let class = match &*view.state {
            "done" => "good",
            "waiting" => "note",
            _ => "bad",
        };
        let digits = view.content.chars().take(12).collect();
        Self { view, class, digits }
    }
}

/// Returns the latest incidents; `None` if no incidents are created, or they cannot be read.
pub(super) async fn latest(state: &AdminState) -> Option<Vec<IncidentRow>> {
    let incidents = state.incidents.as_ref()?;
    let filter = IncidentFilter { limit: FIRST_INCIDENTS, ..IncidentFilter::default() };
    Some(incidents.list(&filter).await?.incidents.iter().map(IncidentRow::new).collect())
}

pub(super) async fn incidents(
    State(state): State<Arc<PageState>>,
    headers: HeaderMap,
    uri: Uri,
) -> PageResult {
    let session = state.session(&headers)?;
    let filter = query::incident_page_filter(&uri, PAGE_INCIDENTS)?;
    let list = state.admin.incidents()?.list(&filter).await;
    let IncidentList { incidents, next } = list.ok_or(AdminError::Outbox)?;
    let page = IncidentsPage {
        layout: PageLayout::new("Incidents", &session),
        state: match filter.is_waiting {
            None => "all",
            Some(true) => "waiting",
            Some(false) => "finished",
        },
        incidents: incidents.iter().map(IncidentRow::new).collect(),
        next: next.as_ref().map(format_position),
    };
    Ok(html(StatusCode::OK, &page))
}
