//! The state of the service, and the latest verdicts.

use std::{sync::Arc, time::SystemTime};

use askama::Template;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, Uri, header},
    response::IntoResponse,
};

use super::{
    incidents::{self, IncidentRow},
    plots::Plot,
    response::{PageError, PageLayout, PageResult, html},
    sessions::SessionUse,
    state::PageState,
};
use crate::{
    admin::{error::AdminError, protocol::RecentView, query, views::recent_view},
    scan::{
        Scanner, ScannerUsage, WorkerLoad,
        canary::CanaryState,
        engines::signature_time,
        recent::{FAILED, MAX_SCANS, RecentScan},
    },
};

/// Number of verdicts on the first page.
const FIRST_SCANS: usize = 20;

/// Maximum number of tenants that are shown.
const MAX_TENANTS: usize = 20;

/// Maximum length of the text of a filter, bytes.
const MAX_FILTER: usize = 300;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    layout: PageLayout,
    state: StateView,
    plots: Vec<PlotView>,
    /// `None` if no incidents are created, or they cannot be read.
    incidents: Option<Vec<IncidentRow>>,
    scans: Vec<ScanRow>,
}

/// The part of the page that its script replaces.
#[derive(Template)]
#[template(path = "state.html")]
struct StatePage {
    state: StateView,
}

#[derive(Template)]
#[template(path = "verdicts.html")]
struct VerdictsPage {
    layout: PageLayout,
    filter: VerdictsFilter,
    scans: Vec<ScanRow>,
}

struct PlotView {
    file: &'static str,
    caption: &'static str,
    description: String,
}

/// The state of the service.
struct StateView {
    not_ready: Option<String>,
    canary: String,
    load: WorkerLoad,
    queue_capacity: usize,
    spool: String,
    memory: String,
    store: &'static str,
    tenants: Vec<(String, usize, usize)>,
    more_tenants: usize,
    engines: Vec<EngineRow>,
    layers: Vec<(&'static str, String)>,
    version: &'static str,
}

struct EngineRow {
    name: &'static str,
    version: String,
    /// Age of the signatures, if the version contains their date.
    age: String,
}

/// A verdict of the latest time.
struct ScanRow {
    scan: RecentView,
    class: &'static str,
    outcome: String,
    /// SHA-256, and its first digits.
    content: Option<(String, String)>,
    found: String,
    duration: String,
}

/// Filter of the list of verdicts.
#[derive(Default)]
struct VerdictsFilter {
    show: ShownScans,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum ShownScans {
    #[default]
    All,
    NotClean,
    Failed,
}

pub(super) async fn overview(
    State(state): State<Arc<PageState>>,
    headers: HeaderMap,
) -> PageResult {
    let session = state.session(&headers)?;
    let scanner = state.scanner();
    let minutes = scanner.recent().minutes();
    let plot = |plot: Plot| PlotView {
        file: plot.file(),
        caption: plot.caption(),
        description: plot.description(&minutes),
    };
    let page = OverviewPage {
        layout: PageLayout::new("Overview", &session),
        state: StateView::new(&state, &scanner),
        plots: Plot::ALL.map(plot).into(),
        incidents: incidents::latest(&state.admin).await,
        scans: rows(&scanner.recent().latest(FIRST_SCANS, |_| true)),
    };
    Ok(html(StatusCode::OK, &page))
}

/// Returns the state alone.
pub(super) async fn state(State(state): State<Arc<PageState>>, headers: HeaderMap) -> PageResult {
    state.session_for(&headers, SessionUse::Script)?;
    let page = StatePage { state: StateView::new(&state, &state.scanner()) };
    Ok(html(StatusCode::OK, &page))
}

pub(super) async fn plot(
    State(state): State<Arc<PageState>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> PageResult {
    state.session_for(&headers, SessionUse::Script)?;
    let Path(name) = name.map_err(|_| AdminError::NotFound)?;
    let plot = Plot::ALL.into_iter().find(|plot| plot.file() == name);
    let svg = plot.ok_or(AdminError::NotFound)?.svg(&state.scanner().recent().minutes());
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

pub(super) async fn verdicts(
    State(state): State<Arc<PageState>>,
    headers: HeaderMap,
    uri: Uri,
) -> PageResult {
    let session = state.session(&headers)?;
    let filter = VerdictsFilter::parse(&uri)?;
    let scans = rows(&state.scanner().recent().latest(MAX_SCANS, |scan| filter.accepts(scan)));
    let layout = PageLayout::new("Latest verdicts", &session);
    Ok(html(StatusCode::OK, &VerdictsPage { layout, filter, scans }))
}

impl VerdictsFilter {
    fn parse(uri: &Uri) -> Result<Self, PageError> {
        let mut filter = Self::default();
        for (name, value) in query::parameters(uri, &["show", "text"])? {
            let invalid = |expected| AdminError::Invalid(format!("{name}: expected {expected}"));
            if name == "text" {
                value.trim().clone_into(&mut filter.text);
                if filter.text.len() > MAX_FILTER {
                    return Err(invalid("at most 300 bytes").into());
                }
                continue;
            }
            filter.show = match &*value {
                "all" => ShownScans::All,
                "not_clean" => ShownScans::NotClean,
                "failed" => ShownScans::Failed,
                _ => return Err(invalid("all, not_clean or failed").into()),
            };
        }
        Ok(filter)
    }

    fn accepts(&self, scan: &RecentScan) -> bool {
        let is_shown = match self.show {
            ShownScans::All => true,
            ShownScans::NotClean => !matches!(scan.outcome, "clean" | FAILED),
            ShownScans::Failed => scan.outcome == FAILED,
        };
        is_shown && (self.text.is_empty() || self.matches(&recent_view(scan)))
    }

    fn matches(&self, scan: &RecentView) -> bool {
        let text = self.text.to_lowercase();
        let texts = [
            Some(&scan.mxc),
            Some(&scan.outcome),
            Some(&scan.tenant),
            scan.content.as_ref(),
            scan.finding.as_ref(),
            scan.engine.as_ref(),
        ];
        texts.into_iter().flatten().any(|found| found.to_lowercase().contains(&text))
    }

    /// For the template.
    fn shows(&self, name: &str) -> bool {
        let shown = match self.show {
            ShownScans::All => "all",
            ShownScans::NotClean => "not_clean",
            ShownScans::Failed => "failed",
        };
        shown == name
    }
}

fn rows(scans: &[RecentScan]) -> Vec<ScanRow> {
    scans.iter().map(ScanRow::new).collect()
}

impl ScanRow {
    fn new(scan: &RecentScan) -> Self {
        let scan = recent_view(scan);
        let found = [scan.engine.as_deref(), scan.finding.as_deref()];
        let found: Vec<_> = found.into_iter().flatten().collect();
        Self {
            class: match &*scan.outcome {
                "clean" => "good",
                FAILED => "note",
                _ => "bad",
            },
            outcome: scan.outcome.replace('_', " "),
            content: scan
                .content
                .clone()
                .map(|digits| (digits.clone(), digits.chars().take(12).collect())),
            found: found.join(": "),
            duration: scan.duration_ms.map(|ms| format!("{ms} ms")).unwrap_or_default(),
            scan,
        }
    }
}

impl StateView {
    fn new(state: &PageState, scanner: &Scanner) -> Self {
        let ScannerUsage { spool_used, spool_capacity, cache } = scanner.usage();
        let mut tenants = scanner.tenant_loads();
        let more_tenants = tenants.len().saturating_sub(MAX_TENANTS);
        tenants.truncate(MAX_TENANTS);
        let layers = scanner.sandbox().layers().states();
        let engines = scanner.engine_versions().into_iter();
        Self {
            not_ready: state.health.not_ready_reason(),
            canary: canary_text(scanner),
            load: scanner.load(),
            queue_capacity: scanner.queue_capacity(),
            spool: format!("{} of {} MiB", spool_used >> 20, spool_capacity >> 20),
            memory: format!(
                "{} verdicts, {} media entries, {} bodies ({} MiB)",
                cache.verdicts,
                cache.media,
                cache.bodies,
                cache.body_bytes >> 20
            ),
            store: match scanner.verdict_records() {
                None => "none: verdicts are in memory only",
                Some(records) if records.is_in_use() => "in use",
                Some(_) => "cannot be used",
            },
            tenants: tenants
                .iter()
                .map(|load| (load.tenant.to_string(), load.running, load.waiting))
                .collect(),
            more_tenants,
            engines: engines.map(|(name, version)| EngineRow::new(name, version)).collect(),
            layers,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl EngineRow {
    fn new(name: &'static str, version: Option<String>) -> Self {
        let version = version.unwrap_or_default();
        let time = signature_time(&version);
        let age = time.map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
        let age = age.map(|age| format!("{} days", age.as_secs() / 86_400)).unwrap_or_default();
        Self { name, version, age }
    }
}

fn canary_text(scanner: &Scanner) -> String {
    if !scanner.has_canary() {
        return "off".to_owned();
    }
    match scanner.canary() {
        CanaryState::Pending => "runs".to_owned(),
        CanaryState::Passed => "passed".to_owned(),
        CanaryState::Failed(reason) => format!("failed: {reason}"),
    }
}
