//! Steps that this process has done of incidents in a shared outbox. A server that restores an earlier state of an entry causes no
//! second notification by the same process.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use mcs_store::RecordName;

use super::entry::Incident;

/// Maximum number of incidents.
const MAX_KNOWN: usize = 10_000;

/// What this process has done of an incident.
#[derive(Clone, Debug)]
pub(super) struct KnownIncident {
    pub(super) incident: Arc<Incident>,
    /// Whether no step was left.
    pub(super) is_finished: bool,
}

/// The latest incidents that this process has worked on.
#[derive(Default)]
pub(super) struct KnownIncidents {
    incidents: HashMap<RecordName, KnownIncident>,
    /// Their names, the oldest first. May contain names that were removed.
    order: VecDeque<RecordName>,
}

impl KnownIncidents {
    pub(super) fn add(&mut self, name: RecordName, known: KnownIncident) {
        if self.incidents.insert(name, known).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > MAX_KNOWN {
            if let Some(oldest) = self.order.pop_front() {
                self.incidents.remove(&oldest);
            }
        }
    }

    /// Forgets an incident, so that the same one can be created again.
    pub(super) fn remove(&mut self, name: RecordName) {
        if self.incidents.remove(&name).is_some() {
            self.order.retain(|other| *other != name);
        }
    }

    /// Returns an incident that was found after this time, milliseconds since 1970.
    pub(super) fn get(&self, name: RecordName, since: u64) -> Option<&KnownIncident> {
        self.incidents.get(&name).filter(|known| known.incident.found >= since)
    }
}

#[cfg(test)]
mod unit_tests {
    use mcs_store::{RecordKind, StoreSecret};

    use super::*;

    #[test]
    fn number_of_incidents_is_bounded() {
        let secret = StoreSecret::derive(b"secret");
        let name = |number: usize| secret.name(RecordKind::Incident, &[&number.to_le_bytes()]);
        let mut known = KnownIncidents::default();
        let incident = Arc::new(crate::incident::tests::incident());
        for number in 0..MAX_KNOWN + 10 {
            let incident = Arc::clone(&incident);
            known.add(name(number), KnownIncident { incident, is_finished: true });
        }
        assert_eq!((known.incidents.len(), known.order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert!(known.get(name(9), 0).is_none() && known.get(name(10), 0).is_some());
        assert!(known.get(name(10), u64::MAX).is_none(), "found too long ago");
        known.remove(name(10));
        assert!(known.get(name(10), 0).is_none());
    }
}
