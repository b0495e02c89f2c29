//! Entries of a table while lists are read, and the encoding of the table.

use crate::{
    layout::{NAME_RECORD, TableCounts, first_bits, index_bits},
    limits::{MAX_NAME, MAX_NAMED_ENTRIES, MAX_NAMES},
};

/// Entries with keys of `K` bytes.
#[derive(Debug)]
pub(crate) struct UnsortedTable<const K: usize> {
    records: Vec<TableRecord<K>>,
    names: Vec<NamedRecord<K>>,
    max_records: usize,
}

/// Without padding: 18 or 34 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct TableRecord<const K: usize> {
    key: [u8; K],
    list: u16,
}

/// Name of an entry: a place in the text.
#[derive(Clone, Copy, Debug)]
struct NamedRecord<const K: usize> {
    record: TableRecord<K>,
    start: u32,
    length: u32,
}

/// The table has its maximum number of entries.
#[derive(Debug)]
pub(crate) struct TableFull;

/// Adds the entries of one list to a table.
pub(crate) struct ListAppender<'a, const K: usize> {
    table: &'a mut UnsortedTable<K>,
    /// Names of entries of all lists.
    text: &'a mut String,
    list: u16,
    first_record: usize,
    first_name: usize,
    text_start: usize,
    keeps_names: bool,
}

impl<'a, const K: usize> ListAppender<'a, K> {
    pub(crate) fn new(table: &'a mut UnsortedTable<K>, text: &'a mut String, list: u16) -> Self {
        Self {
            first_record: table.records.len(),
            first_name: table.names.len(),
            text_start: text.len(),
            keeps_names: true,
            table,
            text,
            list,
        }
    }

    pub(crate) fn add(&mut self, key: [u8; K], name: &str) -> Result<(), TableFull> {
        if self.table.records.len() >= self.table.max_records {
            return Err(TableFull);
        }
        let record = TableRecord { key, list: self.list };
        self.table.records.push(record);
        let added = (self.table.records.len() - self.first_record) as u64;
        if self.keeps_names && (added > MAX_NAMED_ENTRIES || !self.add_name(record, name)) {
            self.keeps_names = false;
            self.remove_names();
        }
        Ok(())
    }

    /// Returns whether the name fits the limit of all names.
    fn add_name(&mut self, record: TableRecord<K>, name: &str) -> bool {
        let name = cut(name, MAX_NAME);
        if name.is_empty() {
            return true;
        }
        let (Ok(start), Ok(length)) = (self.text.len().try_into(), name.len().try_into()) else {
            return false;
        };
        self.table.names.push(NamedRecord { record, start, length });
        self.text.push_str(name);
        self.text.len() + self.table.names.len() * NAME_RECORD <= MAX_NAMES
    }

    fn remove_names(&mut self) {
        self.table.names.truncate(self.first_name);
        self.text.truncate(self.text_start);
    }

    /// Removes the entries of the list.
    pub(crate) fn undo(mut self) {
        self.remove_names();
        self.table.records.truncate(self.first_record);
    }
}

/// Returns the start of a text, of at most `length` bytes.
pub(crate) fn cut(text: &str, length: usize) -> &str {
    text.get(..text.floor_char_boundary(length)).unwrap_or_default()
}

impl<const K: usize> UnsortedTable<K> {
    /// Creates a table for this number of entries, including duplicates.
    pub(crate) fn new(max_records: usize) -> Self {
        Self { records: Vec::new(), names: Vec::new(), max_records }
    }

    /// Sorts the table. Of equal keys, the one of the first list remains, with the first name in that list.
    pub(crate) fn sort(mut self) -> MergedTable<K> {
        // Comparing the first bytes as a number is faster, and decides nearly always.
        let start = |record: &TableRecord<K>| {
            record.key.first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
        };
        let records = &mut self.records;
        records.sort_unstable_by(|a, b| start(a).cmp(&start(b)).then_with(|| a.cmp(b)));
        records.dedup_by_key(|record| record.key);
        self.names.sort_by_key(|name| name.record);
        self.names.dedup_by_key(|name| name.record);
        let names = self.names.iter().filter_map(|name| {
            let position = records.binary_search(&name.record).ok()?;
            Some([u32::try_from(position).ok()?, name.start, name.length])
        });
        let names = names.collect();
        MergedTable { records: self.records, names }
    }
}

/// Sorted entries without duplicates.
#[derive(Debug)]
pub(crate) struct MergedTable<const K: usize> {
    records: Vec<TableRecord<K>>,
    /// Position of the record, and place in the text.
    names: Vec<[u32; 3]>,
}

impl<const K: usize> MergedTable<K> {
    pub(crate) fn counts(&self) -> TableCounts {
        TableCounts { entries: self.records.len() as u64, names: self.names.len() as u64 }
    }

    /// Appends the table to a prepared form.
    pub(crate) fn encode(&self, prepared: &mut Vec<u8>) {
        let bits = index_bits(self.records.len() as u64);
        let (mut slot, mut position) = (0_u32, 0_u32);
        prepared.extend(position.to_le_bytes());
        for record in &self.records {
            while slot < first_bits(&record.key, bits) {
                prepared.extend(position.to_le_bytes());
                slot += 1;
            }
            position += 1;
        }
        while slot < 1 << bits {
            prepared.extend(position.to_le_bytes());
            slot += 1;
        }
        self.records.iter().for_each(|record| prepared.extend(record.key));
        self.records.iter().for_each(|record| prepared.extend(record.list.to_le_bytes()));
        let names = self.names.iter().flatten();
        names.for_each(|number| prepared.extend(number.to_le_bytes()));
    }
}
