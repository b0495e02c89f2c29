//! Paths of the store's files: checks of ownership, creation, the lock, and setting damaged files aside.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::{
    error::{DamageCause, StoreError},
    limits::MAX_DAMAGED_FILES,
};

/// Suffixes of the files of a database: `SQLite` adds them to the path. The rollback journal is never created by this
/// program, but one found beside a new database would be applied.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// File that was renamed because it cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// Path that the file was renamed to.
    pub path: PathBuf,
    /// Reason why the file cannot be used.
    pub cause: DamageCause,
}

/// Path of the database, in a directory that other users cannot write.
pub(crate) struct StorePath {
    directory: PathBuf,
    name: OsString,
    /// User that the files must belong to; `None` for any.
    user: Option<u32>,
}

impl StorePath {
    /// Checks the directory of a path. The result has no symbolic links in its directory, because `SQLite` is asked to
    /// refuse them.
    pub(crate) fn new(path: &Path) -> Result<Self, StoreError> {
        Self::for_user(path, Some(geteuid().as_raw()))
    }

    /// As [`Self::new`], but root may examine the store of another user.
    pub(crate) fn for_inspection(path: &Path) -> Result<Self, StoreError> {
        let user = geteuid();
        Self::for_user(path, (!user.is_root()).then_some(user.as_raw()))
    }

    fn for_user(path: &Path, user: Option<u32>) -> Result<Self, StoreError> {
        let name = path.file_name().ok_or_else(|| StoreError::NoFileName { path: path.into() })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let directory_error = |source| StoreError::Directory { path: parent.into(), source };
        let directory = parent.canonicalize().map_err(directory_error)?;
        let metadata = fs::metadata(&directory).map_err(directory_error)?;
        let owner = metadata.uid();
        let path = directory.clone();
        if !metadata.is_dir() {
            return Err(StoreError::NotADirectory { path });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(StoreError::WritableDirectory { path });
        }
        if let Some(user) = user.filter(|user| owner != 0 && owner != *user) {
            return Err(StoreError::DirectoryOwner { path, owner, user });
        }
        Ok(Self { directory, name: name.into(), user })
    }

    /// Returns the path of the database with a suffix.
    pub(crate) fn with_suffix(&self, suffix: impl AsRef<OsStr>) -> PathBuf {
        let mut name = self.name.clone();
        name.push(suffix);
        self.directory.join(name)
    }

    /// Returns the path of the database.
    pub(crate) fn database(&self) -> PathBuf {
        self.with_suffix("")
    }

    /// Returns whether the last process has not closed the database: `SQLite` removes the write-ahead log when it is
    /// closed, after its content has been written to the database.
    pub(crate) fn was_left_open(&self) -> bool {
        fs::symlink_metadata(self.with_suffix("-wal")).is_ok()
    }

    /// Locks the store for this process, as long as the returned file is open.
    pub(crate) fn lock(&self) -> Result<File, StoreError> {
        let path = self.with_suffix(".lock");
        let file_error = |source| StoreError::File { path: path.clone(), source };
        let mut file = self.open_private(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = (&file).take(16).read_to_string(&mut holder);
                let holder = read.ok().and_then(|_| holder.trim().parse().ok());
                return Err(StoreError::Locked { path: self.database(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(file_error(source)),
        }
        // Only for error messages, so a full disk is no reason to fail.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(file)
    }

    /// Creates the database as an empty file, or checks the existing file. Returns whether the file is new. `SQLite`
    /// gives the files that it creates the permissions of this one.
    pub(crate) fn create(&self) -> Result<bool, StoreError> {
        let path = self.database();
        let is_new = fs::symlink_metadata(&path).is_err();
        self.open_private(&path)?;
        if is_new {
            // Keeps the new name after a power failure, also with a not-clean record written by then.
            let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
            synced.map_err(|source| StoreError::File { path, source })?;
        }
        Ok(is_new)
    }

    /// Renames the files of the database. `now`: part of the new name.
    pub(crate) fn set_aside(&self, now: u64, cause: DamageCause) -> Result<SetAside, StoreError> {
        let is_free = |target: &Path| fs::symlink_metadata(target).is_err();
        let damaged =
            |time: u64, suffix: &str| self.with_suffix(format!(".damaged-{time}{suffix}"));
        let mut time = now;
        while !SUFFIXES.iter().all(|suffix| is_free(&damaged(time, suffix))) {
            time = time.wrapping_add(1);
        }
        // The database last: if the process ends in between, the next one finds the damaged file again.
        for suffix in SUFFIXES.iter().rev() {
            let source = self.with_suffix(suffix);
            match fs::rename(&source, damaged(time, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::File { path: source, source: error });
                }
                _ => {}
            }
        }
        // Old files that cannot be removed cost only space.
        let _ = self.remove_old_damaged();
        Ok(SetAside { path: damaged(time, ""), cause })
    }

    /// Removes the files of the database. Those that do not exist are no error.
    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        for suffix in SUFFIXES {
            let path = self.with_suffix(suffix);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remove_old_damaged(&self) -> io::Result<()> {
        let prefix = self.with_suffix(".damaged-");
        let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
        let mut times: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let time = name.as_encoded_bytes().strip_prefix(prefix);
            times.extend(time.and_then(|time| str::from_utf8(time).ok()?.parse::<u64>().ok()));
        }
        times.sort_unstable();
        let superfluous = times.len().saturating_sub(MAX_DAMAGED_FILES);
        for time in times.iter().take(superfluous) {
            for suffix in SUFFIXES {
                let _ = fs::remove_file(self.with_suffix(format!(".damaged-{time}{suffix}")));
            }
        }
        Ok(())
    }

    /// Opens a file that only this user may use. Creates the file if it does not exist.
    fn open_private(&self, path: &Path) -> Result<File, StoreError> {
        // Looks before opening: opening a pipe or a device may have effects. Other users cannot replace the file in
        // between, because they cannot write the directory.
        match fs::symlink_metadata(path) {
            Ok(metadata) => self.check_private(path, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::File { path: path.into(), source }),
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(|source| StoreError::File { path: path.into(), source })
    }

    /// Checks that a file is regular, and that only its user may use it.
    pub(crate) fn check_private(&self, path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        let path = path.to_owned();
        let owner = metadata.uid();
        if metadata.is_symlink() {
            return Err(StoreError::SymbolicLink { path });
        }
        if !metadata.is_file() {
            return Err(StoreError::NotRegular { path });
        }
        if let Some(user) = self.user.filter(|user| owner != *user) {
            return Err(StoreError::FileOwner { path, owner, user });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(StoreError::FileMode { path, mode: metadata.mode() & 0o777 });
        }
        Ok(())
    }
}
