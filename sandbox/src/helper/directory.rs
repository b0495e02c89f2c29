//! The job's directory: made, given to the job's user, removed when dropped. In a minimal root (`root`) it lies in memory and
//! needs no removing. Else it lies where the server's jobs are; the media's file stays the server's where that is another user,
//! so that the program cannot write it; it can take the name away and put a file of its own there, which is why the server
//! serves from its descriptor. open(2), chown(2).

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::namespaces::{self, Proc};
use super::root;
use crate::cgroup::Group;
use crate::error::{Refusal, Step};
use crate::policy::User;
use crate::protocol::{Prepare, is_safe_name, is_safe_path};
use crate::remove::remove_at;

/// What `TMPDIR` names, below the job's directory.
const TMP: &str = "tmp";

pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    /// The control group that programs run in.
    pub(super) group: Option<Group>,
    /// For naming the ids of user namespaces.
    pub(super) proc: Option<Proc>,
    /// Where it is to be removed from.
    outside: Option<(OwnedFd, String)>,
}

impl Directory {
    /// The directory, and the media's empty file in it.
    pub(super) fn make(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        let parent_path = Path::new(&prepare.parent.0);
        let (name, media) = (prepare.directory.as_str(), prepare.media.as_str());
        if !is_safe_path(parent_path) || !is_safe_name(name) || !is_safe_name(media) || media == TMP
        {
            return Err(Refusal::at(Step::Directory)(Errno::EINVAL));
        }
        let group = match (prepare.plan.cgroup, &prepare.cgroup) {
            (Some(controllers), Some(parent)) => {
                let made = Group::make(Path::new(&parent.0), name, controllers, &prepare.limits);
                Some(made.map_err(Refusal::at(Step::Cgroup))?)
            }
            (Some(_), None) => return Err(Refusal::at(Step::Cgroup)(Errno::EINVAL)),
            (None, _) => None,
        };
        let (mut this, media) =
            if prepare.plan.namespaces { Self::inside(prepare) } else { Self::outside(prepare) }?;
        this.group = group;
        Ok((this, media))
    }

    /// In a root of the job's own.
    fn inside(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        let proc = namespaces::enter(prepare.plan)?;
        let parent = Path::new(&prepare.parent.0);
        let path = parent.join(&prepare.directory);
        let Prepare { media, view, limits, user, .. } = prepare;
        let ground = root::build(parent, &path, media, view, limits, *user).map_err(|error| {
            Refusal::at(Step::Root)(Errno::try_from(error).unwrap_or(Errno::EINVAL))
        })?;
        let this = Self { path, fd: ground.directory, group: None, proc, outside: None };
        this.fill_and_give(*user).map_err(Refusal::at(Step::Directory))?;
        Ok((this, ground.media))
    }

    /// Among the server's files.
    fn outside(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        let parent_path = Path::new(&prepare.parent.0);
        let (name, media) = (prepare.directory.as_str(), prepare.media.as_str());
        let of_directory = Refusal::at(Step::Directory);
        let just_open = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let parent =
            open(parent_path, OFlag::O_PATH | just_open, Mode::empty()).map_err(&of_directory)?;
        mkdirat(&parent, name, Mode::S_IRWXU).map_err(&of_directory)?;
        let fd = match openat(&parent, name, OFlag::O_RDONLY | just_open, Mode::empty()) {
            Ok(fd) => fd,
            Err(errno) => {
                let _ = remove_at(parent.as_fd(), name);
                return Err(of_directory(errno));
            }
        };
        // From here on it is removed on every way out.
        let path = parent_path.join(name);
        let outside = Some((parent, name.to_owned()));
        let this = Self { path, fd, group: None, proc: None, outside };
        let media = this.make_media(media, prepare.user).map_err(Refusal::at(Step::Media))?;
        // Given away last: until then no other program of that user can be inside and meddle.
        this.fill_and_give(prepare.user).map_err(of_directory)?;
        Ok((this, media))
    }

    fn make_media(&self, name: &str, user: Option<User>) -> nix::Result<OwnedFd> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let media = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        if user.is_some() {
            fchmod(&media, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH)?;
        }
        Ok(media)
    }

    fn fill_and_give(&self, user: Option<User>) -> nix::Result<()> {
        mkdirat(&self.fd, TMP, Mode::S_IRWXU)?;
        if let Some(User { uid, gid }) = user {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&self.fd, TMP, uid, gid, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
            fchown(&self.fd, uid, gid)?;
        }
        Ok(())
    }

    pub(super) fn tmp(&self) -> OsString {
        self.path.join(TMP).into_os_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The server looks whether it has gone, and has more ways to say so.
        if let Some((parent, name)) = &self.outside {
            let _ = remove_at(parent.as_fd(), name);
        }
    }
}
