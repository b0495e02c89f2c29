//! `ActiveMime`: a compound file with macros, compressed, which Word and Excel store in web archives.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Length of the header in which the compressed data is searched, bytes. Office writes 50 bytes.
const MAX_HEADER: usize = 1024;

/// Where Office puts the data, bytes.
const USUAL_OFFSET: usize = 0x32;

/// Start of a compound file.
const COMPOUND: [u8; 4] = [0xd0, 0xcf, 0x11, 0xe0];

pub(super) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(b"ActiveMime")
}

pub(super) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let starts =
        || (0..MAX_HEADER).filter_map(|offset| Some((offset, start(bytes.get(offset..)?)?)));
    let best = starts()
        .find(|(_, start)| *start == COMPOUND)
        .or_else(|| starts().find(|(offset, _)| *offset == USUAL_OFFSET))
        .or_else(|| starts().next());
    let Some(compressed) = best.and_then(|(offset, _)| bytes.get(offset..)) else {
        unpacker.note(NoteKind::Unreadable, "ActiveMime without compressed data");
        return Ok(());
    };
    unpacker.decode(EntryName::label("ActiveMime"), ZlibDecoder::new(compressed))?;
    Ok(())
}

/// Returns the first bytes of compressed data; `None` if the bytes are not the start of zlib data (RFC 1950 section
/// 2.2).
fn start(bytes: &[u8]) -> Option<[u8; 4]> {
    let [method, flags, ..] = *bytes else { return None };
    if method & 0x0f != 8 || u16::from_be_bytes([method, flags]) % 31 != 0 {
        return None;
    }
    let mut start = [0; 4];
    ZlibDecoder::new(bytes).read_exact(&mut start).ok().map(|()| start)
}
