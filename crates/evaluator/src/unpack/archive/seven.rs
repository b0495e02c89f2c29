//! 7z: `7zFormat.txt` of 7-Zip.
//!
//! The header is at the end and can be compressed. Files follow each other in folders, each of which is one compressed
//! stream; a folder is decoded once.

mod bzip2_reader;
mod coder;
mod files;
mod folder;
mod folder_files;
mod header_reader;
mod streams;

use std::io::Read;

use flate2::Crc;

use self::{
    files::SevenFiles,
    folder::SevenFolder,
    folder_files::{FileLists, examine_folder, note_defect, open},
    header_reader::{HeaderReader, SevenDefect},
    streams::{END, SevenStreams},
};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        unpacker::{Unpacked, Unpacker},
    },
};

const MAGIC: [u8; 6] = *b"7z\xbc\xaf\x27\x1c";

/// Length of the start header, bytes.
const START_HEADER: usize = 32;

/// Maximum number of compressed headers in each other. 7-Zip writes one.
const MAX_ENCODED_HEADERS: u32 = 4;

/// Length of the end of an archive in which 7-Zip searches for the header of an archive without a start header, bytes.
const RECOVERED: usize = 512;

const HEADER: u64 = 0x01;
const ARCHIVE_PROPERTIES: u64 = 0x02;
const ADDITIONAL_STREAMS: u64 = 0x03;
const MAIN_STREAMS: u64 = 0x04;
const FILES: u64 = 0x05;
const ENCODED_HEADER: u64 = 0x17;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: &MAGIC, offset: 0, extent, is_preferred: true };

/// Returns the length of the archive, if its start header is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    let start = StartHeader::parse(archive)?;
    let end = start.offset.checked_add(start.size)?;
    start.is_valid.then_some(usize::try_from(end).ok()?.checked_add(START_HEADER)?)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some(start) = StartHeader::parse(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the start header of a 7z archive is truncated");
        return Ok(());
    };
    if !start.is_valid {
        unpacker.note(NoteKind::Unreadable, "the start header of a 7z archive is damaged");
    }
    let data = bytes.get(START_HEADER..).unwrap_or_default();
    let header = if start.is_missing {
        recovered_header(data)
    } else {
        start.header(data).map(|(stated, rest)| {
            if crc(stated) != start.crc {
                unpacker.note(NoteKind::Unreadable, "the header of a 7z archive is damaged");
            }
            if stated.is_empty() { stated } else { rest }
        })
    };
    let Some(header) = header else {
        unpacker.note(NoteKind::Unreadable, "the header of a 7z archive is missing");
        return Ok(());
    };
    read_header(data, header, MAX_ENCODED_HEADERS, unpacker)
}

/// The fixed part at the start, which states where the header is.
struct StartHeader {
    /// Offset of the header after the start header, bytes.
    offset: u64,
    size: u64,
    crc: u32,
    /// Whether all fields are zero. 7-Zip then searches for the header.
    is_missing: bool,
    is_valid: bool,
}

impl StartHeader {
    fn parse(archive: &[u8]) -> Option<Self> {
        let rest = archive.get(MAGIC.len()..START_HEADER)?;
        let (&[major, _minor], rest) = rest.split_first_chunk()?;
        let (stated, fields) = rest.split_first_chunk()?;
        let stated = u32::from_le_bytes(*stated);
        let (offset, rest) = fields.split_first_chunk()?;
        let (size, header_crc) = rest.split_first_chunk()?;
        let is_missing = stated == 0 && fields.iter().all(|byte| *byte == 0);
        Some(Self {
            offset: u64::from_le_bytes(*offset),
            size: u64::from_le_bytes(*size),
            crc: u32::from_le_bytes(*header_crc.first_chunk()?),
            is_missing,
            is_valid: major == 0 && (is_missing || stated == crc(fields)),
        })
    }

    /// Returns the header as stated, as far as the archive reaches, and from its start to the end of the archive. The
    /// header states its own end, so bsdtar ignores its size.
    fn header<'d>(&self, data: &'d [u8]) -> Option<(&'d [u8], &'d [u8])> {
        let start = usize::try_from(self.offset).ok()?;
        let rest = data.get(start..).filter(|rest| !rest.is_empty() || self.size == 0)?;
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        Some((rest.get(..size).unwrap_or(rest), rest))
    }
}

/// Finds the header of an archive whose writer did not finish it, as 7-Zip does: the last position at which a header can
/// start.
fn recovered_header(data: &[u8]) -> Option<&[u8]> {
    let tail = data.get(data.len().saturating_sub(RECOVERED)..)?;
    // The identifiers of the header and of its first part.
    let starts = [[0x17, 0x06], [0x01, 0x04]];
    let position = tail.windows(2).rposition(|pair| starts.iter().any(|start| pair == start))?;
    tail.get(position..)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Reads a header: the list of files, or where that is compressed. `data` is the archive after its start header.
fn read_header(data: &[u8], header: &[u8], encoded: u32, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut reader = HeaderReader(header);
    match reader.number() {
        // 7-Zip writes archives without files in this way.
        Err(_) if header.is_empty() => Ok(()),
        Ok(HEADER) => read_archive(data, reader, unpacker),
        Ok(ENCODED_HEADER) => {
            let Some(encoded) = encoded.checked_sub(1) else {
                unpacker.note(NoteKind::Limit, "number of compressed 7z headers");
                return Ok(());
            };
            let folder =
                SevenStreams::parse(&mut reader).and_then(|mut streams| streams.next_folder());
            match folder {
                Ok(Some(folder)) => decode_header(data, &folder, encoded, unpacker),
                Ok(None) => Ok(()),
                Err(defect) => {
                    note_defect(defect, unpacker);
                    Ok(())
                }
            }
        }
        _ => {
            note_defect(SevenDefect::Damaged, unpacker);
            Ok(())
        }
    }
}

/// Reads a compressed header.
fn decode_header(
    data: &[u8],
    folder: &SevenFolder<'_>,
    encoded: u32,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    let Some((decoder, _window)) = open(data, folder, unpacker) else { return Ok(()) };
    unpacker.decode_part_then(decoder.take(folder.unpack_size()), |unpacker, header| {
        read_header(data, header, encoded, unpacker)
    })
}

/// Reads the list of files, and examines them.
fn read_archive(data: &[u8], reader: HeaderReader<'_>, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let (mut streams, mut files) = (SevenStreams::default(), SevenFiles::default());
    if let Err(defect) = parse_archive(reader, &mut streams, &mut files) {
        note_defect(defect, unpacker);
    }
    let mut lists = FileLists::new(streams, files);
    loop {
        match lists.streams.next_folder() {
            Ok(Some(folder)) => examine_folder(data, &folder, &mut lists, unpacker)?,
            Ok(None) => return Ok(()),
            Err(defect) => {
                note_defect(defect, unpacker);
                return Ok(());
            }
        }
    }
}

fn parse_archive<'h>(
    mut reader: HeaderReader<'h>,
    streams: &mut SevenStreams<'h>,
    files: &mut SevenFiles<'h>,
) -> Result<(), SevenDefect> {
    loop {
        match reader.number()? {
            END => return Ok(()),
            ARCHIVE_PROPERTIES => {
                while reader.number()? != END {
                    reader.skip_property()?;
                }
            }
            ADDITIONAL_STREAMS => return Err(SevenDefect::External),
            MAIN_STREAMS => *streams = SevenStreams::parse(&mut reader)?,
            FILES => *files = SevenFiles::parse(&mut reader)?,
            _ => return Err(SevenDefect::Damaged),
        }
    }
}
