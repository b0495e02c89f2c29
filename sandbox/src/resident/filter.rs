//! The system call filter of a child: an allow-list of what pure computation needs. Every other call kills the process, as
//! do calls of another architecture, including x32, whose numbers no rule lists. The filter of programs
//! (`helper/seccomp`) is a deny-list instead, because a script may need any call. seccomp(2).

use std::collections::BTreeMap;

use nix::libc::{self, c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Descriptor of the job's pipe in a child.
const RESULT: u64 = 1;

/// Calls that are allowed with all arguments. They can read and write only descriptors that are open, which are the media
/// and the pipe. futex(2), below, is called by the unwinder of a caught panic.
const ALWAYS: [c_long; 7] = [
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_clock_gettime,
    libc::SYS_exit_group,
];

/// Compiles the filter.
pub(super) fn compile() -> Result<BpfProgram, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let kind_of_mapping = number(libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_HUGETLB);
    let not_executable = || condition(2, MaskedEq(number(libc::PROT_EXEC)), 0);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ALWAYS.into_iter().map(|call| (call, Vec::new())).collect();
    let conditional = [
        (libc::SYS_write, vec![condition(0, Eq, RESULT)?]),
        (
            libc::SYS_mmap,
            vec![
                not_executable()?,
                condition(3, MaskedEq(kind_of_mapping), number(libc::MAP_PRIVATE))?,
            ],
        ),
        (libc::SYS_mprotect, vec![not_executable()?]),
        (libc::SYS_madvise, vec![condition(2, Eq, number(libc::MADV_DONTNEED))?]),
        (libc::SYS_madvise, vec![condition(2, Eq, number(libc::MADV_FREE))?]),
        // Wakes threads that cannot exist. Waiting stays forbidden.
        (
            libc::SYS_futex,
            vec![condition(1, Eq, number(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG))?],
        ),
    ];
    for (call, conditions) in conditional {
        rules.entry(call).or_default().push(SeccompRule::new(conditions)?);
    }
    let (denied, allowed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, denied, allowed, TARGET)?;
    Ok(filter.try_into()?)
}

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET: TargetArch = TargetArch::aarch64;

/// Compares the low 32 bits of an argument. They contain all of what is compared here.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

fn number(number: c_int) -> u64 {
    u64::from(number.unsigned_abs())
}
