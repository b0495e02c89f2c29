//! Entering namespaces: the helper leaves the server's mounts and IPC for its own, in a user namespace of its own where it is
//! not root. Pids come later, one namespace for each program, and with it a user namespace where the helper is root.
//! `user_namespaces(7)`, `mount_namespaces(7)`.

use std::fs;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid, write};

use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::User;

/// The machine's `/proc`, where ids are named. The minimal root has none, so it is opened before.
pub(super) struct Proc(OwnedFd);

impl Proc {
    fn open() -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc", flags, Mode::empty()).map(Self)
    }

    /// Names one user and one group in the user namespace of `child`, each by its own number: nobody else is anybody there.
    pub(super) fn name_in(&self, child: Pid, User { uid, gid }: User) -> nix::Result<()> {
        for (file, id) in [("gid_map", gid), ("uid_map", uid)] {
            let map = openat(
                &self.0,
                format!("{child}/{file}").as_str(),
                OFlag::O_WRONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            // In one write(2), which takes all of it or nothing.
            write(&map, format!("{id} {id} 1").as_bytes())?;
        }
        Ok(())
    }
}

pub(super) fn enter(plan: Plan) -> Result<Option<Proc>, Refusal> {
    let proc = plan.own_users.then(Proc::open).transpose().map_err(Refusal::at(Step::IdMaps))?;
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
        // Each id is itself. Groups cannot be set in here, which is what naming the own group asks for.
        named(&[
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{uid} {uid} 1")),
            ("gid_map", format!("{gid} {gid} 1")),
        ])
        .map_err(Refusal::at(Step::IdMaps))?;
    }
    // Nothing that is mounted from here on shows outside.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(Refusal::at(Step::Namespaces))?;
    Ok(proc)
}

/// The files in `/proc` of a process that is not dumpable are root's: for this moment it is.
fn named(maps: &[(&str, String)]) -> nix::Result<()> {
    prctl::set_dumpable(true)?;
    let written = maps.iter().try_for_each(|(name, content)| {
        fs::write(format!("/proc/self/{name}"), content)
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
    });
    prctl::set_dumpable(false)?;
    written
}
