//! The records of zip files: APPNOTE.TXT of PKWARE 6.3.10, sections 4.3 and 4.5.

use memchr::{memmem, memrchr_iter};

use crate::unpack::fields::{u16_at, u32_at, u64_at};

/// Signature of a local file header, section 4.3.7.
pub(super) const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Signature of a data descriptor (section 4.3.9), and of the marker of a split archive (section 8.5.4).
pub(super) const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
/// Signature of a record of the directory, section 4.3.12.
pub(super) const CENTRAL: [u8; 4] = *b"PK\x01\x02";
/// Signature of the digital signature of a directory, section 4.3.13.
pub(super) const SIGNATURE: [u8; 4] = *b"PK\x05\x05";
/// Signature of the zip64 end of a directory, section 4.3.14.
pub(super) const END64: [u8; 4] = *b"PK\x06\x06";
/// Signature of the locator of the zip64 end, section 4.3.15.
pub(super) const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
/// Signature of the end of a directory, section 4.3.16.
pub(super) const END: [u8; 4] = *b"PK\x05\x06";

/// Length of an end of directory without its comment, bytes.
pub(super) const END_LENGTH: usize = 22;
/// Length of the locator of a zip64 end, bytes.
pub(super) const LOCATOR64_LENGTH: usize = 20;
/// Length of a zip64 end without extensible data, bytes.
pub(super) const END64_LENGTH: usize = 56;

/// General purpose bits (section 4.4.4) of encrypted data: encryption, strong encryption, masked local header.
const ENCRYPTION_BITS: u16 = 1 | 1 << 6 | 1 << 13;
/// General purpose bit: the sizes and the CRC-32 are in a data descriptor.
const DESCRIPTOR_BIT: u16 = 1 << 3;

/// Extra field with 64-bit sizes, section 4.5.3.
const ZIP64_EXTRA: u16 = 1;
/// Extra field with a name in UTF-8, section 4.6.9.
const UNICODE_PATH_EXTRA: u16 = 0x7075;

/// What a local header and a record of the directory have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileHeader<'d> {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    /// Size of the data in the archive, bytes.
    pub(super) compressed: u64,
    /// Size of the unpacked file, bytes.
    pub(super) size: u64,
    pub(super) name: &'d [u8],
    extra: &'d [u8],
}

impl<'d> FileHeader<'d> {
    /// Parses the fields from the flags on, which both records have in this order, at `offset`. The variable fields
    /// start at `variable`.
    fn parse(bytes: &'d [u8], offset: usize, variable: usize) -> Option<Self> {
        let fields = bytes.get(offset..)?;
        let name_length = usize::from(u16_at(fields, 20)?);
        let extra_length = usize::from(u16_at(fields, 22)?);
        // Some programs accept a name or extra field that does not end in the file.
        let rest = bytes.get(variable..)?;
        let (name, rest) = rest.split_at_checked(name_length).unwrap_or((rest, &[]));
        let mut header = Self {
            flags: u16_at(fields, 0)?,
            method: u16_at(fields, 2)?,
            crc: u32_at(fields, 8)?,
            compressed: u32_at(fields, 12)?.into(),
            size: u32_at(fields, 16)?.into(),
            name,
            extra: rest.get(..extra_length).unwrap_or(rest),
        };
        let (mut size, mut compressed) = (header.size, header.compressed);
        header.resolve64([&mut size, &mut compressed]);
        (header.size, header.compressed) = (size, compressed);
        Some(header)
    }

    /// Replaces values that do not fit into 32 bits by those of the zip64 extra field.
    fn resolve64<const N: usize>(&self, values: [&mut u64; N]) {
        let Some(mut field) = extra_field(self.extra, ZIP64_EXTRA) else { return };
        for value in values {
            if *value == u64::from(u32::MAX) {
                let Some((number, rest)) = field.split_at_checked(8) else { return };
                *value = u64_at(number, 0).unwrap_or(*value);
                field = rest;
            }
        }
    }

    /// Returns whether a flag or the method states that the data are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTION_BITS != 0 || self.method == 99
    }

    /// Returns whether the sizes follow the data.
    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & DESCRIPTOR_BIT != 0
    }

    /// Returns the name in UTF-8 of the extra field.
    pub(super) fn unicode_name(&self) -> Option<&'d [u8]> {
        let name = extra_field(self.extra, UNICODE_PATH_EXTRA)?.get(5..)?;
        std::str::from_utf8(name).ok().map(str::as_bytes)
    }
}

/// A local file header.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalHeader<'d> {
    pub(super) header: FileHeader<'d>,
    pub(super) has_signature: bool,
    /// Version that is needed to unpack the file.
    pub(super) version: u16,
    /// Offset of the data.
    pub(super) data: usize,
}

impl<'d> LocalHeader<'d> {
    const LENGTH: usize = 30;

    /// Parses the header at `offset`, also without a signature.
    pub(super) fn parse(bytes: &'d [u8], offset: usize) -> Option<Self> {
        let variable = offset.checked_add(Self::LENGTH)?;
        let header = FileHeader::parse(bytes, offset.checked_add(6)?, variable)?;
        let has_signature = has(bytes, offset, LOCAL);
        let version = u16_at(bytes, offset.checked_add(4)?)?;
        let data = variable + header.name.len() + header.extra.len();
        Some(Self { header, has_signature, version, data })
    }

    /// Returns whether the sizes of the file are stated here, and not only after the data or in the directory.
    pub(super) fn has_sizes(&self) -> bool {
        let is_open = |size| size == 0 || size == u64::from(u32::MAX);
        !(is_open(self.header.compressed) && is_open(self.header.size))
    }
}

/// A record of the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct CentralHeader<'d> {
    pub(super) header: FileHeader<'d>,
    /// Offset of the local header, from the start of the archive.
    pub(super) local: u64,
    /// Offset of the next record.
    pub(super) next: usize,
}

impl<'d> CentralHeader<'d> {
    const LENGTH: usize = 46;

    /// Parses the record at `offset`.
    pub(super) fn parse(bytes: &'d [u8], offset: usize) -> Option<Self> {
        if !has(bytes, offset, CENTRAL) {
            return None;
        }
        let variable = offset.checked_add(Self::LENGTH)?;
        let header = FileHeader::parse(bytes, offset.checked_add(8)?, variable)?;
        let comment_length = u16_at(bytes, offset.checked_add(32)?)?;
        let mut local = u32_at(bytes, offset.checked_add(42)?)?.into();
        let (mut size, mut compressed) = (
            u32_at(bytes, offset.checked_add(24)?)?.into(),
            u32_at(bytes, offset.checked_add(20)?)?.into(),
        );
        header.resolve64([&mut size, &mut compressed, &mut local]);
        let next = variable + header.name.len() + header.extra.len() + usize::from(comment_length);
        Some(Self { header, local, next: next.min(bytes.len()) })
    }
}

/// The end of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndRecord {
    /// Offset of the record.
    pub(super) position: usize,
    pub(super) entries: u16,
    /// Size of the directory, bytes.
    pub(super) size: u32,
    /// Offset of the directory, from the start of the archive.
    pub(super) offset: u32,
    comment_length: u16,
}

impl EndRecord {
    /// Parses the record at `position`.
    pub(super) fn parse(bytes: &[u8], position: usize) -> Option<Self> {
        let record = bytes.get(position..)?;
        Some(Self {
            position,
            entries: u16_at(record, 10)?,
            size: u32_at(record, 12)?,
            offset: u32_at(record, 16)?,
            comment_length: u16_at(record, 20)?,
        })
    }

    /// Returns whether the comment ends at the end of the file, as programs require that search for the end of the
    /// directory from the end of the file.
    pub(super) fn is_exact(&self, bytes: &[u8]) -> bool {
        self.position + END_LENGTH + usize::from(self.comment_length) == bytes.len()
    }

    /// Returns whether the record is that of an archive without files.
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0 && self.size == 0
    }
}

/// Returns the data of the first extra field with this identifier.
fn extra_field(mut extra: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (id, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let (field, rest) = extra.get(4..)?.split_at_checked(length)?;
        if id == wanted {
            return Some(field);
        }
        extra = rest;
    }
}

/// Returns whether a signature is at `offset`.
pub(super) fn has(bytes: &[u8], offset: usize, signature: [u8; 4]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(&signature))
}

/// Returns the first offset of a signature in `start..end`.
pub(super) fn find(bytes: &[u8], start: usize, end: usize, signature: [u8; 4]) -> Option<usize> {
    let area = bytes.get(start..end.min(bytes.len()))?;
    memmem::find(area, &signature).map(|found| start + found)
}

/// Returns the last offset of a signature in `start..end`.
pub(super) fn find_last(
    bytes: &[u8],
    start: usize,
    end: usize,
    signature: [u8; 4],
) -> Option<usize> {
    let area = bytes.get(start..end.min(bytes.len()))?;
    let [first, ..] = signature;
    let starts_here = |at: &usize| area.get(*at..).is_some_and(|at| at.starts_with(&signature));
    memrchr_iter(first, area).find(starts_here).map(|found| start + found)
}
