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
    /// Which records of sparse files there are.
    sparse: SparseRecords,
    /// Whether programs read other records, or a sparse file in another way.
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
        // Python reads some of the records after an invalid one.
        let mut parts = bytes.windows(SPARSE.len());
        records.is_ambiguous = parts.any(|part| part == SPARSE || part.starts_with(b" size="))
            || !records.sparse.is_one_version();
        records
    }

    /// Returns whether there are records that change the content of a file.
    pub(super) fn change_content(&self) -> bool {
        !self.sizes.is_empty() || self.is_sparse()
    }

    /// Returns whether there are records of a sparse file.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse.count > 0
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        let number = || decimal(value);
        if key.starts_with(SPARSE) {
            self.sparse.add(key, value);
        }
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

/// The records of a sparse file. Programs agree on the file if its records are as GNU tar writes one version of them.
#[derive(Default)]
struct SparseRecords {
    /// Number of all of them.
    count: usize,
    /// Numbers of offsets and of lengths (version 0.0).
    offsets: usize,
    lengths: usize,
    /// Number of maps (version 0.1).
    maps: usize,
    /// Numbers of the version, and how many of them are those of version 1.0.
    versions: usize,
    is_version_1: [bool; 2],
    real_size: Option<Vec<u8>>,
    is_disordered: bool,
}

impl SparseRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        self.count += 1;
        match key {
            b"GNU.sparse.name" => return,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.is_disordered |= self.real_size.as_ref().is_some_and(|size| size != value);
                self.real_size = Some(value.to_vec());
            }
            b"GNU.sparse.offset" => {
                self.is_disordered |= self.offsets != self.lengths;
                self.offsets += 1;
            }
            b"GNU.sparse.numbytes" => self.lengths += 1,
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',');
                let is_valid =
                    |number: &[u8]| !number.is_empty() && number.iter().all(u8::is_ascii_digit);
                self.is_disordered |=
                    numbers.clone().count() % 2 != 0 || !numbers.clone().all(is_valid);
                self.maps += 1;
                return;
            }
            b"GNU.sparse.major" => {
                self.versions += 1;
                self.is_version_1[0] = value == b"1";
            }
            b"GNU.sparse.minor" => {
                self.versions += 1;
                self.is_version_1[1] = value == b"0";
            }
            _ => {}
        }
        self.is_disordered |= !is_number;
    }

    /// Returns whether there are no records, or those of one version in its order.
    fn is_one_version(&self) -> bool {
        let is_0_0 = self.offsets > 0;
        let is_0_1 = self.maps > 0;
        let is_1_0 = self.versions > 0;
        let is_complete = self.offsets == self.lengths
            && self.maps <= 1
            && (!is_1_0 || (self.versions == 2 && self.is_version_1 == [true; 2]));
        let versions =
            [is_0_0, is_0_1, is_1_0].into_iter().filter(|is_present| *is_present).count();
        self.count == 0 || (versions == 1 && is_complete && !self.is_disordered)
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
