//! Directory of one running server, in which its jobs have their directories: `temp_directory/mcs-<random>`. The server
//! holds a lock on the directory itself. At start, a server removes the directories of killed servers, which have the
//! prefix, the same owner and no lock. It never removes anything else.
//!
//! Cleaners of temporary files, and people, may remove the directory of a running server. It is then created again.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};
use parking_lot::Mutex;

use crate::{chain::Chain, ownership::find_exposure};

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
    mode: u32,
    /// The directories above, outermost first, with their modes.
    parents: Vec<(PathBuf, u32)>,
    /// Whether other users were able to replace the directory from the start, which `scan.temp_directory_shared` allows.
    is_exposed: bool,
    state: Mutex<RunDirectoryState>,
}

#[derive(Debug)]
struct RunDirectoryState {
    lock: Flock<File>,
    /// Whether the directory could not be created again. Logged once.
    is_lost: bool,
}

impl RunDirectory {
    /// Creates and locks a directory in `temp_directory`. Its mode is 0711 if it has to be `passable`, because scripts
    /// run as another user, and otherwise 0700.
    ///
    /// # Errors
    /// mkdir(2), open(2), flock(2), fchmod(2). [`io::ErrorKind::ResourceBusy`] when other servers have removed every
    /// directory before it was locked.
    pub fn create(temp_directory: &Path, passable: bool) -> io::Result<Self> {
        let mode = if passable { 0o711 } else { 0o700 };
        let (path, lock) = retry(|| {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(RANDOM_LENGTH)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(temp_directory)?
                .keep();
            Ok(lock_new(&path, mode)?.map(|lock| (path, lock)))
        })?;
        let mut parents = Vec::new();
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            parents.push((parent.to_owned(), fs::metadata(parent)?.mode() & 0o7777));
        }
        parents.reverse();
        let is_exposed = !matches!(find_exposure(temp_directory), Ok(None));
        let state = Mutex::new(RunDirectoryState { lock, is_lost: false });
        Ok(Self { path, mode, parents, is_exposed, state })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the directory, which exists. If the directory has disappeared, it is created again at the
    /// same path, with the directories above that have disappeared.
    ///
    /// # Errors
    /// The directory cannot be created: for example another file is in its place, which is left unchanged, or other
    /// users are able to replace the new directory.
    pub fn ensure(&self) -> io::Result<&Path> {
        let mut state = self.state.lock();
        if is_same_directory(&self.path, &state.lock) {
            if state.is_lost {
                tracing::info!(path = %self.path.display(), "ready: the temporary directory is back");
            }
            state.is_lost = false;
            return Ok(&self.path);
        }
        match self.create_again() {
            Ok(lock) => {
                *state = RunDirectoryState { lock, is_lost: false };
                tracing::warn!(
                    path = %self.path.display(),
                    "the temporary directory had disappeared, created it again"
                );
                Ok(&self.path)
            }
            Err(error) => {
                if !state.is_lost {
                    tracing::error!(
                        path = %self.path.display(),
                        error = %Chain(&error),
                        "not ready: the temporary directory has disappeared and cannot be created again"
                    );
                }
                state.is_lost = true;
                Err(error)
            }
        }
    }

    fn create_again(&self) -> io::Result<Flock<File>> {
        for (parent, mode) in &self.parents {
            match DirBuilder::new().mode(0o700).create(parent) {
                // Independent of the umask.
                Ok(()) => open_directory(parent)?.set_permissions(Permissions::from_mode(*mode))?,
                Err(_) if parent.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        let temp_directory = self.parents.last().map_or(Path::new("/"), |(parent, _)| parent);
        if !self.is_exposed
            && let Some(exposure) = find_exposure(temp_directory)?
        {
            return Err(io::Error::other(exposure.to_string()));
        }
        retry(|| {
            // Fails if there is another file, even a symbolic link to a directory. mkdir(2).
            DirBuilder::new().mode(0o700).create(&self.path)?;
            lock_new(&self.path, self.mode)
        })
    }

    /// Returns whether the directory contains no job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match fs::read_dir(&self.path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Another file may be in the directory's place.
        if is_same_directory(&self.path, &self.state.get_mut().lock)
            && let Err(error) = mcs_sandbox::remove_tree(&self.path)
        {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "cannot remove the temporary directory, the next start retries"
            );
        }
    }
}

/// Repeats `create` until it returns a value. `create` returns `None` when another starting server has removed the
/// directory.
fn retry<T>(mut create: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let mut last = None;
    for _ in 0..=RETRIES {
        match create() {
            Ok(Some(created)) => return Ok(created),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::ResourceBusy.into()))
}

/// Locks a new directory and sets its mode. Returns `None` if another starting server has removed or locked the
/// directory in the meantime.
fn lock_new(path: &Path, mode: u32) -> io::Result<Option<Flock<File>>> {
    match lock(path)? {
        Some(lock) if is_same_directory(path, &lock) => {
            // Independent of the umask. By descriptor, because the path may name another directory now.
            lock.set_permissions(Permissions::from_mode(mode))?;
            Ok(Some(lock))
        }
        _ => Ok(None),
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

/// Locks a directory; returns `None` if another process has locked it. The lock needs no file in the directory, and
/// ends with the process in any case. flock(2).
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(open_directory(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Opens a directory; does not follow a symbolic link at the end of the path.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    File::options().read(true).custom_flags(flags.bits()).open(path)
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

    #[test]
    fn directory_that_disappeared_is_created_again_with_its_parents() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("parent");
        let inner = parent.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&parent, Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o1711)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let directory = RunDirectory::create(&inner, true).unwrap();
        let path = directory.path().to_owned();
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();
        assert_eq!((directory.ensure().unwrap(), inode()), (&*path, first));
        for removed in [&path, &inner, &parent] {
            fs::remove_dir_all(removed).unwrap();
            assert_eq!(directory.ensure().unwrap(), path);
            let created = inode();
            assert_eq!((directory.ensure().unwrap(), inode()), (&*path, created));
            assert_eq!((mode(&path), mode(&inner), mode(&parent)), (0o711, 0o1711, 0o750));
            // The new directory is locked.
            assert!(sweep(&inner).unwrap().is_empty());
        }
        drop(directory);
        assert!(!path.exists() && inner.exists());
    }

    #[test]
    fn other_file_in_the_place_of_the_directory_is_refused_and_left_unchanged() {
        let temp = tempfile::tempdir().unwrap();
        let other = temp.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "kept").unwrap();
        let directory = RunDirectory::create(temp.path(), false).unwrap();
        let path = directory.path().to_owned();

        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert_eq!(directory.ensure().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        // Not created by the service.
        fs::create_dir(&path).unwrap();
        assert_eq!(directory.ensure().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(directory);
        assert!(path.exists() && other.join("file").exists());
    }

    #[test]
    fn directory_is_not_created_below_a_parent_that_other_users_may_replace() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("parent");
        fs::create_dir(&parent).unwrap();
        let directory = RunDirectory::create(&parent, false).unwrap();
        fs::remove_dir_all(&parent).unwrap();
        fs::create_dir(&parent).unwrap();
        fs::set_permissions(&parent, Permissions::from_mode(0o777)).unwrap();
        let error = directory.ensure().unwrap_err().to_string();
        assert!(error.contains("0777"), "{error}");
        // The operator repairs it.
        fs::set_permissions(&parent, Permissions::from_mode(0o700)).unwrap();
        assert!(directory.ensure().unwrap().is_dir());
    }
}
