//! Isolation layers, and the plan that is applied to every job.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An isolation layer above the base layer, which is always active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// System call filter. seccomp(2).
    Seccomp,
    /// Allow-list of paths and ports, and scopes for signals and abstract sockets. landlock(7).
    Landlock,
    /// Pid, mount and IPC namespaces with a minimal read-only root; a user namespace where the server is not root.
    /// namespaces(7), Linux 5.12.
    Namespaces,
    /// One control group per job, which limits the resources of its processes together and kills them atomically.
    /// cgroups(7), Linux 5.14.
    Cgroup,
}

impl Layer {
    /// All layers, in display order.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::Cgroup, Self::Landlock, Self::Seccomp];

    /// Returns the layer's name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Namespaces => "namespaces",
            Self::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Layers that must be active for the service to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Requires seccomp and one of: namespaces; Landlock with scopes (Linux 6.12); any Landlock where programs run as
    /// another user than the server.
    #[default]
    Enforce,
    /// Like `Enforce`, and additionally requires each of these layers.
    Strict(Vec<Layer>),
    /// Requires no layer. The base layer alone is not a sandbox if programs run as the server's own user.
    Degraded,
}

/// First Landlock version with scopes for signals and abstract sockets (Linux 6.12).
pub(crate) const LANDLOCK_SCOPES: u32 = 6;
/// First Landlock version with rules for TCP ports (Linux 6.7).
pub(crate) const LANDLOCK_TCP: u32 = 4;
/// First Landlock version with a right to connect to path-based unix sockets.
pub(crate) const LANDLOCK_UNIX_SOCKETS: u32 = 9;

/// Controllers that are available for the groups of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) pids: bool,
    pub(crate) cpu: bool,
}

/// Layers and options applied to a job. The plan is final once the probe run passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the options are independent of each other")]
pub(crate) struct Plan {
    pub(crate) seccomp: bool,
    /// Landlock version in use; 0 if Landlock is off.
    pub(crate) landlock: u32,
    pub(crate) namespaces: bool,
    /// Whether the job has a network namespace. This namespace is by far the most expensive one, so it is used only if
    /// seccomp and Landlock do not already deny the network and abstract sockets.
    pub(crate) own_network: bool,
    /// Whether each program gets a user namespace that maps only the program's user, if the server runs as root.
    /// `RLIMIT_NPROC` counts processes per user namespace. Without a user namespace, a fork bomb in one job exhausts
    /// the limit for the scripts of all jobs, and a script that cannot fork may exit with an arbitrary code.
    pub(crate) own_users: bool,
    /// Whether the job has a UTS namespace with a neutral host name. Requires `namespaces`.
    pub(crate) own_host_name: bool,
    /// Controllers of the job's control group; `None` if control groups are off.
    pub(crate) cgroup: Option<Controllers>,
}

impl Plan {
    pub(crate) fn has(self, layer: Layer) -> bool {
        match layer {
            Layer::Seccomp => self.seccomp,
            Layer::Landlock => self.landlock > 0,
            Layer::Namespaces => self.namespaces,
            Layer::Cgroup => self.cgroup.is_some(),
        }
    }

    /// Whether all descendants of a program are killed with it, without searching for them.
    pub(crate) fn kills_all(self) -> bool {
        self.namespaces || self.cgroup.is_some()
    }

    /// Whether the memory of System V and POSIX queues, semaphores and segments counts towards a limit of the job and is
    /// freed with it.
    pub(crate) fn bounds_shared_ipc(self) -> bool {
        self.namespaces && self.cgroup.is_some_and(|controllers| controllers.memory)
    }

    /// Whether the process limit counts the job's own processes only.
    pub(crate) fn counts_processes(self) -> bool {
        self.cgroup.is_some_and(|controllers| controllers.pids)
    }
}

/// State of each layer, with the reason where it is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    pub(crate) plan: Plan,
    pub(crate) base: String,
    /// Layers that failed in the probe run, with the reason.
    pub(crate) off: Vec<(Layer, String)>,
    /// Reason why a root server cannot give programs a user namespace.
    pub(crate) no_users: Option<String>,
    /// Reason why the job cannot have a host name of its own.
    pub(crate) no_host_name: Option<String>,
    /// Reason why control groups were not probed.
    pub(crate) no_cgroup: Option<&'static str>,
}

impl Layers {
    /// Whether `layer` is applied to every job.
    #[must_use]
    pub fn is_active(&self, layer: Layer) -> bool {
        self.plan.has(layer)
    }

    /// Returns name and state of each layer, the base layer first.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, String)> {
        let upper = Layer::ALL.map(|layer| (layer.name(), self.state(layer)));
        [("base", self.base.clone())].into_iter().chain(upper).collect()
    }

    fn state(&self, layer: Layer) -> String {
        if let Some((_, reason)) = self.off.iter().find(|(off, _)| *off == layer) {
            return format!("OFF: {reason}");
        }
        if !self.is_active(layer) {
            return match (layer, self.no_cgroup) {
                (Layer::Cgroup, Some(reason)) => format!("OFF: {reason}"),
                _ => "OFF: not supported by this kernel".to_owned(),
            };
        }
        let Plan { landlock, own_network, cgroup, .. } = self.plan;
        match layer {
            Layer::Namespaces => {
                let network = if own_network { ", network" } else { "" };
                let users = self.no_users.as_ref().map_or_else(
                    || ", user".to_owned(),
                    |reason| {
                        format!("; no user namespace ({reason}): process limit shared by all jobs")
                    },
                );
                let host_name = self.no_host_name.as_ref().map_or_else(
                    || ", uts".to_owned(),
                    |reason| format!("; no uts namespace ({reason}): the host name is readable"),
                );
                // Deviations, which start with a semicolon, follow the namespaces in use.
                let mut options = [network.to_owned(), users, host_name];
                options.sort_by_key(|option| option.starts_with(';'));
                let options = options.concat();
                format!("pid, mount (minimal root, files in memory), ipc{options}")
            }
            Layer::Cgroup => {
                let has = |which: fn(Controllers) -> bool| cgroup.is_some_and(which);
                let limits = [
                    (has(|controllers| controllers.memory), "memory"),
                    (has(|controllers| controllers.pids), "processes"),
                    (has(|controllers| controllers.cpu), "processors"),
                ];
                let active = limits.iter().filter(|(active, _)| *active).map(|(_, name)| *name);
                let missing = limits.iter().filter(|(active, _)| !active).map(|(_, name)| *name);
                let missing: Vec<_> = missing.collect();
                let active = active.chain(["kill"]).collect::<Vec<_>>().join(", ");
                if missing.is_empty() {
                    active
                } else {
                    format!("{active}; not delegated: {}", missing.join(", "))
                }
            }
            Layer::Landlock if landlock >= LANDLOCK_SCOPES => {
                format!("version {landlock}, with scopes")
            }
            Layer::Landlock => format!("version {landlock}, without scopes (Linux 6.12)"),
            Layer::Seccomp if self.plan.kills_all() => "filter".to_owned(),
            Layer::Seccomp => "filter, with setsid and setpgid denied".to_owned(),
        }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, state)) in self.states().iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{name}: {state}")?;
        }
        Ok(())
    }
}
