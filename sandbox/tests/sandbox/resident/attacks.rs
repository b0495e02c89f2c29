//! Attacks of the child of one job, under every plan. The attacks of `hostile_table` are tried by children as well.

use std::fmt::Write as _;

use mcs_sandbox::JobPriority;
use nix::libc::{self, c_long};

use super::{LIMITS, Program, short};
use crate::fixture::{Fixture, wait_until};
use crate::hostile::{PLANS, skip_without_layers};

/// `SIGSYS`: the filter has killed the child.
const FILTERED: &str = "signal 31";

/// A system call with these arguments.
macro_rules! call {
    ($call:ident $(, $argument:expr)*) => {
        ChildAttack::Call(libc::$call, &[$($argument as i64),*])
    };
}

/// How a child attacks.
pub(crate) enum ChildAttack {
    /// The media of the job, in which `JOB` is the number of the job.
    Media(&'static str),
    /// A system call and its arguments.
    Call(c_long, &'static [i64]),
}

impl ChildAttack {
    fn media(&self, job: usize) -> String {
        match self {
            Self::Media(media) => media.replace("JOB", &job.to_string()),
            Self::Call(number, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
                format!("call {number} {}", arguments.join(" "))
            }
        }
    }
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const EXECUTABLE: i32 = libc::PROT_READ | libc::PROT_EXEC;
const HANGS: &[&str] = &["spin", "write-forever"];

/// Attacks, and what the server receives from the job. No result is that of another file.
#[rustfmt::skip]
pub(crate) const ATTACKS: &[(&str, ChildAttack, &str)] = &[
    ("write a valid record to descriptors 1,023 to 0", ChildAttack::Media("write-all JOB"), FILTERED),
    ("read descriptors 0 to 1,023", ChildAttack::Media("read-all"), "1 read"),
    ("write to its media", call!(SYS_write, 0, 0, 0), FILTERED),
    ("open a file", ChildAttack::Media("open"), FILTERED),
    ("create a file in memory", call!(SYS_memfd_create, 0, 0), FILTERED),
    ("copy a descriptor", call!(SYS_dup, 1), FILTERED),
    ("close a descriptor", call!(SYS_close, 1), FILTERED),
    ("open a socket", call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0), FILTERED),
    ("fork", call!(SYS_clone, libc::SIGCHLD), FILTERED),
    ("start a thread", call!(SYS_clone, libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND), FILTERED),
    ("clone3", call!(SYS_clone3, 0, 0), FILTERED),
    ("execute a program", call!(SYS_execve, 0, 0, 0), FILTERED),
    ("signal process 1", call!(SYS_kill, 1, 0), FILTERED),
    ("signal itself", call!(SYS_tgkill, 1, 1, 0), FILTERED),
    ("trace a process", call!(SYS_ptrace, libc::PTRACE_SEIZE, 1, 0, 0), FILTERED),
    ("read memory of another process", call!(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0), FILTERED),
    ("write memory of another process", call!(SYS_process_vm_writev, 1, 0, 0, 0, 0, 0), FILTERED),
    ("open a pidfd", call!(SYS_pidfd_open, 1, 0), FILTERED),
    ("map executable memory", call!(SYS_mmap, 0, 4096, EXECUTABLE, PRIVATE, -1, 0), FILTERED),
    ("map shared memory", call!(SYS_mmap, 0, 4096, 1, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0), FILTERED),
    ("map its media shared", call!(SYS_mmap, 0, 4096, 3, libc::MAP_SHARED, 0, 0), FILTERED),
    ("map huge pages", call!(SYS_mmap, 0, 1 << 21, 3, PRIVATE | libc::MAP_HUGETLB, -1, 0), FILTERED),
    ("make memory executable", call!(SYS_mprotect, 0, 0, EXECUTABLE), FILTERED),
    ("share pages with other processes", call!(SYS_madvise, 0, 0, libc::MADV_MERGEABLE), FILTERED),
    ("wait for a futex", call!(SYS_futex, 0, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 0, 0), FILTERED),
    ("sleep", call!(SYS_nanosleep, 0, 0), FILTERED),
    ("raise a limit", call!(SYS_prlimit64, 0, libc::RLIMIT_AS, 0, 0), FILTERED),
    ("change its priority", call!(SYS_setpriority, 0, 0, 0), FILTERED),
    ("become dumpable", call!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0), FILTERED),
    ("survive its parent", call!(SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0), FILTERED),
    ("install another filter", call!(SYS_seccomp, 0, 0, 0), FILTERED),
    ("ioctl", call!(SYS_ioctl, 0, 0, 0), FILTERED),
    ("unknown system call", ChildAttack::Call(10_000, &[]), FILTERED),
    ("x32", ChildAttack::Call(0x4000_0000 + 39, &[]), FILTERED),
    ("int 0x80", ChildAttack::Media("int80"), if cfg!(target_arch = "x86_64") { FILTERED } else { "Err(ENOSYS)" }),
    ("spin", ChildAttack::Media("spin"), "the time limit expired"),
    ("write to its pipe without end", ChildAttack::Media("write-forever"), "the time limit expired"),
    ("exhaust memory", ChildAttack::Media("memory"), FILTERED),
    ("exhaust the stack", ChildAttack::Media("stack"), "signal 11"),
    ("access invalid memory", ChildAttack::Media("segv"), "signal 11"),
    ("abort", ChildAttack::Media("abort"), FILTERED),
    ("panic", ChildAttack::Media("panic"), "exit code 103"),
    ("exit with 0 and no record", ChildAttack::Media("exit-0"), "no result"),
    ("exit with 7", ChildAttack::Media("exit-7"), "exit code 7"),
    ("flood its pipe, exit with 0", ChildAttack::Media("flood"), "an invalid result"),
    ("part of a record, exit with 0", ChildAttack::Media("short"), "an invalid result"),
    ("two records", ChildAttack::Media("double JOB"), "an invalid result"),
    ("a record, then abort", ChildAttack::Media("record-then-abort JOB"), FILTERED),
    ("a result above the limit", ChildAttack::Media("too-long"), "exit code 104"),
    ("print", ChildAttack::Media("print"), "an invalid result"),
];

/// Every attack in a child of the same program, and after each a job that must be unaffected.
#[tokio::test]
async fn attacks_end_only_their_own_job() {
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "attacks_end_only_their_own_job").await {
            continue;
        }
        let program = Program::new(layers).await;
        for (index, (name, attack, expected)) in ATTACKS.iter().enumerate() {
            let media = attack.media(2 * index + 1);
            let limits = if HANGS.contains(&&*media) { short() } else { LIMITS };
            assert_eq!(program.run_within(&media, limits).await, *expected, "{plan}: {name}");
            assert_eq!(program.run("name").await, "data", "{plan}: after {name}");
        }
        program.end().await;
    }
}

/// Tries the attacks of scripts, given as words of the hostile program, in children of one resident program. Returns those
/// that succeed.
pub(crate) async fn successful_attacks(fixture: &Fixture, attacks: &[String]) -> Vec<String> {
    let marker = super::fresh_marker();
    let resident = super::start(&fixture.sandbox, fixture, &marker).await.unwrap();
    let mut successful = Vec::new();
    for words in attacks {
        // All of them start with the name of the attack.
        let media = super::media(fixture, format!("attack {words}").as_bytes());
        let result = resident.evaluate(media, 7, LIMITS, &JobPriority::new()).await;
        if result.is_ok_and(|result| result == b"succeeded") {
            successful.push(words.clone());
        }
    }
    let name = super::media(fixture, b"name");
    let name = resident.evaluate(name, 7, LIMITS, &JobPriority::new()).await;
    assert_eq!(name.unwrap(), b"data", "the program is unaffected");
    drop(resident);
    wait_until("all processes have ended", || super::processes_with(&marker).is_empty()).await;
    successful
}

/// Returns the rows of the table in the manual.
pub(crate) fn table() -> String {
    let mut table =
        String::from("| a child of one job tries to | the server receives |\n|---|---|\n");
    for (name, _, expected) in ATTACKS {
        let received = match *expected {
            FILTERED => "a failure: killed by the filter",
            "1 read" => "its result: only its media is readable",
            "the time limit expired" => "a failure: killed at its time limit",
            other => &format!("a failure: {other}"),
        };
        writeln!(table, "| {name} | {received} |").unwrap();
    }
    table
}

/// The control: without forbidden calls, the same functions return results.
#[tokio::test]
async fn ordinary_jobs_have_results() {
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "ordinary_jobs_have_results").await {
            continue;
        }
        let program = Program::new(layers).await;
        assert_eq!(program.run("name").await, "data", "{plan}");
        assert_eq!(program.run("").await, "unknown", "{plan}: empty media");
        assert_eq!(program.run("compute").await, "panicked: true", "{plan}");
        for length in [0, 1, 5000, mcs_sandbox::MAX_RESULT] {
            let result = program.run(&format!("result {length}")).await;
            assert_eq!(result.len(), length, "{plan}");
        }
        // More than the memory of a job.
        let media = "size".to_owned() + &" ".repeat(100_000_000 - 4);
        assert_eq!(program.run(&media).await, "100000000", "{plan}");
        program.end().await;
    }
}

/// 100 hostile jobs beside 100 ordinary ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_jobs_do_not_change_other_results() {
    let hostile: Vec<_> =
        ["write-all 7", "memory", "spin", "flood", "exit-0", "double", "stack", "short"].into();
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "hostile_jobs_do_not_change_other_results").await {
            continue;
        }
        let program = std::sync::Arc::new(Program::new(layers).await);
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(24));
        let mut jobs = tokio::task::JoinSet::new();
        for index in 0..200 {
            let attack = (index % 2 == 1).then(|| hostile[index / 2 % hostile.len()]);
            let (program, slots) = (program.clone(), slots.clone());
            jobs.spawn(async move {
                let _slot = slots.acquire_owned().await.unwrap();
                let media = attack.map_or_else(|| format!("result {index}"), str::to_owned);
                let limits = if attack.is_some() { short() } else { LIMITS };
                (index, attack, program.run_within(&media, limits).await)
            });
        }
        while let Some(job) = jobs.join_next().await {
            let (index, attack, result) = job.unwrap();
            match attack {
                None => assert_eq!(result, "x".repeat(index), "{plan}"),
                Some(attack) => {
                    assert!(!result.contains("clean") && !result.contains("xx"), "{attack}");
                }
            }
        }
        std::sync::Arc::into_inner(program).unwrap().end().await;
    }
}
