//! Compressed objects and VBA projects in presentations before 2007: `ExOleObjStg` and `VbaProjectStg` records,
//! [MS-PPT] 2.10.34 and 2.10.40.

use std::io::{self, Read};

use flate2::bufread::ZlibDecoder;

use super::compound::u32_at;
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Length of the header of a record, bytes.
const HEADER: usize = 8;

/// Type of the records, after the upper byte of the record instance.
const RECORD: [u8; 3] = [0x00, 0x11, 0x10];

/// Bytes of compressed objects that are read for each byte of the stream. Objects of presentations do not overlap.
const MAX_WORK: usize = 8;

/// Passes the objects in the stream `PowerPoint Document`. All records are searched, not only those that the stream's
/// directories contain.
pub(super) fn stream(content: &StreamContent<'_>, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut work = content.len().saturating_mul(MAX_WORK);
    for start in content.positions(&RECORD).filter_map(|found| found.checked_sub(1)) {
        let Some(ObjectRecord { is_compressed, length, size }) =
            ObjectRecord::parse(content, start)
        else {
            continue;
        };
        let name = EntryName::label(format!("object at {start}"));
        let consumed = if is_compressed {
            let data = content.reader(start + HEADER + 4).take((length as u64).saturating_sub(4));
            let mut decoder = ZlibDecoder::new(io::BufReader::new(data));
            unpacker.decode(name, KnownSize { decoder: decoder.by_ref(), missing: size })?;
            usize::try_from(decoder.total_in()).unwrap_or(usize::MAX)
        } else {
            let data = content.range(start + HEADER, length);
            data.visit(name, unpacker)?;
            data.len()
        };
        work = work.saturating_sub(consumed);
        if work == 0 {
            unpacker.note(NoteKind::Limit, "objects in the presentation overlap");
            break;
        }
    }
    Ok(())
}

/// Reads an object with a known size. Errors after it are ignored: the last bytes of streams are often missing.
struct KnownSize<R> {
    decoder: R,
    missing: u64,
}

impl<R: Read> Read for KnownSize<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(buffer) {
            Ok(length) => {
                self.missing = self.missing.saturating_sub(length as u64);
                Ok(length)
            }
            Err(_) if self.missing == 0 => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Record of an object.
struct ObjectRecord {
    is_compressed: bool,
    /// Length of the data, bytes.
    length: usize,
    /// Length of the object before it was compressed, bytes.
    size: u64,
}

impl ObjectRecord {
    /// Returns the record at `start`; `None` if it is no record of an object.
    fn parse(content: &StreamContent<'_>, start: usize) -> Option<Self> {
        let record = content.array::<{ HEADER + 4 }>(start)?;
        let is_compressed = match record {
            [0x00, _, _, _, _, _, _, _, 0xd0, 0xcf, 0x11, 0xe0] => false,
            [0x10, ..] => {
                let header = content.array(start + HEADER + 4)?;
                // Method, and check bits of a zlib stream.
                if header[0] & 0x0f != 8 || !u16::from_be_bytes(header).is_multiple_of(31) {
                    return None;
                }
                true
            }
            _ => return None,
        };
        let (length, size) = (u32_at(&record, 4) as usize, u32_at(&record, HEADER).into());
        Some(Self { is_compressed, length, size })
    }
}
