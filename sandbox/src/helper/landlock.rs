//! Landlock: the paths and ports that a program may use, and the processes that it may signal. The helper builds the
//! rules, because it can open every listed path; the child enforces them. landlock(7).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::errno::Errno;

use crate::error::{Refusal, Step};
use crate::layers::Plan;
use crate::policy::NetworkAccess;
use crate::view::{DEVICES, SYSTEM, View};

/// Newest Landlock version that this code supports. Rights that the kernel lacks are skipped; newer rights of the
/// kernel are not restricted.
const SUPPORTED_ABI: ABI = ABI::V10;

/// Port for name resolution.
const DNS_PORT: u16 = 53;

/// Builds the rules for [`restrict`].
pub(super) fn rules(
    plan: Plan,
    view: &View,
    job: &Path,
    program: &Path,
) -> Result<RulesetCreated, Refusal> {
    build_rules(plan, view, job, program).map_err(|_| Refusal::at(Step::Landlock)(Errno::EINVAL))
}

fn build_rules(
    plan: Plan,
    view: &View,
    job: &Path,
    program: &Path,
) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(SUPPORTED_ABI);
    let read = AccessFs::from_read(SUPPORTED_ABI);
    // Excludes devices, also for programs able to create them, and unix sockets that are not listed.
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let socket: BitFlags<AccessFs> = AccessFs::ResolveUnix.into();

    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(SUPPORTED_ABI))?;
    if view.network != NetworkAccess::Host {
        ruleset = ruleset.handle_access(AccessNet::from_all(SUPPORTED_ABI))?;
    }
    // The minimal root contains only the listed paths, so one rule for / is equivalent and faster to evaluate.
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
    if let NetworkAccess::Ports(ports) = &view.network {
        for port in ports.iter().copied().chain([DNS_PORT]) {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        // A UDP socket is bound to an ephemeral port before it sends.
        rules = rules
            .add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectSendUdp))?
            .add_rule(NetPort::new(0, AccessNet::BindUdp))?;
    }
    Ok(rules)
}

/// Restricts this process and its descendants permanently. Fails if less than the plan's version is enforced.
pub(super) fn restrict(rules: RulesetCreated, plan: Plan) -> Result<(), Refusal> {
    let refused = Refusal::at(Step::Landlock);
    let status = rules.restrict_self().map_err(|_| refused(Errno::EPERM))?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    let planned = plan.landlock.min(SUPPORTED_ABI as u32);
    if status.ruleset == RulesetStatus::NotEnforced || version < planned {
        return Err(refused(Errno::EOPNOTSUPP));
    }
    Ok(())
}
