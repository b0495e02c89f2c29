//! The minimal root: a tmpfs with what [`View`] lists, all of it read-only, and the job's directory, a tmpfs of its own, at the
//! path that it would have outside. The media lies on a third one, which that covers, and is bound read-only into the job's
//! directory, so a program can neither write nor replace it. Everything goes with the last process in here, whatever kills it: nothing of a
//! job is on a disk. `mount(2)`, `pivot_root(2)`, tmpfs(5), `mount_setattr(2)`.
//!
//! No /proc: it would tell of the machine, and cannot be had everywhere. No /tmp but the job's `TMPDIR`.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

use crate::policy::{Limits, User};
use crate::sys;
use crate::view::{DEVICES, SYSTEM, View};

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// Files that a job may make: with empty ones memory is spent as well.
const MAX_FILES: u32 = 65_536;

/// Above what directories, links and mount points take.
const ROOT_SIZE: &str = "mode=0755,size=4m";

/// The job's directory, open, and its media.
pub(super) struct Ground {
    pub(super) directory: OwnedFd,
    pub(super) media: OwnedFd,
}

/// Builds the root and moves into it. `parent` is the directory that the jobs are in, `job` the one to be made there.
pub(super) fn build(
    parent: &Path,
    job: &Path,
    media: &str,
    view: &View,
    limits: &Limits,
    user: Option<User>,
) -> io::Result<Ground> {
    // The modes of what is made here are the ones that are written here; the programs' umask is another.
    let programs = umask(Mode::empty());
    let built = build_unmasked(parent, job, media, view, limits, user);
    umask(programs);
    built
}

fn build_unmasked(
    parent: &Path,
    job: &Path,
    media: &str,
    view: &View,
    limits: &Limits,
    user: Option<User>,
) -> io::Result<Ground> {
    // Any directory will do to build on; this one needs no other mount inside.
    let root = Root(parent.to_owned());
    tmpfs(&root.0, ROOT_SIZE, NOSUID | NODEV)?;

    let ground = root.lay_ground(job, media, limits, user)?;
    for path in SYSTEM {
        root.show_system(Path::new(path))?;
    }
    let mut readable: Vec<PathBuf> = view.readable().collect();
    // What lies in another of them comes after it, else it would be covered.
    readable.sort();
    for path in &readable {
        root.show(path, RDONLY | NOSUID | NODEV)?;
    }
    for path in &view.paths.writable {
        root.show(path, NOSUID | NODEV)?;
    }
    for path in &view.paths.unix_sockets {
        root.show(path, RDONLY | NOSUID | NODEV | NOEXEC)?;
    }
    for path in DEVICES {
        root.show(Path::new(path), RDONLY | NOSUID | NOEXEC)?;
    }

    chdir(&root.0)?;
    // The old root is put on top of the new one, and taken away: no directory is needed for it.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    lock(Path::new("/"), RDONLY | NOSUID | NODEV, Below::Untouched)?;
    Ok(ground)
}

struct Root(PathBuf);

impl Root {
    fn lay_ground(
        &self,
        job: &Path,
        media: &str,
        limits: &Limits,
        user: Option<User>,
    ) -> io::Result<Ground> {
        let directory = self.inside(job);
        make_directories(&directory)?;
        let shown = directory.join(media);
        // Only what the server has reserved is written here, so there is no second limit.
        in_large_pages("mode=0755,size=0,nr_inodes=16", |options| {
            tmpfs(&directory, options, NOSUID | NODEV)
        })?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = open(&shown, flags, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH)?;

        // Over the first, to which nothing but the open file leads from here on. To unmount it would be dearer: it takes a
        // grace period of the kernel's.
        let owner = user.map_or(String::new(), |User { uid, gid }| format!(",uid={uid},gid={gid}"));
        let size = limits.disk;
        let options = format!("mode=0700,size={size},nr_inodes={MAX_FILES}{owner}");
        tmpfs(&directory, &options, NOSUID | NODEV)?;
        File::create_new(&shown)?;
        let born = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        bind(&born, &shown, RDONLY | NOSUID | NODEV | NOEXEC)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Ground { directory: open(&directory, flags, Mode::empty())?, media: file })
    }

    /// A link stays a link, as on systems whose /bin leads into /usr.
    fn show_system(&self, path: &Path) -> io::Result<()> {
        match fs::read_link(path) {
            Ok(target) => symlink(target, self.inside(path)),
            Err(_) => self.show(path, RDONLY | NOSUID | NODEV),
        }
    }

    /// Binds a file or directory of the old root at its own path. A link is followed: what it led to is there under its name.
    fn show(&self, path: &Path, attributes: u64) -> io::Result<()> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        let target = self.inside(path);
        let create = || {
            if metadata.is_dir() {
                DirBuilder::new().mode(0o755).create(&target)
            } else {
                File::create_new(&target).map(drop)
            }
        };
        let created = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                target.parent().map_or(Ok(()), make_directories)?;
                create()
            }
            created => created,
        };
        match created {
            // It lies in another one of the list.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        bind(path, &target, attributes)
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Everybody's to pass.
fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).recursive(true).create(path)
}

fn tmpfs(target: &Path, options: &str, attributes: u64) -> io::Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options))?;
    lock(target, attributes, Below::Untouched)
}

/// Mounts a tmpfs whose files have pages as large as what is written at once (Linux 6.14), and no memory beyond their end: a
/// large media is written, read and freed several times as fast. A kernel that has pages of one size alone refuses the option.
fn in_large_pages(options: &str, mount: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    match mount(&format!("{options},huge=within_size")) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => mount(options),
        mounted => mounted,
    }
}

fn bind(source: &Path, target: &Path, attributes: u64) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)?;
    lock(target, attributes, Below::Same)
}

/// Whether what is mounted below gets the same attributes.
#[derive(Clone, Copy)]
enum Below {
    Same,
    Untouched,
}

fn lock(target: &Path, attributes: u64, below: Below) -> io::Result<()> {
    sys::set_mount_attributes(target, attributes, matches!(below, Below::Same))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn mounted_with(answer: impl Fn(&str) -> io::Result<()>) -> (io::Result<()>, Vec<String>) {
        let asked = RefCell::new(Vec::new());
        let outcome = in_large_pages("size=0", |options| {
            asked.borrow_mut().push(options.to_owned());
            answer(options)
        });
        (outcome, asked.into_inner())
    }

    #[test]
    fn a_kernel_without_large_pages_gives_small_ones_and_no_other_failure_is_passed_over() {
        let (outcome, asked) = mounted_with(|_| Ok(()));
        outcome.unwrap();
        assert_eq!(asked, ["size=0,huge=within_size"]);

        let unknown = |options: &str| match options {
            "size=0" => Ok(()),
            _ => Err(Errno::EINVAL.into()),
        };
        let (outcome, asked) = mounted_with(unknown);
        outcome.unwrap();
        assert_eq!(asked, ["size=0,huge=within_size", "size=0"]);

        let (outcome, asked) = mounted_with(|_| Err(Errno::EPERM.into()));
        outcome.unwrap_err();
        assert_eq!(asked, ["size=0,huge=within_size"]);
    }
}
