//! Where a running server's jobs lie: `temp_directory/mcs-<random>`, held by a lock on the directory
//! itself for as long as the server lives. What a killed server left is known by its name, its owner
//! and its free lock, and is removed by the next start; nothing else is ever touched.

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

const PREFIX: &str = "mcs-";

/// Letters and digits after the prefix.
const RANDOM_LENGTH: usize = 12;

/// How often a directory is made anew that another server's sweep has taken for a dead one's.
const ATTEMPTS: usize = 10;

/// A server's own directory. Removed when dropped.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RunDirectory {
    /// Makes and locks one below `temp_directory`. Its mode is 0711 where scripts run as another
    /// user, who must be able to pass through it, else 0700.
    pub fn make(temp_directory: &Path, passable: bool) -> io::Result<Self> {
        let mut attempts = 0..ATTEMPTS;
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(RANDOM_LENGTH)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(temp_directory)?
                .keep();
            // Between its making and its locking, another server's start may have removed it.
            match lock(&path) {
                Ok(Some(lock)) if is_still(&path, &lock) => {
                    // Whatever the umask is, and by descriptor: the path may lead elsewhere by now.
                    let mode = if passable { 0o711 } else { 0o700 };
                    lock.set_permissions(Permissions::from_mode(mode))?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if attempts.next().is_none() => return Err(error),
                _ if attempts.next().is_none() => return Err(io::ErrorKind::ResourceBusy.into()),
                _ => {}
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no job lies in it.
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
                "the temporary directory could not be removed; the next start tries again"
            );
        }
    }
}

/// Removes what killed servers left below `temp_directory`: directories of our name and our user
/// whose lock is free. Returns what was removed, and what could not be.
pub fn sweep(temp_directory: &Path) -> io::Result<Vec<(PathBuf, io::Result<()>)>> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(temp_directory)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            continue;
        }
        // Held by a living server, or gone in between: neither is ours to touch.
        if let Ok(Some(_lock)) = lock(&path) {
            let removed = mcs_sandbox::remove_tree(&path);
            swept.push((path, removed));
        }
    }
    Ok(swept)
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// None where somebody else holds it. A lock on the directory needs no file in it, and ends with the
/// process, however that ends.
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn is_still(path: &Path, locked: &File) -> bool {
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
    fn a_sweep_removes_what_the_dead_left_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let living = RunDirectory::make(temp.path(), false).unwrap();
        let dead = temp.path().join("mcs-abcDEF123456");
        fs::create_dir_all(dead.join("job-x/tmp")).unwrap();
        fs::write(dead.join("job-x/media"), "plaintext").unwrap();
        let others = ["mcs-short", "mcs-abcDEF12345!", "notes", "mcs-abcDEF1234567"];
        for other in others {
            fs::create_dir(temp.path().join(other)).unwrap();
        }
        fs::write(temp.path().join("mcs-fileFILE1234"), "a file").unwrap();
        std::os::unix::fs::symlink(temp.path().join("notes"), temp.path().join("mcs-linkLINK1234"))
            .unwrap();

        let swept = sweep(temp.path()).unwrap();

        assert_eq!(swept.len(), 1);
        assert!(matches!(&swept[0], (path, Ok(())) if *path == dead));
        assert!(!dead.exists() && living.path().exists());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1 + others.len() + 2);
    }

    #[test]
    fn the_directory_is_private_and_goes_with_its_server() {
        let temp = tempfile::tempdir().unwrap();
        for (passable, mode) in [(false, 0o700), (true, 0o711)] {
            let directory = RunDirectory::make(temp.path(), passable).unwrap();
            let path = directory.path().to_owned();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
            assert!(directory.is_empty());
            drop(directory);
            assert!(!path.exists());
        }
    }
}
