//! Entries of a directory.

use super::{
    directory::{Defect, ZipDirectory},
    entry::{EntryData, EntryReading, ZipEntries},
    method::{DEFLATE, STORED},
    record::{CENTRAL, CentralHeader, DESCRIPTOR, FileHeader, LOCAL, LocalHeader},
    sweep::stored_length,
};
use crate::{report::NoteKind, unpack::unpacker::WalkEnd};

/// Deflate of a file without content. Some programs write it for directories.
const EMPTY_DEFLATE: &[u8] = &[3, 0];

/// Examines the entries of a directory. Returns the areas of the directory and of its entries. `is_other`: other
/// programs use another directory.
pub(super) fn examine_directory(
    entries: &mut ZipEntries<'_, '_, '_>,
    directory: &ZipDirectory,
    is_other: bool,
) -> Result<Vec<(usize, usize)>, WalkEnd> {
    let bytes = entries.bytes;
    let mut areas = Vec::new();
    let (mut count, mut end) = (0, directory.start());
    for record in directory.records(bytes) {
        count += 1;
        end = record.next;
        match directory.local(bytes, &record) {
            Some((start, local)) if local.has_signature => {
                let data_end = examine_listed(entries, &record, &local, is_other)?;
                areas.push((start, data_end));
            }
            Some((_, local)) => examine_without_header(entries, &record, &local)?,
            None => entries.note(NoteKind::Unreadable, "zip entry outside of the file"),
        }
    }
    areas.push((directory.start(), end));
    match directory.defect(bytes, count, end) {
        Some(Defect::HiddenRecords) => {
            entries.note(NoteKind::Inconsistent, "zip directory longer than stated");
        }
        Some(Defect::MissingRecords) => {
            entries.note(NoteKind::Unreadable, "zip directory shorter than stated");
        }
        None => {}
    }
    Ok(areas)
}

/// Examines an entry with a local header. Returns the offset after its data.
fn examine_listed(
    entries: &mut ZipEntries<'_, '_, '_>,
    record: &CentralHeader<'_>,
    local: &LocalHeader<'_>,
    is_other: bool,
) -> Result<usize, WalkEnd> {
    let central = &record.header;
    let mut readings = readings(central, local);
    readings.extend(streamed_reading(entries, central, local));
    let rest = entries.bytes.get(local.data..).unwrap_or_default();
    let is_empty = readings.iter().all(|reading| {
        let is_empty_deflate = || {
            reading.method == DEFLATE
                && reading.length == Some(EMPTY_DEFLATE.len() as u64)
                && rest.starts_with(EMPTY_DEFLATE)
        };
        reading.length == Some(0) || is_empty_deflate()
    });
    if is_empty && central.name.ends_with(b"/") && local.header.name.ends_with(b"/") {
        return Ok(local.data);
    }
    let is_checksum_known = local.has_sizes() || local.header.crc != 0;
    let mut checksums = vec![central.crc];
    checksums.extend(is_checksum_known.then_some(local.header.crc));
    let entry = EntryData {
        start: local.data,
        names: names(central, &local.header),
        readings,
        checksums,
        is_encrypted: central.is_encrypted() || local.header.is_encrypted(),
    };
    if is_other && entries.is_new(&entry) {
        entries.note(NoteKind::Inconsistent, "several zip directories");
    }
    entries.examine(&entry)
}

/// Examines an entry without the signature of a local header, which some programs do not check. If the data are not
/// those of the entry, the archive is damaged.
fn examine_without_header(
    entries: &mut ZipEntries<'_, '_, '_>,
    record: &CentralHeader<'_>,
    local: &LocalHeader<'_>,
) -> Result<(), WalkEnd> {
    let header = &record.header;
    let reading = reading(header, header.method);
    let entry = EntryData {
        start: local.data,
        names: vec![header.name],
        readings: vec![reading],
        checksums: vec![header.crc],
        is_encrypted: header.is_encrypted(),
    };
    if entries.is_readable(&entry, reading)? {
        entries.note(NoteKind::Inconsistent, "zip entry without a local header");
        entries.examine(&entry)?;
    } else {
        entries.note(NoteKind::Unreadable, "zip entry without a local header");
    }
    Ok(())
}

/// Returns how the header states that data are read, with another method.
fn reading(header: &FileHeader<'_>, method: u16) -> EntryReading {
    let FileHeader { flags, compressed, size, .. } = *header;
    EntryReading { method, flags, length: Some(compressed), size: Some(size) }
}

/// Returns the ways to read the data: by the directory, by the local header, and by both.
fn readings(central: &FileHeader<'_>, local: &LocalHeader<'_>) -> Vec<EntryReading> {
    let mut readings = vec![reading(central, central.method)];
    let mut add = |reading: EntryReading| {
        let is_same =
            |other: &EntryReading| EntryReading { flags: reading.flags, ..*other } == reading;
        if !readings.iter().any(is_same) && readings.len() < 8 {
            readings.push(reading);
        }
    };
    let header = &local.header;
    if header.method != central.method && central.compressed > 0 {
        add(reading(central, header.method));
    }
    if local.has_sizes() {
        add(reading(header, header.method));
    }
    // Some programs take the size of the unpacked file as the length of stored data.
    let is_encrypted = central.is_encrypted() || header.is_encrypted();
    for header in [Some(central), local.has_sizes().then_some(header)].into_iter().flatten() {
        if header.method == STORED && header.size != header.compressed && !is_encrypted {
            add(EntryReading { length: Some(header.size), ..reading(header, STORED) });
        }
    }
    readings
}

/// Returns how programs that unpack a stream read the data, if it is not as the directory states: up to the end that the
/// data state, or up to the data descriptor.
fn streamed_reading(
    entries: &mut ZipEntries<'_, '_, '_>,
    central: &FileHeader<'_>,
    local: &LocalHeader<'_>,
) -> Option<EntryReading> {
    let header = &local.header;
    let is_other = central.compressed == 0 && central.size == 0;
    if !is_other || !header.has_descriptor() || local.has_sizes() {
        return None;
    }
    let rest = entries.bytes.get(local.data..).unwrap_or_default();
    let is_end =
        |bytes: &[u8]| [DESCRIPTOR, LOCAL, CENTRAL].iter().any(|end| bytes.starts_with(end));
    // The signature of a data descriptor is optional.
    let is_empty = is_end(rest) || rest.strip_prefix(&[0; 12]).is_some_and(is_end);
    if is_empty || header.method == DEFLATE && rest.starts_with(EMPTY_DEFLATE) {
        return None;
    }
    let is_stored = header.method == STORED;
    let length = is_stored.then(|| stored_length(entries, local.data));
    Some(EntryReading { method: header.method, flags: header.flags, length, size: length })
}

/// Returns the names that programs use. Ordinary entries have one.
fn names<'d>(central: &FileHeader<'d>, local: &FileHeader<'d>) -> Vec<&'d [u8]> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut add = |name: &'d [u8]| {
        if !names.iter().any(|other| is_same_name(other, name)) {
            names.push(name);
        }
    };
    let mut candidates = Vec::new();
    for header in [central, local] {
        // An extra field with the name in UTF-8 replaces a name in another character set.
        let unicode = header.unicode_name().filter(|name| !is_same_name(name, header.name));
        candidates.extend(unicode);
        if unicode.is_none_or(|unicode| ascii_end(unicode) != ascii_end(header.name)) {
            candidates.push(header.name);
        }
    }
    for name in candidates {
        add(name);
        // Programs in C end names at a zero byte.
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            add(name.get(..end).unwrap_or_default());
        }
    }
    names
}

/// Returns whether names differ at most in the separator of directories.
fn is_same_name(name: &[u8], other: &[u8]) -> bool {
    let separator = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
    name == other || name.iter().map(separator).eq(other.iter().map(separator))
}

/// Returns the last bytes of a name that are ASCII in all character sets.
fn ascii_end(name: &[u8]) -> &[u8] {
    const MAX: usize = 8;
    let end = name.get(name.len().saturating_sub(MAX)..).unwrap_or_default();
    let start = end.iter().rposition(|byte| !byte.is_ascii() || *byte == b'.').unwrap_or(0);
    end.get(start..).unwrap_or_default()
}
