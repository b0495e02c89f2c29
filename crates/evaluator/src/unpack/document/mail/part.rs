//! The body of one part.

use std::io::Read;

use super::{
    header::{BodyFormat, HeaderReading, PartHeader, PartType},
    name::names,
    transfer::{Base64, Base64Defects, Decoding, QuotedPrintable, TransferEncoding},
    uuencode::{self, Uuencode},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// A part without parts, its body encoded.
pub(super) struct MailPart<'m> {
    pub(super) header: &'m PartHeader<'m>,
    pub(super) content: &'m BodyFormat,
    pub(super) reading: HeaderReading,
    pub(super) body: &'m [u8],
    /// Number of the part in the message.
    pub(super) number: u64,
}

/// Receives the decoded body.
pub(super) type Then<'t> = &'t mut dyn FnMut(&mut Unpacker<'_>, &[u8]) -> Unpacked;

impl MailPart<'_> {
    /// Examines the body, and the uuencoded files in a text. Afterwards, passes the decoded body to `then`.
    pub(super) fn examine(&self, unpacker: &mut Unpacker<'_>, then: Then<'_>) -> Unpacked {
        match self.encoding() {
            TransferEncoding::Identity => {
                for name in self.names() {
                    unpacker.slice(name, self.body)?;
                }
                uuencode::files(self.body, unpacker)?;
                then(unpacker, self.body)
            }
            TransferEncoding::Base64 => self.base64(unpacker, then),
            TransferEncoding::QuotedPrintable => {
                self.decode(Decoding::new(QuotedPrintable::new(self.body)), unpacker, then)
            }
            TransferEncoding::Uuencode => self.uuencode(unpacker, then),
        }
    }

    /// Returns how the body is encoded, in the same way for the same result.
    pub(super) fn encoding(&self) -> TransferEncoding {
        match self.content.encoding {
            TransferEncoding::QuotedPrintable if !self.body.contains(&b'=') => {
                TransferEncoding::Identity
            }
            encoding => encoding,
        }
    }

    fn base64(&self, unpacker: &mut Unpacker<'_>, then: Then<'_>) -> Unpacked {
        let defects = Base64Defects::of(self.body);
        if defects.is_empty {
            return self.unreadable("a part is not base64", unpacker);
        }
        self.decode(Decoding::new(Base64::new(self.body, false)), unpacker, then)?;
        if defects.continues_after_padding {
            // Some programs end at the padding.
            unpacker.decode(self.name(), Decoding::new(Base64::new(self.body, true)))?;
        }
        if defects.has_other_characters {
            // Some programs show such a part as text.
            unpacker.slice(self.label(), self.body)?;
            uuencode::files(self.body, unpacker)?;
        }
        Ok(())
    }

    fn uuencode(&self, unpacker: &mut Unpacker<'_>, then: Then<'_>) -> Unpacked {
        unpacker.slice(self.label(), self.body)?;
        uuencode::files(self.body, unpacker)?;
        if uuencode::has_begin(self.body) {
            return Ok(());
        }
        let is_empty = Decoding::new(Uuencode::new(self.body)).read(&mut [0]).unwrap_or(0) == 0;
        if is_empty {
            return self.unreadable("a part is not uuencoded", unpacker);
        }
        self.decode(Decoding::new(Uuencode::new(self.body)), unpacker, then)
    }

    /// Examines a part that cannot be decoded as it is.
    fn unreadable(&self, reason: &str, unpacker: &mut Unpacker<'_>) -> Unpacked {
        unpacker.note(NoteKind::Unreadable, reason);
        unpacker.slice(self.label(), self.body)
    }

    fn decode(&self, decoder: impl Read, unpacker: &mut Unpacker<'_>, then: Then<'_>) -> Unpacked {
        let mut names = self.names().into_iter();
        let name = names.next().unwrap_or_else(|| self.label());
        let is_text = matches!(self.content.media_type, PartType::Text | PartType::Missing);
        unpacker.decode_then(name, decoder, |unpacker, bytes| {
            for name in names {
                unpacker.slice(name, bytes)?;
            }
            if is_text {
                uuencode::files(bytes, unpacker)?;
            }
            then(unpacker, bytes)
        })?;
        Ok(())
    }

    /// Returns the names of the part, at least one.
    fn names(&self) -> Vec<EntryName> {
        let mut names = names(self.header, self.reading);
        if names.is_empty() {
            names.push(self.label());
        }
        names
    }

    fn name(&self) -> EntryName {
        self.names().into_iter().next().unwrap_or_else(|| self.label())
    }

    fn label(&self) -> EntryName {
        EntryName::label(format!("part {}", self.number))
    }
}
