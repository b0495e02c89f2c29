//! Compiles the decisions about system calls to one BPF program: a binary search by call number, followed by the rules
//! over arguments. A linear search would be simpler, but when a filter is installed, the kernel evaluates it once for
//! every call number to find calls that are always allowed, and a filter is installed for each job. seccomp(2), `struct
//! seccomp_data`.

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::{BpfProgram, SeccompRule, sock_filter};

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const JUMP: u16 = code(libc::BPF_JMP | libc::BPF_JA);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets of fields in `struct seccomp_data`.
const CALL_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// Result of the filter for a system call.
pub(super) enum Decision {
    /// Returns this `SECCOMP_RET_…` value.
    Always(u32),
    /// Returns this value if one of the rules matches; else allows the call.
    Where(Vec<SeccompRule>, u32),
}

/// Action for the call numbers from this range's first number up to, not including, the first number of the next range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RangeAction {
    Always(u32),
    /// Evaluates the rules at this index of the list of chains.
    Chain(usize),
}

/// Compiles a program that allows unlisted calls up to `last` and returns `beyond` for higher numbers. Calls of another
/// architecture kill the process. Returns `None` if a listed number is above `last`, or if a jump is too long for an
/// instruction.
pub(super) fn compile(
    decisions: BTreeMap<c_long, Decision>,
    last: c_long,
    beyond: u32,
) -> Option<BpfProgram> {
    if decisions.last_key_value().is_some_and(|(call, _)| *call > last) {
        return None;
    }
    let mut chains = Vec::new();
    let mut ranges = vec![(0, RangeAction::Always(libc::SECCOMP_RET_ALLOW))];
    let mut add_range = |first: u32, action| {
        // Numbers are added in ascending order.
        ranges.pop_if(|(start, _)| *start == first);
        ranges.push((first, action));
    };
    for (call, decision) in decisions {
        let action = match decision {
            Decision::Always(answer) => RangeAction::Always(answer),
            Decision::Where(rules, answer) => {
                chains.push(compile_rules(rules, answer));
                RangeAction::Chain(chains.len() - 1)
            }
        };
        add_range(number(call), action);
        add_range(number(call) + 1, RangeAction::Always(libc::SECCOMP_RET_ALLOW));
    }
    add_range(number(last) + 1, RangeAction::Always(beyond));
    ranges.dedup_by(|next, before| next.1 == before.1);

    let mut program = vec![
        statement(LOAD, ARCHITECTURE_OFFSET),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, CALL_OFFSET),
    ];
    let search = compile_search(&ranges)?;
    // The offset of a chain depends on the length of all chains before it.
    let mut chain_offsets = Vec::new();
    let mut end = search.len();
    for chain in &chains {
        chain_offsets.push(end);
        end += chain.len();
    }
    for (index, instruction) in search.into_iter().enumerate() {
        program.push(match instruction {
            Instruction::Do(instruction) => instruction,
            Instruction::JumpToChain(chain) => {
                statement(JUMP, u32::try_from(chain_offsets.get(chain)? - index - 1).ok()?)
            }
        });
    }
    program.extend(chains.into_iter().flatten());
    // Rules of `seccompiler` contain a jump past their end. It is never taken but needs a valid target.
    program.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    Some(program)
}

enum Instruction {
    Do(sock_filter),
    /// Placeholder for a jump to this chain.
    JumpToChain(usize),
}

fn compile_search(ranges: &[(u32, RangeAction)]) -> Option<Vec<Instruction>> {
    match ranges {
        [] => None,
        [(_, RangeAction::Always(answer))] => {
            Some(vec![Instruction::Do(statement(RETURN, *answer))])
        }
        [(_, RangeAction::Chain(chain))] => Some(vec![Instruction::JumpToChain(*chain)]),
        ranges => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let (middle, _) = *above.first()?;
            let (mut lower, mut upper) = (compile_search(below)?, compile_search(above)?);
            let skipped = u8::try_from(lower.len()).ok()?;
            let mut program = vec![Instruction::Do(jump(AT_LEAST, middle, skipped, 0))];
            program.append(&mut lower);
            program.append(&mut upper);
            Some(program)
        }
    }
}

/// Concatenates the rules, each followed by the return instruction for a match.
fn compile_rules(rules: Vec<SeccompRule>, action: u32) -> BpfProgram {
    let mut program = Vec::new();
    for rule in rules {
        program.append(&mut BpfProgram::from(rule));
        program.push(statement(RETURN, action));
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

/// Whether `instruction` returns `value`.
pub(super) fn returns(instruction: &sock_filter, value: u32) -> bool {
    instruction.code == RETURN && instruction.k == value
}

fn statement(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[expect(clippy::cast_possible_truncation, reason = "operation codes are below 256")]
const fn code(operation: u32) -> u16 {
    operation as u16
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of calls are below 1000"
)]
const fn number(call: c_long) -> u32 {
    call as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_call_above_last_known_number() {
        let compiles = |call| {
            let listed = BTreeMap::from([(call, Decision::Always(libc::SECCOMP_RET_TRAP))]);
            compile(listed, 9, libc::SECCOMP_RET_TRAP).is_some()
        };
        assert!(compiles(0) && compiles(9) && !compiles(10));
    }
}
