//! The steps of the walk: each object is visited, then unpacked under each of its kinds, then searched for archives.

use std::{
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
};

use sha2::{Digest, Sha256};

use super::{ContainerFormat, ExaminedObject, Unpacked, Unpacker, WalkEnd};
use crate::{
    report::NoteKind,
    unpack::{
        budget::MAX_DEPTH,
        embedded::{MAX_EMBEDDED, ReadParts},
        kind::Kind,
        object::MediaObject,
    },
};

impl Unpacker<'_> {
    /// Examines an object inside a container, and what is inside it.
    pub(super) fn object(&mut self, bytes: &[u8]) -> Unpacked {
        let is_archive_of_stream = self.is_archive_of_stream(bytes);
        let depth = self.depth.saturating_add(u32::from(!is_archive_of_stream));
        if depth > self.max_depth {
            self.note_limit(MAX_DEPTH);
            return Ok(());
        }
        let digest = Sha256::digest(bytes).into();
        if self.visitor.skips(&digest, bytes) {
            self.read_parts.add_allowed(bytes);
            return Ok(());
        }
        if let Some(examined) = self.visited.get(&digest) {
            self.read_parts.add_ended_offsets(bytes, &examined.ended);
            for (kind, reason) in examined.reasons.clone() {
                self.note(kind, reason);
            }
            return self.visit(bytes, depth, true, Some(digest));
        }
        self.visited.insert(digest, ExaminedObject::default());
        self.visit(bytes, depth, false, Some(digest))?;
        let outer = (self.depth, self.is_archive_of_stream);
        (self.depth, self.is_archive_of_stream) = (depth, is_archive_of_stream);
        let outer_notes = self.notes.start_object();
        let (ended, result) = self.contents(bytes);
        let reasons = self.notes.end_object(outer_notes, self.path.len().saturating_sub(1));
        self.visited.insert(digest, ExaminedObject { reasons, ended });
        (self.depth, self.is_archive_of_stream) = outer;
        result
    }

    /// Examines bytes as text. They do not count as visited, because a file with the same bytes is unpacked.
    pub(super) fn text_form(&mut self, bytes: &[u8]) -> Unpacked {
        let depth = self.depth.saturating_add(1);
        if depth > self.max_depth {
            self.note_limit(MAX_DEPTH);
            return Ok(());
        }
        let digest = Sha256::digest(bytes).into();
        if self.visitor.skips(&digest, bytes) {
            return Ok(());
        }
        self.visit(bytes, depth, false, Some(digest))?;
        let outer_depth = std::mem::replace(&mut self.depth, depth);
        let outer_parts = std::mem::replace(&mut self.read_parts, ReadParts::of_object(bytes));
        let result = self.container(Kind::Text, (self.selection.format)(Kind::Text), bytes);
        (self.depth, self.read_parts) = (outer_depth, outer_parts);
        result
    }

    /// Lets the visitor examine an object inside a container.
    pub(super) fn visit(
        &mut self,
        bytes: &[u8],
        depth: u32,
        is_repeated: bool,
        digest: Option<[u8; 32]>,
    ) -> Unpacked {
        let object = MediaObject {
            bytes,
            path: &self.path,
            depth,
            container: self.containers.last().copied(),
            is_repeated,
            digest,
        };
        match catch_unwind(AssertUnwindSafe(|| self.visitor.visit(&object))) {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(())) => Err(WalkEnd),
            // Must not count as a panic of the format, which ends only the evaluation of a container.
            Err(panic) => {
                self.visitor_panic = Some(panic);
                Err(WalkEnd)
            }
        }
    }

    /// Returns whether an object in the current container is the archive of a compressed stream, such as a tar.gz. Such
    /// an archive adds no level. It may be a stream as well, and what is in that stream adds a level.
    fn is_archive_of_stream(&mut self, bytes: &[u8]) -> bool {
        let in_stream = self.containers.last().is_some_and(|kind| kind.is_stream());
        in_stream && !self.is_archive_of_stream && self.matches(Kind::Tar, bytes)
    }

    /// Returns whether an object is of a kind.
    fn matches(&mut self, kind: Kind, bytes: &[u8]) -> bool {
        let format = (self.selection.format)(kind);
        // A panic here must not end the evaluation of what follows the object in its container.
        catch_unwind(AssertUnwindSafe(|| (format.matches)(bytes))).unwrap_or_else(|_panic| {
            self.note(NoteKind::Unreadable, "a decoder panicked");
            false
        })
    }

    /// Returns whether a format recognizes a part of the current object that starts with the signature of a file without
    /// contents. Formats without a signature do not count: text is searched for in the object as a whole, and other files
    /// are LZMA by chance only.
    pub(crate) fn is_container(&mut self, part: &[u8]) -> bool {
        let has_signature = |kind: Kind| !matches!(kind, Kind::Text | Kind::Lzma);
        let kinds = self.selection.kinds;
        kinds.iter().any(|kind| has_signature(*kind) && self.matches(*kind, part))
    }

    /// Examines the contents of the current object, under each of its kinds. Also returns the kinds and offsets of archives
    /// in it that were unpacked up to their end.
    pub(super) fn contents(&mut self, bytes: &[u8]) -> (Vec<(Kind, Range<usize>)>, Unpacked) {
        let outer = std::mem::replace(&mut self.read_parts, ReadParts::of_object(bytes));
        let result =
            self.known_kinds(bytes).and_then(|is_archive| self.embedded(bytes, is_archive));
        let parts = std::mem::replace(&mut self.read_parts, outer);
        let ended = parts.ended_offsets();
        self.read_parts.add_parts_of(parts);
        (ended, result)
    }

    /// Examines the contents under the kinds that start where the object starts. Returns whether that is an archive, and
    /// was unpacked without problems.
    fn known_kinds(&mut self, bytes: &[u8]) -> Result<bool, WalkEnd> {
        let mut matched: Vec<Kind> = Vec::new();
        let mut is_archive = false;
        let problems = self.problems;
        for kind in self.selection.kinds {
            let format = (self.selection.format)(*kind);
            if matched.iter().any(|other| kind.is_excluded_by(*other))
                || !self.matches(*kind, bytes)
            {
                continue;
            }
            matched.push(*kind);
            is_archive |= (self.selection.signature)(*kind)
                .is_some_and(|signature| signature.is_at_start(bytes));
            self.container(*kind, format, bytes)?;
        }
        Ok(is_archive && self.problems == problems)
    }

    /// Examines archives inside the object, in parts that no format has examined. Their notes are dropped: most of them
    /// are about bytes that only look like a header.
    fn embedded(&mut self, bytes: &[u8], is_archive: bool) -> Unpacked {
        let selection = self.selection;
        let mut remaining = MAX_EMBEDDED;
        for found in (selection.search)().occurrences(bytes) {
            if self.read_parts.contain(&found, is_archive) {
                continue;
            }
            let Some(rest) = remaining.checked_sub(1) else { break };
            remaining = rest;
            let format = (selection.format)(found.kind);
            self.alternative(|unpacker| unpacker.container(found.kind, format, found.archive))?;
        }
        Ok(())
    }

    fn container(&mut self, kind: Kind, format: ContainerFormat, bytes: &[u8]) -> Unpacked {
        let (path, depth, containers) = (self.path.len(), self.depth, self.containers.len());
        let memory = self.budget.memory;
        let notes = self.notes.state();
        let is_archive_of_stream = self.is_archive_of_stream;
        self.containers.push(kind);
        // Decoders are libraries; a panic of one must not end the evaluation of the rest.
        let result = catch_unwind(AssertUnwindSafe(|| (format.unpack)(bytes, self)));
        self.path.truncate(path);
        self.depth = depth;
        self.containers.truncate(containers);
        result.unwrap_or_else(|_panic| {
            self.budget.memory = memory;
            self.notes.restore(notes);
            self.is_archive_of_stream = is_archive_of_stream;
            self.note(NoteKind::Unreadable, format!("the {} decoder panicked", kind.name()));
            Ok(())
        })
    }
}
