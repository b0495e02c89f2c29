//! Fuzz target: unpacks any bytes. `cargo test` replays the kept corpus.

use std::{ops::ControlFlow, time::Instant};

use crate::{
    NoteKind, UnpackSettings,
    unpack::{MediaObject, Visitor, unpack},
};

/// Limits, lower than the default ones so that inputs of some kilobytes reach them.
const LIMITS: UnpackSettings = UnpackSettings {
    enabled: true,
    max_total: 16 << 20,
    max_file: 4 << 20,
    max_files: 1000,
    max_depth: 6,
};

/// Time limit of one input, seconds. Inputs are small, and the limits allow little.
const MAX_SECONDS: f64 = 2.0;

/// Unpacks one input.
///
/// # Panics
/// If an object or all objects together exceed a limit, if a note has no reason or there are two of a kind, or if the
/// input takes too long.
pub fn input(bytes: &[u8]) {
    let start = Instant::now();
    let mut visited = VisitedTotals::default();
    let notes = unpack(bytes, &LIMITS, &mut visited);
    let kinds =
        [NoteKind::Encrypted, NoteKind::Limit, NoteKind::Unreadable, NoteKind::Inconsistent];
    for kind in kinds {
        assert!(notes.iter().filter(|note| note.kind == kind).count() <= 1, "{notes:?}");
    }
    assert!(notes.iter().all(|note| !note.reason.is_empty()), "{notes:?}");
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < MAX_SECONDS, "{seconds} s, {} objects", visited.objects);
}

#[derive(Default)]
struct VisitedTotals {
    objects: u64,
    bytes: u64,
}

impl Visitor for VisitedTotals {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        if object.depth == 0 {
            return ControlFlow::Continue(());
        }
        self.objects += 1;
        self.bytes += object.bytes.len() as u64;
        let is_within = self.objects <= LIMITS.max_files
            && self.bytes <= LIMITS.max_total
            && object.depth <= LIMITS.max_depth;
        assert!(
            is_within,
            "{object:?} exceeds a limit: {} objects, {} bytes",
            self.objects, self.bytes
        );
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
#[test]
fn kept_corpus_passes() {
    mcs_testing::replay_corpus("unpack", input);
}
