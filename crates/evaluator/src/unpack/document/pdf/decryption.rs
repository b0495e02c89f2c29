//! Decryption with the empty password, ISO 32000-2, 7.6.
//!
//! `hayro-syntax` decrypts strings and streams. It does not receive the original file, because it decodes streams
//! without a limit, repeats searches, and recurses. It receives a file with only the encryption dictionary and the
//! strings and streams to decrypt, without filters.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_syntax::{
    DecryptionError, LoadPdfError, Pdf,
    object::{ObjectIdentifier, Stream, String as PdfString},
};

use super::{
    canonical::write_name,
    lexer::{PdfLexer, PdfToken, unescape_literal},
    objects::{PdfObjects, name},
};

/// Maximum length of the encryption dictionary with the objects that it refers to, bytes.
const MAX_DICT: usize = 64 << 10;

/// Maximum depth of references in the encryption dictionary.
const MAX_REFERENCES: u32 = 4;

/// Maximum number of encryption dictionaries that are tried.
const MAX_KEYS: usize = 4;

/// Index of the first part in [`identifier`]. The lower ones belong to the objects that each file needs.
const FIRST: usize = 4;

/// An encryption dictionary that the empty password fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PdfKey {
    /// The dictionary, with strings in hexadecimal form and without references.
    dict: Vec<u8>,
    /// The identifier of the file, a string in hexadecimal form.
    id: Vec<u8>,
    /// Name of the filter for embedded files, if it is not the one for streams.
    embedded: Option<Vec<u8>>,
}

/// What is decrypted: a string, or the data of a stream with the name of a filter.
pub(super) enum EncryptedPart<'a> {
    String(&'a [u8]),
    Stream(&'a [u8], Option<&'a [u8]>),
}

/// The number and generation of the object that contains something encrypted: part of the key.
pub(super) type ObjectLocation = (u32, u32);

/// Why contents cannot be decrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PdfKeyError {
    Password,
    Algorithm,
    Invalid,
    TooMany,
}

/// Returns the keys for all encryption dictionaries of trailers, and errors.
pub(super) fn keys(objects: &PdfObjects, trailers: &[&[u8]]) -> (Vec<PdfKey>, Vec<PdfKeyError>) {
    let (mut keys, mut errors) = (Vec::<PdfKey>::new(), Vec::new());
    let any_id = trailers.iter().flat_map(|trailer| objects.values(trailer, b"ID")).next();
    for trailer in trailers {
        let id = objects.values(trailer, b"ID").first().copied().or(any_id);
        let id = id.map(|id| self_contained(objects, id)).unwrap_or_default();
        for dict in objects.values(trailer, b"Encrypt") {
            if !dict.starts_with(b"<<") {
                continue;
            }
            let embedded = objects.values(dict, b"EFF").into_iter().find_map(name);
            let embedded = embedded.map(<[u8]>::to_vec);
            let key = PdfKey { dict: self_contained(objects, dict), id: id.clone(), embedded };
            if keys.contains(&key) {
                continue;
            }
            if keys.len() >= MAX_KEYS {
                errors.push(PdfKeyError::TooMany);
                return (keys, errors);
            }
            keys.push(key);
        }
    }
    keys.retain(|key| key.check().map_err(|error| errors.push(error)).is_ok());
    (keys, errors)
}

/// Returns a value in which references are replaced and strings are hexadecimal.
fn self_contained(objects: &PdfObjects, value: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    write_self_contained(objects, value, MAX_REFERENCES, &mut output);
    output
}

fn write_self_contained(objects: &PdfObjects, value: &[u8], depth: u32, output: &mut Vec<u8>) {
    let mut lexer = PdfLexer::new(value, 0);
    while let Some((_, token)) = lexer.next() {
        // A dictionary that is cut off is invalid.
        if output.len() > MAX_DICT {
            return;
        }
        // Each token makes the output longer, so that the limit ends any repetition.
        output.push(b' ');
        match token {
            PdfToken::DictOpen => output.extend(b"<<"),
            PdfToken::DictClose => output.extend(b">>"),
            PdfToken::ArrayOpen => output.push(b'['),
            PdfToken::ArrayClose => output.push(b']'),
            PdfToken::Name(name) => {
                output.push(b'/');
                output.extend_from_slice(name);
            }
            PdfToken::Literal(content) => write_hex(&unescape_literal(content), output),
            PdfToken::Hex(_) => output.extend(b"<>"),
            PdfToken::Reference(number) => match objects.definitions(number).last() {
                Some(object) if depth > 0 => {
                    write_self_contained(objects, objects.value(object), depth - 1, output);
                }
                _ => output.extend(b"null"),
            },
            PdfToken::Word(word) => output.extend_from_slice(word),
        }
    }
}

fn write_hex(string: &[u8], output: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    output.push(b'<');
    output.extend(string.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    output.push(b'>');
}

impl PdfKey {
    /// Returns the name of the filter for embedded files.
    pub(super) fn embedded(&self) -> Option<&[u8]> {
        self.embedded.as_deref()
    }

    fn check(&self) -> Result<(), PdfKeyError> {
        // A panic is an invalid dictionary.
        let result = catch_unwind(AssertUnwindSafe(|| Pdf::new(self.file(&[])).map(|_pdf| ())));
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(LoadPdfError::Decryption(DecryptionError::PasswordProtected))) => {
                Err(PdfKeyError::Password)
            }
            Ok(Err(LoadPdfError::Decryption(DecryptionError::UnsupportedAlgorithm))) => {
                Err(PdfKeyError::Algorithm)
            }
            Ok(Err(_)) | Err(_) => Err(PdfKeyError::Invalid),
        }
    }

    /// Decrypts. `None` stands for contents that cannot be decrypted. The memory is about twice the size of the contents.
    pub(super) fn decrypt(
        &self,
        parts: &[(ObjectLocation, EncryptedPart<'_>)],
    ) -> Vec<Option<Vec<u8>>> {
        if parts.is_empty() {
            return Vec::new();
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            let pdf = Pdf::new(self.file(parts)).ok()?;
            let decrypt =
                |(index, (location, part)): (usize, &(ObjectLocation, EncryptedPart<'_>))| {
                    let (number, generation) = identifier(*location, index + FIRST)?;
                    let id = ObjectIdentifier::new(number, i32::try_from(generation).ok()?);
                    Some(match part {
                        EncryptedPart::String(_) => pdf.xref().get::<PdfString<'_>>(id)?.to_vec(),
                        EncryptedPart::Stream(..) => {
                            pdf.xref().get::<Stream<'_>>(id)?.raw_data().into_owned()
                        }
                    })
                };
            Some(parts.iter().enumerate().map(decrypt).collect())
        }));
        result.ok().flatten().unwrap_or_else(|| parts.iter().map(|_| None).collect())
    }

    /// Creates a file with the parts, a cross-reference stream and no page.
    fn file(&self, parts: &[(ObjectLocation, EncryptedPart<'_>)]) -> Vec<u8> {
        let mut file = b"%PDF-1.7\n".to_vec();
        let mut entries: Vec<((u32, u32), usize)> = Vec::new();
        let id = |index| identifier((0, 0), index).unwrap_or_default();
        let [catalog, pages, table] = [1, 2, 3].map(id);
        let mut object = |file: &mut Vec<u8>, (number, generation): (u32, u32)| {
            entries.push(((number, generation), file.len()));
            file.extend(format!("{number} {generation} obj\n").as_bytes());
        };
        object(&mut file, catalog);
        file.extend(
            format!("<</Type/Catalog/Pages {} {} R>>\nendobj\n", pages.0, pages.1).as_bytes(),
        );
        object(&mut file, pages);
        file.extend(b"<</Type/Pages/Kids[]/Count 0>>\nendobj\n");
        for (index, (location, part)) in parts.iter().enumerate() {
            let Some(id) = identifier(*location, index + FIRST) else { continue };
            object(&mut file, id);
            match part {
                EncryptedPart::String(string) => write_hex(string, &mut file),
                EncryptedPart::Stream(data, filter) => write_stream(data, *filter, &mut file),
            }
            file.extend(b"\nendobj\n");
        }
        let start = file.len();
        object(&mut file, table);
        self.write_cross_references(&entries, catalog, &mut file);
        file.extend(format!("startxref\n{start}\n%%EOF\n").as_bytes());
        file
    }

    fn write_cross_references(
        &self,
        entries: &[((u32, u32), usize)],
        catalog: (u32, u32),
        file: &mut Vec<u8>,
    ) {
        let index: Vec<_> = entries.iter().map(|((number, _), _)| format!("{number} 1")).collect();
        let index = index.join(" ");
        let (length, (number, generation)) = (entries.len() * 9, catalog);
        let dict = format!(
            "<</Type/XRef/Size 4294967295/W[1 4 4]/Index[{index}]/Root {number} {generation} R/Length {length}"
        );
        file.extend(dict.as_bytes());
        file.extend(b"/ID ");
        file.extend(if self.id.is_empty() { b"[<>]" } else { self.id.as_slice() });
        file.extend(b"/Encrypt ");
        file.extend(&self.dict);
        file.extend(b">>stream\n");
        for ((_, generation), offset) in entries {
            file.push(1);
            file.extend(u32::try_from(*offset).unwrap_or(u32::MAX).to_be_bytes());
            file.extend(generation.to_be_bytes());
        }
        file.extend(b"\nendstream\nendobj\n");
    }
}

fn write_stream(data: &[u8], filter: Option<&[u8]>, file: &mut Vec<u8>) {
    file.extend(format!("<</Length {}", data.len()).as_bytes());
    if let Some(filter) = filter {
        file.extend(b"/Filter/Crypt/DecodeParms<</Name");
        write_name(file, filter);
        file.extend(b">>");
    }
    file.extend(b">>stream\n");
    file.extend_from_slice(data);
    file.extend(b"\nendstream");
}

/// Returns a number and generation for a part, unique for each `index`. Keys use only the low 24 bits of the number and
/// the low 16 bits of the generation, algorithm 1 in 7.6.3.2, so the others are free.
fn identifier((number, generation): ObjectLocation, index: usize) -> Option<(u32, u32)> {
    let index = u32::try_from(index).ok().filter(|index| *index < 1 << 23)?;
    Some((number & 0x00ff_ffff | (index & 0xff) << 24, generation & 0xffff | (index >> 8) << 16))
}
