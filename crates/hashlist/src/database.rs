//! `ClamAV`'s databases (`.cvd`, `.cld`): a header of 512 bytes, then a tar archive, possibly compressed with gzip
//! (docs.clamav.net, "Signature formats"; `libclamav/cvd.c`).
//!
//! Signatures of databases are not verified; freshclam does so before it installs a file.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::{
    error::FileProblem,
    limits::MAX_UNPACKED,
    list_reader::{EntryCounts, EntrySink, ReadError, read_records},
};

/// Start of the header. Its fields are separated by colons; the fourth is the number of signatures.
pub(crate) const DATABASE_MAGIC: &[u8] = b"ClamAV-VDB:";

const HEADER: usize = 512;

const TAR_BLOCK: usize = 512;

/// Returns whether a file with this extension has hashes of whole files. `.mdb` and `.msb` have hashes of sections of
/// programs, `.hdu` and `.hsu` those of unwanted programs.
pub(crate) fn is_hash_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| {
        ["hdb", "hsb"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Reads the hashes of whole files from a database. The total is the number of signatures in the header.
pub(crate) fn read_database(
    mut reader: impl BufRead,
    sink: &mut dyn EntrySink,
) -> Result<EntryCounts, ReadError> {
    let mut header = [0; HEADER];
    read_exact(&mut reader, &mut header)?;
    let signatures = parse_signature_count(&header).ok_or(damaged("invalid header"))?;
    let counts = if reader.fill_buf()?.starts_with(b"\x1f\x8b") {
        read_archive(MultiGzDecoder::new(reader), MAX_UNPACKED, sink)?
    } else {
        read_archive(reader, MAX_UNPACKED, sink)?
    };
    Ok(EntryCounts { used: counts.used, total: counts.total.max(signatures) })
}

fn parse_signature_count(header: &[u8]) -> Option<u64> {
    let field = header.split(|byte| *byte == b':').nth(3)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Reads an unpacked archive that is smaller than `limit`.
pub(crate) fn read_archive(
    reader: impl Read,
    limit: u64,
    sink: &mut dyn EntrySink,
) -> Result<EntryCounts, ReadError> {
    let mut reader = BufReader::with_capacity(64 << 10, reader.take(limit));
    let counts = read_tar(&mut reader, sink);
    // At the limit, the archive seems to end.
    if reader.get_ref().limit() == 0 {
        return Err(FileProblem::TooLarge.into());
    }
    counts
}

fn read_tar(reader: &mut impl BufRead, sink: &mut dyn EntrySink) -> Result<EntryCounts, ReadError> {
    let mut counts = EntryCounts::default();
    // freshclam writes no blocks of zeros at the end.
    while !reader.fill_buf()?.is_empty() {
        let mut block = [0; TAR_BLOCK];
        read_exact(reader, &mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            require_zeros(reader)?;
            break;
        }
        let member = TarMember::parse(&block)?;
        let mut content = reader.by_ref().take(member.size);
        if is_hash_extension(&member.name) {
            let added = read_records(&mut content, Some(&member.name), sink);
            // A line may be invalid because it is cut.
            if content.limit() > 0 && content.get_mut().fill_buf()?.is_empty() {
                return Err(damaged("truncated"));
            }
            let added = added?;
            counts.used += added.used;
            counts.total += added.total;
        }
        io::copy(&mut content, &mut io::sink())?;
        let missing = content.limit();
        let padding = member.size.next_multiple_of(TAR_BLOCK as u64) - member.size;
        let skipped = io::copy(&mut reader.by_ref().take(padding), &mut io::sink())?;
        if missing > 0 || skipped < padding {
            return Err(damaged("truncated"));
        }
    }
    Ok(counts)
}

/// Reads the rest, also so that the decoder compares the checksum of gzip.
fn require_zeros(reader: &mut impl BufRead) -> Result<(), ReadError> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(damaged("data after the end of the archive"));
        }
        let length = bytes.len();
        reader.consume(length);
    }
}

/// File in a tar archive.
struct TarMember {
    /// Without control characters.
    name: String,
    size: u64,
}

impl TarMember {
    fn parse(block: &[u8; TAR_BLOCK]) -> Result<Self, ReadError> {
        let field =
            |start: usize, length: usize| block.get(start..start + length).unwrap_or_default();
        let invalid = || damaged("invalid header of a file in the archive");
        let expected = parse_octal(field(148, 8)).ok_or_else(invalid)?;
        // The checksum itself counts as eight spaces.
        let others = field(0, 148).iter().chain(field(156, 356));
        let sum: u64 = others.map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
        // Other types are links, directories and extended headers, which databases do not have.
        let is_file = matches!(field(156, 1), b"\0" | b"0");
        if sum != expected || !is_file {
            return Err(invalid());
        }
        let name = field(0, 100).split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).replace(char::is_control, "");
        let size = parse_octal(field(124, 12)).ok_or_else(invalid)?;
        Ok(Self { name, size })
    }
}

/// Parses octal digits between spaces and zero bytes.
fn parse_octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}

fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), ReadError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("truncated"),
        _ => error.into(),
    })
}

fn damaged(reason: &'static str) -> ReadError {
    FileProblem::DamagedDatabase(reason).into()
}
