//! Entering namespaces: the helper leaves the server's mounts and IPC for its own, in a user namespace of its own where it is
//! not root. Pids come later, one namespace for each program. `user_namespaces(7)`, `mount_namespaces(7)`.

use std::fs;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{getegid, geteuid};

use crate::error::{Refusal, Step};
use crate::plan::Plan;

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
        .map_err(Refusal::at(Step::Namespaces))
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
