//! Users who can replace what the service writes: owners and modes of files and of the directories above them. inode(7),
//! `path_resolution(7)`. Compare `StrictModes` of `sshd_config(5)`.

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

/// Symbolic links that are followed in one path, as by the kernel.
const MAX_LINKS: usize = 40;

const STICKY: u32 = 0o1000;

/// Why another user can replace a file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exposure {
    path: PathBuf,
    reason: Reason,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Reason {
    Owner(u32),
    Mode { mode: u32, is_directory: bool },
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.reason {
            Reason::Owner(uid) => match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) => write!(f, "{path} belongs to {} (uid {uid})", user.name),
                _ => write!(f, "{path} belongs to uid {uid}"),
            },
            Reason::Mode { mode, is_directory: true } => write!(
                f,
                "{path} has mode {mode:04o}, so other users may rename what is in it \
                 (chmod go-w, or the sticky bit, prevents that)"
            ),
            Reason::Mode { mode, is_directory: false } => {
                write!(f, "{path} has mode {mode:04o}, so every user may write it (chmod o-w)")
            }
        }
    }
}

/// Returns the first directory on the way to `path`, itself included, that lets a user other than root and the service's replace
/// what `path` names. Such a directory belongs to another user, or its group or others may write it and it is not sticky. The
/// directories that symbolic links are in, and the links' owners, count as well.
///
/// A root directory whose owner is not mapped into this user namespace is accepted: in an unprivileged container that owner is
/// outside, where the container comes from.
///
/// # Errors
/// A component that cannot be read.
pub fn find_exposure(path: &Path) -> io::Result<Option<Exposure>> {
    let path = std::path::absolute(path)?;
    let mut resolved = PathBuf::from("/");
    let mut open: VecDeque<PathBuf> = components(&path);
    let mut links = 0;
    if let Some(exposure) = of_directory(&resolved)? {
        return Ok(Some(exposure));
    }
    while let Some(component) = open.pop_front() {
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
            // In a sticky directory its owner can replace it.
            if let Some(exposure) = by_owner(&next, &metadata) {
                return Ok(Some(exposure));
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            for component in components(&target).into_iter().rev() {
                open.push_front(component);
            }
            continue;
        }
        if let Some(exposure) = of_directory(&next)? {
            return Ok(Some(exposure));
        }
        resolved = next;
    }
    Ok(None)
}

/// Returns why another user may change this open file: it belongs to a user other than root and the service's, or every user
/// may write it. Its group is the operator's choice.
///
/// # Errors
/// fstat(2).
pub fn file_exposure(path: &Path, file: &File) -> io::Result<Option<Exposure>> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    let writable = (mode & 0o002 != 0).then(|| Exposure {
        path: path.to_owned(),
        reason: Reason::Mode { mode, is_directory: false },
    });
    Ok(by_owner(path, &metadata).or(writable))
}

/// Opens what a path names itself, as `O_PATH` does, and never what a symbolic link there names: for changing its mode.
///
/// # Errors
/// open(2).
pub fn open_itself(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// Opens a file that exists for appending, or makes it with this mode, whatever the umask is. Never follows a symbolic link there,
/// which another user could make lead to a file that only the service may write.
///
/// # Errors
/// open(2). A regular file that another user may change.
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
        Some(nix::libc::ELOOP) => io::Error::other("it is a symbolic link: name the file itself"),
        _ => error,
    }
}

fn components(path: &Path) -> VecDeque<PathBuf> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect()
}

fn of_directory(path: &Path) -> io::Result<Option<Exposure>> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    let writable = (mode & 0o022 != 0 && mode & STICKY == 0).then(|| Exposure {
        path: path.to_owned(),
        reason: Reason::Mode { mode, is_directory: true },
    });
    let owner = by_owner(path, &metadata)
        .filter(|_| path != Path::new("/") || !is_unmapped(metadata.uid()));
    Ok(owner.or(writable))
}

fn by_owner(path: &Path, metadata: &Metadata) -> Option<Exposure> {
    let uid = metadata.uid();
    let trusted = uid == 0 || uid == geteuid().as_raw();
    (!trusted).then(|| Exposure { path: path.to_owned(), reason: Reason::Owner(uid) })
}

/// Whether this is the id that the kernel shows for users without an id in this user namespace. `user_namespaces(7)`.
fn is_unmapped(uid: u32) -> bool {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid");
    let is_overflow = overflow.is_ok_and(|text| text.trim().parse() == Ok(uid));
    is_overflow && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps(&map, uid))
}

fn maps(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            // Unknown form: as if it were mapped, which is the stricter answer.
            return true;
        };
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    /// Below `/tmp`, whose mode is 1777.
    fn place() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn directory(path: &Path, mode: u32) -> PathBuf {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    fn found(path: &Path) -> Option<String> {
        find_exposure(path).unwrap().map(|exposure| exposure.to_string())
    }

    #[test]
    fn directories_that_others_may_write_are_exposed_unless_they_are_sticky() {
        let place = place();
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
            let parent = directory(&place.path().join(format!("{mode:o}")), mode);
            let child = directory(&parent.join("child"), 0o700);
            for path in [&parent, &child] {
                let found = found(path);
                assert_eq!(found.is_some(), exposed, "{mode:o}: {found:?}");
                let names = |text: String| text.contains(&format!("{} has mode", parent.display()));
                assert!(found.is_none_or(names), "the parent is named");
            }
        }
    }

    #[test]
    fn links_and_the_directories_that_they_are_in_count() {
        let place = place();
        let target = directory(&place.path().join("target"), 0o700);
        let open = directory(&place.path().join("open"), 0o777);
        let closed = directory(&place.path().join("closed"), 0o755);
        symlink("../target", closed.join("link")).unwrap();
        assert_eq!(found(&closed.join("link")), None);
        symlink(&target, open.join("link")).unwrap();
        assert!(found(&open.join("link")).unwrap().contains("open has mode 0777"));
        // By way of a link into it and out of it again.
        symlink(open.join("..").join("target"), closed.join("detour")).unwrap();
        assert!(found(&closed.join("detour")).unwrap().contains("open has mode 0777"));
        symlink("round", closed.join("round")).unwrap();
        assert!(find_exposure(&closed.join("round")).is_err());
        assert!(find_exposure(&place.path().join("absent")).is_err());
    }

    #[test]
    fn what_belongs_to_another_user_is_exposed() {
        if !geteuid().is_root() {
            eprintln!(
                "SKIPPED what_belongs_to_another_user_is_exposed: only root gives files away"
            );
            return;
        }
        let place = place();
        let target = directory(&place.path().join("target"), 0o700);
        let parent = directory(&place.path().join("parent"), 0o755);
        let child = directory(&parent.join("child"), 0o755);
        chown(&parent, Some(61_234), None).unwrap();
        for path in [&parent, &child] {
            assert!(found(path).unwrap().ends_with("parent belongs to uid 61234"));
        }
        let sticky = directory(&place.path().join("sticky"), 0o1777);
        symlink(&target, sticky.join("link")).unwrap();
        assert_eq!(found(&sticky.join("link")), None);
        std::os::unix::fs::lchown(sticky.join("link"), Some(61_234), None).unwrap();
        assert!(found(&sticky.join("link")).unwrap().ends_with("link belongs to uid 61234"));
    }

    #[test]
    fn only_ids_outside_of_the_namespace_are_unmapped() {
        let whole = "         0          0 4294967295\n";
        assert!(maps(whole, 65_534));
        assert!(!maps("0 1000 1\n", 65_534) && maps("0 1000 1\n", 0));
        assert!(maps("0 0 1\n65534 65534 1\n", 65_534));
        assert!(maps("unknown", 65_534), "strict where it cannot be read");
    }
}
