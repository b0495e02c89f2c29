//! Compound files ([MS-CFB]): documents of Office before 2007, MSI, MSG, VBA projects, encrypted documents. Also
//! `ActiveMime`, a compressed compound file.

mod active_mime;
mod compound;
mod encryption;
mod message;
mod native;
mod powerpoint;
mod vba;
pub(in crate::unpack) mod vba_decoder;

pub(super) use self::native::{data as native_data, ole1_data};
use self::{compound::Compound, message::AttachmentNames};
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// First bytes of a compound file.
pub(super) const SIGNATURE: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// Length of the header, bytes.
const HEADER: usize = 512;

pub(in crate::unpack) const EMBEDDED: ArchiveSignature =
    ArchiveSignature { magic: &SIGNATURE, offset: 0, extent, is_preferred: false };

/// Returns the length of the header, if the mark of the byte order is right.
fn extent(file: &[u8]) -> Option<usize> {
    (file.get(28..30) == Some(&[0xfe, 0xff])).then_some(HEADER)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(&SIGNATURE) || active_mime::matches(bytes)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if active_mime::matches(bytes) {
        return active_mime::unpack(bytes, unpacker);
    }
    let Some(compound) = Compound::new(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the compound file has no directory");
        return Ok(());
    };
    if compound.is_damaged() {
        unpacker.note(NoteKind::Unreadable, "the directory of the compound file is incomplete");
    } else {
        unpacker.set_ended(bytes.get(..HEADER).unwrap_or(bytes));
    }
    let attachments = AttachmentNames::read(&compound);
    for index in compound.streams() {
        for (content, is_complete) in compound.contents(index) {
            stream(&compound, &attachments, index, &content, unpacker)?;
            // Programs do not find streams outside the tree of names.
            if !is_complete && compound.parent(index).is_some() {
                let reason = format!("stream {} is truncated", compound.path(index));
                unpacker.note(NoteKind::Unreadable, reason);
            }
        }
    }
    vba::unpack(&compound, unpacker)
}

/// Passes a stream, and the objects in it.
fn stream(
    compound: &Compound<'_>,
    attachments: &AttachmentNames,
    index: usize,
    content: &StreamContent<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    if content.len() == 0 {
        return Ok(());
    }
    let name = compound.name(index).to_uppercase();
    encryption::examine(compound, index, &name, content, unpacker)?;
    if !attachments.examine(compound, index, content, unpacker)? {
        content.visit(EntryName::label(compound.path(index)), unpacker)?;
    }
    match name.as_str() {
        "\u{1}OLE10NATIVE" => native::stream(content, unpacker),
        "POWERPOINT DOCUMENT" => powerpoint::stream(content, unpacker),
        _ => Ok(()),
    }
}
