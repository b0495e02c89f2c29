//! Directory of one running server, in which its jobs have their directories: `temp_directory/mcs-<random>`. The server
//! holds a lock on the directory itself. At start, a server removes the directories of killed servers, which have the
//! prefix, the same owner and no lock. It never removes anything else.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};

/// Start of the directory's name.
const PREFIX: &str = "mcs-";

/// Number of letters and digits after the prefix.
const RANDOM_LENGTH: usize = 12;

/// Maximum number of retries when another starting server removes a new directory before it is locked.
const RETRIES: usize = 10;

/// The directory of this server. Removed on drop.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RunDirectory {
    /// Creates and locks a directory in `temp_directory`. Its mode is 0711 if it has to be `passable`, because scripts
    /// run as another user, and otherwise 0700.
    ///
    /// # Errors
    /// mkdir(2), open(2), flock(2), fchmod(2). [`io::ErrorKind::ResourceBusy`] when other servers have removed every
    /// directory before it was locked.
    pub fn create(temp_directory: &Path, passable: bool) -> io::Result<Self> {
        let mut retries = 0..RETRIES;
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(RANDOM_LENGTH)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(temp_directory)?
                .keep();
            // Before the directory is locked, another starting server may remove it.
            match lock(&path) {
                Ok(Some(lock)) if is_same_directory(&path, &lock) => {
                    // Independent of the umask. By descriptor, because the path may name another directory now.
                    let mode = if passable { 0o711 } else { 0o700 };
                    lock.set_permissions(Permissions::from_mode(mode))?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if retries.next().is_none() => return Err(error),
                _ if retries.next().is_none() => return Err(io::ErrorKind::ResourceBusy.into()),
                _ => {}
            }
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the directory contains no job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = mcs_sandbox::remove_tree(&self.path) {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "cannot remove the temporary directory, the next start retries"
            );
        }
    }
}

/// Removes the directories of killed servers in `temp_directory`: those with the prefix and the owner of this server's
/// directory, and without a lock. Returns their paths and the results of their removal.
///
/// # Errors
/// `temp_directory` cannot be read.
pub fn sweep(temp_directory: &Path) -> io::Result<Vec<(PathBuf, io::Result<()>)>> {
    let mut results = Vec::new();
    for entry in fs::read_dir(temp_directory)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_run_directory_name) {
            continue;
        }
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            continue;
        }
        // Skips a directory that a running server has locked, or that no longer exists.
        if let Ok(Some(_lock)) = lock(&path) {
            let removed = mcs_sandbox::remove_tree(&path);
            results.push((path, removed));
        }
    }
    Ok(results)
}

fn is_run_directory_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Locks a directory; returns none if another process has locked it. The lock needs no file in the directory, and ends
/// with the process in any case. flock(2).
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Returns whether `path` still names the locked directory, and this user owns it.
fn is_same_directory(path: &Path, locked: &File) -> bool {
    match (fs::symlink_metadata(path), locked.metadata()) {
        (Ok(named), Ok(locked)) => {
            named.ino() == locked.ino()
                && named.dev() == locked.dev()
                && locked.uid() == geteuid().as_raw()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_removes_only_directories_of_killed_servers() {
        let temp = tempfile::tempdir().unwrap();
        let running = RunDirectory::create(temp.path(), false).unwrap();
        let killed = temp.path().join("mcs-abcDEF123456");
        fs::create_dir_all(killed.join("job-x/tmp")).unwrap();
        fs::write(killed.join("job-x/media"), "plaintext").unwrap();
        let others = ["mcs-short", "mcs-abcDEF12345!", "notes", "mcs-abcDEF1234567"];
        for other in others {
            fs::create_dir(temp.path().join(other)).unwrap();
        }
        fs::write(temp.path().join("mcs-fileFILE1234"), "a file").unwrap();
        std::os::unix::fs::symlink(temp.path().join("notes"), temp.path().join("mcs-linkLINK1234"))
            .unwrap();

        let removed = sweep(temp.path()).unwrap();

        assert_eq!(removed.len(), 1);
        assert!(matches!(&removed[0], (path, Ok(())) if *path == killed));
        assert!(!killed.exists() && running.path().exists());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1 + others.len() + 2);
    }

    #[test]
    fn directory_is_private_and_removed_on_drop() {
        let temp = tempfile::tempdir().unwrap();
        for (passable, mode) in [(false, 0o700), (true, 0o711)] {
            let directory = RunDirectory::create(temp.path(), passable).unwrap();
            let path = directory.path().to_owned();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            assert!(directory.is_empty());
            drop(directory);
            assert!(!path.exists());
        }
    }
}
