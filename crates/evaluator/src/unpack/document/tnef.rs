//! TNEF ([MS-OXTNEF]): `winmail.dat`, in which Outlook sends attachments and the formatted body of a message.

mod properties;

use self::properties::{MapiValue, STRING8, UNICODE, values};
use super::ole;
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        fields::{FieldReader, utf16_text},
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

const SIGNATURE: [u8; 4] = [0x78, 0x9f, 0x3e, 0x22];

/// Length of the signature and of the key after it, bytes.
const HEADER: usize = 6;

/// Lower halves of the identifiers of attributes, [MS-OXTNEF] 2.1.3.2. The upper half is the type, which some programs
/// ignore.
const ATTACH_RENDER_DATA: u32 = 0x9002;
const ATTACH_TITLE: u32 = 0x8010;
const ATTACH_DATA: u32 = 0x800f;
const ATTACH_TRANSPORT_NAME: u32 = 0x9001;
const ATTACHMENT: u32 = 0x9005;
const MESSAGE_PROPERTIES: u32 = 0x9003;

/// Properties, [MS-OXPROPS].
const DISPLAY_NAME: u16 = 0x3001;
const ATTACH_CONTENT: u16 = 0x3701;
const ATTACH_FILE_NAME: u16 = 0x3704;
const ATTACH_LONG_FILE_NAME: u16 = 0x3707;
const ATTACH_PATH_NAME: u16 = 0x3708;
const ATTACH_LONG_PATH_NAME: u16 = 0x370d;

/// Bodies: text, compressed RTF, HTML.
const BODY_ATTRIBUTE: u32 = 0x800c;
const BODIES: [u16; 3] = [0x1000, 0x1009, 0x1013];

/// Minimum length of other values that are examined, bytes: names, addresses and identifiers are shorter.
const MIN_OTHER: usize = 64;

/// Maximum number of different names of an attachment. Programs write at most five.
const MAX_NAMES: usize = 16;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(&SIGNATURE)
}

/// Passes the attachments, and the bodies and other long values of the message. Checksums are ignored, as some programs
/// do.
pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut fields = FieldReader::new(bytes);
    fields.up_to(HEADER);
    let mut attachment = TnefAttachment::default();
    while let Some(attribute) = TnefAttribute::read(&mut fields) {
        if attribute.id == ATTACH_RENDER_DATA {
            std::mem::take(&mut attachment).examine(unpacker)?;
        }
        attachment.add(&attribute, unpacker)?;
        if !attribute.is_complete {
            unpacker.note(NoteKind::Unreadable, "the TNEF file is truncated");
        }
    }
    attachment.examine(unpacker)?;
    // Mail programs append line breaks.
    if fields.rest().iter().any(|byte| !matches!(byte, 0 | b'\r' | b'\n')) {
        unpacker.note(NoteKind::Unreadable, "the TNEF file is truncated");
    }
    Ok(())
}

struct TnefAttribute<'a> {
    id: u32,
    data: &'a [u8],
    is_complete: bool,
}

impl<'a> TnefAttribute<'a> {
    /// Reads the next attribute: level, identifier, length, data and checksum.
    fn read(fields: &mut FieldReader<'a>) -> Option<Self> {
        let mut after = *fields;
        after.bytes(1)?;
        let id = after.u32()? & 0xffff;
        let length = after.length()?;
        let data = after.up_to(length);
        let is_complete = data.len() == length;
        after.up_to(2);
        *fields = after;
        Some(Self { id, data, is_complete })
    }
}

/// The attributes of one attachment. They occur in any order.
#[derive(Default)]
struct TnefAttachment<'a> {
    names: Vec<String>,
    contents: Vec<&'a [u8]>,
}

impl<'a> TnefAttachment<'a> {
    /// Adds an attribute, or passes its data if it does not belong to an attachment.
    fn add(&mut self, attribute: &TnefAttribute<'a>, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let data = attribute.data;
        match attribute.id {
            ATTACH_TITLE | ATTACH_TRANSPORT_NAME => self.add_name(code_page_text(data)),
            ATTACH_DATA => self.contents.push(data),
            ATTACHMENT | MESSAGE_PROPERTIES => {
                let parsed = values(data, |value| self.add_value(value, unpacker))?;
                if parsed.is_none() && attribute.is_complete {
                    unpacker.note(NoteKind::Unreadable, "a list of properties is damaged");
                }
            }
            BODY_ATTRIBUTE => return slice("body".to_owned(), data, unpacker),
            id if data.len() >= MIN_OTHER => {
                return slice(format!("attribute {id:04x}"), data, unpacker);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_value(&mut self, property: MapiValue<'a>, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let MapiValue { id, kind, value } = property;
        match (id, kind) {
            (ATTACH_CONTENT, _) => {
                /// Length of the identifier of an interface, bytes.
                const INTERFACE: usize = 16;
                let object = value.get(INTERFACE..).filter(|_| property.is_object());
                self.contents.push(object.unwrap_or(value));
            }
            (
                DISPLAY_NAME
                | ATTACH_FILE_NAME
                | ATTACH_LONG_FILE_NAME
                | ATTACH_PATH_NAME
                | ATTACH_LONG_PATH_NAME,
                STRING8 | UNICODE,
            ) => self.add_name(match kind {
                UNICODE => utf16_text(value),
                _ => code_page_text(value),
            }),
            _ if BODIES.contains(&id) || value.len() >= MIN_OTHER => {
                return slice(format!("property {id:04x}"), value, unpacker);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_name(&mut self, name: String) {
        if !name.is_empty() && self.names.len() < MAX_NAMES && !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// Passes the contents under each name, because programs differ in the name that they use.
    fn examine(mut self, unpacker: &mut Unpacker<'_>) -> Unpacked {
        if self.names.is_empty() {
            self.names.push("attachment".to_owned());
        }
        for content in self.contents.iter().filter(|content| !content.is_empty()) {
            for name in &self.names {
                unpacker.slice(EntryName::file(name), content)?;
            }
            // Embedded objects have the format of OLE 1.0 in files of old programs.
            if let Some(data) = ole::ole1_data(&StreamContent::whole(content)) {
                ole::native_data(&data, unpacker)?;
            }
        }
        Ok(())
    }
}

/// Passes a value that is not part of an attachment.
fn slice(label: String, value: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if value.is_empty() { Ok(()) } else { unpacker.slice(EntryName::label(label), value) }
}

/// Decodes a text up to the first zero. The code page is not read: only names are decoded.
fn code_page_text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
