//! Lookups in prepared lists.

use std::{fmt, ops::Range};

use crate::{
    entry::{DigestKind, Digests, FileDigest, ListAction},
    key::{ALLOW_KEY, BLOCK_KEY, BlockClass, BlockClasses, block_key},
    layout::{HEADER, LIST_RECORD, Layout, MAGIC, SectionDigests, parse_header},
    table::SortedTable,
};

/// Reason why prepared lists cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PreparedListsError {
    /// The bytes do not start with the marker of this version.
    #[error("the hash lists were prepared by another version of this program; restart the service")]
    Version,
    /// The bytes differ from those that were prepared.
    #[error("the prepared hash lists are damaged: {0}")]
    Damaged(&'static str),
}

/// Prepared lists, used in place: `B` is a mapping (`&[u8]`), or owns the bytes. The bytes must not change.
pub struct HashLists<B> {
    prepared: B,
    layout: Layout,
    classes: BlockClasses,
    digests: SectionDigests,
    block_entries: u64,
    allow_entries: u64,
}

/// Entry that matches a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashMatch<'a> {
    /// Effect of the entry.
    pub action: ListAction,
    /// Name of the list; of several lists with the entry, the first one.
    pub list: &'a str,
    /// Name of the entry, if the list has one and at most [`MAX_NAMED_ENTRIES`](crate::MAX_NAMED_ENTRIES) entries.
    /// Untrusted text.
    pub name: Option<&'a str>,
}

impl<B: AsRef<[u8]>> HashLists<B> {
    /// Uses bytes from [`HashListBuilder::prepare`](crate::HashListBuilder::prepare), without copying them. Reads them
    /// all, to compare checksums.
    ///
    /// # Errors
    /// If the bytes are from another version, or differ from the prepared ones.
    pub fn from_prepared(prepared: B) -> Result<Self, PreparedListsError> {
        let bytes = prepared.as_ref();
        if !bytes.starts_with(MAGIC) {
            return Err(PreparedListsError::Version);
        }
        let header = bytes.get(..HEADER).ok_or(PreparedListsError::Damaged("truncated"))?;
        let (counts, digests) =
            parse_header(header).ok_or(PreparedListsError::Damaged("invalid header"))?;
        let layout = Layout::new(&counts).filter(|layout| layout.text.end == bytes.len());
        let layout = layout.ok_or(PreparedListsError::Damaged("wrong length"))?;
        if SectionDigests::compute(bytes, &layout) != digests {
            return Err(PreparedListsError::Damaged("wrong checksum"));
        }
        let lists = Self {
            layout,
            classes: counts.classes,
            digests,
            block_entries: counts.block.entries,
            allow_entries: counts.allow.entries,
            prepared,
        };
        if !lists.block().has_valid_index() || !lists.allow().has_valid_index() {
            return Err(PreparedListsError::Damaged("invalid index"));
        }
        Ok(lists)
    }

    /// Returns whether an entry has a digest of this kind. Callers compute SHA-1 and MD5 only if so.
    #[must_use]
    pub fn needs(&self, kind: DigestKind) -> bool {
        let is_allow = kind == DigestKind::Sha256 && self.allow_entries > 0;
        is_allow || self.classes.contains_kind(kind)
    }

    /// Finds the entry for a file. Block entries have precedence over allow entries; callers with several `HashLists`
    /// give a block entry of any of them precedence.
    #[must_use]
    pub fn lookup(&self, digests: &Digests) -> Option<HashMatch<'_>> {
        let size = Some(digests.size);
        let sha1 = digests.sha1.map(FileDigest::Sha1);
        let md5 = digests.md5.map(FileDigest::Md5);
        let candidates = [
            (Some(FileDigest::Sha256(digests.sha256)), None),
            (sha1, size),
            (sha1, None),
            (md5, size),
            (md5, None),
        ];
        let block = self.block();
        let blocked = candidates.iter().find_map(|(digest, size)| {
            let digest = digest.as_ref()?;
            let class = BlockClass::new(digest.kind(), size.is_some());
            if self.classes.contains(class) { block.find(&block_key(digest, *size)) } else { None }
        });
        let (action, found) = match blocked {
            Some(found) => (ListAction::Block, found),
            None => (ListAction::Allow, self.allow().find(&digests.sha256)?),
        };
        let name = found.name.and_then(|range| self.text(range));
        Some(HashMatch { action, list: self.list_name(found.list).unwrap_or_default(), name })
    }

    /// Returns a digest of all block entries. Different entries have different digests. Names, the order of entries and
    /// their division into lists do not affect the digest.
    #[must_use]
    pub fn block_fingerprint(&self) -> [u8; 32] {
        self.digests.block
    }

    /// Returns a digest of all allow entries, as [`block_fingerprint`](Self::block_fingerprint).
    #[must_use]
    pub fn allow_fingerprint(&self) -> [u8; 32] {
        self.digests.allow
    }

    /// Returns the number of different block entries.
    #[must_use]
    pub fn block_entries(&self) -> u64 {
        self.block_entries
    }

    /// Returns the number of different allow entries.
    #[must_use]
    pub fn allow_entries(&self) -> u64 {
        self.allow_entries
    }

    fn block(&self) -> SortedTable<'_, BLOCK_KEY> {
        SortedTable::new(self.prepared.as_ref(), &self.layout.block)
    }

    fn allow(&self) -> SortedTable<'_, ALLOW_KEY> {
        SortedTable::new(self.prepared.as_ref(), &self.layout.allow)
    }

    fn list_name(&self, list: u16) -> Option<&str> {
        let (records, _) = self.section(&self.layout.lists).as_chunks::<LIST_RECORD>();
        let (fields, _) = records.get(usize::from(list))?.as_chunks();
        let mut fields = fields.iter().map(|field| usize::try_from(u64::from_le_bytes(*field)));
        let (start, length) = (fields.next()?.ok()?, fields.next()?.ok()?);
        self.text(start..start.checked_add(length)?)
    }

    fn text(&self, range: Range<usize>) -> Option<&str> {
        std::str::from_utf8(self.section(&self.layout.text).get(range)?).ok()
    }

    fn section(&self, range: &Range<usize>) -> &[u8] {
        self.prepared.as_ref().get(range.clone()).unwrap_or_default()
    }
}

impl<B> fmt::Debug for HashLists<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HashLists")
            .field("classes", &self.classes)
            .field("block_entries", &self.block_entries)
            .field("allow_entries", &self.allow_entries)
            .finish_non_exhaustive()
    }
}
