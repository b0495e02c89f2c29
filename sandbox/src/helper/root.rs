//! The minimal root: a read-only tmpfs with the paths listed by [`View`], and the job's directory, a separate tmpfs, at
//! the same path as on the host. The media is on a third tmpfs, which the job's directory covers, and is bind-mounted
//! read-only into that directory: programs can neither write nor replace it. The kernel frees all of it with the
//! namespace's last process, so nothing of a job is on disk. `mount(2)`, `pivot_root(2)`, tmpfs(5), `mount_setattr(2)`.
//!
//! There is no /proc: it would expose the host and cannot be mounted in every environment. There is no /tmp; programs
//! use `TMPDIR`.

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

use crate::limits::ResourceLimits;
use crate::policy::User;
use crate::sys;
use crate::view::{DEVICES, SYSTEM, View};

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// Maximum number of inodes of the job's tmpfs: empty files use memory as well.
const MAX_FILES: u32 = 65_536;

/// Mount options of the root; the size covers directories, links and mount points.
const ROOT_SIZE: &str = "mode=0755,size=4m";

/// Descriptors of the job's directory and of its media.
pub(super) struct JobRoot {
    pub(super) directory: OwnedFd,
    pub(super) media: OwnedFd,
}

/// Builds the root and makes it the root directory of this process. `job` is the path of the job's directory below
/// `parent`.
pub(super) fn build(
    parent: &Path,
    job: &Path,
    media: &str,
    view: &View,
    limits: &ResourceLimits,
    user: Option<User>,
) -> io::Result<JobRoot> {
    // The modes given below are exact; the umask of programs would change them.
    let previous = umask(Mode::empty());
    let built = build_unmasked(parent, job, media, view, limits, user);
    umask(previous);
    built
}

fn build_unmasked(
    parent: &Path,
    job: &Path,
    media: &str,
    view: &View,
    limits: &ResourceLimits,
    user: Option<User>,
) -> io::Result<JobRoot> {
    // Any directory can serve as mount point; `parent` contains no other mounts.
    let root = Root(parent.to_owned());
    tmpfs(&root.0, ROOT_SIZE, NOSUID | NODEV)?;

    let job_root = root.mount_job_directory(job, media, limits, user)?;
    for path in SYSTEM {
        root.mount_system_path(Path::new(path))?;
    }
    let mut readable: Vec<PathBuf> = view.readable().collect();
    // Mounts nested paths after their ancestors, which would cover them otherwise.
    readable.sort();
    for path in &readable {
        root.bind_from_host(path, RDONLY | NOSUID | NODEV)?;
    }
    for path in &view.paths.writable {
        root.bind_from_host(path, NOSUID | NODEV)?;
    }
    for path in &view.paths.unix_sockets {
        root.bind_from_host(path, RDONLY | NOSUID | NODEV | NOEXEC)?;
    }
    for path in DEVICES {
        root.bind_from_host(Path::new(path), RDONLY | NOSUID | NOEXEC)?;
    }

    chdir(&root.0)?;
    // Stacks the old root on the new one and detaches it, which needs no additional directory.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    set_attributes(Path::new("/"), RDONLY | NOSUID | NODEV, Submounts::Unchanged)?;
    Ok(job_root)
}

struct Root(PathBuf);

impl Root {
    fn mount_job_directory(
        &self,
        job: &Path,
        media: &str,
        limits: &ResourceLimits,
        user: Option<User>,
    ) -> io::Result<JobRoot> {
        let directory = self.path_in_root(job);
        make_directories(&directory)?;
        let media_path = directory.join(media);
        // Only the server writes to this tmpfs, within its own reservation, so no size limit is needed.
        mount_with_huge_pages("mode=0755,size=0,nr_inodes=16", |options| {
            tmpfs(&directory, options, NOSUID | NODEV)
        })?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = open(&media_path, flags, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH)?;

        // Covers the first tmpfs, which then is accessible through the open file only. Unmounting it would be slower:
        // it waits for an RCU grace period.
        let owner = user.map_or(String::new(), |User { uid, gid }| format!(",uid={uid},gid={gid}"));
        let size = limits.disk;
        let options = format!("mode=0700,size={size},nr_inodes={MAX_FILES}{owner}");
        tmpfs(&directory, &options, NOSUID | NODEV)?;
        File::create_new(&media_path)?;
        let open_file = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        bind(&open_file, &media_path, RDONLY | NOSUID | NODEV | NOEXEC)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(JobRoot { directory: open(&directory, flags, Mode::empty())?, media: file })
    }

    /// Copies a link, as on systems whose /bin points into /usr, or mounts the directory.
    fn mount_system_path(&self, path: &Path) -> io::Result<()> {
        match fs::read_link(path) {
            Ok(target) => symlink(target, self.path_in_root(path)),
            Err(_) => self.bind_from_host(path, RDONLY | NOSUID | NODEV),
        }
    }

    /// Bind-mounts a file or directory of the old root at the same path. Links are followed, so the target appears
    /// under the link's name.
    fn bind_from_host(&self, path: &Path, attributes: u64) -> io::Result<()> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        let target = self.path_in_root(path);
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
            // The path is inside another listed path.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        bind(path, &target, attributes)
    }

    fn path_in_root(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Creates directories of mode 0755.
fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).recursive(true).create(path)
}

fn tmpfs(target: &Path, options: &str, attributes: u64) -> io::Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options))?;
    set_attributes(target, attributes, Submounts::Unchanged)
}

/// Mounts a tmpfs with huge pages for large writes (Linux 6.14) that allocates no memory beyond the end of files:
/// writing, reading and freeing large media is several times faster. Kernels without huge pages reject the option.
fn mount_with_huge_pages(options: &str, mount: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    match mount(&format!("{options},huge=within_size")) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => mount(options),
        mounted => mounted,
    }
}

fn bind(source: &Path, target: &Path, attributes: u64) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)?;
    set_attributes(target, attributes, Submounts::Same)
}

/// Whether mounts below get the same attributes.
#[derive(Clone, Copy)]
enum Submounts {
    Same,
    Unchanged,
}

fn set_attributes(target: &Path, attributes: u64, submounts: Submounts) -> io::Result<()> {
    sys::set_mount_attributes(target, attributes, matches!(submounts, Submounts::Same))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn mount_recording_options(
        answer: impl Fn(&str) -> io::Result<()>,
    ) -> (io::Result<()>, Vec<String>) {
        let requested = RefCell::new(Vec::new());
        let result = mount_with_huge_pages("size=0", |options| {
            requested.borrow_mut().push(options.to_owned());
            answer(options)
        });
        (result, requested.into_inner())
    }

    #[test]
    fn falls_back_without_huge_pages_only_on_einval() {
        let (result, requested) = mount_recording_options(|_| Ok(()));
        result.unwrap();
        assert_eq!(requested, ["size=0,huge=within_size"]);

        let unsupported = |options: &str| match options {
            "size=0" => Ok(()),
            _ => Err(Errno::EINVAL.into()),
        };
        let (result, requested) = mount_recording_options(unsupported);
        result.unwrap();
        assert_eq!(requested, ["size=0,huge=within_size", "size=0"]);

        let (result, requested) = mount_recording_options(|_| Err(Errno::EPERM.into()));
        result.unwrap_err();
        assert_eq!(requested, ["size=0,huge=within_size"]);
    }
}
