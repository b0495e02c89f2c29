//! A sorted table, read in place.

use std::ops::Range;

use crate::layout::{LIST_NUMBER, NAME_RECORD, TableLayout, first_bits, index_bits};

/// A table of keys of `K` bytes in a prepared form.
#[derive(Clone, Copy)]
pub(crate) struct SortedTable<'a, const K: usize> {
    index: &'a [[u8; 4]],
    keys: &'a [[u8; K]],
    lists: &'a [[u8; LIST_NUMBER]],
    names: &'a [[u8; NAME_RECORD]],
}

/// Entry of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FoundEntry {
    pub(crate) list: u16,
    /// Place of the name in the text.
    pub(crate) name: Option<Range<usize>>,
}

impl<'a, const K: usize> SortedTable<'a, K> {
    pub(crate) fn new(prepared: &'a [u8], layout: &TableLayout) -> Self {
        let section = |range: &Range<usize>| prepared.get(range.clone()).unwrap_or_default();
        Self {
            index: section(&layout.index).as_chunks().0,
            keys: section(&layout.keys).as_chunks().0,
            lists: section(&layout.lists).as_chunks().0,
            names: section(&layout.names).as_chunks().0,
        }
    }

    /// Returns whether the index starts with 0, ends with the number of keys, and does not decrease.
    pub(crate) fn has_valid_index(&self) -> bool {
        let numbers = || self.index.iter().copied().map(to_position);
        numbers().next() == Some(0)
            && numbers().next_back() == Some(self.keys.len())
            && numbers().is_sorted()
    }

    /// Finds a key in time O(log n); for digests, whose first bits are evenly distributed, in constant time.
    pub(crate) fn find(&self, key: &[u8; K]) -> Option<FoundEntry> {
        let slot = first_bits(key, index_bits(self.keys.len() as u64)) as usize;
        let start = to_position(*self.index.get(slot)?);
        let end = to_position(*self.index.get(slot + 1)?);
        let position = start + self.keys.get(start..end)?.binary_search(key).ok()?;
        let list = u16::from_le_bytes(*self.lists.get(position)?);
        Some(FoundEntry { list, name: self.find_name(position) })
    }

    fn find_name(&self, position: usize) -> Option<Range<usize>> {
        let fields = |record: &[u8; NAME_RECORD]| {
            let mut fields = record.as_chunks().0.iter().copied().map(to_position);
            (fields.next(), fields.next(), fields.next())
        };
        let found = self.names.binary_search_by_key(&Some(position), |record| fields(record).0);
        let (_, start, length) = fields(self.names.get(found.ok()?)?);
        Some(start?..start?.checked_add(length?)?)
    }
}

fn to_position(number: [u8; 4]) -> usize {
    u32::from_le_bytes(number) as usize
}
