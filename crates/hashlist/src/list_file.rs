//! Determines the format of a list file and reads it.

use std::io::BufRead;

use crate::{
    database::{DATABASE_MAGIC, is_hash_extension, read_database},
    entry::ListAction,
    error::FileProblem,
    list_reader::{EntryCounts, EntrySink, ReadError, read_records, read_text},
};

/// Extensions of `ClamAV`'s signature files without hashes of whole files.
const OTHER_SIGNATURES: &[&str] = &[
    "cat", "cbc", "cdb", "crb", "fp", "ftm", "gdb", "hdu", "hsu", "idb", "ign", "ign2", "imp",
    "ldb", "ldu", "mdb", "mdu", "msb", "msu", "ndb", "ndu", "pdb", "sfp", "wdb", "yar", "yara",
    "zmd",
];

/// Reads a list file. A file with the magic of a database is one; otherwise the extension of its name decides.
pub(crate) fn read_file(
    action: ListAction,
    name: &str,
    mut reader: impl BufRead,
    sink: &mut dyn EntrySink,
) -> Result<EntryCounts, ReadError> {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let extension = extension.as_deref().unwrap_or_default();
    let is_database = reader.fill_buf()?.starts_with(DATABASE_MAGIC);
    let has_records = is_hash_extension(name);
    if action == ListAction::Allow && (is_database || has_records) {
        return Err(FileProblem::AllowDatabase.into());
    }
    if is_database {
        return read_database(reader, sink);
    }
    if ["cvd", "cld"].contains(&extension) {
        return Err(FileProblem::DamagedDatabase("invalid header").into());
    }
    if OTHER_SIGNATURES.contains(&extension) {
        return Err(FileProblem::OtherSignatures.into());
    }
    if !has_records {
        return read_text(reader, sink);
    }
    let counts = read_records(reader, None, sink)?;
    if counts.used == 0 && counts.total > 0 {
        return Err(FileProblem::NoUsableRecord.into());
    }
    Ok(counts)
}
