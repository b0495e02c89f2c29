//! Landlock: which paths and ports a program may use, and whom it may signal. Made by the helper, whose rights reach every
//! path of the list; put in force by the child. landlock(7).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::errno::Errno;

use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::Network;
use crate::view::{DEVICES, SYSTEM, View};

/// The newest version that this was made with. What a kernel lacks of it is left out, what it has more stays unrestricted.
const NEWEST: ABI = ABI::V10;

/// Where names are looked up.
const DNS: u16 = 53;

/// The rules, ready for [`restrict`].
pub(super) fn rules(
    plan: Plan,
    view: &View,
    job: &Path,
    program: &Path,
) -> Result<RulesetCreated, Refusal> {
    made(plan, view, job, program).map_err(|_| Refusal::at(Step::Landlock)(Errno::EINVAL))
}

fn made(
    plan: Plan,
    view: &View,
    job: &Path,
    program: &Path,
) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    // No devices, whoever might be able to make them, and no unix sockets but those of the list.
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let socket: BitFlags<AccessFs> = AccessFs::ResolveUnix.into();

    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?;
    if view.network != Network::Host {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    // The minimal root shows what is listed and nothing else, so there one rule says the same, and is found sooner.
    let system = SYSTEM.iter().map(PathBuf::from);
    let readable: Vec<_> = if plan.namespaces {
        vec![PathBuf::from("/")]
    } else {
        system.chain(view.readable()).chain([program.to_owned()]).collect()
    };
    let mut rules = ruleset
        .create()?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .add_rules(path_beneath_rules(&view.paths.writable, write))?
        .add_rules(path_beneath_rules(&view.paths.unix_sockets, socket))?
        .add_rules(path_beneath_rules([job], write))?;
    if let Network::Ports(ports) = &view.network {
        for port in ports.iter().copied().chain([DNS]) {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        // A socket is bound to some port of the system's choice before it sends.
        rules = rules
            .add_rule(NetPort::new(DNS, AccessNet::ConnectSendUdp))?
            .add_rule(NetPort::new(0, AccessNet::BindUdp))?;
    }
    Ok(rules)
}

/// For good, and for whatever this process executes. Never less than the plan's version.
pub(super) fn restrict(rules: RulesetCreated, plan: Plan) -> Result<(), Refusal> {
    let refused = Refusal::at(Step::Landlock);
    let status = rules.restrict_self().map_err(|_| refused(Errno::EPERM))?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    let planned = plan.landlock.min(NEWEST as u32);
    if status.ruleset == RulesetStatus::NotEnforced || version < planned {
        return Err(refused(Errno::EOPNOTSUPP));
    }
    Ok(())
}
