//! Kinds and keys of records.

use std::fmt;

/// Length of a record's name in bytes.
pub(crate) const NAME: usize = 16;

/// Kind of a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// Outcome for a content that stays valid with each version of the engines: malware. Has precedence over [`Finished`](Self::Finished), and is
    /// written durably.
    NotClean = 1,
    /// Any other finished outcome, by engines of one version.
    Finished = 2,
    /// Digest, size, type and headers of the content that a media URI refers to.
    Media = 3,
    /// When an operator had the outcomes for a content forgotten. Written durably.
    Forgotten = 4,
    /// Reference to a media record, under the name of its URI: one URI has several such records, each with a tag of its own
    /// in place of the version.
    Reference = 5,
    /// All decisions of operators about files, as one list. The version is the number of the list. Not in a
    /// [`FileStore`](crate::FileStore), because its records may be lost.
    Decisions = 6,
    /// Name and homeserver of plain media that had a content, under the name of the content: the version is a tag of the media.
    /// Outlives the removal of all records, because it contains no result of a scan.
    Seen = 7,
    /// Marks that an incident was created, so that the same one is not created again. In a [`FileStore`](crate::FileStore) only,
    /// as the following one.
    Incident = 8,
    /// Entry of the outbox, with the name of its incident.
    Outbox = 9,
    /// The versions of the engines that served media was scanned again with.
    Rescan = 12,
}

/// Set of names. Records about one content have the same name, so that a cluster stores them at one node.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum NameSpace {
    Content = 1,
    Media = 3,
    Reference = 5,
    Decisions = 6,
    Seen = 7,
    Incident = 8,
    Rescan = 12,
}

impl RecordKind {
    /// Returns the kind with this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let kinds = [
            Self::NotClean,
            Self::Finished,
            Self::Media,
            Self::Forgotten,
            Self::Reference,
            Self::Seen,
            Self::Incident,
            Self::Rescan,
        ];
        kinds.into_iter().find(|kind| *kind as i64 == number)
    }

    pub(crate) fn name_space(self) -> NameSpace {
        match self {
            Self::NotClean | Self::Finished | Self::Forgotten => NameSpace::Content,
            Self::Media => NameSpace::Media,
            Self::Reference => NameSpace::Reference,
            Self::Decisions => NameSpace::Decisions,
            Self::Seen => NameSpace::Seen,
            Self::Incident | Self::Outbox => NameSpace::Incident,
            Self::Rescan => NameSpace::Rescan,
        }
    }

    /// Returns whether a shared store has the records of one name in one hash.
    pub(crate) fn is_in_hash(self) -> bool {
        matches!(self, Self::Reference | Self::Seen)
    }

    /// Returns whether a record of this kind is retried until it is written.
    pub(crate) fn is_kept(self) -> bool {
        match self {
            Self::NotClean
            | Self::Forgotten
            | Self::Decisions
            | Self::Incident
            | Self::Outbox
            | Self::Rescan => true,
            Self::Finished | Self::Media | Self::Reference | Self::Seen => false,
        }
    }
}

/// Name of a record: the first 16 bytes of an HMAC-SHA256, made by [`StoreSecret::name`](crate::StoreSecret::name).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordName(pub(crate) [u8; NAME]);

/// Version of the engines that a record depends on, or another tag, for example the start of a digest.
pub type VersionTag = [u8; 8];

/// Key of a record: kind, name, and the version of the engines if the record depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordKey {
    /// Kind of the record.
    pub kind: RecordKind,
    /// Name of the record.
    pub name: RecordName,
    /// Version of the engines, or `None` for a record that is valid with each version.
    pub version: Option<VersionTag>,
}

impl RecordKey {
    /// Returns the bytes of the version: 8, or none.
    pub(crate) fn version_bytes(&self) -> &[u8] {
        self.version.as_ref().map_or(&[], |version| &version[..])
    }

    /// Returns the data that a seal binds the value to. Unambiguous, because only the version's length varies.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        [&[self.kind as u8][..], &self.name.0, self.version_bytes()].concat()
    }
}

impl RecordName {
    /// Returns the name in hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{self:?}")
    }
}

impl fmt::Debug for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
