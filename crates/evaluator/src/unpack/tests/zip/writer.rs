//! Writes zip files, correct and incorrect ones.

use std::io::Write;

use flate2::{Compression, Crc, write::DeflateEncoder};

/// Fields of a local header or of a record of the directory.
#[derive(Clone, Debug)]
pub(crate) struct ZipFields {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    pub(crate) compressed: u32,
    pub(crate) size: u32,
    pub(crate) extra: Vec<u8>,
}

/// An entry: what each header states, and the data.
#[derive(Clone, Debug)]
pub(crate) struct ZipEntrySpec {
    /// `None`: the directory refers to the local header before.
    pub(crate) local: Option<ZipFields>,
    /// `None`: the directory does not list the entry.
    pub(crate) central: Option<ZipFields>,
    pub(crate) data: Vec<u8>,
    /// Bytes after the data.
    pub(crate) after: Vec<u8>,
    /// Signature of the local header.
    pub(crate) signature: [u8; 4],
}

impl ZipEntrySpec {
    /// Creates an entry with compressed data.
    pub(crate) fn packed(name: impl AsRef<[u8]>, method: u16, data: Vec<u8>, file: &[u8]) -> Self {
        let fields = ZipFields {
            name: name.as_ref().to_vec(),
            flags: 0,
            method,
            crc: crc(file),
            compressed: u32::try_from(data.len()).unwrap(),
            size: u32::try_from(file.len()).unwrap(),
            extra: Vec::new(),
        };
        let (local, central) = (Some(fields.clone()), Some(fields));
        Self { local, central, data, after: Vec::new(), signature: *b"PK\x03\x04" }
    }

    pub(crate) fn stored(name: impl AsRef<[u8]>, file: &[u8]) -> Self {
        Self::packed(name, 0, file.to_vec(), file)
    }

    pub(crate) fn deflated(name: impl AsRef<[u8]>, file: &[u8]) -> Self {
        Self::packed(name, 8, deflate(file), file)
    }

    /// Changes the local header.
    pub(crate) fn local(mut self, change: impl FnOnce(&mut ZipFields)) -> Self {
        change(self.local.as_mut().unwrap());
        self
    }

    /// Changes the record of the directory.
    pub(crate) fn central(mut self, change: impl FnOnce(&mut ZipFields)) -> Self {
        change(self.central.as_mut().unwrap());
        self
    }

    /// Changes both.
    pub(crate) fn both(self, change: impl Fn(&mut ZipFields)) -> Self {
        self.local(&change).central(&change)
    }

    /// Removes the record of the directory.
    pub(crate) fn unlisted(mut self) -> Self {
        self.central = None;
        self
    }

    /// States the sizes after the data, in a data descriptor, with its signature or without.
    pub(crate) fn streamed(mut self, has_signature: bool) -> Self {
        let signature = if has_signature { &b"PK\x07\x08"[..] } else { b"" };
        let fields = self.local.as_mut().unwrap();
        let numbers = [fields.crc, fields.compressed, fields.size];
        self.after = [signature, &numbers.map(u32::to_le_bytes).concat()].concat();
        (fields.crc, fields.compressed, fields.size) = (0, 0, 0);
        self.both(|fields| fields.flags |= 8)
    }
}

/// A zip file.
#[derive(Clone, Default, Debug)]
pub(crate) struct ZipWriter {
    pub(crate) prefix: Vec<u8>,
    /// Whether offsets count from the start of the archive, after the prefix.
    pub(crate) is_relative: bool,
    pub(crate) entries: Vec<ZipEntrySpec>,
    /// Bytes between the entries and the directory.
    pub(crate) before_directory: Vec<u8>,
    pub(crate) has_zip64_end: bool,
    /// Number of entries, if it is not the right one.
    pub(crate) stated_entries: Option<u16>,
    /// Size of the directory, if it is not the right one.
    pub(crate) stated_size: Option<u32>,
    /// Number of the disk.
    pub(crate) disk: u16,
    pub(crate) comment: Vec<u8>,
    /// Length of the comment, if it is not the right one.
    pub(crate) stated_comment: Option<u16>,
    pub(crate) suffix: Vec<u8>,
}

impl ZipWriter {
    pub(crate) fn new(entries: impl IntoIterator<Item = ZipEntrySpec>) -> Self {
        Self { entries: entries.into_iter().collect(), ..Self::default() }
    }

    /// Returns the file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let (mut file, offsets) = self.local_part();
        let base = if self.is_relative { self.prefix.len() } else { 0 };
        let start = file.len();
        let mut entries = 0_u16;
        for (entry, offset) in self.entries.iter().zip(offsets) {
            if let Some(fields) = &entry.central {
                entries = entries.wrapping_add(1);
                push_central(&mut file, fields, u32::try_from(offset - base).unwrap());
            }
        }
        let mut offset = u32::try_from(start - base).unwrap();
        let mut size = self.stated_size.unwrap_or(u32::try_from(file.len() - start).unwrap());
        let mut entries = self.stated_entries.unwrap_or(entries);
        if self.has_zip64_end {
            let position = (file.len() - base) as u64;
            push(&mut file, &[b"PK\x06\x06", &44_u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]]);
            for number in [u64::from(entries), entries.into(), size.into(), offset.into()] {
                file.extend(number.to_le_bytes());
            }
            push(&mut file, &[b"PK\x06\x07", &[0; 4], &position.to_le_bytes(), &[1, 0, 0, 0]]);
            (entries, size, offset) = (u16::MAX, u32::MAX, u32::MAX);
        }
        file.extend(b"PK\x05\x06");
        for number in [self.disk, self.disk, entries, entries] {
            file.extend(number.to_le_bytes());
        }
        let comment_length = u16::try_from(self.comment.len()).unwrap();
        push(&mut file, &[&size.to_le_bytes(), &offset.to_le_bytes()]);
        push(&mut file, &[&self.stated_comment.unwrap_or(comment_length).to_le_bytes()]);
        push(&mut file, &[&self.comment, &self.suffix]);
        file
    }

    /// Returns the file without its directory.
    pub(crate) fn build_without_directory(&self) -> Vec<u8> {
        self.local_part().0
    }

    /// Returns the part before the directory, and the offsets of the entries.
    fn local_part(&self) -> (Vec<u8>, Vec<usize>) {
        let mut file = self.prefix.clone();
        let mut offsets = Vec::new();
        for entry in &self.entries {
            if let Some(fields) = &entry.local {
                offsets.push(file.len());
                push_local(&mut file, entry.signature, fields);
                push(&mut file, &[&entry.data, &entry.after]);
            } else {
                offsets.push(*offsets.last().unwrap());
            }
        }
        file.extend(&self.before_directory);
        (file, offsets)
    }
}

fn push(file: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        file.extend(*part);
    }
}

fn push_local(file: &mut Vec<u8>, signature: [u8; 4], fields: &ZipFields) {
    push(file, &[&signature, &20_u16.to_le_bytes()]);
    push_common(file, fields);
    push(file, &[&fields.name, &fields.extra]);
}

fn push_central(file: &mut Vec<u8>, fields: &ZipFields, offset: u32) {
    push(file, &[b"PK\x01\x02", &[20, 3, 20, 0]]);
    push_common(file, fields);
    push(file, &[&[0; 10], &offset.to_le_bytes(), &fields.name, &fields.extra]);
}

/// Writes the fields from the flags to the lengths of name and extra fields.
fn push_common(file: &mut Vec<u8>, fields: &ZipFields) {
    let (name, extra) = (fields.name.len(), fields.extra.len());
    let lengths = [name, extra].map(|length| u16::try_from(length).unwrap().to_le_bytes());
    push(file, &[&fields.flags.to_le_bytes(), &fields.method.to_le_bytes(), &[0, 0, 33, 90]]);
    for number in [fields.crc, fields.compressed, fields.size] {
        file.extend(number.to_le_bytes());
    }
    file.extend(lengths.concat());
}

/// Returns a zip file with these files, compressed.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    ZipWriter::new(files.iter().map(|(name, file)| ZipEntrySpec::deflated(name, file))).build()
}

/// Returns a zip file with these files, stored.
pub(crate) fn stored_zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    ZipWriter::new(files.iter().map(|(name, file)| ZipEntrySpec::stored(name, file))).build()
}

/// Compresses a file by deflate.
pub(crate) fn deflate(file: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(file).unwrap();
    encoder.finish().unwrap()
}

/// Returns the CRC-32 of a file.
pub(crate) fn crc(file: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(file);
    crc.sum()
}
