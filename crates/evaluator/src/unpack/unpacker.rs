//! The walk through the objects of one media file.

mod walk;

use std::{
    any::Any,
    collections::HashMap,
    io::{self, Read},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

pub(crate) use super::budget::MAX_WINDOW;
use super::{
    bounded_read::read_up_to,
    budget::{MAX_DEPTH, MAX_TOTAL, UnpackBudget},
    embedded::{ArchiveSignature, ReadParts, SignatureSearch},
    kind::Kind,
    name::EntryName,
    notes::{Notes, Reasons},
    object::{MediaObject, Visitor},
    settings::UnpackSettings,
};
use crate::report::{Note, NoteKind};

/// Ends the whole walk: the visitor has found something, or a limit for the whole media file is reached.
#[derive(Debug)]
pub(crate) struct WalkEnd;

/// Result of functions that unpack. Contents that cannot be unpacked are notes and not errors.
pub(crate) type Unpacked = Result<(), WalkEnd>;

/// How a format is recognized and unpacked.
#[derive(Clone, Copy)]
pub(super) struct ContainerFormat {
    /// Returns whether bytes are of this format. Called for every object, so it reads little.
    pub(super) matches: fn(&[u8]) -> bool,
    /// Passes the contents to the unpacker.
    pub(super) unpack: fn(&[u8], &mut Unpacker<'_>) -> Unpacked,
}

/// The formats. A parameter of the unpacker, so that formats can use it without an import cycle.
pub(super) struct Selection {
    pub(super) kinds: &'static [Kind],
    pub(super) format: fn(Kind) -> ContainerFormat,
    /// Returns how an archive is found inside an object of another kind.
    pub(super) signature: fn(Kind) -> Option<ArchiveSignature>,
    /// Returns the search for all of these signatures.
    pub(super) search: fn() -> &'static SignatureSearch,
}

/// A walk through one media file. Formats call [`slice`](Self::slice) or [`decode`](Self::decode) for each file in a
/// container, and [`note`](Self::note) for what they cannot unpack.
pub(crate) struct Unpacker<'a> {
    selection: &'static Selection,
    visitor: &'a mut dyn Visitor,
    budget: UnpackBudget,
    enabled: bool,
    max_depth: u32,
    /// Names of the containers on the way to the current object, and of the object.
    path: Vec<EntryName>,
    depth: u32,
    /// Whether the current object is the archive of a compressed stream.
    is_archive_of_stream: bool,
    /// The kinds of the containers that are open.
    containers: Vec<Kind>,
    /// The visited objects by their SHA-256 digests.
    visited: HashMap<[u8; 32], ExaminedObject>,
    notes: Notes,
    /// Number of calls of [`Self::note`] and [`Self::set_doubtful`].
    problems: u64,
    /// The parts of the current object that were read.
    read_parts: ReadParts,
    visitor_panic: Option<Box<dyn Any + Send>>,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(
        settings: &UnpackSettings,
        selection: &'static Selection,
        visitor: &'a mut dyn Visitor,
    ) -> Self {
        Self {
            selection,
            visitor,
            budget: UnpackBudget::new(settings),
            enabled: settings.enabled,
            max_depth: settings.max_depth,
            path: Vec::new(),
            depth: 0,
            is_archive_of_stream: false,
            containers: Vec::new(),
            visited: HashMap::new(),
            notes: Notes::default(),
            problems: 0,
            read_parts: ReadParts::default(),
            visitor_panic: None,
        }
    }

    /// Examines the media file and what is inside it.
    pub(super) fn media(&mut self, bytes: &[u8]) {
        let object = MediaObject {
            bytes,
            path: &[],
            depth: 0,
            container: None,
            is_repeated: false,
            digest: None,
        };
        if self.visitor.visit(&object).is_continue() && self.enabled {
            // The notes and the visitor have what the walk found until it stopped.
            let (_ended, _result) = self.contents(bytes);
        }
        if let Some(panic) = self.visitor_panic.take() {
            resume_unwind(panic);
        }
    }

    pub(super) fn into_notes(self) -> Vec<Note> {
        self.notes.into_reported()
    }

    /// Examines a file that is stored in its container as it is.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn slice(&mut self, name: EntryName, bytes: &[u8]) -> Unpacked {
        self.read_parts.add_file(bytes);
        self.enter(name, |unpacker| {
            unpacker.budget.take_bytes(bytes.len()).or_else(|limit| unpacker.stop_at(limit))?;
            unpacker.object(bytes)
        })
    }

    /// Excludes headers in a part of the current object from the search for archives, because the current format has read
    /// them.
    pub(crate) fn set_read(&mut self, part: &[u8]) {
        if let Some(kind) = self.containers.last() {
            self.read_parts.add_header(*kind, part);
        }
    }

    /// Excludes compressed data of the current object, which were decoded without an error, from the search for archives.
    pub(crate) fn set_decoded(&mut self, part: &[u8]) {
        self.read_parts.add_decoded(part);
    }

    /// States that the current format has unpacked `archive`, which ends as every program expects.
    pub(crate) fn set_ended(&mut self, archive: &[u8]) {
        if let Some(kind) = self.containers.last() {
            self.read_parts.add_ended(*kind, archive);
        }
    }

    /// States that programs may reject the current object at its start, although it was read. They search for another
    /// archive in it.
    pub(crate) fn set_doubtful(&mut self) {
        self.problems = self.problems.saturating_add(1);
    }

    /// Examines a text that a format has made from contents, such as the objects of a PDF in one form. It is not
    /// unpacked, because the contents are passed as well.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn leaf(&mut self, name: EntryName, bytes: &[u8]) -> Unpacked {
        self.enter(name, |walk| {
            walk.budget.take_bytes(bytes.len()).or_else(|limit| walk.stop_at(limit))?;
            walk.visit(bytes, walk.depth.saturating_add(1), false, None)
        })
    }

    /// Decodes and examines a file. If the decoder fails, the bytes before are examined, and the file is noted as
    /// unreadable.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn decode(
        &mut self,
        name: EntryName,
        decoder: impl Read,
    ) -> Result<Completeness, WalkEnd> {
        self.decode_then(name, decoder, |_unpacker, _bytes| Ok(()))
    }

    /// Decodes and examines a file like [`decode`](Self::decode). `then` receives the decoded bytes afterwards, and
    /// passes further files that they contain.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn decode_then(
        &mut self,
        name: EntryName,
        decoder: impl Read,
        then: impl FnOnce(&mut Self, &[u8]) -> Unpacked,
    ) -> Result<Completeness, WalkEnd> {
        let mut result = Completeness::Incomplete;
        let mut kept = None;
        self.enter(name, |unpacker| {
            let (bytes, completeness) = unpacker.read(decoder)?;
            result = completeness;
            unpacker.budget.reserve(bytes.len());
            let visited = unpacker.object(&bytes);
            kept = Some(bytes);
            visited
        })?;
        let Some(bytes) = kept else { return Ok(result) };
        let visited = then(self, &bytes);
        self.budget.release(bytes.len());
        visited.map(|()| result)
    }

    /// Decodes bytes that a format needs itself, and passes them to `then`. They count like a file, but are not
    /// examined.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn decode_part_then(
        &mut self,
        decoder: impl Read,
        then: impl FnOnce(&mut Self, &[u8]) -> Unpacked,
    ) -> Unpacked {
        let (bytes, _decoded) = self.read(decoder)?;
        self.budget.reserve(bytes.len());
        let visited = then(self, &bytes);
        self.budget.release(bytes.len());
        visited
    }

    /// Decodes bytes that a format needs itself, such as a directory. They count like a file, but are not examined.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn decode_part(&mut self, decoder: impl Read) -> Result<Vec<u8>, WalkEnd> {
        Ok(self.read(decoder)?.0)
    }

    /// Calls `examine` while a decoder holds a window of `length` bytes. The windows that are open at the same time count as
    /// memory, one of [`MAX_WINDOW`] excepted.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn with_window(
        &mut self,
        length: usize,
        examine: impl FnOnce(&mut Self) -> Unpacked,
    ) -> Unpacked {
        let memory = self.budget.memory;
        self.budget.reserve_window(length);
        let result = examine(self);
        self.budget.memory = memory;
        result
    }

    /// Notes that contents of the current object are not examined. The first note of each kind is reported.
    pub(crate) fn note(&mut self, kind: NoteKind, reason: impl Into<String>) {
        self.problems = self.problems.saturating_add(1);
        self.notes.add(kind, reason.into(), &self.path);
    }

    /// Calls `examine` for a second interpretation of contents that are examined already. Drops its own notes, because
    /// those of the first interpretation matter; notes of reached limits are kept. Of the files in it, unreadable ones are
    /// not noted, because they may be parts of a file.
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn alternative(&mut self, examine: impl FnOnce(&mut Self) -> Unpacked) -> Unpacked {
        self.alternative_at(self.path.len(), examine)
    }

    /// Decodes and examines the current object in another form, which may not be what the object is, and which only programs
    /// that display text make of it: only files in its text are examined. Notes about the form itself are dropped, as by
    /// [`alternative`](Self::alternative).
    ///
    /// # Errors
    /// The walk ends.
    pub(crate) fn decode_text_form(&mut self, name: EntryName, decoder: impl Read) -> Unpacked {
        self.alternative_at(self.path.len() + 1, |walk| {
            walk.enter(name, |walk| {
                let (bytes, _decoded) = walk.read(decoder)?;
                walk.budget.reserve(bytes.len());
                let visited = walk.text_form(&bytes);
                walk.budget.release(bytes.len());
                visited
            })
        })
    }

    fn alternative_at(
        &mut self,
        level: usize,
        examine: impl FnOnce(&mut Self) -> Unpacked,
    ) -> Unpacked {
        let outer = self.notes.start_alternative(level);
        let result = examine(self);
        self.notes.end_alternative(outer);
        result
    }

    /// Calls `examine` with the path extended by `name`, if no limit is reached.
    fn enter(&mut self, name: EntryName, examine: impl FnOnce(&mut Self) -> Unpacked) -> Unpacked {
        let in_stream = self.containers.last().is_some_and(|kind| kind.is_stream());
        self.path.push(name);
        let result = match self.budget.take_file() {
            // An archive in a compressed stream is recognized only after it is decoded.
            Ok(()) if self.depth >= self.max_depth && !in_stream => {
                self.note_limit(MAX_DEPTH);
                Ok(())
            }
            Ok(()) => examine(self),
            Err(limit) => self.stop_at(limit),
        };
        self.path.pop();
        result
    }

    /// Ends the walk at a limit for the whole media file.
    fn stop_at(&mut self, limit: &'static str) -> Unpacked {
        self.note_limit(limit);
        Err(WalkEnd)
    }

    /// Notes that a limit of the settings is reached.
    fn note_limit(&mut self, limit: &'static str) {
        self.problems = self.problems.saturating_add(1);
        self.notes.add_limit(limit, &self.path);
    }

    /// Reads a decoder to its end, or to a limit or error, which is noted.
    fn read(&mut self, decoder: impl Read) -> Result<(Vec<u8>, Completeness), WalkEnd> {
        let (max_length, limit) = self.budget.max_length();
        let mut bytes = Vec::new();
        // A panic of a decoder must not lose the bytes before it.
        let read = || read_up_to(decoder, max_length.saturating_add(1), &mut bytes);
        let result = catch_unwind(AssertUnwindSafe(read));
        let is_longer = bytes.len() > max_length;
        bytes.truncate(max_length);
        let mut completeness = Completeness::Incomplete;
        match result {
            _ if is_longer => self.note_limit(limit),
            Ok(Ok(())) => completeness = Completeness::Complete,
            Ok(Err(error)) => self.note_error(&error),
            Err(_panic) => self.note(NoteKind::Unreadable, "the decoder panicked"),
        }
        // `max_length` is at most the rest of the total.
        self.budget.take_bytes(bytes.len()).or_else(|limit| self.stop_at(limit))?;
        if is_longer && limit == MAX_TOTAL {
            // Examines the last object, and nothing after it.
            self.object(&bytes)?;
            return Err(WalkEnd);
        }
        Ok((bytes, completeness))
    }

    /// Counts an attempt to decrypt a document. Returns whether it is allowed.
    pub(crate) fn take_password_attempt(&mut self) -> bool {
        self.budget.take_password_attempt()
    }

    /// Notes an error of a decoder.
    pub(crate) fn note_error(&mut self, error: &io::Error) {
        let kind = match error.kind() {
            io::ErrorKind::OutOfMemory => NoteKind::Limit,
            _ => NoteKind::Unreadable,
        };
        self.note(kind, error.to_string());
    }
}

/// What a copy of an examined object needs.
#[derive(Default)]
struct ExaminedObject {
    /// The notes that the object caused.
    reasons: Reasons,
    /// Kinds and offsets of the archives in it that were unpacked up to their end.
    ended: Vec<(Kind, Range<usize>)>,
}

/// Whether a file was decoded to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completeness {
    Complete,
    /// A note has the reason.
    Incomplete,
}
