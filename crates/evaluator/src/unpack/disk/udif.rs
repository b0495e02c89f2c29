//! Disk images of macOS (UDIF, `.dmg`): partitions in compressed chunks.

use std::io::{self, Read};

use bzip2::read::BzDecoder;
use flate2::read::ZlibDecoder;

use crate::unpack::fields::be_length_at;
use crate::{
    report::NoteKind,
    unpack::{
        content::positions,
        document::text::Base64Content,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Length of the trailer, bytes.
const TRAILER: usize = 512;

const SECTOR: usize = 512;

/// Length of the header of a table of chunks, and of each chunk, bytes.
const TABLE_HEADER: usize = 204;
const CHUNK: usize = 40;

/// Maximum number of partitions.
const MAX_PARTITIONS: usize = 256;

/// Start of an encrypted image.
const ENCRYPTED: &[u8] = b"encrcdsa";

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(ENCRYPTED) || trailer(bytes).is_some()
}

fn trailer(bytes: &[u8]) -> Option<&[u8]> {
    let trailer = bytes.get(bytes.len().checked_sub(TRAILER)?..)?;
    trailer.starts_with(b"koly\0\0\0\x04").then_some(trailer)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if bytes.starts_with(ENCRYPTED) {
        unpacker.note(NoteKind::Encrypted, "the disk is encrypted");
    }
    let Some(trailer) = trailer(bytes) else { return Ok(()) };
    let data = be_length_at(trailer, 24).and_then(|start| bytes.get(start..)).unwrap_or_default();
    let property_list = be_length_at(trailer, 216).and_then(|start| bytes.get(start..));
    let length = be_length_at(trailer, 224).unwrap_or_default();
    let property_list =
        property_list.map(|list| list.get(..length).unwrap_or(list)).unwrap_or_default();
    let tables = tables(property_list);
    if tables.is_empty() {
        unpacker.note(NoteKind::Unreadable, "the disk image has no table of chunks");
    }
    if tables.len() > MAX_PARTITIONS {
        unpacker.note(NoteKind::Limit, "too many partitions");
    }
    for (number, table) in tables.into_iter().take(MAX_PARTITIONS).enumerate() {
        let name = EntryName::label(format!("partition {}", number + 1));
        unpacker.decode_part_then(Base64Content::new(table), |unpacker, table| {
            let mut reader = ChunkReader::new(table, data);
            if reader.chunks.is_empty() {
                unpacker.note(NoteKind::Unreadable, "a table of chunks is damaged");
                return Ok(());
            }
            unpacker.decode(name, &mut reader)?;
            if reader.has_unsupported {
                let reason = "unsupported compression of the disk image";
                unpacker.note(NoteKind::Unreadable, reason);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Returns the tables, in base64, from a property list.
fn tables(property_list: &[u8]) -> Vec<&[u8]> {
    let Some((_, list)) = split_at(property_list, b"<key>blkx</key>") else { return Vec::new() };
    let mut rest = split_at(list, b"</array>").map_or(list, |(list, _)| list);
    let mut tables = Vec::new();
    while tables.len() <= MAX_PARTITIONS
        && let Some((_, data)) = split_at(rest, b"<data>")
    {
        let (table, after) = split_at(data, b"</data>").unwrap_or((data, &[]));
        tables.push(table);
        rest = after;
    }
    tables
}

/// Splits bytes at the first occurrence of a text.
fn split_at<'a>(bytes: &'a [u8], text: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (before, rest) = bytes.split_at_checked(positions(bytes, text).next()?)?;
    Some((before, rest.get(text.len()..)?))
}

/// Reads a partition.
struct ChunkReader<'t, 'a> {
    chunks: &'t [[u8; CHUNK]],
    /// The file from the offset on that the offsets of the chunks are relative to.
    data: &'a [u8],
    chunk: Box<dyn Read + 'a>,
    /// Number of bytes of the chunk that were not read.
    remaining: usize,
    /// Whether chunks are compressed in an unsupported way. Zeros stand for them.
    has_unsupported: bool,
}

impl<'t, 'a> ChunkReader<'t, 'a> {
    fn new(table: &'t [u8], data: &'a [u8]) -> Self {
        let offset = be_length_at(table, 24).unwrap_or_default();
        let is_table = table.starts_with(b"mish");
        let chunks = table.get(TABLE_HEADER..).filter(|_| is_table).unwrap_or_default();
        Self {
            chunks: chunks.as_chunks().0,
            data: data.get(offset..).unwrap_or_default(),
            chunk: Box::new(io::empty()),
            remaining: 0,
            has_unsupported: false,
        }
    }

    /// Starts the next chunk with content. Returns whether there is one.
    fn next_chunk(&mut self) -> bool {
        while let Some((chunk, rest)) = self.chunks.split_first() {
            self.chunks = rest;
            let kind = chunk.first_chunk().map(|kind| u32::from_be_bytes(*kind));
            let number = |at| be_length_at(chunk, at).unwrap_or(usize::MAX);
            let data = self.data.get(number(24)..).unwrap_or_default();
            let data = data.get(..number(32)).unwrap_or(data);
            self.chunk = match kind {
                Some(0 | 2) => Box::new(io::repeat(0)),
                Some(1) => Box::new(data),
                Some(0x8000_0005) => Box::new(ZlibDecoder::new(data)),
                Some(0x8000_0006) => Box::new(BzDecoder::new(data)),
                // Comments, and the mark at the end.
                Some(0x7fff_fffe | u32::MAX) => continue,
                // ADC, LZFSE, LZMA.
                _ => {
                    self.has_unsupported = true;
                    Box::new(io::repeat(0))
                }
            };
            self.remaining = number(16).saturating_mul(SECTOR);
            return true;
        }
        false
    }
}

impl Read for ChunkReader<'_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.remaining == 0 {
            if output.is_empty() || !self.next_chunk() {
                return Ok(0);
            }
        }
        let length = self.remaining.min(output.len());
        let read = self.chunk.read(output.get_mut(..length).unwrap_or_default())?;
        if read == 0 && length > 0 {
            let reason = "a chunk of the disk image is truncated";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        self.remaining -= read;
        Ok(read)
    }
}
