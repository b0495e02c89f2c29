//! Notes of one walk.

use super::name::{EntryName, for_report};
use crate::report::{Note, NoteKind};

/// Reasons of notes, at most one of each kind.
pub(super) type Reasons = Vec<(NoteKind, String)>;

/// The notes so far, and those that belong to the current object.
#[derive(Default)]
pub(super) struct Notes {
    /// The first note of each kind.
    reported: Vec<Note>,
    /// What the current object and everything in it caused. A copy of the object causes the same.
    of_object: Reasons,
    /// Length of the path at which a second interpretation is examined; `None` outside of one.
    alternative: Option<usize>,
}

impl Notes {
    pub(super) fn into_reported(self) -> Vec<Note> {
        self.reported
    }

    /// Adds a note about contents of the object at `path`.
    pub(super) fn add(&mut self, kind: NoteKind, reason: String, path: &[EntryName]) {
        if self.alternative.is_some_and(|level| path.len() <= level) {
            return;
        }
        let is_reported = self.alternative.is_none() || kind != NoteKind::Unreadable;
        if is_reported && self.reported.iter().all(|note| note.kind != kind) {
            let (reason, path) = (reason.clone(), for_report(path));
            self.reported.push(Note { kind, reason, path });
        }
        add_reason(&mut self.of_object, kind, reason);
    }

    /// Adds a note about a limit for the whole media file, also in a second interpretation.
    pub(super) fn add_limit(&mut self, limit: &'static str, path: &[EntryName]) {
        let alternative = self.alternative.take();
        self.add(NoteKind::Limit, limit.to_owned(), path);
        self.alternative = alternative;
    }

    /// Starts an object inside the current one. Returns what belongs to the current one.
    pub(super) fn start_object(&mut self) -> Reasons {
        std::mem::take(&mut self.of_object)
    }

    /// Ends an object inside the one at a path of `length`, to which `outer` belongs. Returns what belongs to the ended
    /// object.
    pub(super) fn end_object(&mut self, outer: Reasons, length: usize) -> Reasons {
        let ended = std::mem::replace(&mut self.of_object, outer);
        let is_at_alternative = self.alternative.is_some_and(|level| length <= level);
        for (kind, reason) in &ended {
            if !is_at_alternative || *kind != NoteKind::Unreadable {
                add_reason(&mut self.of_object, *kind, reason.clone());
            }
        }
        ended
    }

    /// Returns the state for [`Self::restore`].
    pub(super) fn state(&self) -> (Reasons, Option<usize>) {
        (self.of_object.clone(), self.alternative)
    }

    /// Returns to the object at the time of [`Self::state`] after a panic. The notes of what was examined meanwhile belong
    /// to it.
    pub(super) fn restore(&mut self, state: (Reasons, Option<usize>)) {
        let (of_object, alternative) = state;
        let since = std::mem::replace(&mut self.of_object, of_object);
        for (kind, reason) in since {
            add_reason(&mut self.of_object, kind, reason);
        }
        self.alternative = alternative;
    }

    /// Starts a second interpretation of the object whose path has this length. Returns the state for
    /// [`Self::end_alternative`].
    pub(super) fn start_alternative(&mut self, length: usize) -> Option<usize> {
        self.alternative.replace(length)
    }

    pub(super) fn end_alternative(&mut self, outer: Option<usize>) {
        self.alternative = outer;
    }
}

fn add_reason(reasons: &mut Reasons, kind: NoteKind, reason: String) {
    if reasons.iter().all(|(known, _)| *known != kind) {
        reasons.push((kind, reason));
    }
}
