//! The file with the highest list that this process has seen. It survives a restart, also while the shared store cannot
//! be reached, and keeps an earlier list in that store from coming back.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use mcs_store::{RecordKey, RecordKind, StoreSecret};
use tracing::warn;

use super::list::DecisionList;

/// Maximum length of the file, bytes: far above that of a list.
const MAX_LENGTH: u64 = 1 << 20;

/// Reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// The file cannot be read or written.
    #[error("{} (the operators' decisions) cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file was altered, or written with another secret.
    #[error(
        "{} (the operators' decisions) was altered, or belongs to another request key or secret",
        path.display()
    )]
    Altered { path: PathBuf },
    /// The system returns no random bytes.
    #[error("the operators' decisions cannot be encrypted")]
    Seal(#[from] mcs_store::SealError),
}

/// Returns the key of the list with a number: the seal of a list is not valid for another number.
pub(super) fn record_key(secret: &StoreSecret, number: u64) -> RecordKey {
    let kind = RecordKind::Decisions;
    RecordKey { kind, name: secret.name(kind, &[]), version: Some(number.to_be_bytes()) }
}

/// Reads the file; `None` if it does not exist.
pub(super) fn read(
    path: &Path,
    secret: &StoreSecret,
) -> Result<Option<DecisionList>, ListFileError> {
    let failed = |source| ListFileError::File { path: path.to_owned(), source };
    let content = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_LENGTH => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => fs::read(path).map_err(failed)?,
    };
    let list = content.split_first_chunk().and_then(|(number, sealed)| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let number = u64::from_be_bytes(*number);
        let list = secret.open(&record_key(secret, number), sealed, now).ok()?;
        DecisionList::decode(&list).ok().filter(|list| list.number == number)
    });
    list.map(Some).ok_or_else(|| ListFileError::Altered { path: path.to_owned() })
}

/// Renames a file that cannot be used.
pub(super) fn set_aside(path: &Path) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let renamed = path.with_added_extension(format!("damaged-{seconds}"));
    match fs::rename(path, &renamed) {
        Ok(()) => warn!(path = %renamed.display(), "the file of decisions was renamed"),
        Err(error) => {
            warn!(%error, path = %path.display(), "the file of decisions cannot be renamed");
        }
    }
}

/// Replaces the file. After an error or a crash, the earlier or the new list is in it.
pub(super) fn write(
    path: &Path,
    secret: &StoreSecret,
    list: &DecisionList,
) -> Result<(), ListFileError> {
    let sealed = secret.seal(&record_key(secret, list.number), u64::MAX, &list.encode())?;
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".decisions-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        file.write_all(&list.number.to_be_bytes())?;
        file.write_all(&sealed)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        // Makes the directory entry durable.
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| ListFileError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_valid_only_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("decisions");
        let secret = StoreSecret::derive(b"secret");
        assert_eq!(read(&path, &secret).unwrap(), None);
        let list = DecisionList { number: 3, decisions: Vec::new() };
        write(&path, &secret, &list).unwrap();
        assert_eq!(read(&path, &secret).unwrap(), Some(list.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let altered = |error| matches!(error, ListFileError::Altered { .. });
        assert!(altered(read(&path, &StoreSecret::derive(b"other")).unwrap_err()));
        let content = fs::read(&path).unwrap();
        for bit in 0..content.len() * 8 {
            let mut changed = content.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, changed).unwrap();
            assert!(altered(read(&path, &secret).unwrap_err()), "bit {bit}");
        }
        for length in 0..content.len() {
            fs::write(&path, &content[..length]).unwrap();
            assert!(altered(read(&path, &secret).unwrap_err()), "{length} bytes");
        }
        let names = fs::read_dir(&directory).unwrap().count();
        assert_eq!(names, 1, "no temporary file is left");
    }
}
