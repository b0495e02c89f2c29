//! LZMA without a container (`.lzma`), as in `lzma-file-format.txt` of XZ Utils.
//!
//! The format has no magic number. The header is recognized with any dictionary size, because 7-Zip and `lzma -d` decode
//! all of them. Other binary files match now and then: contents that do not look decodable cause no note.

use std::io::{self, Read};

use lzma_rust2::LzmaReader;

use super::members::{self, MAX_DICTIONARY, window_too_large};
use crate::unpack::unpacker::{MAX_WINDOW, Unpacked, Unpacker};

/// Limit of XZ Utils for the size of the content, bytes. Larger values are those of other formats.
const MAX_LENGTH: u64 = 1 << 38;

/// Number of bytes that are decoded to tell LZMA from other formats. Data of other formats give an invalid distance
/// within a few bytes, as distances up to 4 GiB are equally probable.
const PROBE: usize = 4096;

/// Number of decoded bytes below which an error means that the data are of another format.
const MIN_DECODED: usize = 32;

/// Signature of PNG files, which may be followed by a zip.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

#[derive(Clone, Copy)]
struct LzmaHeader {
    properties: u8,
    dictionary: u32,
    /// Length of the content, bytes; `u64::MAX` if it ends with a marker.
    length: u64,
}

impl LzmaHeader {
    /// Parses the header of 13 bytes. Returns the data after it as well.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([properties, dictionary @ ..], rest) = bytes.split_first_chunk::<5>()?;
        let (length, data) = rest.split_first_chunk()?;
        let length = u64::from_le_bytes(*length);
        let dictionary = u32::from_le_bytes(*dictionary);
        // The first byte of the range coder is always zero.
        let is_valid = *properties < 9 * 5 * 5
            && (length == u64::MAX || (1..MAX_LENGTH).contains(&length))
            && data.len() > 5
            && data.first() == Some(&0)
            && !bytes.starts_with(PNG);
        is_valid.then_some((Self { properties: *properties, dictionary, length }, data))
    }

    /// Whether XZ Utils recognizes the dictionary size: 2ⁿ, 2ⁿ + 2ⁿ⁻¹ or `u32::MAX`.
    fn has_usual_dictionary(self) -> bool {
        let size = self.dictionary;
        size == u32::MAX
            || size.is_power_of_two()
            || (size.is_multiple_of(3) && (size / 3).is_power_of_two())
    }

    /// Returns the decoder. Its dictionary is at most [`MAX_WINDOW`]: a larger one differs only for longer contents.
    fn decoder(self, data: &[u8]) -> io::Result<LzmaReader<&[u8]>> {
        let dictionary = self.dictionary.min(MAX_DICTIONARY);
        let mut decoder =
            LzmaReader::new_with_props(data, self.length, self.properties, dictionary, None)?;
        decoder.set_defer_errors(true);
        Ok(decoder)
    }
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    LzmaHeader::parse(bytes).is_some_and(|(header, data)| probe(header, data).is_some())
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some((header, data)) = LzmaHeader::parse(bytes) else { return Ok(()) };
    let Some(reports_errors) = probe(header, data) else { return Ok(()) };
    let Ok(decoder) = header.decoder(data) else { return Ok(()) };
    let exceeds_window = header.dictionary > MAX_DICTIONARY;
    let reader = LzmaContent { decoder, exceeds_window, produced: 0, reports_errors };
    unpacker.decode(members::unnamed(), reader).map(|_decoded| ())
}

/// Decodes the start. Returns `None` if the data are of another format, otherwise whether they are LZMA beyond doubt, so
/// that errors after the start are reported.
fn probe(header: LzmaHeader, data: &[u8]) -> Option<bool> {
    let mut decoder = header.decoder(data).ok()?;
    let mut bytes = Vec::new();
    let result = decoder.by_ref().take(PROBE as u64).read_to_end(&mut bytes);
    if result.is_err() && bytes.len() < MIN_DECODED {
        return None;
    }
    // Zeros decode to zeros, so a header before zeros looks like LZMA.
    let is_uniform = bytes.iter().all(|byte| Some(byte) == bytes.first());
    Some(!is_uniform && (result.is_ok() || header.has_usual_dictionary()))
}

struct LzmaContent<'a> {
    decoder: LzmaReader<&'a [u8]>,
    exceeds_window: bool,
    /// Number of decoded bytes.
    produced: usize,
    reports_errors: bool,
}

impl Read for LzmaContent<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(output) {
            Ok(length) => {
                self.produced = self.produced.saturating_add(length);
                Ok(length)
            }
            Err(_) if self.exceeds_window && self.produced >= MAX_WINDOW => Err(window_too_large()),
            Err(_) if !self.reports_errors => Ok(0),
            Err(error) => Err(error),
        }
    }
}
