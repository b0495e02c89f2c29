//! RAR: `technote.txt` of RAR 4.20, and <https://www.rarlab.com/technote.htm>.
//!
//! Files that are stored without compression are examined. Compressed files are unreadable: `README.md` of this crate
//! states why no decoder is used.

mod block;
mod rar4;
mod rar5;

use self::block::{RarBlock, RarBlockKind, RarFile};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

const MAGIC: &[u8] = b"Rar!\x1a\x07";
const VERSION_4: &[u8] = b"Rar!\x1a\x07\0";
const VERSION_5: &[u8] = b"Rar!\x1a\x07\x01\0";

/// Archives before RAR 1.5.
const OLD_MAGIC: &[u8] = b"RE~^";

/// Length of a main header after which an archive is recognized at an offset, bytes.
const EXTENT: usize = 20;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: MAGIC, offset: 0, extent, is_preferred: false };

fn extent(archive: &[u8]) -> Option<usize> {
    let is_known = archive.starts_with(VERSION_4) || archive.starts_with(VERSION_5);
    (is_known && archive.len() > EXTENT).then_some(EXTENT)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(OLD_MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if let Some(blocks) = bytes.strip_prefix(VERSION_5) {
        walk(bytes, blocks, rar5::parse, unpacker)
    } else if let Some(blocks) = bytes.strip_prefix(VERSION_4) {
        walk(bytes, blocks, rar4::parse, unpacker)
    } else {
        unpacker.note(NoteKind::Unreadable, "a version of RAR that is not unpacked");
        Ok(())
    }
}

/// Examines the files of an archive, in the blocks after its magic number.
fn walk<'a>(
    archive: &'a [u8],
    mut rest: &'a [u8],
    parse: fn(&'a [u8]) -> Option<RarBlock<'a>>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    // Old programs write no header at the end. Zeros may pad an archive.
    while rest.iter().any(|byte| *byte != 0) {
        let Some(block) = parse(rest) else {
            unpacker.note(NoteKind::Unreadable, "a RAR header is damaged");
            return Ok(());
        };
        unpacker.set_read(rest.get(..block.length).unwrap_or(rest));
        let data = rest.get(block.length..).unwrap_or_default();
        let length = usize::try_from(block.data).unwrap_or(usize::MAX);
        let (data, next) = data.split_at_checked(length).unwrap_or((data, &[]));
        match block.kind {
            RarBlockKind::File(file) => {
                if data.len() < length {
                    unpacker.note(NoteKind::Unreadable, "a file in a RAR archive is truncated");
                }
                examine(&file, data, unpacker)?;
            }
            RarBlockKind::EncryptedHeaders => {
                unpacker.note(NoteKind::Encrypted, "RAR archive");
                return Ok(());
            }
            RarBlockKind::End => {
                let end = archive.len() - rest.len();
                unpacker.set_ended(archive.get(..end).unwrap_or(archive));
                return Ok(());
            }
            RarBlockKind::Other => {}
        }
        rest = next;
    }
    Ok(())
}

fn examine(file: &RarFile<'_>, data: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if data.is_empty() || file.is_directory {
        return Ok(());
    }
    if file.is_encrypted {
        unpacker.note(NoteKind::Encrypted, "file in a RAR archive");
        return Ok(());
    }
    if file.is_split {
        unpacker.note(NoteKind::Unreadable, "a part of a file in a RAR archive in volumes");
    }
    if file.is_stored {
        unpacker.slice(EntryName::file(file.name), data)?;
    } else if file.is_content {
        unpacker.note(NoteKind::Unreadable, "RAR compression is not supported");
    }
    Ok(())
}
