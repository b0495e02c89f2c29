//! Detection of contents that need a password, by what fixed headers show without decoding:
//!
//! - Office: an OLE stream named `EncryptedPackage`, `EncryptionInfo` or `\x09DRMContent`; in the binary
//!   formats the flag of the FIB (Word), a `FilePass` record (Excel), the token of the user stream (`PowerPoint`).
//! - zip: the encryption flags or the AES method of an entry, in the directory or in a local header.
//! - RAR 4 and 5: the flags of the archive and of its files.
//! - 7z: an AES coder in an uncompressed header, or around an encrypted one.
//!
//! Not detected: what needs decoding (7z with a compressed header, PDF, ODF), and archives in archives.
//!
//! All reading is positional and bounded: the cost of the reads for a file (their bytes, and 128 more for each
//! read) is at most 8 times its size and 16 MiB. Honest files stay far below. A structure that cannot be followed
//! to its end within the bound counts as encrypted, since engines could not be relied on for it either.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod ole;
mod rar;
mod reader;
mod seven_zip;
mod zip;

use std::{fmt, fs::File, io, os::unix::fs::FileExt};

use reader::{Reader, Stop};

/// `scan.on_encrypted`: the outcome for contents that need a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnEncrypted {
    /// Not clean.
    Refuse,
    /// No verdict, and a final answer.
    Fail,
    /// The engines decide.
    Pass,
}

/// What is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// An Office document in an OLE container: Office 2007 and later.
    OlePackage,
    /// A document whose rights are managed by a server.
    OleRights,
    /// A binary Word document.
    Word,
    /// A binary Excel workbook.
    Excel,
    /// A binary `PowerPoint` presentation.
    PowerPoint,
    /// At least one entry of a zip archive.
    Zip,
    /// At least one file of a RAR archive, or its headers.
    Rar,
    /// At least one folder of a 7z archive, or its header.
    SevenZip,
    /// A structure that could not be followed to its end within the bound.
    Unbounded,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OlePackage => "OLE EncryptedPackage",
            Self::OleRights => "OLE DRMContent",
            Self::Word => "Word document",
            Self::Excel => "Excel workbook",
            Self::PowerPoint => "PowerPoint presentation",
            Self::Zip => "zip",
            Self::Rar => "RAR",
            Self::SevenZip => "7z",
            Self::Unbounded => "headers too many to examine",
        })
    }
}

/// Positional reading of a file.
pub trait ReadAt {
    /// Reads some bytes at an offset; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(length)
    }
}

/// Returns what is encrypted in a file of `length` bytes, if its headers show it. Blocking.
///
/// # Errors
/// Those of reading; a file that is shorter than `length` is none.
pub fn detect(source: &(impl ReadAt + ?Sized), length: u64) -> io::Result<Option<Encryption>> {
    let mut reader = Reader::new(source, length);
    match examine(&mut reader) {
        Ok(found) => Ok(found),
        Err(Stop::Bound) => Ok(Some(Encryption::Unbounded)),
        Err(Stop::Io(error)) => Err(error),
    }
}

fn examine<S: ReadAt + ?Sized>(reader: &mut Reader<'_, S>) -> Result<Option<Encryption>, Stop> {
    if reader.starts_with(&ole::SIGNATURE)?
        && let Some(found) = ole::examine(reader)?
    {
        return Ok(Some(found));
    }
    if zip::examine(reader)? {
        return Ok(Some(Encryption::Zip));
    }
    // Programs that unpack themselves, and files of two kinds, have an archive behind other bytes.
    for (at, signature) in reader.archives()? {
        let (encrypted, found) = match signature {
            reader::Signature::Rar4 => (rar::version_4(reader, at)?, Encryption::Rar),
            reader::Signature::Rar5 => (rar::version_5(reader, at)?, Encryption::Rar),
            reader::Signature::SevenZip => (seven_zip::examine(reader, at)?, Encryption::SevenZip),
        };
        if encrypted {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
