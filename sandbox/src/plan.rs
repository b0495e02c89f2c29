//! Selects the plan of a sandbox. The plan is fixed by the probe run. If a layer of the plan fails in a job, that job
//! fails; a job never runs with fewer layers.

use crate::error::Error;
use crate::layers::{LANDLOCK_SCOPES, LANDLOCK_TCP, Layer, Layers, Mode, Plan};
use crate::policy::{NetworkAccess, Policy};
use crate::sys;

impl Plan {
    /// Returns the plan with every layer that may be available.
    pub(crate) fn best(policy: &Policy) -> Self {
        let landlock = sys::landlock_abi();
        let own_users = policy.user.is_some();
        let cgroup = policy.cgroup.controllers();
        Self {
            seccomp: true,
            landlock,
            namespaces: true,
            own_network: false,
            own_users,
            own_host_name: true,
            cgroup,
        }
        .adjusted_for(policy)
    }

    /// Returns the plan with only `layers`, without probing them.
    pub(crate) fn from_layers(layers: &[Layer], policy: &Policy) -> Self {
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
        self.adjusted_for(policy)
    }

    fn adjusted_for(mut self, policy: &Policy) -> Self {
        let network_denied = self.seccomp && self.landlock >= LANDLOCK_SCOPES;
        self.own_network =
            self.namespaces && policy.network == NetworkAccess::None && !network_denied;
        self.own_users &= self.namespaces;
        self.own_host_name &= self.namespaces;
        self
    }

    /// Returns what is missing for the policy's mode; `None` if the mode is satisfied.
    pub(crate) fn missing_requirements(self, policy: &Policy) -> Option<String> {
        if let NetworkAccess::Ports(_) = policy.network
            && self.landlock < LANDLOCK_TCP
        {
            // Applies in every mode: the operator relies on all other ports being closed.
            return Some("sandbox.tcp_ports needs Landlock of Linux 6.7 or later".to_owned());
        }
        if policy.mode == Mode::Degraded {
            return None;
        }
        let isolated = self.namespaces
            || self.landlock >= LANDLOCK_SCOPES
            || (self.landlock > 0 && policy.user.is_some());
        if !self.seccomp || !isolated {
            return Some(
                "the minimum is seccomp, and one of: namespaces; Landlock with scopes (Linux 6.12); \
                 Landlock and a user for the script other than the server's"
                    .to_owned(),
            );
        }
        let Mode::Strict(required) = &policy.mode else { return None };
        let missing: Vec<_> =
            required.iter().filter(|layer| !self.has(**layer)).map(|layer| layer.name()).collect();
        (!missing.is_empty()).then(|| format!("required but unavailable: {}", missing.join(", ")))
    }
}

impl Layers {
    /// Returns an error if the policy's mode requires more layers.
    pub(crate) fn check_mode(self, policy: &Policy) -> Result<Self, Error> {
        match self.plan.missing_requirements(policy) {
            None => Ok(self),
            Some(missing) => Err(Error::InsufficientLayers { missing, layers: Box::new(self) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::User;

    fn plan(seccomp: bool, landlock: u32, namespaces: bool) -> Plan {
        Plan {
            seccomp,
            landlock,
            namespaces,
            own_network: false,
            own_users: false,
            own_host_name: false,
            cgroup: None,
        }
    }

    fn policy(mode: Mode, user: bool) -> Policy {
        let user = user.then_some(User { uid: 1, gid: 1 });
        Policy { mode, user, ..Policy::default() }
    }

    #[test]
    fn enforce_requires_seccomp_and_isolation_from_server() {
        let satisfied =
            |plan: Plan, user| plan.missing_requirements(&policy(Mode::Enforce, user)).is_none();
        assert!(satisfied(plan(true, 0, true), false));
        assert!(satisfied(plan(true, 6, false), false));
        assert!(satisfied(plan(true, 1, false), true));
        assert!(!satisfied(plan(true, 5, false), false), "no scopes, server's own user");
        assert!(!satisfied(plan(true, 0, false), true));
        assert!(!satisfied(plan(false, 7, true), true));
    }

    #[test]
    fn strict_requires_listed_layers_and_degraded_none() {
        let strict = policy(Mode::Strict(vec![Layer::Landlock, Layer::Namespaces]), false);
        let missing = plan(true, 0, true).missing_requirements(&strict).unwrap();
        assert!(missing.contains("landlock") && !missing.contains("namespaces"), "{missing}");
        assert_eq!(plan(true, 7, true).missing_requirements(&strict), None);
        assert!(
            plan(false, 7, true).missing_requirements(&strict).is_some(),
            "strict includes the minimum"
        );
        assert_eq!(
            plan(false, 0, false).missing_requirements(&policy(Mode::Degraded, false)),
            None
        );
    }

    #[test]
    fn ports_require_landlock_tcp_rules() {
        let policy =
            Policy { network: NetworkAccess::Ports(vec![1344]), ..policy(Mode::Degraded, false) };
        assert!(plan(true, 3, true).missing_requirements(&policy).is_some());
        assert_eq!(plan(true, 4, true).missing_requirements(&policy), None);
    }

    #[test]
    fn network_namespace_only_if_seccomp_and_landlock_allow_network() {
        let own_network = |plan: Plan, network| {
            let policy = Policy { network, ..Policy::default() };
            plan.adjusted_for(&policy).own_network
        };
        assert!(!own_network(plan(true, 6, true), NetworkAccess::None));
        assert!(own_network(plan(true, 5, true), NetworkAccess::None), "abstract sockets");
        assert!(own_network(plan(false, 7, true), NetworkAccess::None));
        assert!(!own_network(plan(true, 5, false), NetworkAccess::None));
        assert!(!own_network(plan(true, 5, true), NetworkAccess::Host));
    }
}
