//! Entering namespaces: the helper gets its own mount and IPC namespaces and, if it is not root, its own user
//! namespace. Each program gets a pid namespace later, with a user namespace if the helper is root.
//! `user_namespaces(7)`, `mount_namespaces(7)`.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid, write};

use crate::error::{Refusal, Step};
use crate::layers::Plan;
use crate::policy::User;
use crate::sys;

/// Host and domain name in a job. uname(2).
const HOST_NAME: &str = "localhost";

/// The host's `/proc`, for writing id maps and finding the threads of a program. Opened before the minimal root, which
/// has no `/proc`, is entered.
pub(super) struct Proc(OwnedFd);

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Proc {
    pub(super) fn open() -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc", flags, Mode::empty()).map(Self)
    }

    /// Maps one user and one group in the user namespace of `child`, each to the same id outside. No other id is
    /// mapped.
    pub(super) fn write_id_maps(&self, child: Pid, User { uid, gid }: User) -> nix::Result<()> {
        for (file, id) in [("gid_map", gid), ("uid_map", uid)] {
            let map = openat(
                &self.0,
                format!("{child}/{file}").as_str(),
                OFlag::O_WRONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            // A single write(2): the kernel accepts a map only as a whole.
            write(&map, format!("{id} {id} 1").as_bytes())?;
        }
        Ok(())
    }
}

pub(super) fn enter(plan: Plan) -> Result<(), Refusal> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if plan.own_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(Refusal::at(Step::Namespaces))?;
    if !uid.is_root() {
        // Maps the own ids to themselves. Mapping the own group requires that setgroups(2) is denied.
        write_own_proc_files(&[
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{uid} {uid} 1")),
            ("gid_map", format!("{gid} {gid} 1")),
        ])
        .map_err(Refusal::at(Step::IdMaps))?;
    }
    if plan.own_host_name {
        // After the user namespace, whose capabilities this requires.
        unshare(CloneFlags::CLONE_NEWUTS)
            .and_then(|()| sys::set_host_name(HOST_NAME))
            .map_err(Refusal::at(Step::HostName))?;
    }
    // Prevents mounts from propagating to the host.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(Refusal::at(Step::Namespaces))
}

/// Writes files in `/proc/self`. Makes the process dumpable for that time, because the `/proc` files of non-dumpable
/// processes belong to root.
fn write_own_proc_files(maps: &[(&str, String)]) -> nix::Result<()> {
    prctl::set_dumpable(true)?;
    let written = maps.iter().try_for_each(|(name, content)| {
        fs::write(format!("/proc/self/{name}"), content)
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
    });
    prctl::set_dumpable(false)?;
    written
}
