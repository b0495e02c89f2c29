//! Writes PDFs.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use weezl::{BitOrder, encode::Encoder};

/// A PDF with a catalog as object 1.
pub(super) struct PdfWriter {
    bytes: Vec<u8>,
    offsets: Vec<(u32, usize)>,
}

impl PdfWriter {
    /// Starts a file. `catalog` has further entries of the catalog.
    pub(super) fn new(catalog: &str) -> Self {
        let mut writer = Self::empty();
        writer.object(1, format!("<</Type/Catalog/Pages 2 0 R{catalog}>>"));
        writer.object(2, "<</Type/Pages/Kids[]/Count 0>>");
        writer
    }

    pub(super) fn empty() -> Self {
        Self { bytes: b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n".to_vec(), offsets: Vec::new() }
    }

    pub(super) fn object(&mut self, number: u32, value: impl AsRef<[u8]>) {
        self.offsets.push((number, self.bytes.len()));
        self.raw(format!("{number} 0 obj\n"));
        self.raw(value);
        self.raw("\nendobj\n");
    }

    /// Appends a stream. `dict` has the entries of its dictionary without the length.
    pub(super) fn stream(&mut self, number: u32, dict: &str, data: &[u8]) {
        let mut value = format!("<<{dict}/Length {}>>stream\n", data.len()).into_bytes();
        value.extend_from_slice(data);
        value.extend_from_slice(b"\nendstream");
        self.object(number, value);
    }

    pub(super) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(bytes.as_ref());
    }

    /// Appends the cross-reference table and the trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let start = self.bytes.len();
        self.raw("xref\n0 1\n0000000000 65535 f \n");
        for (number, offset) in std::mem::take(&mut self.offsets) {
            self.raw(format!("{number} 1\n{offset:010} 00000 n \n"));
        }
        self.raw(format!("trailer\n<</Size 100/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"));
        self.bytes
    }

    /// Returns the objects without cross-reference table and trailer.
    pub(super) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns a file with one attachment that has these entries and data.
pub(super) fn attachment(dict: &str, data: &[u8]) -> Vec<u8> {
    let mut writer = PdfWriter::new("/Names<</EmbeddedFiles<</Names[(x)3 0 R]>>>>");
    writer.object(3, "<</Type/Filespec/F(dir/a.txt)/EF<</F 4 0 R>>>>");
    writer.stream(4, &format!("/Type/EmbeddedFile{dict}"), data);
    writer.finish()
}

/// Returns an object stream with objects of these numbers and values.
pub(super) fn object_stream(objects: &[(u32, &[u8])]) -> (String, Vec<u8>) {
    let (mut header, mut values) = (Vec::new(), Vec::new());
    for (number, value) in objects {
        header.extend(format!("{number} {} ", values.len()).into_bytes());
        values.extend_from_slice(value);
        values.push(b'\n');
    }
    let dict = format!("/Type/ObjStm/N {}/First {}", objects.len(), header.len());
    (dict, [header, values].concat())
}

/// Returns a literal string.
pub(super) fn literal(text: &[u8]) -> Vec<u8> {
    let mut string = b"(".to_vec();
    for byte in text {
        if b"()\\".contains(byte) {
            string.push(b'\\');
        }
        string.push(*byte);
    }
    string.push(b')');
    string
}

pub(super) fn flate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn lzw(data: &[u8], early_change: bool) -> Vec<u8> {
    let mut encoder = if early_change {
        Encoder::with_tiff_size_switch(BitOrder::Msb, 8)
    } else {
        Encoder::new(BitOrder::Msb, 8)
    };
    encoder.encode(data).unwrap()
}

pub(super) fn hex(data: &[u8]) -> Vec<u8> {
    let mut text: Vec<_> = data.iter().map(|byte| format!("{byte:02X}")).collect();
    text.push(">".to_owned());
    text.join("\n").into_bytes()
}

pub(super) fn ascii85(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for chunk in data.chunks(4) {
        let mut group = [0; 4];
        group[..chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        let digits = [85_u32.pow(4), 85_u32.pow(3), 85 * 85, 85, 1];
        let digits = digits.map(|power| b'!' + u8::try_from(group / power % 85).unwrap());
        if group == 0 && chunk.len() == 4 {
            text.push(b'z');
        } else {
            text.extend_from_slice(&digits[..=chunk.len()]);
        }
    }
    text.extend_from_slice(b"~>");
    text
}

/// Encodes runs of equal bytes, others as they are.
pub(super) fn run_length(data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for run in data.chunk_by(|first, second| first == second) {
        for part in run.chunks(128) {
            match part.len() {
                1 => encoded.extend([0, part[0]]),
                length => encoded.extend([u8::try_from(257 - length).unwrap(), part[0]]),
            }
        }
    }
    encoded.push(128);
    encoded
}

/// Encodes with all filters of PNG in turn. Rows have 8 bytes.
pub(super) fn png_predicted(data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut above = [0_u8; 8];
    for (index, row) in data.chunks(8).enumerate() {
        let tag = u8::try_from(index % 3).unwrap();
        encoded.push(tag);
        for (column, byte) in row.iter().enumerate() {
            let left = if column > 0 { row[column - 1] } else { 0 };
            let predicted = [0, left, above[column]][usize::from(tag)];
            encoded.push(byte.wrapping_sub(predicted));
        }
        above = row.try_into().unwrap();
    }
    encoded
}

/// Encodes differences of bytes in rows of 8.
pub(super) fn tiff_predicted(data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for row in data.chunks(8) {
        let left = std::iter::once(0).chain(row.iter().copied());
        encoded.extend(row.iter().zip(left).map(|(byte, left)| byte.wrapping_sub(left)));
    }
    encoded
}

/// Decodes base64 without padding errors.
pub(super) fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<_> = text.chars().filter_map(|digit| DIGITS.find(digit)).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let value =
            group.iter().fold(0, |value, digit| value << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..group.len()]);
    }
    bytes
}
