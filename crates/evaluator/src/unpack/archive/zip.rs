//! Zip: APPNOTE.TXT of PKWARE 6.3.10.
//!
//! Programs unpack different contents of the same file: they search for the directory in different ways, or read only
//! local headers, and give precedence to the directory or to the local header if the two differ. All variants are
//! examined. Contents that only some programs unpack, in a form that no common program writes, are noted as
//! inconsistent.

mod areas;
mod directory;
mod entry;
mod implode;
mod listed;
mod method;
mod record;
mod sweep;

use self::{
    areas::Areas,
    directory::ZipDirectories,
    entry::ZipEntries,
    listed::examine_directory,
    record::{DESCRIPTOR, END, LOCAL},
    sweep::sweep,
};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Marker at the start of an archive that could be split and is not, section 8.5.5.
const SPLIT: [u8; 4] = *b"PK00";

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: &LOCAL, offset: 0, extent: sweep::extent, is_preferred: false };

/// Returns whether the file starts as an archive, or ends as one. In the end, only a directory counts: local headers
/// without one are also in files that contain a zip without being one, such as old presentations. Only 7-Zip unpacks
/// them, see `embedded.rs`.
pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    is_at_start(bytes) || ZipDirectories::is_at_end(bytes)
}

fn is_at_start(bytes: &[u8]) -> bool {
    let archive = bytes.strip_prefix(&SPLIT).or(bytes.strip_prefix(&DESCRIPTOR)).unwrap_or(bytes);
    archive.starts_with(&LOCAL) || bytes.starts_with(&END)
}

/// Examines the entries of all directories, then the local headers between them.
pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let is_container = !is_at_start(bytes);
    let found = ZipDirectories::find(bytes, is_container);
    let mut entries = ZipEntries::new(bytes, unpacker);
    if found.is_limited {
        entries.note(NoteKind::Limit, "number of zip directories");
    }
    let has_directory = found.is_empty || !found.list.is_empty();
    if !has_directory {
        entries.note(NoteKind::Unreadable, "zip without a directory");
    }
    let mut areas = Areas::default();
    for (index, directory) in found.list.iter().enumerate() {
        areas.extend(examine_directory(&mut entries, directory, index > 0)?);
    }
    let (mut start, mut end) = (0, bytes.len());
    if is_container {
        // The rest of the file is of another kind. 7-Zip reads local headers from the start of the archive on.
        let archives = found.list.iter().filter_map(|directory| directory.archive_start(bytes));
        start = archives.chain(areas.start()).min().unwrap_or(end);
        end = found.list.first().map_or(end, |directory| directory.end);
    }
    sweep(&mut entries, areas.gaps(start, end), has_directory)?;
    unpacker.set_read(bytes.get(start..end).unwrap_or_default());
    let last = found.list.iter().map(|directory| directory.end).max();
    unpacker.set_ended(bytes.get(..last.unwrap_or_default()).unwrap_or(bytes));
    Ok(())
}
