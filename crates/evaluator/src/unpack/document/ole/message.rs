//! Attachments of messages in compound files, [MS-OXMSG]: `.msg`.

use std::collections::HashMap;

use super::compound::Compound;
use crate::unpack::{
    content::StreamContent,
    fields::utf16_text,
    name::EntryName,
    unpacker::{Unpacker, WalkEnd},
};

/// Start of the names of streams with a value of a property. The property and its type follow, in hexadecimal digits.
const VALUE: &str = "__SUBSTG1.0_";

/// Content of an attachment.
const CONTENT: &str = "3701";

/// Names of an attachment: long name, name, display name, long path, path.
const NAMES: [&str; 5] = ["3707", "3704", "3001", "370D", "3708"];

const UNICODE: &str = "001F";
const STRING8: &str = "001E";

/// Maximum length of a name, bytes. Paths in Windows have at most 260 characters, except for special ones.
const MAX_NAME_BYTES: usize = 1024;

/// Maximum number of different names of an attachment.
const MAX_NAMES: usize = 16;

/// Maximum number of names in a file. Bounds the memory for them.
const MAX_ALL_NAMES: usize = 1 << 14;

/// Names of the attachments, by the storages in which they are.
pub(super) struct AttachmentNames(HashMap<usize, Vec<String>>);

impl AttachmentNames {
    /// Reads the names of all attachments.
    pub(super) fn read(compound: &Compound<'_>) -> Self {
        let mut names: HashMap<usize, Vec<String>> = HashMap::new();
        let mut remaining = MAX_ALL_NAMES;
        for index in compound.streams() {
            let stream = compound.name(index).to_uppercase();
            let Some(parent) = compound.parent(index) else { continue };
            let Some((property, kind)) = value(&stream) else { continue };
            if !NAMES.contains(&property) || remaining == 0 {
                continue;
            }
            for (content, _is_complete) in compound.starts(index, MAX_NAME_BYTES) {
                let Some(name) = decode(kind, &content.copy(0, MAX_NAME_BYTES)) else { continue };
                let names = names.entry(parent).or_default();
                if !name.is_empty() && names.len() < MAX_NAMES && !names.contains(&name) {
                    names.push(name);
                    remaining = remaining.saturating_sub(1);
                }
            }
        }
        Self(names)
    }

    /// Passes a stream under each name, if it is the content of an attachment. Returns whether it is.
    pub(super) fn examine(
        &self,
        compound: &Compound<'_>,
        index: usize,
        content: &StreamContent<'_>,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<bool, WalkEnd> {
        let stream = compound.name(index).to_uppercase();
        let is_content = value(&stream).is_some_and(|(property, _)| property == CONTENT);
        let names = compound.parent(index).and_then(|parent| self.0.get(&parent));
        let Some(names) = names.filter(|_| is_content) else { return Ok(false) };
        for name in names {
            content.visit(EntryName::file(name), unpacker)?;
        }
        Ok(!names.is_empty())
    }
}

/// Returns the property and the type from the name of a stream, in upper case.
fn value(stream: &str) -> Option<(&str, &str)> {
    let property = stream.strip_prefix(VALUE)?;
    Some((property.get(..4)?, property.get(4..8)?))
}

fn decode(kind: &str, bytes: &[u8]) -> Option<String> {
    match kind {
        UNICODE => Some(utf16_text(bytes)),
        STRING8 => {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(String::from_utf8_lossy(text).into_owned())
        }
        _ => None,
    }
}
