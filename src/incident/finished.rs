//! The latest finished incidents, in memory.

use std::{collections::VecDeque, sync::Arc};

use super::entry::Incident;

/// Maximum number of finished incidents that are listed.
const MAX_FINISHED: usize = 200;

/// Why an incident is not in the outbox any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IncidentEnd {
    /// Each step is done or given up.
    Done,
    /// An operator allows the content, or all verdicts were removed.
    Dropped,
    /// Not all steps were done in time.
    Expired,
}

impl IncidentEnd {
    /// Returns the name of the state for operators.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
        }
    }
}

/// A finished incident.
#[derive(Clone, Debug)]
pub(super) struct FinishedIncident {
    pub(super) incident: Arc<Incident>,
    pub(super) end: IncidentEnd,
    /// Time of the end, milliseconds since 1970.
    pub(super) ended: u64,
}

/// The latest finished incidents of this process.
#[derive(Default)]
pub(super) struct FinishedIncidents(VecDeque<FinishedIncident>);

impl FinishedIncidents {
    pub(super) fn add(&mut self, incident: Arc<Incident>, end: IncidentEnd, ended: u64) {
        if self.0.len() >= MAX_FINISHED {
            self.0.pop_front();
        }
        self.0.push_back(FinishedIncident { incident, end, ended });
    }

    /// Returns the incidents, the earliest end first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &FinishedIncident> {
        self.0.iter()
    }
}
