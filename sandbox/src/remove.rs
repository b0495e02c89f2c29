//! Removes a directory whatever a hostile program left in it: directories of mode 0, hundreds of levels, any number of
//! files, links that lead out. No recursion and four descriptors, however deep it is: a sub-directory that is not empty is
//! moved up beside its parent, and the list of what is left to do is the top directory itself.
//! Every step names one component below a directory that is held open, so a link or a rename in between leads nowhere.

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

/// A program that outlived its job could add files for ever.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Removes `path` and everything below it, following no link, in at most 5 minutes. That there is nothing is no error.
///
/// It blocks. The process has to own what it removes, or be root with `CAP_DAC_OVERRIDE` and `CAP_FOWNER`; `/proc` has to be
/// mounted. The parts of `path` before the last one are resolved as usual, so these must be trusted.
///
/// # Errors
/// The first thing that could not be removed; everything else is removed nevertheless.
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

/// The same, for the entry `name` of a directory held open.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: impl AsRef<Path>) -> io::Result<()> {
    let name = name.as_ref();
    let refused = match unlink(parent, name) {
        Ok(Removed::Yes) => return Ok(()),
        Ok(Removed::NotEmpty) => None,
        // What is below it may be removable nevertheless.
        Err(errno) => Some(errno),
    };
    let Some(top) = open_unlocked(parent, name)? else {
        // On a read-only file system unlink(2) says so of what is not there as well.
        let gone = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT);
        return refused.filter(|_| !gone).map_or(Ok(()), |errno| Err(errno.into()));
    };
    let mut sweep = Sweep { top, hoisted: 0, deadline: Instant::now() + TIME_LIMIT };
    loop {
        // readdir(3) leaves open whether entries that change meanwhile are seen: so pass after pass, until one finds
        // nothing, or nothing that it could remove.
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
    fn note(&mut self, result: nix::Result<()>) {
        match result {
            Ok(()) => self.progress = true,
            Err(errno) => {
                self.failed.get_or_insert(errno);
            }
        }
    }
}

impl Sweep {
    /// Removes every entry of the top directory, with those below it moved up.
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
                Ok(Removed::Yes) => pass.note(Ok(())),
                Ok(Removed::NotEmpty) => self.empty(name, &mut pass)?,
                Err(errno) => pass.note(Err(errno)),
            }
        }
        Ok(pass)
    }

    /// Empties the sub-directory `name` of the top directory, moving up what is a filled directory itself, and removes it.
    fn empty(&mut self, name: &std::ffi::CStr, pass: &mut Pass) -> io::Result<()> {
        let directory = match open_unlocked(self.top.as_fd(), name) {
            Ok(Some(directory)) => directory,
            Ok(None) => return Ok(()),
            Err(errno) => {
                pass.note(Err(errno));
                return Ok(());
            }
        };
        let mut entries = list(directory.as_fd())?;
        for entry in entries.iter() {
            let entry = entry?;
            let below = entry.file_name();
            if is_dots(below.to_bytes()) {
                continue;
            }
            self.check_time()?;
            let done = match unlink(directory.as_fd(), below) {
                Ok(Removed::Yes) => Ok(()),
                Ok(Removed::NotEmpty) => self.hoist(directory.as_fd(), below),
                Err(errno) => Err(errno),
            };
            pass.note(done);
        }
        // If it has become filled again meanwhile the next pass sees to it.
        let _ = unlink(self.top.as_fd(), name);
        Ok(())
    }

    fn hoist(&mut self, from: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<()> {
        // rename(2): moving a directory writes its `..`, so it has to be writable itself.
        drop(open_unlocked(from, name)?);
        loop {
            self.hoisted += 1;
            let new = format!(".{}", self.hoisted);
            match renameat(from, name, &self.top, new.as_str()) {
                // Taken, by a name of the program's own.
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

/// Removes a file, link or empty directory. Tried rather than asked first: what an entry is may change in between.
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

/// Opens a directory, its mode first set so that its entries can be removed. `None`: it is gone, or no directory any more.
fn open_unlocked(
    parent: BorrowedFd<'_>,
    name: &(impl NixPath + ?Sized),
) -> nix::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        directory => directory?,
    };
    // fchmod(2) refuses an O_PATH descriptor, and chmod by name could follow a link: the descriptor's name in /proc leads to
    // exactly what is open.
    let unlocked = Permissions::from_mode(0o700);
    fs::set_permissions(format!("/proc/self/fd/{}", directory.as_raw_fd()), unlocked)
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
