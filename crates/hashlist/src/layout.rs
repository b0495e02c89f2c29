//! Layout of the prepared form.
//!
//! All numbers are little endian. The header: [`MAGIC`], four digests (SHA-256), and seven numbers of 64 bits: kinds of
//! block entries ([`BlockClasses`]), block entries, their names, allow entries, their names, lists, bytes of text. Then
//! follow the sections without gaps: block table, allow table, lists, text.
//!
//! - A table: an index, keys, numbers of lists (16 bits each), and names. Keys are sorted, without duplicates. Number i of
//!   the index (32 bits) is the number of keys whose first bits are less than i. A name has the position of its key, and
//!   start and length in the text (32 bits each), sorted by position.
//! - A list: start and length of its name in the text (64 bits each).
//!
//! The first digest covers the header after it, the second the keys of the block table, the third the keys of the allow
//! table, and the fourth all other sections.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::key::{ALLOW_KEY, BLOCK_KEY, BlockClasses};

/// Version marker. Readers reject every other value.
pub(crate) const MAGIC: &[u8; 24] = b"mcs-hashlist, form 1\n\0\0\0";

const DIGEST: usize = 32;

const NUMBERS: usize = 7;

/// Length of the header in bytes.
pub(crate) const HEADER: usize = MAGIC.len() + 4 * DIGEST + NUMBERS * size_of::<u64>();

/// Maximum number of bits in the index of a table.
const MAX_INDEX_BITS: u32 = 24;

/// Returns the number of first bits of keys that the index of a table distinguishes: at least 8 keys for each value.
pub(crate) fn index_bits(entries: u64) -> u32 {
    (entries / 8).checked_ilog2().unwrap_or(0).min(MAX_INDEX_BITS)
}

/// Returns the first bits of a key.
pub(crate) fn first_bits<const K: usize>(key: &[u8; K], bits: u32) -> u32 {
    let start = key.first_chunk().map_or(0, |start| u32::from_be_bytes(*start));
    start.checked_shr(u32::BITS - bits).unwrap_or(0)
}

/// Numbers of entries and names of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableCounts {
    pub(crate) entries: u64,
    pub(crate) names: u64,
}

/// Numbers in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeaderCounts {
    pub(crate) classes: BlockClasses,
    pub(crate) block: TableCounts,
    pub(crate) allow: TableCounts,
    pub(crate) lists: u64,
    pub(crate) text: u64,
}

impl HeaderCounts {
    fn to_bytes(self) -> Vec<u8> {
        let Self { classes, block, allow, lists, text } = self;
        let numbers: [u64; NUMBERS] =
            [classes.bits(), block.entries, block.names, allow.entries, allow.names, lists, text];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks().0.split_first_chunk::<NUMBERS>()?;
        let [classes, block_entries, block_names, allow_entries, allow_names, lists, text] =
            numbers.map(u64::from_le_bytes);
        Some(Self {
            classes: BlockClasses::from_bits(classes)?,
            block: TableCounts { entries: block_entries, names: block_names },
            allow: TableCounts { entries: allow_entries, names: allow_names },
            lists,
            text,
        })
    }
}

/// Digests in the header, without the first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SectionDigests {
    pub(crate) block: [u8; DIGEST],
    pub(crate) allow: [u8; DIGEST],
    others: [u8; DIGEST],
}

impl SectionDigests {
    /// Computes the digests of the sections of a whole prepared form.
    pub(crate) fn compute(prepared: &[u8], layout: &Layout) -> Self {
        let section = |range: &Range<usize>| prepared.get(range.clone()).unwrap_or_default();
        let digest = |ranges: &[&Range<usize>]| {
            let mut digest = Sha256::new();
            for range in ranges {
                digest.update(section(range));
            }
            digest.finalize().into()
        };
        let Layout { block, allow, lists, text } = layout;
        let others = [
            &block.index,
            &block.lists,
            &block.names,
            &allow.index,
            &allow.lists,
            &allow.names,
            lists,
            text,
        ];
        Self {
            block: digest(&[&block.keys]),
            allow: digest(&[&allow.keys]),
            others: digest(&others),
        }
    }
}

/// Returns the header.
pub(crate) fn encode_header(counts: HeaderCounts, digests: &SectionDigests) -> Vec<u8> {
    let SectionDigests { block, allow, others } = digests;
    let covered = [&block[..], allow, others, &counts.to_bytes()].concat();
    let first: [u8; DIGEST] = Sha256::digest(&covered).into();
    [&MAGIC[..], &first, &covered].concat()
}

/// Parses the header. Returns `None` if it is damaged.
pub(crate) fn parse_header(header: &[u8]) -> Option<(HeaderCounts, SectionDigests)> {
    let rest = header.strip_prefix(MAGIC)?;
    let (first, covered) = rest.split_first_chunk::<DIGEST>()?;
    let (block, rest) = covered.split_first_chunk()?;
    let (allow, rest) = rest.split_first_chunk()?;
    let (others, numbers) = rest.split_first_chunk()?;
    let digests = SectionDigests { block: *block, allow: *allow, others: *others };
    let is_intact = *first == <[u8; DIGEST]>::from(Sha256::digest(covered));
    Some((HeaderCounts::from_bytes(numbers)?, digests)).filter(|_| is_intact)
}

/// Places of the parts of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableLayout {
    pub(crate) index: Range<usize>,
    pub(crate) keys: Range<usize>,
    pub(crate) lists: Range<usize>,
    pub(crate) names: Range<usize>,
}

/// Places of all sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) block: TableLayout,
    pub(crate) allow: TableLayout,
    pub(crate) lists: Range<usize>,
    /// The last section.
    pub(crate) text: Range<usize>,
}

/// Length of the number of a list in a table.
pub(crate) const LIST_NUMBER: usize = 2;

/// Length of a name in a table.
pub(crate) const NAME_RECORD: usize = 12;

/// Length of a list in the list section.
pub(crate) const LIST_RECORD: usize = 16;

impl Layout {
    /// Returns `None` if the form would exceed the address space.
    pub(crate) fn new(counts: &HeaderCounts) -> Option<Self> {
        let mut end = HEADER;
        let mut section = |count: u64, size: usize| -> Option<Range<usize>> {
            let start = end;
            end = usize::try_from(count).ok()?.checked_mul(size)?.checked_add(start)?;
            Some(start..end)
        };
        let mut table = |counts: &TableCounts, key: usize| {
            Some(TableLayout {
                index: section((1 << index_bits(counts.entries)) + 1, size_of::<u32>())?,
                keys: section(counts.entries, key)?,
                lists: section(counts.entries, LIST_NUMBER)?,
                names: section(counts.names, NAME_RECORD)?,
            })
        };
        let block = table(&counts.block, BLOCK_KEY)?;
        let allow = table(&counts.allow, ALLOW_KEY)?;
        let lists = section(counts.lists, LIST_RECORD)?;
        let text = section(counts.text, 1)?;
        Some(Self { block, allow, lists, text })
    }
}
