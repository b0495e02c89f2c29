//! Which layers hold: settled once by a trial run, told, and kept for every job. A layer that held in the trial and fails in a
//! job fails that job; there is no weaker run later.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cgroup::Controllers;
use crate::policy::{Network, Policy};
use crate::{Error, sys};

/// A layer above the base, which always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// A filter of system calls. seccomp(2).
    Seccomp,
    /// An allow-list of paths and ports, and scopes for signals and abstract sockets. landlock(7).
    Landlock,
    /// Pid, mount and IPC namespaces with a minimal read-only root; a user namespace where the server is not root.
    /// namespaces(7), Linux 5.12.
    Namespaces,
    /// A control group for each job: limits of what its processes use together, and killing all of them at once.
    /// cgroups(7), Linux 5.14.
    Cgroup,
}

impl Layer {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::Cgroup, Self::Landlock, Self::Seccomp];

    /// Its name in configuration and log.
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

/// What the service demands of the machine before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// seccomp, and one of: namespaces; Landlock with scopes (Linux 6.12); any Landlock where programs run as another user
    /// than the server.
    #[default]
    Enforce,
    /// That, and each of these layers.
    Strict(Vec<Layer>),
    /// Whatever there is, down to the base layer, which alone is no sandbox under the server's own user.
    Degraded,
}

/// The version of Landlock that brought scopes for signals and abstract sockets, in Linux 6.12.
const LANDLOCK_SCOPES: u32 = 6;
/// The version that brought rules for TCP ports, in Linux 6.7.
const LANDLOCK_TCP: u32 = 4;
/// The version that brought a right to connect to unix sockets by their paths.
pub(crate) const LANDLOCK_UNIX_SOCKETS: u32 = 9;

/// What is put in force for a job. Made for trial by [`Plan::best`], and final once the trial run has passed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is on or off by itself")]
pub(crate) struct Plan {
    pub(crate) seccomp: bool,
    /// The version in use; 0 is off.
    pub(crate) landlock: u32,
    pub(crate) namespaces: bool,
    /// A network namespace besides. By far the dearest of them, so only where nothing else keeps a program from the
    /// network and from abstract sockets.
    pub(crate) own_network: bool,
    /// A user namespace for each program of a server that is root, in which nothing but the program's user is named. It is
    /// there for `RLIMIT_NPROC`, which counts a user's processes in each namespace: without it one job's fork bomb leaves no
    /// process to the scripts of the others, and a script that cannot fork exits with anything.
    pub(crate) own_users: bool,
    /// A control group for each job, and what it is limited in.
    pub(crate) cgroup: Option<Controllers>,
}

impl Plan {
    /// Everything that may hold here.
    pub(crate) fn best(policy: &Policy) -> Self {
        let landlock = sys::landlock_abi();
        let own_users = policy.user.is_some();
        let cgroup = policy.cgroup.controllers();
        Self { seccomp: true, landlock, namespaces: true, own_network: false, own_users, cgroup }
            .settled_for(policy)
    }

    /// These layers alone, taken untried.
    pub(crate) fn of(layers: &[Layer], policy: &Policy) -> Self {
        let mut plan = Self::best(policy);
        for layer in Layer::ALL {
            if !layers.contains(&layer) {
                plan = plan.without(layer, policy);
            }
        }
        plan
    }

    pub(crate) fn without(mut self, layer: Layer, policy: &Policy) -> Self {
        match layer {
            Layer::Seccomp => self.seccomp = false,
            Layer::Landlock => self.landlock = 0,
            Layer::Namespaces => self.namespaces = false,
            Layer::Cgroup => self.cgroup = None,
        }
        self.settled_for(policy)
    }

    pub(crate) fn has(self, layer: Layer) -> bool {
        match layer {
            Layer::Seccomp => self.seccomp,
            Layer::Landlock => self.landlock > 0,
            Layer::Namespaces => self.namespaces,
            Layer::Cgroup => self.cgroup.is_some(),
        }
    }

    /// Whether every process that a program started dies with it without being looked for.
    pub(crate) fn kills_all(self) -> bool {
        self.namespaces || self.cgroup.is_some()
    }

    /// Whether a job's processes are counted without those of others.
    pub(crate) fn counts_processes(self) -> bool {
        self.cgroup.is_some_and(|controllers| controllers.pids)
    }

    fn settled_for(mut self, policy: &Policy) -> Self {
        let shut_out = self.seccomp && self.landlock >= LANDLOCK_SCOPES;
        self.own_network = self.namespaces && policy.network == Network::None && !shut_out;
        self.own_users &= self.namespaces;
        self
    }

    /// What is missing for the policy's mode; `None` where it is satisfied.
    pub(crate) fn lacks(self, policy: &Policy) -> Option<String> {
        if let Network::Ports(_) = policy.network
            && self.landlock < LANDLOCK_TCP
        {
            // In no mode: the operator believes that all other ports are shut.
            return Some("sandbox.tcp_ports needs Landlock of Linux 6.7 or later".to_owned());
        }
        if policy.mode == Mode::Degraded {
            return None;
        }
        let apart = self.namespaces
            || self.landlock >= LANDLOCK_SCOPES
            || (self.landlock > 0 && policy.user.is_some());
        if !self.seccomp || !apart {
            return Some(
                "the least is seccomp, and one of: namespaces; Landlock with scopes (Linux 6.12); \
                 Landlock and a user for the script other than the server's"
                    .to_owned(),
            );
        }
        let Mode::Strict(required) = &policy.mode else { return None };
        let missing: Vec<_> =
            required.iter().filter(|layer| !self.has(**layer)).map(|layer| layer.name()).collect();
        (!missing.is_empty())
            .then(|| format!("required, and not to be had: {}", missing.join(", ")))
    }
}

/// What holds for every job and what does not, with the reason; told to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    pub(crate) plan: Plan,
    pub(crate) base: String,
    /// What was tried in vain, and why.
    pub(crate) off: Vec<(Layer, String)>,
    /// Why a server that is root can give programs no user namespace.
    pub(crate) no_users: Option<String>,
    /// Why there was no control group to be tried.
    pub(crate) no_cgroup: Option<&'static str>,
}

impl Layers {
    /// Whether a layer holds.
    #[must_use]
    pub fn holds(&self, layer: Layer) -> bool {
        self.plan.has(layer)
    }

    /// Each layer with what it holds, or why it is off; the base first.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let upper = Layer::ALL.map(|layer| (layer.name(), self.state(layer)));
        [("base", self.base.clone())].into_iter().chain(upper).collect()
    }

    fn state(&self, layer: Layer) -> String {
        if let Some((_, why)) = self.off.iter().find(|(off, _)| *off == layer) {
            return format!("OFF: {why}");
        }
        if !self.holds(layer) {
            return match (layer, self.no_cgroup) {
                (Layer::Cgroup, Some(why)) => format!("OFF: {why}"),
                _ => "OFF: this kernel has none".to_owned(),
            };
        }
        let Plan { landlock, own_network, cgroup, .. } = self.plan;
        match layer {
            Layer::Namespaces => {
                let network = if own_network { ", network" } else { "" };
                let users = self.no_users.as_ref().map_or_else(
                    || ", user".to_owned(),
                    |why| {
                        format!("; no user namespace ({why}): all jobs' processes count together")
                    },
                );
                format!("pid, mount (minimal root, files in memory), ipc{network}{users}")
            }
            Layer::Cgroup => {
                let has = |which: fn(Controllers) -> bool| cgroup.is_some_and(which);
                let limits = [
                    (has(|it| it.memory), "memory"),
                    (has(|it| it.pids), "processes"),
                    (has(|it| it.cpu), "processors"),
                ];
                let held = limits.iter().filter(|(held, _)| *held).map(|(_, name)| *name);
                let lacking = limits.iter().filter(|(held, _)| !held).map(|(_, name)| *name);
                let lacking: Vec<_> = lacking.collect();
                let said = held.chain(["kill"]).collect::<Vec<_>>().join(", ");
                if lacking.is_empty() {
                    said
                } else {
                    format!("{said}; not delegated: {}", lacking.join(", "))
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

    /// As an error, where the policy's mode asks for more.
    pub(crate) fn judged(self, policy: &Policy) -> Result<Self, Error> {
        match self.plan.lacks(policy) {
            None => Ok(self),
            Some(lacks) => Err(Error::TooWeak { lacks, layers: Box::new(self) }),
        }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, state)) in self.rows().iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{name}: {state}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    fn plan(seccomp: bool, landlock: u32, namespaces: bool) -> Plan {
        Plan { seccomp, landlock, namespaces, own_network: false, own_users: false, cgroup: None }
    }

    fn policy(mode: Mode, user: bool) -> Policy {
        let user = user.then_some(User { uid: 1, gid: 1 });
        Policy { mode, user, ..Policy::default() }
    }

    #[test]
    fn the_minimum_is_a_filter_and_something_that_sets_the_script_apart() {
        let satisfied = |plan: Plan, user| plan.lacks(&policy(Mode::Enforce, user)).is_none();
        assert!(satisfied(plan(true, 0, true), false));
        assert!(satisfied(plan(true, 6, false), false));
        assert!(satisfied(plan(true, 1, false), true));
        assert!(!satisfied(plan(true, 5, false), false), "no scopes, the server's own user");
        assert!(!satisfied(plan(true, 0, false), true));
        assert!(!satisfied(plan(false, 7, true), true));
    }

    #[test]
    fn strict_asks_for_its_layers_and_degraded_for_nothing() {
        let strict = policy(Mode::Strict(vec![Layer::Landlock, Layer::Namespaces]), false);
        let lacks = plan(true, 0, true).lacks(&strict).unwrap();
        assert!(lacks.contains("landlock") && !lacks.contains("namespaces"), "{lacks}");
        assert_eq!(plan(true, 7, true).lacks(&strict), None);
        assert!(plan(false, 7, true).lacks(&strict).is_some(), "never below the minimum");
        assert_eq!(plan(false, 0, false).lacks(&policy(Mode::Degraded, false)), None);
    }

    #[test]
    fn ports_are_not_opened_where_the_others_cannot_be_shut() {
        let policy =
            Policy { network: Network::Ports(vec![1344]), ..policy(Mode::Degraded, false) };
        assert!(plan(true, 3, true).lacks(&policy).is_some());
        assert_eq!(plan(true, 4, true).lacks(&policy), None);
    }

    #[test]
    fn the_network_is_shut_by_a_namespace_only_where_nothing_else_does_it() {
        let own_network = |plan: Plan, network| {
            let policy = Policy { network, ..Policy::default() };
            plan.settled_for(&policy).own_network
        };
        assert!(!own_network(plan(true, 6, true), Network::None));
        assert!(own_network(plan(true, 5, true), Network::None), "abstract sockets");
        assert!(own_network(plan(false, 7, true), Network::None));
        assert!(!own_network(plan(true, 5, false), Network::None));
        assert!(!own_network(plan(true, 5, true), Network::Host));
    }
}
