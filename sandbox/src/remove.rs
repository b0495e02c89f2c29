//! Removes a directory with hostile content: directories of mode 0, hundreds of levels, any number of files, links to
//! outside paths. Uses no recursion and four descriptors at any depth: a non-empty subdirectory is moved up into the
//! top directory, which serves as the work list. Every system call resolves a single component relative to an open
//! directory, so links and concurrent renames cannot redirect it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Time limit of one removal: a program that outlived its job could add files indefinitely.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Removes `path` and everything below it within 5 minutes, without following links. A missing path is not an error.
///
/// Blocks. The process must own the removed files, or be root with `CAP_DAC_OVERRIDE` and `CAP_FOWNER`; `/proc` must be
/// mounted. All components of `path` but the last are resolved as usual and must be trusted.
///
/// # Errors
/// Returns the first error; everything that can be removed is removed nevertheless.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent =
        match open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(()),
            parent => parent?,
        };
    remove_at(parent.as_fd(), name)
}

/// Removes the entry `name` of an open directory, as [`remove_tree`] does.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: impl AsRef<Path>) -> io::Result<()> {
    let name = name.as_ref();
    let unlink_error = match unlink(parent, name) {
        Ok(Removed::Yes) => return Ok(()),
        Ok(Removed::NotEmpty) => None,
        // Entries below may be removable nevertheless.
        Err(errno) => Some(errno),
    };
    let Some(top) = open_with_access(parent, name)? else {
        // On a read-only file system unlink(2) fails with EROFS for missing entries as well.
        let gone = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT);
        return unlink_error.filter(|_| !gone).map_or(Ok(()), |errno| Err(errno.into()));
    };
    let mut sweep = Sweep { top, hoisted: 0, deadline: Instant::now() + TIME_LIMIT };
    loop {
        // readdir(3) does not specify whether entries changed during iteration are returned. Repeats until a pass finds
        // no entry, or none that it can remove.
        sweep.check_time()?;
        let pass = sweep.pass()?;
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if pass.progress || pass.failed.is_none() => {}
            Err(errno) => return Err(pass.failed.unwrap_or(errno).into()),
        }
    }
}

struct Sweep {
    top: OwnedFd,
    hoisted: u64,
    deadline: Instant,
}

#[derive(Default)]
struct Pass {
    progress: bool,
    failed: Option<Errno>,
}

impl Pass {
    fn record(&mut self, result: nix::Result<()>) {
        match result {
            Ok(()) => self.progress = true,
            Err(errno) => {
                self.failed.get_or_insert(errno);
            }
        }
    }
}

impl Sweep {
    /// Removes every entry of the top directory; contents of non-empty subdirectories are moved up.
    fn pass(&mut self) -> io::Result<Pass> {
        let mut pass = Pass::default();
        let mut entries = list(self.top.as_fd())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name.to_bytes()) {
                continue;
            }
            self.check_time()?;
            match unlink(self.top.as_fd(), name) {
                Ok(Removed::Yes) => pass.record(Ok(())),
                Ok(Removed::NotEmpty) => self.empty(name, &mut pass)?,
                Err(errno) => pass.record(Err(errno)),
            }
        }
        Ok(pass)
    }

    /// Removes the subdirectory `name` of the top directory after moving its non-empty subdirectories up.
    fn empty(&mut self, name: &std::ffi::CStr, pass: &mut Pass) -> io::Result<()> {
        let directory = match open_with_access(self.top.as_fd(), name) {
            Ok(Some(directory)) => directory,
            Ok(None) => return Ok(()),
            Err(errno) => {
                pass.record(Err(errno));
                return Ok(());
            }
        };
        let mut entries = list(directory.as_fd())?;
        for entry in entries.iter() {
            let entry = entry?;
            let child = entry.file_name();
            if is_dots(child.to_bytes()) {
                continue;
            }
            self.check_time()?;
            let result = match unlink(directory.as_fd(), child) {
                Ok(Removed::Yes) => Ok(()),
                Ok(Removed::NotEmpty) => self.hoist(directory.as_fd(), child),
                Err(errno) => Err(errno),
            };
            pass.record(result);
        }
        // If entries were added in the meantime, the next pass removes them.
        let _ = unlink(self.top.as_fd(), name);
        Ok(())
    }

    fn hoist(&mut self, from: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<()> {
        // rename(2): moving a directory changes its `..` entry, which requires write permission on the directory.
        drop(open_with_access(from, name)?);
        loop {
            self.hoisted += 1;
            let new = format!(".{}", self.hoisted);
            match renameat(from, name, &self.top, new.as_str()) {
                // The hostile program created an entry of this name.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(Errno::ENOENT) => return Ok(()),
                result => return result,
            }
        }
    }

    fn check_time(&self) -> io::Result<()> {
        if Instant::now() > self.deadline { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

enum Removed {
    Yes,
    NotEmpty,
}

/// Removes a file, link or empty directory. Tries both removals instead of checking the type first, since the type may
/// change in between.
fn unlink(parent: BorrowedFd<'_>, name: &(impl NixPath + ?Sized)) -> nix::Result<Removed> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(Removed::Yes),
        Err(Errno::EISDIR) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Removed::Yes),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Removed::NotEmpty),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory after setting a mode that permits removing its entries; `None` if `name` is missing or not a
/// directory.
fn open_with_access(
    parent: BorrowedFd<'_>,
    name: &(impl NixPath + ?Sized),
) -> nix::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        directory => directory?,
    };
    // fchmod(2) rejects O_PATH descriptors, and chmod by name could follow a link. The descriptor's path in /proc
    // refers to exactly the open directory.
    let mode = Permissions::from_mode(0o700);
    fs::set_permissions(format!("/proc/self/fd/{}", directory.as_raw_fd()), mode)
        .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))?;
    Ok(Some(directory))
}

fn list(directory: BorrowedFd<'_>) -> nix::Result<Dir> {
    Dir::openat(
        directory,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}
