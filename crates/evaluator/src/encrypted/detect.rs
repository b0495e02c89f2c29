//! Examination of a file by all formats.

use std::io;

use super::{
    encryption::Encryption,
    ole, rar,
    reader::{BoundedReader, ReadAt, Signature, Stop},
    seven_zip, zip,
};

/// Returns the encrypted contents of a file of `length` bytes, if its headers show any. Blocking.
///
/// # Errors
/// Failed reads. A file shorter than `length` is no error.
pub(crate) fn detect(
    source: &(impl ReadAt + ?Sized),
    length: u64,
) -> io::Result<Option<Encryption>> {
    let mut reader = BoundedReader::new(source, length);
    match examine(&mut reader) {
        Ok(encryption) => Ok(encryption),
        Err(Stop::Bound) => Ok(Some(Encryption::Unbounded)),
        Err(Stop::Io(error)) => Err(error),
    }
}

fn examine<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
) -> Result<Option<Encryption>, Stop> {
    if reader.starts_with(&ole::SIGNATURE)?
        && let Some(encryption) = ole::examine(reader)?
    {
        return Ok(Some(encryption));
    }
    if zip::examine(reader)? {
        return Ok(Some(Encryption::Zip));
    }
    // In self-extracting programs and polyglot files, the archive follows other data.
    for (offset, signature) in reader.archives()? {
        let encryption = match signature {
            Signature::Rar4 => rar::examine_4(reader, offset)?,
            Signature::Rar5 => rar::examine_5(reader, offset)?,
            Signature::SevenZip => seven_zip::examine(reader, offset)?,
        };
        if encryption.is_some() {
            return Ok(encryption);
        }
    }
    Ok(None)
}
