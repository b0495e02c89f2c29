//! Streams of encrypted documents. Those with the password that Excel tries itself are decrypted.

mod algorithms;
mod package;
mod workbook;

use self::{
    package::{MAX_INFO, PackageKey, PackageReader},
    workbook::{WorkbookKey, WorkbookReader},
};
use super::compound::{Compound, u16_at, u32_at};
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Number of bytes of a workbook that are examined. `FilePass` is one of the first records, but records of up to 8 KiB
/// may precede it.
const WORKBOOK_START: usize = 64 << 10;

/// Examines a stream with this name, in upper case, if it is part of an encrypted document ([MS-OFFCRYPTO] 2.3, [MS-DOC]
/// 2.5.2, [MS-XLS] 2.4.117, [MS-PPT] 2.3.2).
pub(super) fn examine(
    compound: &Compound<'_>,
    index: usize,
    name: &str,
    content: &StreamContent<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    let decrypted = EntryName::label("decrypted document");
    let is_encrypted = match name {
        "ENCRYPTEDPACKAGE" => {
            // Counts before the search, which takes time in proportion to the number of streams.
            if unpacker.take_password_attempt()
                && let Some(key) = package_key(compound, index)
            {
                return unpacker.decode(decrypted, PackageReader::new(content, key)).map(drop);
            }
            true
        }
        // A document with restricted rights.
        "\tDRMCONTENT" => true,
        "WORDDOCUMENT" => {
            const ENCRYPTED: u16 = 0x100;
            let header = content.copy(0, 12);
            matches!(u16_at(&header, 0), 0xa5dc | 0xa5ec) && u16_at(&header, 10) & ENCRYPTED != 0
        }
        "WORKBOOK" | "BOOK" => match file_pass(&content.copy(0, WORKBOOK_START)) {
            None => false,
            Some(record) => {
                if unpacker.take_password_attempt()
                    && let Some(key) = WorkbookKey::derive(record)
                {
                    return unpacker.decode(decrypted, WorkbookReader::new(content, key)).map(drop);
                }
                true
            }
        },
        // headerToken of CurrentUserAtom.
        "CURRENT USER" => u32_at(&content.copy(0, 16), 12) == 0xf3d1_c4df,
        _ => false,
    };
    if is_encrypted {
        let reason = format!("encrypted document, stream {}", compound.path(index));
        unpacker.note(NoteKind::Encrypted, reason);
    }
    Ok(())
}

/// Derives the key of an encrypted package from the stream beside it.
fn package_key(compound: &Compound<'_>, package: usize) -> Option<PackageKey> {
    let parent = compound.parent(package);
    let mut streams = compound.streams();
    let info = streams.find(|index| {
        compound.parent(*index) == parent
            && compound.name(*index).eq_ignore_ascii_case("EncryptionInfo")
    })?;
    let (content, _is_complete) = compound.starts(info, MAX_INFO).next()?;
    PackageKey::derive(&content.copy(0, MAX_INFO))
}

/// Returns the content of the `FilePass` record among the records of a workbook before the first sheet.
fn file_pass(workbook: &[u8]) -> Option<&[u8]> {
    const EOF: u16 = 0x0a;
    const FILE_PASS: u16 = 0x2f;
    const BOUND_SHEET: u16 = 0x85;
    // Beginning of a file of any version.
    if !matches!(u16_at(workbook, 0), 0x0009 | 0x0209 | 0x0409 | 0x0809) {
        return None;
    }
    let mut rest = workbook;
    while let Some((header, after)) = rest.split_at_checked(4) {
        let length = usize::from(u16_at(header, 2));
        match u16_at(header, 0) {
            FILE_PASS => return Some(after.get(..length).unwrap_or(after)),
            BOUND_SHEET | EOF => return None,
            _ => rest = after.get(length..).unwrap_or_default(),
        }
    }
    None
}
