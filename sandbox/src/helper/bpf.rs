//! Compiles what is decided about each system call to one program of the kernel's filter machine: a search in halves by the
//! call's number, then the rules over its arguments, if it has any. Asking for one number after another would be shorter to
//! write; but the kernel, when a filter is put in force, walks through it once for each number there is, to know which calls
//! it need not be asked about, and a filter is put in force for each job. seccomp(2), `struct seccomp_data`.

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::{BpfProgram, SeccompRule, sock_filter};

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const GO_ON_AT: u16 = code(libc::BPF_JMP | libc::BPF_JA);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const CALL_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

/// What becomes of a call.
pub(super) enum Decision {
    /// `SECCOMP_RET_…`.
    Always(u32),
    /// This where one of the rules holds; else it is allowed.
    Where(Vec<SeccompRule>, u32),
}

/// From a number on, until the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Always(u32),
    /// By the rules of this place in the list of chains.
    Chain(usize),
}

/// Allows what is not listed, up to `last`; beyond it numbers are answered by `beyond`. Calls of another architecture kill the
/// process. None where a listed number lies beyond the last, or a jump would be too long for an instruction.
pub(super) fn compile(
    decisions: BTreeMap<c_long, Decision>,
    last: c_long,
    beyond: u32,
) -> Option<BpfProgram> {
    if decisions.last_key_value().is_some_and(|(call, _)| *call > last) {
        return None;
    }
    let mut chains = Vec::new();
    let mut outcomes = vec![(0, Outcome::Always(libc::SECCOMP_RET_ALLOW))];
    let mut from = |first: u32, outcome| {
        // Numbers come in their order.
        outcomes.pop_if(|(before, _)| *before == first);
        outcomes.push((first, outcome));
    };
    for (call, decision) in decisions {
        let outcome = match decision {
            Decision::Always(answer) => Outcome::Always(answer),
            Decision::Where(rules, answer) => {
                chains.push(chain(rules, answer));
                Outcome::Chain(chains.len() - 1)
            }
        };
        from(number(call), outcome);
        from(number(call) + 1, Outcome::Always(libc::SECCOMP_RET_ALLOW));
    }
    from(number(last) + 1, Outcome::Always(beyond));
    outcomes.dedup_by(|next, before| next.1 == before.1);

    let mut program = vec![
        statement(LOAD, ARCHITECTURE_AT),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, CALL_AT),
    ];
    let search = search(&outcomes)?;
    // A chain's place is known once all before it are.
    let mut places = Vec::new();
    let mut end = search.len();
    for chain in &chains {
        places.push(end);
        end += chain.len();
    }
    for (at, step) in search.into_iter().enumerate() {
        program.push(match step {
            Step::Do(instruction) => instruction,
            Step::Follow(chain) => {
                statement(GO_ON_AT, u32::try_from(places.get(chain)? - at - 1).ok()?)
            }
        });
    }
    program.extend(chains.into_iter().flatten());
    // The library's rules have a jump to what it puts behind them; it is never taken, but has to lead somewhere.
    program.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    Some(program)
}

enum Step {
    Do(sock_filter),
    /// To be a jump to this chain.
    Follow(usize),
}

fn search(outcomes: &[(u32, Outcome)]) -> Option<Vec<Step>> {
    match outcomes {
        [] => None,
        [(_, Outcome::Always(answer))] => Some(vec![Step::Do(statement(RETURN, *answer))]),
        [(_, Outcome::Chain(chain))] => Some(vec![Step::Follow(*chain)]),
        outcomes => {
            let (below, above) = outcomes.split_at(outcomes.len() / 2);
            let (middle, _) = *above.first()?;
            let (mut below, mut above) = (search(below)?, search(above)?);
            let skipped = u8::try_from(below.len()).ok()?;
            let mut all = vec![Step::Do(jump(AT_LEAST, middle, skipped, 0))];
            all.append(&mut below);
            all.append(&mut above);
            Some(all)
        }
    }
}

/// The rules one after another, each followed by the answer where it holds.
fn chain(rules: Vec<SeccompRule>, answer: u32) -> BpfProgram {
    let mut all = Vec::new();
    for rule in rules {
        all.append(&mut BpfProgram::from(rule));
        all.push(statement(RETURN, answer));
    }
    all.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    all
}

/// Whether this is a program's answer, and this one.
pub(super) fn returns(instruction: &sock_filter, answer: u32) -> bool {
    instruction.code == RETURN && instruction.k == answer
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
    fn a_list_beyond_the_last_number_makes_no_filter() {
        let made = |call| {
            let listed = BTreeMap::from([(call, Decision::Always(libc::SECCOMP_RET_TRAP))]);
            compile(listed, 9, libc::SECCOMP_RET_TRAP).is_some()
        };
        assert!(made(0) && made(9) && !made(10));
    }
}
