//! Reads the objects of a file, and those in object streams.

use super::{
    canonical::write_value,
    decryption::{EncryptedPart, ObjectLocation, PdfKey},
    lexer::{PdfLexer, PdfToken, parse_integer},
    objects::{PdfObject, PdfObjects},
    structure::{MAX_OBJECTS, NO_NUMBER, ObjectHeader, PdfStructure},
};

/// Maximum length of all values, bytes.
const MAX_TEXT: usize = 32 << 20;

/// Values may overlap: an object may begin inside a string of another one. They are read up to this multiple of their
/// length.
const MAX_OVERLAP: usize = 4;

/// Length of the strings that are decrypted at once, bytes.
const BATCH: usize = 1 << 20;

/// Number of objects whose strings are decrypted at once.
const BATCH_OBJECTS: usize = 1024;

/// Reads objects.
#[derive(Default)]
pub(super) struct ObjectReader {
    pub(super) objects: PdfObjects,
    /// Why objects are missing.
    pub(super) limit: Option<&'static str>,
}

impl ObjectReader {
    /// Reads the objects of a file. Decrypts strings, if there is a key.
    pub(super) fn read(bytes: &[u8], structure: &PdfStructure, key: Option<&PdfKey>) -> Self {
        let mut reader = Self::default();
        if structure.has_more {
            reader.limit = Some("a PDF has too many objects");
        }
        let mut remaining = work(bytes);
        let offsets = structure.trailers.iter();
        let trailer =
            |value: &usize| ObjectHeader { number: NO_NUMBER, generation: 0, value: *value };
        let headers: Vec<_> = offsets.map(trailer).collect();
        reader.read_headers(bytes, &headers, &mut std::iter::empty(), &mut remaining);
        for headers in structure.headers.chunks(BATCH_OBJECTS) {
            let strings = key.map(|key| decrypted_strings(bytes, headers, key, remaining));
            let mut strings = strings.unwrap_or_default().into_iter();
            reader.read_headers(bytes, headers, &mut strings, &mut remaining);
        }
        reader.objects.index();
        reader
    }

    /// Reads objects. `strings` replace theirs in the same order; without any, they are kept.
    fn read_headers(
        &mut self,
        bytes: &[u8],
        headers: &[ObjectHeader],
        strings: &mut impl Iterator<Item = Vec<u8>>,
        work: &mut usize,
    ) {
        for header in headers {
            if !self.has_room(*work) {
                return;
            }
            let ObjectHeader { number, generation, value } = *header;
            let start = self.objects.text.len();
            let mut lexer = PdfLexer::new(bytes, value);
            let text = &mut self.objects.text;
            let end =
                write_value(&mut lexer, false, text, |string| strings.next().unwrap_or(string));
            *work = work.saturating_sub(lexer.position.saturating_sub(value));
            self.note_depth(end.is_too_deep);
            let value = start..self.objects.text.len();
            // No space precedes the next value.
            self.objects.text.push(b'\n');
            self.objects.add(PdfObject { number, generation, value, stream: end.stream });
        }
    }

    /// Reads the objects in the content of an object stream, 7.5.7. `first` is the offset of the first one.
    pub(super) fn read_members(&mut self, content: &[u8], first: usize) {
        let mut work = work(content);
        let mut header = PdfLexer::new(content, 0);
        let mut integer = || match header.next() {
            Some((start, PdfToken::Word(digits))) if start < first => parse_integer(digits),
            _ => None,
        };
        while let Some((number, offset)) = integer().zip(integer()) {
            let offset = usize::try_from(offset).ok().and_then(|offset| first.checked_add(offset));
            let Some(offset) = offset.filter(|offset| *offset < content.len()) else { continue };
            if !self.has_room(work) {
                return;
            }
            let start = self.objects.text.len();
            let mut lexer = PdfLexer::new(content, offset);
            let end = write_value(&mut lexer, true, &mut self.objects.text, |string| string);
            work = work.saturating_sub(lexer.position.saturating_sub(offset).max(1));
            self.note_depth(end.is_too_deep);
            let value = start..self.objects.text.len();
            // No space precedes the next value.
            self.objects.text.push(b'\n');
            self.objects.add(PdfObject { number, generation: 0, value, stream: None });
        }
    }

    fn has_room(&mut self, work: usize) -> bool {
        let limit = if work == 0 {
            "objects of a PDF overlap"
        } else if self.objects.text.len() > MAX_TEXT {
            "the objects of a PDF are too long"
        } else if self.objects.list.len() >= MAX_OBJECTS {
            "a PDF has too many objects"
        } else {
            return true;
        };
        self.limit = Some(limit);
        false
    }

    fn note_depth(&mut self, is_too_deep: bool) {
        if is_too_deep {
            self.limit.get_or_insert("objects of a PDF are nested too deep");
        }
    }
}

/// Returns how many bytes of values are read.
fn work(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(MAX_OVERLAP).saturating_add(1 << 20)
}

/// Decrypts the strings of objects, in their order.
fn decrypted_strings(
    bytes: &[u8],
    headers: &[ObjectHeader],
    key: &PdfKey,
    mut work: usize,
) -> Vec<Vec<u8>> {
    let (mut strings, mut output) = (Vec::<(ObjectLocation, Vec<u8>)>::new(), Vec::new());
    for header in headers {
        if work == 0 {
            break;
        }
        let ObjectHeader { number, generation, value } = *header;
        let mut lexer = PdfLexer::new(bytes, value);
        output.clear();
        write_value(&mut lexer, false, &mut output, |string| {
            strings.push(((number, generation), string));
            Vec::new()
        });
        work = work.saturating_sub(lexer.position.saturating_sub(value));
    }
    let mut decrypted = Vec::with_capacity(strings.len());
    let mut rest = strings.as_slice();
    while !rest.is_empty() {
        let mut length = 0_usize;
        let mut is_room = |(_, string): &&(ObjectLocation, Vec<u8>)| {
            let has_room = length < BATCH;
            length = length.saturating_add(string.len()).saturating_add(64);
            has_room
        };
        let count = rest.iter().take_while(|part| is_room(part)).count();
        let (batch, after) = rest.split_at(count);
        let parts: Vec<_> =
            batch.iter().map(|(at, string)| (*at, EncryptedPart::String(string))).collect();
        let results = key.decrypt(&parts).into_iter().zip(batch);
        // What cannot be decrypted is kept.
        decrypted
            .extend(results.map(|(result, (_, string))| result.unwrap_or_else(|| string.clone())));
        rest = after;
    }
    decrypted
}
