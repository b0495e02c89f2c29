//! Corrects results of `pure-magic` that differ from those of `file`, for types that users send or that are dangerous.

use std::io;

use crate::{
    names::{PLAIN_TEXT, UNKNOWN},
    text::interpreter,
};

/// Signature of OLE compound files, such as Office documents before 2007.
pub(crate) const OLE_SIGNATURE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Returns the corrected type of a file of `size` bytes that begins with `head`.
///
/// `read_at` reads up to the given number of bytes of the file, at any offset.
pub(crate) fn correct<'a>(
    name: &'a str,
    head: &[u8],
    size: u64,
    read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
) -> &'a str {
    match name {
        // Universal Mach-O files exceed the read budget. A Java class has the same signature; it has its version, above
        // 43, where a universal file has the number of architectures.
        UNKNOWN if head.starts_with(b"\xca\xfe\xba\xbe") && be32(head, 4) < 43 => {
            "application/x-mach-binary"
        }
        // In the rule, the type depends on a condition that the usual version does not meet.
        UNKNOWN if head.starts_with(b"\0asm") => "application/wasm",
        // The rule tests for a table name at an offset at which `pure-magic` does not evaluate the test.
        UNKNOWN if head.starts_with(b"\0\x01\0\0\0") && head.get(12..16).is_some_and(is_tag) => {
            "font/sfnt"
        }
        // The rule for Office documents also matches archives that begin with a picture, and then yields no type.
        UNKNOWN if head.starts_with(b"PK\x03\x04") && !begins_as_office(head) => {
            zip_type(head, size, read_at)
        }
        // The rule for the mark of the program `jar` precedes the rule for signed packages.
        "application/java-archive" if has_signing_block(size, &read_at) => APK,
        UNKNOWN if head.starts_with(b"MSCF\0\0\0\0") => "application/vnd.ms-cab-compressed",
        // libmagic reads the directory, and evaluates the rules only if it cannot.
        name if head.starts_with(OLE_SIGNATURE) => {
            let from_rules = OLE_TYPES.into_iter().find(|known| *known == name);
            ole_type(head, read_at).or(from_rules).unwrap_or("application/x-ole-storage")
        }
        // The rules test for HTML inside a script before they test the script's first line.
        PLAIN_TEXT | "text/html" if interpreter(head) == Some(b"perl") => "text/x-perl",
        // libmagic distinguishes programs from libraries in code, not by rules.
        "application/x-sharedlib" if is_pie(head, read_at).unwrap_or(false) => {
            "application/x-pie-executable"
        }
        name => name,
    }
}

/// Types of OLE documents that libmagic also recognizes by other means than the names of streams.
const OLE_TYPES: [&str; 5] = [
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.ms-outlook",
    "application/vnd.ms-msi",
];

/// Returns the type of an OLE document, from the names of the first streams in its directory.
fn ole_type(
    head: &[u8],
    read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
) -> Option<&'static str> {
    const ENTRY_LEN: usize = 128;
    const MAX_ENTRIES: usize = 32;
    const STREAMS: [(&str, &str); 7] = [
        // An encrypted Office document, whatever else the file contains.
        ("EncryptedPackage", "application/encrypted"),
        ("WordDocument", "application/msword"),
        ("Workbook", "application/vnd.ms-excel"),
        ("Book", "application/vnd.ms-excel"),
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
        // The directory of a large message may be in parts, of which only the first is read.
        ("__properties_version1.0", "application/vnd.ms-outlook"),
        ("__nameid_version1.0", "application/vnd.ms-outlook"),
    ];
    let sector = u64::from(u32::from_le_bytes(*head.get(48..)?.first_chunk()?)) + 1;
    let shift = u32::from(u16::from_le_bytes(*head.get(30..)?.first_chunk()?));
    let offset = sector.checked_mul(1_u64.checked_shl(shift)?)?;
    let directory = read_at(offset, MAX_ENTRIES * ENTRY_LEN).ok()?;
    let has_stream = |stream: &str| {
        directory.chunks_exact(ENTRY_LEN).any(|entry| {
            let units = entry.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
            units.take_while(|unit| *unit != 0).eq(stream.encode_utf16())
        })
    };
    STREAMS.into_iter().find(|(stream, _)| has_stream(stream)).map(|(_, mime)| mime)
}

/// Returns the type of a ZIP archive whose first name does not determine the type, as the rules do: by the mark of the
/// program `jar` in the first entry, and by the signing block before the directory.
fn zip_type(
    head: &[u8],
    size: u64,
    read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
) -> &'static str {
    let extra_field = || {
        let name_len = u16::from_le_bytes(*head.get(26..)?.first_chunk()?);
        head.get(30..)?.get(usize::from(name_len)..)
    };
    if has_signing_block(size, read_at) {
        APK
    } else if extra_field().is_some_and(|field| field.starts_with(b"\xfe\xca")) {
        "application/java-archive"
    } else {
        "application/zip"
    }
}

const APK: &str = "application/vnd.android.package-archive";

/// Returns whether a ZIP archive has the signature of an Android package before its directory.
fn has_signing_block(size: u64, read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> bool {
    const END: &[u8] = b"PK\x05\x06";
    const END_LEN: usize = 22;
    const BLOCK: &[u8] = b"APK Sig Block 42";
    let before_directory = || {
        let end = read_at(size.checked_sub(END_LEN as u64)?, END_LEN).ok()?;
        let directory = end.strip_prefix(END)?.get(12..)?.first_chunk()?;
        let directory = u64::from(u32::from_le_bytes(*directory));
        read_at(directory.checked_sub(BLOCK.len() as u64)?, BLOCK.len()).ok()
    };
    before_directory().is_some_and(|bytes| bytes == BLOCK)
}

/// Returns whether the first name in a ZIP archive is one with which Office documents begin.
fn begins_as_office(head: &[u8]) -> bool {
    const NAMES: [&str; 5] =
        ["[Content_Types].xml", "_rels/.rels", "docProps", "customXml", "[trash]"];
    let name = head.get(30..).unwrap_or_default();
    NAMES.iter().any(|office| name.starts_with(office.as_bytes()))
}

/// Returns whether these bytes can be the name of a font's table.
fn is_tag(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b' '))
}

/// Returns the big-endian number at `offset`, or `u32::MAX` if there is none.
fn be32(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

/// Returns whether an ELF file is a position-independent executable, according to its dynamic section.
///
/// Returns `None` if the headers cannot be read.
fn is_pie(head: &[u8], read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> Option<bool> {
    const PT_DYNAMIC: u64 = 2;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_PIE: u64 = 0x0800_0000;
    /// Size of a program header in a 64-bit file.
    const HEADER_LEN: usize = 56;
    // The limits of libmagic. The dynamic section of a large program has about 50 entries.
    const MAX_HEADERS: usize = 2048;
    const MAX_SECTION_LEN: usize = 64 << 10;

    let is_64_bit = *head.get(4)? == 2;
    let is_little_endian = *head.get(5)? == 1;
    let number = |bytes: &[u8], offset: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(offset..offset.checked_add(len)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if is_little_endian {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        })
    };
    let word_len = if is_64_bit { 8 } else { 4 };
    // Offsets of fields in the file header (e_phoff, e_phentsize) and in a program header (p_offset, p_filesz).
    let (table_field, entry_len_field) = if is_64_bit { (32, 54) } else { (28, 42) };
    let (offset_field, len_field) = if is_64_bit { (8, 32) } else { (4, 16) };

    let table_offset = number(head, table_field, word_len)?;
    let entry_len = usize::try_from(number(head, entry_len_field, 2)?).ok()?;
    let count = usize::try_from(number(head, entry_len_field + 2, 2)?).ok()?.min(MAX_HEADERS);
    let table_len = entry_len.checked_mul(count)?.min(MAX_HEADERS * HEADER_LEN);
    let table = read_at(table_offset, table_len).ok()?;
    let dynamic = table
        .chunks_exact(entry_len.max(1))
        .find(|header| number(header, 0, 4) == Some(PT_DYNAMIC))?;
    let len = usize::try_from(number(dynamic, len_field, word_len)?).ok()?.min(MAX_SECTION_LEN);
    let entries = read_at(number(dynamic, offset_field, word_len)?, len).ok()?;
    Some(entries.chunks_exact(word_len * 2).any(|entry| {
        number(entry, 0, word_len) == Some(DT_FLAGS_1)
            && number(entry, word_len, word_len).is_some_and(|flags| flags & DF_1_PIE != 0)
    }))
}
