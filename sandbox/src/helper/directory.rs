//! The job's directory: created, given to the job's user, removed on drop. In a minimal root (`root`) it is in memory
//! and needs no removal. Otherwise it is among the server's jobs, and the media's file stays owned by the server if
//! programs run as another user: they cannot write it, but they can replace the directory entry, so the server reads
//! through its own descriptor. open(2), chown(2).

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

/// Subdirectory of the job's directory that `TMPDIR` names.
const TMP: &str = "tmp";

pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    /// The control group that programs run in.
    pub(super) group: Option<Group>,
    /// The host's `/proc`, if the machine has one.
    pub(super) proc: Option<Proc>,
    /// Parent and name for the removal; `None` if the directory is in memory.
    removal: Option<(OwnedFd, String)>,
}

impl Directory {
    /// Creates the directory with the media's empty file in it. Returns the file's descriptor too.
    pub(super) fn create(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        let parent_path = Path::new(&prepare.parent.0);
        let (name, media) = (prepare.directory.as_str(), prepare.media.as_str());
        if !is_safe_path(parent_path) || !is_safe_name(name) || !is_safe_name(media) || media == TMP
        {
            return Err(Refusal::at(Step::Directory)(Errno::EINVAL));
        }
        let group = match (prepare.plan.cgroup, &prepare.cgroup) {
            (Some(controllers), Some(parent)) => {
                let created = Group::create(
                    Path::new(&parent.0),
                    name,
                    controllers,
                    &prepare.limits,
                    prepare.resident,
                );
                Some(created.map_err(Refusal::at(Step::Cgroup))?)
            }
            (Some(_), None) => return Err(Refusal::at(Step::Cgroup)(Errno::EINVAL)),
            (None, _) => None,
        };
        let proc = match Proc::open() {
            Err(errno) if prepare.plan.own_users => return Err(Refusal::at(Step::IdMaps)(errno)),
            opened => opened.ok(),
        };
        let (mut directory, media) = if prepare.plan.namespaces {
            Self::in_namespaces(prepare)
        } else {
            Self::on_disk(prepare)
        }?;
        (directory.group, directory.proc) = (group, proc);
        Ok((directory, media))
    }

    /// Creates the directory in the job's minimal root.
    fn in_namespaces(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        namespaces::enter(prepare.plan)?;
        let parent = Path::new(&prepare.parent.0);
        let path = parent.join(&prepare.directory);
        let Prepare { media, view, limits, user, .. } = prepare;
        let job_root = root::build(parent, &path, media, view, limits, *user).map_err(|error| {
            Refusal::at(Step::Root)(Errno::try_from(error).unwrap_or(Errno::EINVAL))
        })?;
        let directory =
            Self { path, fd: job_root.directory, group: None, proc: None, removal: None };
        directory.create_tmp_and_chown(*user).map_err(Refusal::at(Step::Directory))?;
        Ok((directory, job_root.media))
    }

    /// Creates the directory in the server's file system.
    fn on_disk(prepare: &Prepare) -> Result<(Self, OwnedFd), Refusal> {
        let parent_path = Path::new(&prepare.parent.0);
        let (name, media) = (prepare.directory.as_str(), prepare.media.as_str());
        let directory_error = Refusal::at(Step::Directory);
        let open_flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let parent = open(parent_path, OFlag::O_PATH | open_flags, Mode::empty())
            .map_err(&directory_error)?;
        mkdirat(&parent, name, Mode::S_IRWXU).map_err(&directory_error)?;
        let fd = match openat(&parent, name, OFlag::O_RDONLY | open_flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(errno) => {
                let _ = remove_at(parent.as_fd(), name);
                return Err(directory_error(errno));
            }
        };
        // From here on dropping `directory` removes it on every return path.
        let path = parent_path.join(name);
        let removal = Some((parent, name.to_owned()));
        let directory = Self { path, fd, group: None, proc: None, removal };
        let media =
            directory.create_media(media, prepare.user).map_err(Refusal::at(Step::Media))?;
        // Changes the owner last: until then other programs of that user cannot access the directory.
        directory.create_tmp_and_chown(prepare.user).map_err(directory_error)?;
        Ok((directory, media))
    }

    fn create_media(&self, name: &str, user: Option<User>) -> nix::Result<OwnedFd> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let media = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        if user.is_some() {
            fchmod(&media, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH)?;
        }
        Ok(media)
    }

    fn create_tmp_and_chown(&self, user: Option<User>) -> nix::Result<()> {
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
        // The server checks that the directory is gone and can remove it as well.
        if let Some((parent, name)) = &self.removal {
            let _ = remove_at(parent.as_fd(), name);
        }
    }
}
