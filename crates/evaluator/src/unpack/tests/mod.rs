//! Tests of unpacking. Small writers build the files, so that no program and no binary fixture is needed.
//!
//! Each file with a writer has a function `samples`. Together the samples are the set of containers that the service is
//! compared with other scanners on.

mod ar;
mod arj;
mod binhex;
mod bit_writer;
mod cab;
mod cms;
mod cpio;
mod differential;
mod disks;
mod embedded;
mod iso;
mod limits;
mod lzh;
mod mail;
mod old_streams;
mod ole;
mod onenote;
mod own_set;
mod pdf;
mod rar;
mod repeats;
mod rpm;
mod rtf;
mod seven;
mod streams;
mod tar;
mod text;
mod tnef;
mod zip;

use std::ops::ControlFlow;

use super::{MediaObject, UnpackSettings, Visitor, unpack};
use crate::report::{Note, NoteKind};

/// Reversed, because scanners would report this source file otherwise.
const EICAR_REVERSED: &[u8] =
    b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X";

/// A file, and what unpacking it gives.
pub(crate) struct ContainerSample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What unpacking gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// An object begins with the payload.
    Payload,
    /// No payload, and a note of this kind.
    Note(NoteKind),
    /// No payload and no note.
    Clean,
}

impl ContainerSample {
    pub(crate) fn new(name: impl Into<String>, bytes: Vec<u8>, expected: Expected) -> Self {
        Self { name: name.into(), bytes, expected }
    }

    /// Creates a sample with the payload.
    pub(crate) fn payload(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self::new(name, bytes, Expected::Payload)
    }

    /// Asserts that unpacking gives what is expected.
    pub(crate) fn check(&self) {
        let collected = collect(&self.bytes);
        let found = collected.has_payload();
        let Self { name, expected, .. } = self;
        match expected {
            Expected::Payload => assert!(found, "{name}: {collected:?}"),
            Expected::Note(kind) => {
                assert!(!found && collected.note(*kind).is_some(), "{name}: {collected:?}");
            }
            Expected::Clean => {
                assert!(!found && collected.notes.is_empty(), "{name}: {collected:?}");
            }
        }
    }
}

/// Asserts that unpacking the samples gives what is expected, and that those with the payload have no notes.
#[track_caller]
pub(crate) fn check_without_notes(samples: Vec<ContainerSample>) {
    for sample in samples {
        sample.check();
        if sample.expected == Expected::Payload {
            let collected = collect(&sample.bytes);
            assert!(collected.notes.is_empty(), "{}: {collected:?}", sample.name);
        }
    }
}

/// Asserts that the payload at the start of a file is examined if the last 500 bytes are missing, and that the file may
/// end anywhere.
#[track_caller]
pub(crate) fn check_truncated(file: &[u8]) {
    let collected = collect(&file[..file.len() - 500]);
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
    for length in 0..file.len() {
        collect(&file[..length]);
    }
}

/// Returns the payload of the samples: the EICAR test file and 60 spaces, so that packers compress it.
pub(crate) fn payload() -> Vec<u8> {
    EICAR_REVERSED.iter().rev().copied().chain([b' '; 60]).collect()
}

/// All objects in a media file, and the notes.
pub(crate) struct Collected {
    /// The names of each object, separated by " > ", and its content.
    pub(crate) objects: Vec<(String, Vec<u8>)>,
    pub(crate) notes: Vec<Note>,
}

impl Collected {
    /// Returns whether an object begins with the payload.
    pub(crate) fn has_payload(&self) -> bool {
        let start = payload()[..68].to_vec();
        self.objects.iter().any(|(_, bytes)| bytes.starts_with(&start))
    }

    /// Returns whether an object contains these bytes.
    pub(crate) fn contains(&self, part: &[u8]) -> bool {
        self.objects.iter().any(|(_, bytes)| bytes.windows(part.len()).any(|window| window == part))
    }

    /// Returns the paths of all objects, the media file excluded.
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.objects.iter().skip(1).map(|(path, _)| path.as_str()).collect()
    }

    pub(crate) fn note(&self, kind: NoteKind) -> Option<&Note> {
        self.notes.iter().find(|note| note.kind == kind)
    }
}

impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, bytes) in &self.objects {
            writeln!(
                f,
                "{path:?}: {} bytes {}",
                bytes.len(),
                bytes[..bytes.len().min(40)].escape_ascii()
            )?;
        }
        write!(f, "{:?}", self.notes)
    }
}

/// Unpacks a media file within the default limits.
pub(crate) fn collect(media: &[u8]) -> Collected {
    collect_within(media, &UnpackSettings::default())
}

/// Unpacks a media file within limits.
pub(crate) fn collect_within(media: &[u8], settings: &UnpackSettings) -> Collected {
    let mut collector = Collector(Vec::new());
    let notes = unpack(media, settings, &mut collector);
    Collected { objects: collector.0, notes }
}

struct Collector(Vec<(String, Vec<u8>)>);

impl Visitor for Collector {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        self.0.push((object.report_path().join(" > "), object.bytes.to_vec()));
        ControlFlow::Continue(())
    }
}
