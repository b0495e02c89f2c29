//! The objects of a media file, and what receives them.

use std::ops::ControlFlow;

use super::{
    kind::Kind,
    name::{EntryName, for_report},
};

/// The media file, or a file or stream in it.
#[derive(Debug)]
pub(crate) struct MediaObject<'a> {
    pub(crate) bytes: &'a [u8],
    /// The names of the containers and of the object; empty for the media file.
    pub(crate) path: &'a [EntryName],
    /// Number of containers around the object.
    pub(crate) depth: u32,
    /// The kind of the innermost container.
    pub(crate) container: Option<Kind>,
    /// Whether an object with the same content was visited before. The media file does not count.
    pub(crate) is_repeated: bool,
    /// SHA-256 of a file in a container; `None` for the media file, and for texts made from contents.
    pub(crate) digest: Option<[u8; 32]>,
}

impl MediaObject<'_> {
    /// Returns the names of files in the path, separated by slashes.
    pub(crate) fn file_path(&self) -> String {
        let names = self.path.iter().map(EntryName::file_path).filter(|name| !name.is_empty());
        names.collect::<Vec<_>>().join("/")
    }

    /// Returns whether this is the media file, or its text in another encoding.
    pub(crate) fn is_media(&self) -> bool {
        self.path.iter().all(EntryName::is_encoding)
    }

    /// Returns the path for a report.
    pub(crate) fn report_path(&self) -> Vec<String> {
        for_report(self.path)
    }
}

/// Receives the objects.
pub(crate) trait Visitor {
    /// Examines one object. `Break` ends the walk.
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()>;

    /// Returns whether a file in a container, with this SHA-256, is neither visited nor unpacked.
    fn skips(&mut self, _digest: &[u8; 32], _bytes: &[u8]) -> bool {
        false
    }
}
