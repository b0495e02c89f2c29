//! The samples of the canary.

use std::{
    fs::File,
    io::{self, Cursor, Read, Write},
};

use flate2::{
    Compression, Crc,
    write::{DeflateEncoder, GzEncoder},
};

use crate::scan::settings::CanarySamples;

/// The EICAR test file, reversed, so that scanners do not detect this program and its source.
const EICAR_BACKWARDS: &[u8] =
    b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X";

/// The clean sample.
const CLEAN_TEXT: &[u8] = b"A file without anything in it that a scanner could object to.\n";

/// Name of the test file in the packed sample.
const ENTRY_NAME: &[u8] = b"eicar.com";

/// Which sample is scanned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SampleKind {
    Infected,
    /// The infected sample in a zip archive in a gzip file.
    Packed,
    Clean,
}

impl SampleKind {
    /// Returns the name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Infected => "infected",
            Self::Packed => "packed",
            Self::Clean => "clean",
        }
    }
}

impl CanarySamples {
    /// Opens a sample. Returns its content and its length in bytes. There is no packed form of the operator's samples.
    pub(super) fn open(&self, kind: SampleKind) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let path = match (self, kind) {
            (Self::Eicar, SampleKind::Infected) => return Ok(in_memory(eicar())),
            (Self::Eicar, SampleKind::Packed) => return Ok(in_memory(packed(&eicar())?)),
            (Self::Eicar, SampleKind::Clean) => return Ok(in_memory(CLEAN_TEXT.to_vec())),
            (Self::Files { infected, .. }, SampleKind::Infected | SampleKind::Packed) => infected,
            (Self::Files { clean, .. }, SampleKind::Clean) => clean,
        };
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((Box::new(file), length))
    }
}

fn in_memory(bytes: Vec<u8>) -> (Box<dyn Read + Send>, u64) {
    let length = bytes.len() as u64;
    (Box::new(Cursor::new(bytes)), length)
}

fn eicar() -> Vec<u8> {
    EICAR_BACKWARDS.iter().rev().copied().collect()
}

/// Returns a gzip file with a zip archive with this test file.
fn packed(test_file: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = test_file.to_vec();
    // Spaces may follow, up to 128 bytes. Without them, the compressed forms would contain the file as it is.
    bytes.resize(128, b' ');
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&zip(&bytes)?)?;
    gzip.finish()
}

/// Returns a zip archive with one compressed entry. APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
fn zip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    const DEFLATE: u16 = 8;
    // Version needed to extract: 2.0, for Deflate.
    const VERSION: u16 = 20;
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
    deflate.write_all(bytes)?;
    let compressed = deflate.finish()?;
    let mut crc = Crc::new();
    crc.update(bytes);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    // The fields that both headers of an entry have, without flags and without a date.
    let mut common = Vec::new();
    for field in [VERSION, 0, DEFLATE, 0, 0] {
        common.extend(field.to_le_bytes());
    }
    for field in [crc.sum(), length(&compressed)?, length(bytes)?] {
        common.extend(field.to_le_bytes());
    }
    let name_length = u16::try_from(ENTRY_NAME.len()).map_err(io::Error::other)?;
    common.extend(name_length.to_le_bytes());
    // Length of the extra field.
    common.extend([0; 2]);

    let mut archive = [b"PK\x03\x04", &*common, ENTRY_NAME, &compressed].concat();
    let directory = archive.len();
    archive.extend(b"PK\x01\x02");
    archive.extend(VERSION.to_le_bytes());
    archive.extend(&common);
    // Comment, disk number, attributes, and the offset of the local header.
    archive.extend([0; 14]);
    archive.extend(ENTRY_NAME);
    let directory_length = length(archive.get(directory..).unwrap_or_default())?;
    archive.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    archive.extend(directory_length.to_le_bytes());
    archive.extend(u32::try_from(directory).map_err(io::Error::other)?.to_le_bytes());
    archive.extend([0; 2]);
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use flate2::read::{DeflateDecoder, GzDecoder};
    use sha2::{Digest, Sha256};

    use super::*;

    /// Start of the SHA-256 of the file at eicar.org.
    const EICAR_DIGEST: [u8; 8] = [0x27, 0x5a, 0x02, 0x1b, 0xbf, 0xb6, 0x48, 0x9e];

    fn sample(kind: SampleKind) -> Vec<u8> {
        let (mut sample, length) = CanarySamples::Eicar.open(kind).unwrap();
        let mut bytes = Vec::new();
        sample.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[test]
    fn infected_sample_is_the_eicar_test_file() {
        assert_eq!(Sha256::digest(sample(SampleKind::Infected))[..8], EICAR_DIGEST);
    }

    #[test]
    fn packed_sample_contains_the_infected_one() {
        let packed = sample(SampleKind::Packed);
        let mut archive = Vec::new();
        GzDecoder::new(&*packed).read_to_end(&mut archive).unwrap();
        let mut bytes = Vec::new();
        let data = &archive[30 + ENTRY_NAME.len()..];
        DeflateDecoder::new(data).read_to_end(&mut bytes).unwrap();
        assert_eq!(Sha256::digest(bytes.trim_ascii_end())[..8], EICAR_DIGEST);
        // Offsets in the end record.
        let end = archive.len() - 22;
        let field = |at: usize| {
            u32::from_le_bytes(archive[end + at..end + at + 4].try_into().unwrap()) as usize
        };
        assert_eq!(field(0), 0x0605_4b50);
        assert_eq!(field(16) + field(12), end);
        assert_eq!(&archive[field(16)..field(16) + 4], b"PK\x01\x02");
        let infected = sample(SampleKind::Infected);
        for bytes in [&packed, &archive] {
            assert!(!bytes.windows(16).any(|window| window == &infected[..16]));
        }
    }
}
