//! FAT12, FAT16 and FAT32, as in Microsoft's "FAT: General Overview of On-Disk Format", version 1.03.

mod boot_sector;
mod directory;

use std::collections::HashSet;

use self::{
    boot_sector::FatVolume,
    directory::{FatEntry, entries},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Maximum size of a directory, bytes: 65 536 entries.
const MAX_DIRECTORY: usize = 2 << 20;

/// Maximum number of directories that wait for being read.
const MAX_PENDING: usize = 65_536;

/// Maximum length of the path of a directory that is kept, bytes. Bounds the memory for the pending directories.
const MAX_DIRECTORY_PATH: usize = 256;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    FatVolume::parse(bytes).is_some()
}

/// Passes the files. Deleted ones are not read.
pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some(volume) = FatVolume::parse(bytes) else { return Ok(()) };
    let mut directories = HashSet::new();
    // Only a crafted volume has overlapping directories.
    let mut remaining = bytes.len().saturating_mul(2);
    let mut pending = vec![(String::new(), None)];
    while let Some((path, cluster)) = pending.pop() {
        let (content, is_complete) = match cluster {
            Some(cluster) => volume.chain(cluster, MAX_DIRECTORY + 1),
            None => volume.root(MAX_DIRECTORY + 1),
        };
        if content.len() > MAX_DIRECTORY {
            unpacker.note(NoteKind::Limit, "a directory of the volume is too large");
        } else if !is_complete {
            unpacker.note(NoteKind::Unreadable, "a directory of the volume is truncated");
        }
        let content = content.copy(0, MAX_DIRECTORY);
        let Some(rest) = remaining.checked_sub(content.len()) else {
            unpacker.note(NoteKind::Unreadable, "directories of the volume overlap");
            return Ok(());
        };
        remaining = rest;
        for entry in entries(&content) {
            let name = joined(&path, &entry.name);
            if !entry.is_directory {
                file(&volume, &entry, name, unpacker)?;
            } else if directories.insert(entry.cluster) {
                if pending.len() >= MAX_PENDING {
                    unpacker.note(NoteKind::Limit, "too many directories in the volume");
                    continue;
                }
                pending.push((name, Some(entry.cluster)));
            }
        }
    }
    Ok(())
}

fn file(
    volume: &FatVolume<'_>,
    entry: &FatEntry,
    name: String,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    if entry.size == 0 {
        return Ok(());
    }
    let (content, _) = volume.chain(entry.cluster, entry.size);
    if content.len() > 0 {
        content.visit(EntryName::file(name), unpacker)?;
    }
    if content.len() < entry.size {
        unpacker.note(NoteKind::Unreadable, "a file of the volume is truncated");
    }
    Ok(())
}

/// Appends a name to the path of a directory.
fn joined(path: &str, name: &str) -> String {
    let start = path.len().saturating_sub(MAX_DIRECTORY_PATH);
    match path.get(path.ceil_char_boundary(start)..) {
        Some(path) if !path.is_empty() => format!("{path}/{name}"),
        _ => name.to_owned(),
    }
}
