//! Local headers that no directory lists. Some programs read local headers only, such as 7-Zip in a damaged archive.

use super::{
    entry::{EntryData, EntryReading, ZipEntries},
    method::{STORED, is_registered},
    record::{CENTRAL, DESCRIPTOR, END, LOCAL, LocalHeader, find},
};
use crate::unpack::fields::{u32_at, u64_at};
use crate::{report::NoteKind, unpack::unpacker::Unpacked};

/// Maximum version of the format that a header needs, times ten. The specification has 63.
const MAX_VERSION: u16 = 100;

/// Examines entries in the gaps between those of the directories, which are in ascending order.
///
/// # Errors
/// The walk ends.
pub(super) fn sweep(
    entries: &mut ZipEntries<'_, '_, '_>,
    gaps: impl Iterator<Item = (usize, usize)>,
    has_directory: bool,
) -> Unpacked {
    let bytes = entries.bytes;
    let mut next = 0;
    for (start, end) in gaps {
        next = next.max(start);
        // A header may start in the last bytes of a gap only if the area after it is no entry.
        while let Some(position) = find(bytes, next, end, LOCAL) {
            next = position + LOCAL.len();
            let Some(local) = LocalHeader::parse(bytes, position).filter(is_plausible) else {
                continue;
            };
            let reading = reading(entries, &local);
            // Android Studio fills gaps with entries without data.
            if reading.length == Some(0) {
                next = local.data;
                continue;
            }
            if has_directory {
                entries.note(NoteKind::Inconsistent, "zip entry that the directory does not list");
            }
            let header = &local.header;
            let is_checksum_known = header.crc != 0 || !header.has_descriptor();
            let data_end = entries.examine(&EntryData {
                start: local.data,
                names: vec![header.name],
                readings: vec![reading],
                checksums: is_checksum_known.then_some(header.crc).into_iter().collect(),
                is_encrypted: header.is_encrypted(),
            })?;
            next = data_end.max(next);
        }
    }
    Ok(())
}

/// Returns the length of the first entry of an archive, if its header is plausible.
pub(super) fn extent(archive: &[u8]) -> Option<usize> {
    let local = LocalHeader::parse(archive, 0).filter(is_plausible)?;
    local.data.checked_add(usize::try_from(local.header.compressed).ok()?)
}

/// Returns whether this is a header and not a signature in other data.
fn is_plausible(local: &LocalHeader<'_>) -> bool {
    is_registered(local.header.method)
        && local.version & 0xff <= MAX_VERSION
        && !local.header.name.is_empty()
}

/// Returns how the data of an entry are read that only has a local header.
fn reading(entries: &mut ZipEntries<'_, '_, '_>, local: &LocalHeader<'_>) -> EntryReading {
    let header = &local.header;
    let mut reading = EntryReading {
        method: header.method,
        flags: header.flags,
        length: Some(header.compressed),
        size: Some(header.size),
    };
    if !local.has_sizes() && (header.has_descriptor() || header.crc != 0) {
        (reading.length, reading.size) = (None, None);
    } else if header.compressed == 0 {
        // A false length. Other methods than stored state the end of the data.
        reading.length = (header.method == STORED).then_some(header.size);
    }
    if reading.method == STORED && reading.length.is_none() {
        reading.length = Some(stored_length(entries, local.data));
    }
    reading
}

/// Returns the length of stored data whose length is stated only after them, without extending to the end of the file:
/// up to a data descriptor with the right length, else up to the next record.
pub(super) fn stored_length(entries: &mut ZipEntries<'_, '_, '_>, start: usize) -> u64 {
    let bytes = entries.bytes;
    let mut position = start;
    while entries.take_input(0) {
        let found = find(bytes, position, bytes.len(), DESCRIPTOR);
        entries.take_input(found.unwrap_or(bytes.len()).saturating_sub(position));
        let Some(found) = found else { break };
        let length = (found - start) as u64;
        let is_32 = u32_at(bytes, found + 8).map(u64::from) == Some(length);
        if is_32 || u64_at(bytes, found + 8) == Some(length) {
            return length;
        }
        position = found + DESCRIPTOR.len();
    }
    let mut end = bytes.len();
    for signature in [DESCRIPTOR, LOCAL, CENTRAL, END] {
        if entries.take_input(end.saturating_sub(start)) {
            end = find(bytes, start, end, signature).unwrap_or(end);
        }
    }
    let length = end.saturating_sub(start) as u64;
    // The signature of a data descriptor is optional.
    let is_descriptor = length >= 12 && u32_at(bytes, end - 8).map(u64::from) == Some(length - 12);
    if is_descriptor { length - 12 } else { length }
}
