//! Cabinets: [MS-CAB].
//!
//! Files are parts of the output of a folder, which is one compressed stream. Parts may be equal or overlap, so that
//! the crate `cab`, which decodes a folder again for each file, takes too long for some cabinets.

mod folder;
mod header;

use std::io::{self, Read as _};

use self::{
    folder::{CabFolderReader, CabMethod},
    header::{CabFile, CabFolder, CabFolderIndex, CabHeader},
};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Completeness, Unpacked, Unpacker},
    },
};

const MAGIC: &[u8] = b"MSCF";

/// Maximum number of bytes between files, and before files that overlap others, that are decoded for all folders.
const MAX_SKIPPED: u64 = 64 << 20;

/// Additional cost of decoding a folder from its start, bytes: a new decoder, and a block.
const RESTART_COST: u64 = 128 << 10;

/// With the reserved field after the magic number, as 7-Zip requires it.
pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: b"MSCF\0\0\0\0", offset: 0, extent, is_preferred: false };

/// Returns the length of a cabinet, if its header is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    let header = CabHeader::parse(archive)?;
    // The tables are read only if none of them is empty: each header in the file could refer to the same table.
    let is_archive = header.has_entries()
        && !header.folders(archive).0.is_empty()
        && !header.files(archive).0.is_empty();
    is_archive.then_some(usize::try_from(header.size).ok()?)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some(header) = CabHeader::parse(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the header of a cabinet is damaged");
        return Ok(());
    };
    let (folders, has_all_folders) = header.folders(bytes);
    let (files, has_all_files) = header.files(bytes);
    if !has_all_folders || !has_all_files {
        unpacker.note(NoteKind::Unreadable, "the header of a cabinet is truncated");
    }
    let last = folders.len().checked_sub(1);
    let folder_of = |file: &CabFile<'_>| match file.folder {
        CabFolderIndex::Index(index) => Some(index),
        CabFolderIndex::Last => last,
        CabFolderIndex::Continued => None,
    };
    let is_valid = |file: &CabFile<'_>| folder_of(file).is_some_and(|index| index < folders.len());
    if !files.iter().all(is_valid) {
        unpacker.note(NoteKind::Unreadable, "a file is in another cabinet");
    }
    let mut sorted: Vec<_> = files.iter().filter(|file| file.size > 0).collect();
    sorted.sort_by_key(|file| (folder_of(file), file.start, file.size));
    let mut skipped = MAX_SKIPPED;
    for files in sorted.chunk_by(|file, next| folder_of(file) == folder_of(next)) {
        let folder = files.first().and_then(|file| folder_of(file));
        if let Some(folder) = folder.and_then(|index| folders.get(index)) {
            examine_folder(bytes, folder, files, &mut skipped, unpacker)?;
        }
    }
    Ok(())
}

/// Examines the files of a folder, in the order in which they start.
fn examine_folder(
    cabinet: &[u8],
    folder: &CabFolder,
    files: &[&CabFile<'_>],
    skipped: &mut u64,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    let method = match CabMethod::parse(folder.method) {
        Ok(method) => method,
        Err(error) => {
            unpacker.note_error(&error);
            return Ok(());
        }
    };
    unpacker.with_window(method.window(), |unpacker| {
        let new_reader = || CabFolderReader::new(cabinet, folder, method);
        let mut reader = new_reader();
        let mut position = 0;
        let mut is_decoded = method != CabMethod::Stored;
        // Equal parts are decoded once.
        for copies in
            files.chunk_by(|file, next| (file.start, file.size) == (next.start, next.size))
        {
            let Some((file, copies)) = copies.split_first() else { continue };
            let mut cost = 0;
            if file.start < position {
                (reader, position, cost) = (new_reader(), 0, RESTART_COST);
            }
            let gap = file.start - position;
            let Some(remaining) = skipped.checked_sub(cost + gap) else {
                unpacker.note(NoteKind::Limit, "files of a cabinet that overlap");
                return Ok(());
            };
            *skipped = remaining;
            // A shorter gap leaves the folder truncated, which is noted.
            position +=
                io::copy(&mut reader.by_ref().take(gap), &mut io::sink()).unwrap_or_default();
            if position < file.start {
                unpacker.note(NoteKind::Unreadable, "a folder of a cabinet is truncated");
                break;
            }
            let mut counted = CountedReader { reader: reader.by_ref().take(file.size), count: 0 };
            let name = EntryName::file(file.name);
            let decoded = unpacker.decode_then(name, &mut counted, |unpacker, bytes| {
                for copy in copies {
                    unpacker.slice(EntryName::file(copy.name), bytes)?;
                }
                Ok(())
            })?;
            position += counted.count;
            is_decoded &= decoded == Completeness::Complete;
            if decoded == Completeness::Complete && counted.count < file.size {
                unpacker.note(NoteKind::Unreadable, "a file in a cabinet is truncated");
            }
        }
        if reader.has_wrong_checksum {
            unpacker.note(NoteKind::Unreadable, "wrong checksum of a block in a cabinet");
        } else if is_decoded {
            unpacker.set_decoded(reader.used(cabinet, folder));
        }
        Ok(())
    })
}

/// Counts the bytes that are read.
struct CountedReader<R> {
    reader: R,
    count: u64,
}

impl<R: io::Read> io::Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}
