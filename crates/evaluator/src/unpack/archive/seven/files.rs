//! Names of files: the header `FilesInfo`.

use super::{
    header_reader::{Bits, HeaderReader, SevenDefect},
    streams::END,
};
use crate::unpack::name::EntryName;

const EMPTY_STREAM: u64 = 0x0e;
const NAMES: u64 = 0x11;

/// The names, with a cursor at the next one.
#[derive(Default)]
pub(super) struct SevenFiles<'h> {
    count: u64,
    /// The files and directories that have no content.
    is_empty: Bits<'h>,
    /// UTF-16, each name with a zero at its end.
    names: &'h [u8],
}

impl<'h> SevenFiles<'h> {
    pub(super) fn parse(reader: &mut HeaderReader<'h>) -> Result<Self, SevenDefect> {
        let mut files = Self { count: reader.number()?, ..Self::default() };
        loop {
            let kind = reader.number()?;
            if kind == END {
                return Ok(files);
            }
            let size = reader.number()?;
            let mut property = HeaderReader(reader.take(size)?);
            match kind {
                EMPTY_STREAM => files.is_empty = Bits::vector(&mut property, files.count)?,
                NAMES => {
                    if property.byte()? != 0 {
                        return Err(SevenDefect::External);
                    }
                    files.names = property.0;
                }
                _ => {}
            }
        }
    }

    /// Returns the name of the next file with content.
    pub(super) fn next(&mut self) -> EntryName {
        while let Some(rest) = self.count.checked_sub(1) {
            self.count = rest;
            let name = self.next_name();
            if !self.is_empty.next() {
                return name.map_or_else(unnamed, EntryName::file);
            }
            // A larger number of files than names.
            if name.is_none() {
                break;
            }
        }
        unnamed()
    }

    fn next_name(&mut self) -> Option<String> {
        let (units, _odd) = self.names.as_chunks::<2>();
        let end = units.iter().position(|unit| *unit == [0, 0])?;
        let (name, _end) = units.split_at_checked(end)?;
        self.names = self.names.get(2 * end + 2..).unwrap_or_default();
        let characters = char::decode_utf16(name.iter().map(|unit| u16::from_le_bytes(*unit)));
        Some(characters.map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    }
}

fn unnamed() -> EntryName {
    EntryName::label("content")
}
