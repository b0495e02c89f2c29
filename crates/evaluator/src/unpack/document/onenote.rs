//! Sections of `OneNote`, [MS-ONESTORE]: embedded files.
//!
//! Files are found by their marks, not by the structure that refers to them, so files that nothing refers to are examined,
//! too. Their names are in that structure and are not read.

use crate::{
    report::NoteKind,
    unpack::{
        content::positions,
        fields::FieldReader,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// First bytes of a section, [MS-ONESTORE] 2.3.1.
const SIGNATURE: &[u8] = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3";

/// Mark before a file (`FileDataStoreObject`), [MS-ONESTORE] 2.6.13.
const FILE_MARK: &[u8] = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";

/// Length of the reserved fields between the size of a file and the file, bytes.
const RESERVED: usize = 12;

/// Mark before the key of an encrypted section (`ObjectDataEncryptionKeyV2FNDX`), [MS-ONESTORE] 2.5.19.
const KEY_MARK: &[u8] = b"\x67\xa0\xd1\xda\x85\xa3\x6b\xfb";

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    // A mark inside a file counts as well: the size of a file that nothing refers to could hide another one.
    for (number, position) in positions(bytes, FILE_MARK).enumerate() {
        let mut fields = FieldReader::new(bytes.get(position..).unwrap_or_default());
        fields.up_to(FILE_MARK.len());
        let size = fields.u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        fields.up_to(RESERVED);
        let content = fields.up_to(size);
        if !content.is_empty() {
            unpacker.slice(EntryName::label(format!("file {}", number + 1)), content)?;
        }
        if content.len() < size {
            unpacker.note(NoteKind::Unreadable, "an embedded file ends before its size");
        }
    }
    if positions(bytes, KEY_MARK).next().is_some() {
        unpacker.note(NoteKind::Encrypted, "the section needs a password");
    }
    Ok(())
}
