//! Examines the data of entries, in every way in which programs read them.

use std::{
    collections::HashSet,
    io::{self, Read},
};

use super::{
    super::checked::Checked,
    method::{LZMA, MARKER_BIT, STORED, open},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacker, WalkEnd},
    },
};

/// One way to read the data of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryReading {
    pub(super) method: u16,
    pub(super) flags: u16,
    /// Length of the data, bytes; `None` if only the data state their end.
    pub(super) length: Option<u64>,
    /// Size of the unpacked file, bytes.
    pub(super) size: Option<u64>,
}

/// The data of an entry, and what the headers state about them.
pub(super) struct EntryData<'d> {
    /// Offset of the data.
    pub(super) start: usize,
    /// The names that programs use.
    pub(super) names: Vec<&'d [u8]>,
    /// The ways to read the data.
    pub(super) readings: Vec<EntryReading>,
    /// CRC-32 of the unpacked file, all that are stated.
    pub(super) checksums: Vec<u32>,
    pub(super) is_encrypted: bool,
}

/// Result of one reading.
#[derive(Default)]
struct ReadOutcome {
    /// Length of the unpacked file, bytes.
    size: u64,
    /// Length of the used data, bytes.
    used: usize,
    error: Option<io::Error>,
    /// Whether the file was read to its end.
    is_complete: bool,
    has_wrong_checksum: bool,
}

/// Passes the data of entries to the unpacker.
pub(super) struct ZipEntries<'d, 'u, 'v> {
    pub(super) bytes: &'d [u8],
    pub(super) unpacker: &'u mut Unpacker<'v>,
    /// Offset, length, method and extension of what is examined.
    seen: HashSet<(usize, Option<u64>, u16, Vec<u8>)>,
    /// Bytes of input that may still be read. Entries that overlap would take time without a limit, also if they unpack
    /// to nothing.
    input: u64,
    /// Number of trials whether data that are marked as encrypted can be read.
    trials: u32,
}

/// Maximum number of trials. An archive with a false mark is written with it at all entries.
const MAX_TRIALS: u32 = 10_000;

impl<'d, 'u, 'v> ZipEntries<'d, 'u, 'v> {
    /// Reads at most four times the bytes of the file.
    pub(super) fn new(bytes: &'d [u8], unpacker: &'u mut Unpacker<'v>) -> Self {
        let input = (bytes.len() as u64).saturating_mul(4);
        Self { bytes, unpacker, seen: HashSet::new(), input, trials: 0 }
    }

    pub(super) fn note(&mut self, kind: NoteKind, reason: &str) {
        self.unpacker.note(kind, reason);
    }

    /// Counts bytes of input. Returns whether they may be read.
    pub(super) fn take_input(&mut self, length: usize) -> bool {
        if self.input == 0 {
            self.note(NoteKind::Limit, "overlapping zip entries");
            return false;
        }
        self.input = self.input.saturating_sub(length as u64);
        true
    }

    /// Returns whether the entry has data that were not examined before, under this kind of name.
    pub(super) fn is_new(&self, entry: &EntryData<'_>) -> bool {
        entry.readings.iter().any(|reading| {
            let length = reading.length;
            let is_seen = |name: &&[u8]| {
                self.seen.contains(&(entry.start, length, reading.method, extension(name)))
            };
            length != Some(0) && !entry.names.iter().all(is_seen)
        })
    }

    /// Examines an entry. Returns the offset after the data that every program uses for it.
    pub(super) fn examine(&mut self, entry: &EntryData<'_>) -> Result<usize, WalkEnd> {
        let mut readings = entry.readings.clone();
        let mut end = entry.start;
        if entry.is_encrypted {
            end = self.shortest_end(entry);
            let mut readable = Vec::new();
            for reading in readings {
                if self.is_readable(entry, reading)? {
                    readable.push(reading);
                }
            }
            if readable.is_empty() {
                self.note(NoteKind::Encrypted, "zip entry");
                return Ok(end);
            }
            self.note(NoteKind::Inconsistent, "zip entry marked as encrypted, without encryption");
            readings = readable;
        }
        if readings.len() > 1 {
            self.note(NoteKind::Inconsistent, "zip headers differ in method or size");
        }
        if entry.names.len() > 1 {
            self.note(NoteKind::Inconsistent, "zip headers differ in name");
        }
        let is_only = readings.len() == 1;
        let mut failed = None;
        let mut is_read = false;
        for reading in readings {
            for name in &entry.names {
                let key = (entry.start, reading.length, reading.method, extension(name));
                if !self.seen.insert(key) {
                    (is_read, end) = (true, end.max(self.shortest_end(entry)));
                    continue;
                }
                let outcome = self.examine_reading(entry, reading, name, is_only)?;
                is_read |= outcome.is_complete;
                if outcome.is_complete {
                    let used = entry.start.saturating_add(outcome.used);
                    end = if end == entry.start { used } else { end.min(used) };
                }
                failed = failed.or(outcome.error);
            }
        }
        if let Some(error) = failed
            && !is_read
            && !is_only
        {
            self.unpacker.note_error(&error);
        }
        Ok(if is_read { end } else { self.shortest_end(entry) })
    }

    /// Returns the end of the data by the shortest stated length.
    fn shortest_end(&self, entry: &EntryData<'_>) -> usize {
        let lengths = entry.readings.iter().filter_map(|reading| reading.length);
        let length = lengths.min().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        entry.start.saturating_add(length).min(self.bytes.len())
    }

    /// Examines one reading, and a longer one if the stream does not end where the headers state.
    fn examine_reading(
        &mut self,
        entry: &EntryData<'_>,
        reading: EntryReading,
        name: &[u8],
        is_only: bool,
    ) -> Result<ReadOutcome, WalkEnd> {
        let mut outcome = self.read(entry, reading, name, is_only, u64::MAX)?;
        let is_cut = outcome.error.is_some() && reading.length == Some(outcome.used as u64);
        let is_false_lzma = reading.method == LZMA
            && (outcome.error.is_some() || outcome.has_wrong_checksum)
            && reading.size.is_some();
        if (is_cut || is_false_lzma) && reading.method != STORED {
            // LZMA ends at a marker or at the stated size.
            let longer = if is_false_lzma && reading.flags & MARKER_BIT != 0 {
                EntryReading { flags: reading.flags & !MARKER_BIT, ..reading }
            } else {
                EntryReading { length: None, size: None, ..reading }
            };
            let second = self.read(entry, longer, name, false, u64::MAX)?;
            if second.is_complete && (second.size > outcome.size || is_false_lzma) {
                self.note(NoteKind::Inconsistent, "zip data do not end as stated");
                outcome = second;
            }
        }
        let is_other = |stated: &u64| (stated ^ outcome.size) & u64::from(u32::MAX) != 0;
        if let Some(stated) = reading.size.filter(is_other)
            && reading.method != STORED
        {
            if outcome.is_complete {
                self.note(
                    NoteKind::Inconsistent,
                    "size of an unpacked file differs from the header",
                );
            }
            // Some programs end the file at the stated size.
            if stated < outcome.size {
                self.read(entry, reading, name, false, stated)?;
            }
        }
        Ok(outcome)
    }

    /// Returns the stated data, as far as they are in the file.
    fn data(&self, start: usize, length: Option<u64>) -> &'d [u8] {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = length.and_then(|length| usize::try_from(length).ok());
        length.and_then(|length| rest.get(..length)).unwrap_or(rest)
    }

    /// Returns whether data can be read and have the stated CRC-32, without examining them.
    pub(super) fn is_readable(
        &mut self,
        entry: &EntryData<'_>,
        reading: EntryReading,
    ) -> Result<bool, WalkEnd> {
        self.trials += 1;
        if self.trials > MAX_TRIALS {
            return Ok(false);
        }
        let mut input = self.data(entry.start, reading.length);
        let length = input.len();
        if !self.take_input(0) {
            return Ok(false);
        }
        let size = reading.size.unwrap_or(u64::MAX);
        let Ok(decoder) = open(reading.method, reading.flags, size, &mut input) else {
            return Ok(false);
        };
        let mut checked = Checked::new(decoder, &entry.checksums);
        checked.is_quiet = true;
        self.unpacker.decode_part(&mut checked)?;
        let is_readable = checked.is_complete && checked.size > 0 && !checked.has_wrong_checksum();
        drop(checked);
        self.take_input(length - input.len());
        Ok(is_readable && !entry.checksums.is_empty())
    }

    /// Decodes and examines at most `max_size` bytes of the file. Errors are noted at the entry if this is the only way
    /// to read it.
    fn read(
        &mut self,
        entry: &EntryData<'_>,
        reading: EntryReading,
        name: &[u8],
        is_only: bool,
        max_size: u64,
    ) -> Result<ReadOutcome, WalkEnd> {
        let data = self.data(entry.start, reading.length);
        if !self.take_input(0) {
            return Ok(ReadOutcome::default());
        }
        if reading.method == STORED {
            return self.read_stored(entry, reading, name, data);
        }
        let mut input = data;
        let size = reading.size.unwrap_or(u64::MAX);
        let decoder = match open(reading.method, reading.flags, size, &mut input) {
            Ok(decoder) => decoder,
            Err(error) => {
                if is_only {
                    self.unpacker.note_error(&error);
                }
                return Ok(ReadOutcome { error: Some(error), ..ReadOutcome::default() });
            }
        };
        let mut checked = Checked::new(decoder.take(max_size), &entry.checksums);
        checked.is_quiet = !is_only;
        self.unpacker.decode(EntryName::file(name), &mut checked)?;
        let mut outcome = ReadOutcome {
            size: checked.size,
            used: 0,
            is_complete: checked.is_complete,
            has_wrong_checksum: checked.has_wrong_checksum(),
            error: checked.error.take(),
        };
        drop(checked);
        outcome.used = data.len() - input.len();
        if outcome.is_complete && !outcome.has_wrong_checksum {
            self.unpacker.set_decoded(data.get(..outcome.used).unwrap_or_default());
        }
        self.take_input(outcome.used);
        Ok(outcome)
    }

    /// Examines data that are stored as they are.
    fn read_stored(
        &mut self,
        entry: &EntryData<'_>,
        reading: EntryReading,
        name: &[u8],
        data: &[u8],
    ) -> Result<ReadOutcome, WalkEnd> {
        self.take_input(data.len());
        let mut checked = Checked::new(data, &entry.checksums);
        io::copy(&mut checked, &mut io::sink()).ok();
        let has_wrong_checksum = checked.has_wrong_checksum();
        self.unpacker.slice(EntryName::file(name), data)?;
        let is_truncated = reading.length.is_some_and(|length| length > data.len() as u64);
        if is_truncated {
            self.note(NoteKind::Unreadable, "truncated zip entry");
        } else if has_wrong_checksum && entry.readings.len() == 1 {
            self.note(NoteKind::Unreadable, "wrong CRC-32 of a zip entry");
        }
        let used = data.len();
        Ok(ReadOutcome {
            size: used as u64,
            used,
            is_complete: !is_truncated,
            has_wrong_checksum,
            error: None,
        })
    }
}

/// Returns the extension of a name, in lower case. Names with other extensions are other objects for rules.
fn extension(name: &[u8]) -> Vec<u8> {
    const MAX: usize = 16;
    let start = name.len().saturating_sub(MAX);
    let end = name.get(start..).unwrap_or_default();
    let mut parts = end.rsplit(|byte| *byte == b'.');
    let last = parts.next().unwrap_or_default();
    let is_extension = parts.next().is_some() && !last.iter().any(|byte| b"/\\".contains(byte));
    if is_extension { last.to_ascii_lowercase() } else { Vec::new() }
}
