//! Detection of contents that need a password, by headers that are readable without decompression:
//!
//! - Office: an OLE stream named `EncryptedPackage`, `EncryptionInfo` or `\x09DRMContent`; in the binary formats
//!   the flag in the FIB (Word), a `FilePass` record (Excel), or the token of the user stream (`PowerPoint`).
//! - zip: the encryption flags or the AES method of an entry, in the directory or in a local header.
//! - RAR 4 and 5: the flags of the archive and of its files.
//! - 7z: an AES coder in an uncompressed header, or around an encrypted one.
//!
//! A RAR or 7z archive whose headers cannot be followed counts as encrypted. RAR archives that the end of the file cuts
//! off do not.
//!
//! Not detected: RAR 1.4, ARJ, ACE, encrypted DMG, formats that need decompression (7z with a compressed header, PDF,
//! ODF), and archives that are compressed in other archives.
//!
//! Reads are positional and bounded: their total cost for a file (128 plus the length of each read) is at most 8
//! times the file's size plus 16 MiB. At most 64 MiB of RAR and 7z headers are parsed, counting each time that a
//! header is parsed. Ordinary files stay far below. A file that exceeds a bound counts as encrypted, because engines
//! may fail to examine it too.

mod detect;
mod encryption;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod ole;
mod rar;
mod reader;
mod seven_zip;
mod zip;

pub(crate) use detect::detect;
pub use encryption::Encryption;
pub(crate) use reader::ReadAt;

#[cfg(test)]
mod tests;
