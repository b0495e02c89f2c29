//! Checks whether other users can replace a file of the service, by the owners and modes of the file and of the
//! directories above it. inode(7), `path_resolution(7)`. Compare `StrictModes` of `sshd_config(5)`.

use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    unistd::{Uid, User, geteuid},
};

/// Maximum number of symbolic links in one path, as in the kernel. `path_resolution(7)`.
const MAX_LINKS: usize = 40;

const STICKY: u32 = 0o1000;

/// Reason why another user can replace a file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exposure {
    path: PathBuf,
    reason: ExposureReason,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum ExposureReason {
    Owner(u32),
    Mode { mode: u32, is_directory: bool },
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.reason {
            ExposureReason::Owner(uid) => match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) => write!(f, "{path} belongs to {} (uid {uid})", user.name),
                _ => write!(f, "{path} belongs to uid {uid}"),
            },
            ExposureReason::Mode { mode, is_directory: true } => write!(
                f,
                "{path} has mode {mode:04o}, so other users may rename its entries \
                 (chmod go-w, or the sticky bit, prevents this)"
            ),
            ExposureReason::Mode { mode, is_directory: false } => {
                write!(f, "{path} has mode {mode:04o}, so every user may write to it (chmod o-w)")
            }
        }
    }
}

/// Returns the first directory on the way to `path`, including `path`, that lets a user other than root and the
/// service's user replace the target of `path`. Such a directory belongs to another user, or is writable by its group
/// or by others and not sticky. The owners of symbolic links and the directories that contain them are checked as well.
///
/// Accepts a root directory whose owner is not mapped into this user namespace: in an unprivileged container, the owner
/// is the user who created the container.
///
/// # Errors
/// A component cannot be read.
pub fn find_exposure(path: &Path) -> io::Result<Option<Exposure>> {
    let path = std::path::absolute(path)?;
    let mut resolved = PathBuf::from("/");
    let mut remaining: VecDeque<PathBuf> = components(&path);
    let mut links = 0;
    if let Some(exposure) = directory_exposure(&resolved)? {
        return Ok(Some(exposure));
    }
    while let Some(component) = remaining.pop_front() {
        if component.as_os_str() == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(component);
        let metadata = fs::symlink_metadata(&next)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            // The owner of a link can replace it, even in a sticky directory.
            if let Some(exposure) = owner_exposure(&next, &metadata) {
                return Ok(Some(exposure));
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            for component in components(&target).into_iter().rev() {
                remaining.push_front(component);
            }
            continue;
        }
        if let Some(exposure) = directory_exposure(&next)? {
            return Ok(Some(exposure));
        }
        resolved = next;
    }
    Ok(None)
}

/// Returns why another user may change this open file: it belongs to a user other than root and the service's user, or
/// is writable by all users. Write access of the group is the operator's choice.
///
/// # Errors
/// fstat(2).
pub fn file_exposure(path: &Path, file: &File) -> io::Result<Option<Exposure>> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    let writable = (mode & 0o002 != 0).then(|| Exposure {
        path: path.to_owned(),
        reason: ExposureReason::Mode { mode, is_directory: false },
    });
    Ok(owner_exposure(path, &metadata).or(writable))
}

/// Opens a file with `O_PATH`, for changing its mode. Does not follow a symbolic link at the end of the path.
///
/// # Errors
/// open(2).
pub fn open_path_only(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// Opens an existing file for appending, or creates it with this mode, independent of the umask. Does not follow a
/// symbolic link at the end of the path, because another user could point it at a file that only the service may write.
///
/// # Errors
/// open(2). Another user may change the existing file.
pub fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    // A FIFO without a reader would block the caller.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let mut options = File::options();
    options.append(true).custom_flags(flags.bits());
    let file = match options.clone().create_new(true).mode(mode).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(mode))?;
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.open(path).map_err(explain_link)?
        }
        Err(error) => return Err(error),
    };
    match file_exposure(path, &file)? {
        Some(exposure) if file.metadata()?.is_file() => Err(io::Error::other(exposure.to_string())),
        _ => Ok(file),
    }
}

fn explain_link(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(nix::libc::ELOOP) => {
            io::Error::other("the path is a symbolic link; use the path of the file itself")
        }
        _ => error,
    }
}

fn components(path: &Path) -> VecDeque<PathBuf> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect()
}

fn directory_exposure(path: &Path) -> io::Result<Option<Exposure>> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    let writable = (mode & 0o022 != 0 && mode & STICKY == 0).then(|| Exposure {
        path: path.to_owned(),
        reason: ExposureReason::Mode { mode, is_directory: true },
    });
    let owner = owner_exposure(path, &metadata)
        .filter(|_| path != Path::new("/") || !is_unmapped(metadata.uid()));
    Ok(owner.or(writable))
}

fn owner_exposure(path: &Path, metadata: &Metadata) -> Option<Exposure> {
    let uid = metadata.uid();
    let trusted = uid == 0 || uid == geteuid().as_raw();
    (!trusted).then(|| Exposure { path: path.to_owned(), reason: ExposureReason::Owner(uid) })
}

/// Returns whether this is the id that represents users without an id in this user namespace. `user_namespaces(7)`.
fn is_unmapped(uid: u32) -> bool {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid");
    let is_overflow = overflow.is_ok_and(|text| text.trim().parse() == Ok(uid));
    is_overflow && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps(&map, uid))
}

/// Returns whether a `uid_map` contains this id. `user_namespaces(7)`.
fn maps(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            // Treats an unknown format as mapped, which is the stricter result.
            return true;
        };
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    /// Creates a directory in `/tmp`, which has mode 1777.
    fn temp_dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn directory(path: &Path, mode: u32) -> PathBuf {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    fn exposure_text(path: &Path) -> Option<String> {
        find_exposure(path).unwrap().map(|exposure| exposure.to_string())
    }

    #[test]
    fn writable_directories_are_exposed_unless_sticky() {
        let temp_dir = temp_dir();
        for (mode, exposed) in [
            (0o700, false),
            (0o755, false),
            (0o1777, false),
            (0o1770, false),
            (0o777, true),
            (0o775, true),
            (0o757, true),
            (0o2775, true),
        ] {
            let parent = directory(&temp_dir.path().join(format!("{mode:o}")), mode);
            let child = directory(&parent.join("child"), 0o700);
            for path in [&parent, &child] {
                let reason = exposure_text(path);
                assert_eq!(reason.is_some(), exposed, "{mode:o}: {reason:?}");
                let is_parent =
                    |text: String| text.contains(&format!("{} has mode", parent.display()));
                assert!(reason.is_none_or(is_parent), "the exposed directory is the parent");
            }
        }
    }

    #[test]
    fn checks_symbolic_links_and_their_directories() {
        let temp_dir = temp_dir();
        let target = directory(&temp_dir.path().join("target"), 0o700);
        let open = directory(&temp_dir.path().join("open"), 0o777);
        let closed = directory(&temp_dir.path().join("closed"), 0o755);
        symlink("../target", closed.join("link")).unwrap();
        assert_eq!(exposure_text(&closed.join("link")), None);
        symlink(&target, open.join("link")).unwrap();
        assert!(exposure_text(&open.join("link")).unwrap().contains("open has mode 0777"));
        // A path into the directory and out of it again.
        symlink(open.join("..").join("target"), closed.join("detour")).unwrap();
        assert!(exposure_text(&closed.join("detour")).unwrap().contains("open has mode 0777"));
        symlink("loop", closed.join("loop")).unwrap();
        assert!(find_exposure(&closed.join("loop")).is_err());
        assert!(find_exposure(&temp_dir.path().join("absent")).is_err());
    }

    #[test]
    fn files_of_other_users_are_exposed() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED files_of_other_users_are_exposed: requires root");
            return;
        }
        let temp_dir = temp_dir();
        let target = directory(&temp_dir.path().join("target"), 0o700);
        let parent = directory(&temp_dir.path().join("parent"), 0o755);
        let child = directory(&parent.join("child"), 0o755);
        chown(&parent, Some(61_234), None).unwrap();
        for path in [&parent, &child] {
            assert!(exposure_text(path).unwrap().ends_with("parent belongs to uid 61234"));
        }
        let sticky = directory(&temp_dir.path().join("sticky"), 0o1777);
        symlink(&target, sticky.join("link")).unwrap();
        assert_eq!(exposure_text(&sticky.join("link")), None);
        std::os::unix::fs::lchown(sticky.join("link"), Some(61_234), None).unwrap();
        assert!(
            exposure_text(&sticky.join("link")).unwrap().ends_with("link belongs to uid 61234")
        );
    }

    #[test]
    fn ids_outside_of_the_user_namespace_are_unmapped() {
        let all_ids = "         0          0 4294967295\n";
        assert!(maps(all_ids, 65_534));
        assert!(!maps("0 1000 1\n", 65_534) && maps("0 1000 1\n", 0));
        assert!(maps("0 0 1\n65534 65534 1\n", 65_534));
        assert!(maps("unknown", 65_534), "an unknown format counts as mapped");
    }
}
