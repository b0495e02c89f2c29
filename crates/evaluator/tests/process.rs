//! Tests of the evaluator as a process: this program starts itself as an evaluator. Not with the test harness, because
//! an evaluator runs on the main thread.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and start the program under test"
)]

use std::{
    env, fs,
    fs::File,
    hint::black_box,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use mcs_evaluator::{EvaluationReport, RuleSet, UnpackSettings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const MIB: u64 = 1 << 20;

fn main() {
    mcs_evaluator::dispatch();
    if env::args().nth(1).as_deref() == Some("recurse") {
        return recurse_after_raising_the_limit();
    }
    let directory = tempfile::tempdir().unwrap();
    reports_a_finding(directory.path());
    sets_its_limits(directory.path());
    failed_allocation_is_a_failure(directory.path());
    stack_grows_up_to_a_limit_raised_at_run_time();
}

/// Starts an evaluator of these rules.
fn start(directory: &Path, rules: &str, settings: &UnpackSettings, media: &Path) -> Child {
    let file = directory.join("rules.yar");
    fs::write(&file, rules).unwrap();
    let rules = RuleSet::load(&[file]).unwrap();
    Command::new(env::current_exe().unwrap())
        .args(mcs_evaluator::arguments([], settings))
        .arg(media)
        .stdin(mcs_sandbox::sealed("rules", rules.prepared()).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(directory: &Path, rules: &str, settings: &UnpackSettings, media: &[u8]) -> Output {
    let path = directory.join("media");
    fs::write(&path, media).unwrap();
    start(directory, rules, settings, &path).wait_with_output().unwrap()
}

fn reports_a_finding(directory: &Path) {
    let rules = "rule Found { strings: $a = \"bad\" condition: $a }";
    let output = run(directory, rules, &UnpackSettings::default(), b"a bad file");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: EvaluationReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.finding.unwrap().rules, ["Found"]);
}

/// Reads the limits of an evaluator that waits for its media.
fn sets_its_limits(directory: &Path) {
    let (_, hard_stack) = getrlimit(Resource::RLIMIT_STACK).unwrap();
    let (_, hard_memory) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let fifo = directory.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let limits_with = |settings: UnpackSettings| {
        let child = start(directory, "rule None { condition: false }", &settings, &fifo);
        // Opening waits for the evaluator. The evaluator reads the media when its memory is limited.
        let mut media = File::options().write(true).open(&fifo).unwrap();
        // More than the capacity of a pipe.
        media.write_all(&vec![0; 1 << 18]).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        drop(media);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let soft = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let value = line.split_whitespace().next().unwrap();
            value.parse::<u64>().unwrap_or(u64::MAX)
        };
        (soft("Max stack size"), soft("Max address space"))
    };
    let small = UnpackSettings { max_file: 1024, max_files: 1, ..UnpackSettings::default() };
    let large = UnpackSettings { max_file: 64 * MIB, ..small.clone() };
    let disabled = UnpackSettings { enabled: false, ..large.clone() };
    let [(stack, small), (_, large), (_, disabled)] = [small, large, disabled].map(limits_with);
    assert!(stack >= (16 * MIB).min(hard_stack), "{stack}");
    if hard_memory < 4096 * MIB {
        return;
    }
    assert!(small < 1024 * MIB, "{small}");
    // The measured size of the address space may differ by one step.
    let close = |value: u64, expected: u64| value.abs_diff(expected) <= 8 * MIB;
    assert!(close(large - small, 3 * 64 * MIB), "{large} {small}");
    assert!(close(small - disabled, 64 * MIB), "{small} {disabled}");
}

/// Rules that need more memory than an evaluator may take.
fn failed_allocation_is_a_failure(directory: &Path) {
    let settings = UnpackSettings { enabled: false, ..UnpackSettings::default() };
    // Every offset matches, and without fixed bytes to search for, the number of matches is not limited.
    let rules = "rule Everywhere { strings: $a = /.{1,3}/s condition: #a > 100000000 }";
    let output = run(directory, rules, &settings, &vec![b'a'; 32 << 20]);
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(output.status.signal(), Some(nix::libc::SIGABRT), "{output:?}");
    // With less media, the same rule is evaluated.
    let output = run(directory, rules, &settings, &vec![b'a'; 1 << 16]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// The limit in force when the stack grows applies, rather than the one at the start of the program. `acct_stack_growth()`
/// in the kernel.
fn stack_grows_up_to_a_limit_raised_at_run_time() {
    let (_, hard) = getrlimit(Resource::RLIMIT_STACK).unwrap();
    if hard < 16 * MIB {
        return;
    }
    let child = |limit: &str| {
        // The shell sets the limit of the start, KiB.
        let script = format!("ulimit -S -s 1024 && exec \"$0\" recurse {limit}");
        let program = env::current_exe().unwrap();
        Command::new("sh").args(["-c", &script]).arg(program).output().unwrap().status
    };
    assert!(child("16").success());
    assert!(child("8").signal().is_some());
}

/// Takes 12 MiB of the stack of the main thread.
fn recurse_after_raising_the_limit() {
    let limit = env::args().nth(2).unwrap().parse::<u64>().unwrap() * MIB;
    let (_, hard) = getrlimit(Resource::RLIMIT_STACK).unwrap();
    setrlimit(Resource::RLIMIT_STACK, limit, hard).unwrap();
    let top = 0_u8;
    assert!(recurse(std::ptr::from_ref(&top).addr()) > 0);
}

/// Calls itself until 12 MiB below `top`. Returns the number of levels.
fn recurse(top: usize) -> u64 {
    let page = black_box([1_u8; 4096]);
    let used = top - page.as_ptr().addr();
    if used > 12 << 20 { 0 } else { recurse(top) + u64::from(black_box(&page)[used % page.len()]) }
}
