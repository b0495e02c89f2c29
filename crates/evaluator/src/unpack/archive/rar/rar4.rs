//! Headers of RAR 1.5 to 4.

use super::block::{RarBlock, RarBlockKind, RarFile};
use crate::unpack::fields::{u16_at, u32_at};

const MAIN: u8 = 0x73;
const FILE: u8 = 0x74;
const SERVICE: u8 = 0x7a;
const END: u8 = 0x7b;

/// Flags of all headers.
const HAS_DATA: u16 = 0x8000;

/// Flags of main headers.
const ENCRYPTED_HEADERS: u16 = 0x0080;

/// Flags of files.
const SPLIT: u16 = 0x0001 | 0x0002;
const ENCRYPTED: u16 = 0x0004;
const DIRECTORY: u16 = 0x00e0;
const LARGE: u16 = 0x0100;

const STORED: u8 = 0x30;

/// Length of the fields that all headers have, bytes.
const COMMON: usize = 7;

/// Offset of the name, without and with the upper halves of large sizes, bytes.
const NAME: usize = 32;
const NAME_OF_LARGE: usize = 40;

pub(super) fn parse(bytes: &[u8]) -> Option<RarBlock<'_>> {
    let kind = *bytes.get(2)?;
    let flags = u16_at(bytes, 3)?;
    let length = usize::from(u16_at(bytes, 5)?);
    let header = bytes.get(..length).filter(|_| length >= COMMON)?;
    let low = || u32_at(header, COMMON).map(u64::from);
    let mut data = if flags & HAS_DATA == 0 { 0 } else { low()? };
    let kind = match kind {
        MAIN if flags & ENCRYPTED_HEADERS != 0 => RarBlockKind::EncryptedHeaders,
        END => RarBlockKind::End,
        FILE | SERVICE => {
            data = low()?;
            if flags & LARGE != 0 {
                data |= u64::from(u32_at(header, NAME)?) << 32;
            }
            RarBlockKind::File(file(header, kind, flags)?)
        }
        _ => RarBlockKind::Other,
    };
    Some(RarBlock { kind, length, data })
}

fn file(header: &[u8], kind: u8, flags: u16) -> Option<RarFile<'_>> {
    let name_length = usize::from(u16_at(header, 26)?);
    let name = header.get(if flags & LARGE == 0 { NAME } else { NAME_OF_LARGE }..)?;
    let name = name.get(..name_length).unwrap_or(name);
    Some(RarFile {
        // The name in Unicode, compressed, may follow.
        name: name.split(|byte| *byte == 0).next().unwrap_or_default(),
        is_directory: flags & DIRECTORY == DIRECTORY,
        is_content: kind == FILE || name == b"STM",
        is_encrypted: flags & ENCRYPTED != 0,
        is_stored: *header.get(25)? == STORED,
        is_split: flags & SPLIT != 0,
    })
}
