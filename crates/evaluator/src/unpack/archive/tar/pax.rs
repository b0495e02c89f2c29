//! Extended headers of pax archives: POSIX.1-2017, `pax`, "pax Extended Header".

use super::{format::decimal, sparse::SparseMap};

/// Start of the keys of sparse files.
const SPARSE: &[u8] = b"GNU.sparse";

/// The records that matter here.
#[derive(Default)]
pub(super) struct PaxRecords {
    pub(super) name: Option<Vec<u8>>,
    /// Sizes of the content in the archive, as programs read the record, bytes.
    pub(super) sizes: Vec<u64>,
    /// Size of a sparse file, bytes.
    real_size: Option<u64>,
    /// Offsets and lengths of the parts of a sparse file.
    parts: Vec<(u64, u64)>,
    /// Whether the map of a sparse file is at the start of its content.
    is_map_in_content: bool,
    /// Whether a record is invalid, and records that change the content are after it. Python reads some of them.
    pub(super) is_ambiguous: bool,
}

impl PaxRecords {
    /// Parses records of the form `length key=value`. Ends at the first one that is invalid.
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut records = Self::default();
        while let Some((key, value, rest)) = next_record(bytes) {
            records.add(key, value);
            bytes = rest;
        }
        let mut parts = bytes.windows(SPARSE.len());
        records.is_ambiguous = parts.any(|part| part == SPARSE || part.starts_with(b" size="));
        records
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        let number = || decimal(value);
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"path" if self.name.is_none() => self.name = Some(value.to_vec()),
            b"size" => self.sizes = sizes(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real_size = number(),
            b"GNU.sparse.major" => self.is_map_in_content = number() == Some(1),
            // Version 0.0: one record for each number.
            b"GNU.sparse.offset" => self.parts.push((number().unwrap_or_default(), 0)),
            b"GNU.sparse.numbytes" => {
                if let Some((_, length)) = self.parts.last_mut() {
                    *length = number().unwrap_or_default();
                }
            }
            // Version 0.1: all numbers in one record.
            b"GNU.sparse.map" => {
                let numbers: Vec<_> = value.split(|byte| *byte == b',').map(decimal).collect();
                let pairs = numbers.chunks_exact(2).map_while(|pair| match pair {
                    [Some(offset), Some(length)] => Some((*offset, *length)),
                    _ => None,
                });
                self.parts = pairs.collect();
            }
            _ => {}
        }
    }

    /// Returns the map, if the file is sparse. `stored`: size of the content in the archive, bytes.
    pub(super) fn sparse_map(&self, stored: u64) -> Option<SparseMap> {
        // bsdtar and Python take the size of the content, if there is no other one.
        let real_size = self.real_size.unwrap_or(stored);
        if self.is_map_in_content {
            return Some(SparseMap::in_content(real_size));
        }
        (!self.parts.is_empty()).then(|| SparseMap::new(self.parts.clone(), real_size))
    }
}

/// Returns the key and the value of the first record, and the records after it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // Longer numbers are not lengths.
    let digits = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..digits)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(digits + 1..)?;
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

/// Returns what programs take as the number of a record: the digits at its start (GNU tar, bsdtar), or all digits
/// without underscores (Python).
fn sizes(value: &[u8]) -> Vec<u64> {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    let mut sizes: Vec<_> = value.get(..end).and_then(decimal).into_iter().collect();
    if value.contains(&b'_') {
        let digits: Vec<_> = value.iter().copied().filter(|byte| *byte != b'_').collect();
        sizes.extend(decimal(&digits));
    }
    sizes
}
