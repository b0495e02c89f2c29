//! Incidents: what follows from malware in plain media. Each incident is written to the outbox of the store first, and stays there
//! until its steps are done: quarantine at the homeserver, and a notification of each target. Each step is done at least
//! once, and doing it again changes nothing.
//!
//! 1. The [`IncidentRecorder`] receives plain media from jobs. It keeps which media had a content, and writes an entry to
//!    the outbox before the verdict on the content is stored.
//! 2. The outbox adds the other media with the same content to the entry, and reports the incident to its observer.
//! 3. One worker quarantines media, one for each target sends notifications.
//!
//! With rescans, media that was served before a change of the engines is scanned again ([`RescanService`]).

mod admin;
mod entry;
mod event;
mod finished;
mod incident_service;
mod incident_store;
mod known_incidents;
mod listing;
mod message;
mod notice_limit;
mod notifier;
mod outbox;
mod outbox_follower;
mod outbox_reader;
mod outbox_status;
mod quarantine;
mod quarantiner;
mod recorder;
mod release;
mod rescan;
mod rescan_store;
mod room;
mod secret_source;
mod seen;
mod seen_recorder;
#[cfg(test)]
mod shared_tests;
mod step;
mod step_plan;
mod step_worker;
#[cfg(test)]
mod tests;
mod webhook;

pub use admin::IncidentAdmin;
pub use entry::Incident;
pub use event::{IncidentEvent, IncidentObserver, IncidentState};
pub use incident_service::{
    IncidentParts, IncidentService, IncidentSettings, IncidentSetupError, check_secrets,
};
pub use incident_store::IncidentStore;
pub use listing::{
    IncidentFilter, IncidentList, IncidentOverview, IncidentPosition, StepOverview, TargetOverview,
};
pub use outbox_status::OutboxStatus;
pub use recorder::IncidentRecorder;
pub use release::{ReleaseError, ReleasedMedia};
pub use rescan::{CurrentScanner, RescanParts, RescanService};
pub use seen_recorder::SeenRecorder;
pub use step_worker::AllowedContents;
