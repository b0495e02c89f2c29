//! Parts of a message.
//!
//! The message is read once, line by line. Delimiters of all open multiparts are recognized in all lines, so missing
//! final delimiters do no harm. Where programs read a message differently, it is read several times.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    header::{BodyFormat, HeaderReading, PartHeader, PartType},
    lines::{field_name, line_at, without_last_break},
    part::MailPart,
    recognize::is_mail,
    transfer::{Base64, Decoding, QuotedPrintable, TransferEncoding},
    uuencode::{self, Uuencode},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Maximum number of multiparts around a part. Python's `email` fails at some hundred, Thunderbird at about 100.
const MAX_NESTING: usize = 64;

/// The sets of readings in the order in which they are tried: those that programs are likely to have are the first.
const READINGS: [u8; 16] = [0, 1, 2, 4, 8, 3, 5, 6, 9, 10, 12, 7, 11, 13, 14, 15];

/// Maximum length of a message times the number of its readings, bytes.
const MAX_READ: usize = 256 << 20;

/// Maximum number of delimiters in a message.
const MAX_DELIMITERS: u32 = 1_000_000;

/// Maximum number of boundaries that are guessed in a message.
const MAX_GUESSES: u8 = 8;

/// Maximum number of messages and encoded multiparts around a part that are parsed in place.
const MAX_INNER: u8 = 3;

/// Passes the bodies and attachments of a message.
pub(super) fn message(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    read(bytes, None, 0, unpacker)
}

/// Reads a message under each reading that matters. If `boundary` is set, the bytes are the body of a multipart.
fn read(bytes: &[u8], boundary: Option<&[u8]>, inner: u8, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut ambiguity = 0;
    let (mut first, mut first_with_prefixes) = (None, None);
    let mut length = 0_usize;
    for bits in READINGS {
        if bits & !ambiguity != 0 {
            continue;
        }
        length = length.saturating_add(bytes.len());
        if length > MAX_READ && bits != 0 {
            unpacker.note(NoteKind::Limit, "too many readings of a long message");
            return Ok(());
        }
        let mut walk = MessageWalk::new(bytes, HeaderReading(bits), inner);
        walk.run(boundary, unpacker)?;
        ambiguity |= walk.ambiguity;
        let parts = walk.parts.finish();
        // A boundary that is the start of another one occurs in mail without errors.
        let has_prefixes = bits & HeaderReading::PREFIX.0 != 0;
        let first = if has_prefixes { &mut first_with_prefixes } else { &mut first };
        if *first.get_or_insert(parts) != parts {
            unpacker.note(NoteKind::Inconsistent, "the message has several readings");
        }
    }
    Ok(())
}

/// An open multipart.
struct OpenMultipart {
    boundary: Vec<u8>,
    is_digest: bool,
}

/// Text between two delimiters.
struct MailRegion<'m> {
    start: usize,
    kind: RegionKind<'m>,
}

enum RegionKind<'m> {
    /// Before the first part of a multipart.
    Preamble(PartHeader<'m>, BodyFormat),
    Part(PartHeader<'m>, BodyFormat),
    /// Outside of the parts.
    Text,
}

/// A line that separates parts.
struct Delimiter {
    /// Index of the level.
    level: usize,
    is_last: bool,
    start: usize,
    next: usize,
}

/// One reading of a message.
struct MessageWalk<'m> {
    bytes: &'m [u8],
    reading: HeaderReading,
    bare_return: bool,
    /// The readings that may differ from this one.
    ambiguity: u8,
    /// Digest of the positions of all parts and their encodings.
    parts: DefaultHasher,
    levels: Vec<OpenMultipart>,
    guesses: u8,
    delimiters: u32,
    inner: u8,
    /// Number of parts.
    count: u64,
}

impl<'m> MessageWalk<'m> {
    fn new(bytes: &'m [u8], reading: HeaderReading, inner: u8) -> Self {
        let bare_return = reading.has(HeaderReading::BARE_RETURN) || !bytes.contains(&b'\n');
        Self {
            bytes,
            reading,
            bare_return,
            ambiguity: 0,
            parts: DefaultHasher::new(),
            levels: Vec::new(),
            guesses: 0,
            delimiters: 0,
            inner,
            count: 0,
        }
    }

    fn run(&mut self, boundary: Option<&[u8]>, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let mut region = match boundary {
            None => self.part(0, unpacker),
            Some(boundary) => {
                self.levels.push(OpenMultipart { boundary: boundary.to_vec(), is_digest: false });
                MailRegion { start: 0, kind: RegionKind::Text }
            }
        };
        loop {
            let delimiter = self.delimiter(region.start);
            let end = delimiter.as_ref().map_or(self.bytes.len(), |delimiter| delimiter.start);
            let innermost = self.levels.len().checked_sub(1);
            let has_parts = delimiter.as_ref().is_some_and(|found| Some(found.level) == innermost);
            let may_have_parts = matches!(region.kind, RegionKind::Preamble(..));
            if may_have_parts && !has_parts && self.guess(region.start, end) {
                continue;
            }
            self.region(&region, end, has_parts, unpacker)?;
            let Some(Delimiter { level, is_last, next, .. }) = delimiter else { return Ok(()) };
            self.delimiters = self.delimiters.saturating_add(1);
            if self.delimiters > MAX_DELIMITERS {
                unpacker.note(NoteKind::Limit, "too many parts");
                return Ok(());
            }
            self.levels.truncate(level.saturating_add(1));
            region = if is_last {
                MailRegion { start: next, kind: RegionKind::Text }
            } else {
                self.part(next, unpacker)
            };
        }
    }

    /// Parses the header of a message or part.
    fn part(&mut self, start: usize, unpacker: &mut Unpacker<'_>) -> MailRegion<'m> {
        let is_delimiter =
            |line: &[u8]| find_delimiter(&self.levels, self.reading, line).0.is_some();
        let header = PartHeader::parse(self.bytes, start, self.bare_return, is_delimiter);
        if header.has_bare_return {
            self.ambiguity |= HeaderReading::BARE_RETURN.0;
        }
        self.ambiguity |= header.ambiguity(self.reading);
        let mut content = header.content(self.reading);
        if content.media_type == PartType::Missing
            && self.levels.last().is_some_and(|level| level.is_digest)
        {
            content.media_type = PartType::Message;
        }
        note_media_type(content.media_type, unpacker);
        let PartType::Multipart { is_digest, .. } = content.media_type else {
            return MailRegion { start: header.body, kind: RegionKind::Part(header, content) };
        };
        if self.levels.len() >= MAX_NESTING {
            unpacker.note(NoteKind::Limit, "too many multiparts in multiparts");
            return MailRegion { start: header.body, kind: RegionKind::Part(header, content) };
        }
        // Without a boundary, there is a level too, for a guess.
        let boundary = content.boundary.clone().unwrap_or_default();
        self.levels.push(OpenMultipart { boundary, is_digest });
        MailRegion { start: header.body, kind: RegionKind::Preamble(header, content) }
    }

    /// Finds the next delimiter.
    fn delimiter(&mut self, from: usize) -> Option<Delimiter> {
        let mut position = from;
        while let Some(line) = line_at(self.bytes, position, self.bare_return) {
            position = line.next;
            let (found, ambiguity) = find_delimiter(&self.levels, self.reading, line.content);
            // Nothing follows the last line: it may be a truncated delimiter.
            if position < self.bytes.len() {
                self.ambiguity |= ambiguity;
            }
            if let Some((level, is_last)) = found {
                return Some(Delimiter { level, is_last, start: line.start, next: line.next });
            }
            if line.content.contains(&b'\r') {
                let mut lines = line.content.split(|byte| *byte == b'\r').skip(1);
                if lines.any(|line| find_delimiter(&self.levels, self.reading, line).0.is_some()) {
                    self.ambiguity |= HeaderReading::BARE_RETURN.0;
                }
            }
        }
        None
    }

    /// Guesses the boundary of a multipart whose boundary does not occur: the first line that starts with two hyphens
    /// before a header field. Some programs do this.
    fn guess(&mut self, start: usize, end: usize) -> bool {
        if self.guesses >= MAX_GUESSES {
            return false;
        }
        self.guesses = self.guesses.saturating_add(1);
        match (self.boundary_in(start, end), self.levels.last_mut()) {
            (Some(boundary), Some(level)) => {
                level.boundary = boundary;
                true
            }
            _ => false,
        }
    }

    /// Returns the first boundary in a region.
    fn boundary_in(&self, start: usize, end: usize) -> Option<Vec<u8>> {
        let region = self.bytes.get(..end)?;
        let mut position = start;
        while let Some(line) = line_at(region, position, self.bare_return) {
            position = line.next;
            let boundary = line.content.strip_prefix(b"--").map(<[u8]>::trim_ascii_end);
            let Some(boundary) = boundary.filter(|boundary| !boundary.is_empty()) else { continue };
            let next = line_at(region, line.next, self.bare_return);
            let name = next.and_then(|next| field_name(next.content)).unwrap_or_default();
            if name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")) {
                return Some(boundary.to_vec());
            }
        }
        None
    }

    /// Examines a region. `has_parts`: whether a multipart contains a delimiter.
    fn region(
        &mut self,
        region: &MailRegion<'m>,
        end: usize,
        has_parts: bool,
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        let body =
            |start: usize| without_last_break(self.bytes.get(start..end).unwrap_or_default());
        match &region.kind {
            RegionKind::Preamble(..) if has_parts => text(body(region.start), unpacker),
            RegionKind::Preamble(header, content) => match &content.boundary {
                Some(boundary)
                    if content.encoding != TransferEncoding::Identity && self.inner < MAX_INNER =>
                {
                    self.encoded_parts(boundary, content.encoding, body(region.start), unpacker)
                }
                _ => self.leaf(header, content, body(region.start), unpacker),
            },
            RegionKind::Part(header, content) => {
                let early = header.early_body.filter(|start| *start < region.start).map(body);
                self.leaf(header, content, body(region.start), unpacker)?;
                early.map_or(Ok(()), |body| self.leaf(header, content, body, unpacker))
            }
            RegionKind::Text => text(body(region.start), unpacker),
        }
    }

    /// Examines a part without parts.
    fn leaf(
        &mut self,
        header: &PartHeader<'_>,
        content: &BodyFormat,
        body: &[u8],
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        if body.is_empty() {
            return Ok(());
        }
        self.count = self.count.saturating_add(1);
        let part = MailPart { header, content, reading: self.reading, body, number: self.count };
        // The position is the address: all readings are of the same bytes.
        (body.as_ptr().addr(), body.len(), part.encoding()).hash(&mut self.parts);
        let inner = self.inner.saturating_add(1);
        let is_message = content.media_type == PartType::Message;
        part.examine(unpacker, &mut |unpacker, bytes| {
            // A message that is recognized is an object.
            if !is_message || is_mail(bytes) {
                Ok(())
            } else if inner > MAX_INNER {
                unpacker.note(NoteKind::Limit, "too many messages in messages");
                Ok(())
            } else {
                read(bytes, None, inner, unpacker)
            }
        })
    }

    /// Examines a multipart that is encoded as a whole, which RFC 2045 section 6.4 does not allow.
    fn encoded_parts(
        &mut self,
        boundary: &[u8],
        encoding: TransferEncoding,
        body: &[u8],
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        let inner = self.inner.saturating_add(1);
        let then = |unpacker: &mut Unpacker<'_>, bytes: &[u8]| {
            read(bytes, Some(boundary), inner, unpacker)
        };
        (body.as_ptr().addr(), body.len(), encoding).hash(&mut self.parts);
        match encoding {
            TransferEncoding::Identity => then(unpacker, body),
            TransferEncoding::Base64 => {
                unpacker.decode_part_then(Decoding::new(Base64::new(body, false)), then)
            }
            TransferEncoding::QuotedPrintable => {
                unpacker.decode_part_then(Decoding::new(QuotedPrintable::new(body)), then)
            }
            TransferEncoding::Uuencode => {
                unpacker.decode_part_then(Decoding::new(Uuencode::new(body)), then)
            }
        }
    }
}

/// Examines text outside of the parts, which some programs show.
fn text(body: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    unpacker.slice(EntryName::label("text outside of parts"), body)?;
    uuencode::files(body, unpacker)
}

/// Notes contents that cannot be read.
fn note_media_type(media_type: PartType, unpacker: &mut Unpacker<'_>) {
    match media_type {
        PartType::Enveloped | PartType::Multipart { is_encrypted: true, .. } => {
            unpacker.note(NoteKind::Encrypted, "the message is encrypted");
        }
        PartType::Partial => {
            unpacker.note(NoteKind::Unreadable, "a part of a message in several files");
        }
        PartType::Missing
        | PartType::Text
        | PartType::Message
        | PartType::Multipart { .. }
        | PartType::Other => {}
    }
}

/// Finds the level that a line delimits, the innermost first, and whether the delimiter is the last one. Returns also the
/// readings under which the result may differ.
fn find_delimiter(
    levels: &[OpenMultipart],
    reading: HeaderReading,
    line: &[u8],
) -> (Option<(usize, bool)>, u8) {
    let Some(line) = line.strip_prefix(b"--") else { return (None, 0) };
    let line = line.trim_ascii_end();
    let mut prefix = None;
    for (index, level) in levels.iter().enumerate().rev() {
        let Some(rest) = line.strip_prefix(level.boundary.as_slice()) else { continue };
        if level.boundary.is_empty() {
            continue;
        }
        if rest.is_empty() || rest == b"--" {
            return (Some((index, !rest.is_empty())), 0);
        }
        prefix.get_or_insert((index, rest.starts_with(b"--")));
    }
    match prefix {
        Some(_) if !reading.has(HeaderReading::PREFIX) => (None, HeaderReading::PREFIX.0),
        found => (found, 0),
    }
}
