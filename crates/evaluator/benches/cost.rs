//! Measures compiling and preparing of rules, the start of a resident evaluator, and evaluations and inspections by it.
//!
//! `cargo bench -p mcs-evaluator [-- RULES…]`, by default with the rules in `config/rules`. Without isolation layers.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mcs_evaluator::{EvaluatorSettings, EvaluatorTask, RuleSet, arguments, memory_allowance};
use mcs_sandbox::{
    Command, JobLimits, JobPriority, Mode, Paths, Policy, ResidentLimits, SandboxBuilder, User,
};

const MIB: usize = 1 << 20;

type BenchError = Box<dyn std::error::Error>;

fn main() -> Result<(), BenchError> {
    // The benchmark starts its own program as the helper and as the evaluator, as the service does.
    mcs_sandbox::dispatch();
    mcs_evaluator::dispatch();
    let supplied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules");
    let rule_paths: Vec<_> =
        env::args_os().skip(1).filter(|arg| arg != "--bench").map(PathBuf::from).collect();
    let paths = if rule_paths.is_empty() { vec![supplied] } else { rule_paths };
    let start = Instant::now();
    let rules = RuleSet::load(&paths)?;
    let duration = start.elapsed();
    println!("{} rules, compiled and prepared in {duration:?}", rules.names().len());
    println!("prepared: {} KiB", rules.prepared().len() / 1024);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&rules));
    runtime.shutdown_timeout(Duration::from_secs(10));
    measured
}

async fn measure(rules: &RuleSet) -> Result<(), BenchError> {
    let directory = tempfile::tempdir()?;
    let searchable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(directory.path(), searchable)?;
    let with_types = EvaluatorSettings { detects_types: true, ..EvaluatorSettings::default() };
    let none = EvaluatorSettings::default();
    let (evaluate, inspect) =
        (EvaluatorTask { evaluates_rules: true, ..EvaluatorTask::INSPECT }, EvaluatorTask::INSPECT);
    for (name, prepared, settings, task) in [
        ("rules", rules.prepared(), &none, evaluate),
        ("inspection without types", b"", &none, inspect),
        ("inspection with types", b"", &with_types, inspect),
    ] {
        println!("\n{name}");
        measure_evaluator(directory.path(), prepared, settings, task).await?;
    }
    Ok(())
}

/// Measures the start of an evaluator, and a task on files of several sizes.
async fn measure_evaluator(
    directory: &Path,
    prepared: &[u8],
    settings: &EvaluatorSettings,
    task: EvaluatorTask,
) -> Result<(), BenchError> {
    let program = env::current_exe()?;
    let policy = Policy {
        mode: Mode::Degraded,
        user: nix::unistd::geteuid().is_root().then_some(User { uid: 61_234, gid: 61_235 }),
        paths: Paths { read_only: vec![program.clone()], ..Paths::default() },
        ..Policy::default()
    };
    let sandbox = SandboxBuilder::new(policy)?.build_unprobed(&[])?;
    let data = mcs_sandbox::sealed("rules", prepared)?;
    let memory = memory_allowance(&settings.unpack);
    let begin = Instant::now();
    let command = Command { program, args: arguments(settings) };
    let limits = ResidentLimits { jobs: 1, job_memory: memory };
    let evaluator = sandbox.start_resident(directory, command, &[&data], limits).await?;
    println!("start to ready: {:?}", begin.elapsed());
    for (name, length, fill, times) in [
        ("1 byte", 1, 0, 200),
        ("100 KiB of noise", 100 << 10, 1, 200),
        ("50 MiB of zeros", 50 * MIB, 0, 5),
        ("50 MiB of noise", 50 * MIB, 1, 5),
    ] {
        let path = directory.join("media");
        fs::write(&path, content(length, fill))?;
        let mut durations = Vec::new();
        for _ in 0..times {
            let media = File::open(&path)?;
            let limits = JobLimits { memory, time: Duration::from_secs(60) };
            let begin = Instant::now();
            evaluator.evaluate(media, task.argument(), limits, &JobPriority::new()).await?;
            durations.push(begin.elapsed());
        }
        durations.sort();
        let median = durations.get(times / 2).copied().unwrap_or_default();
        println!("{name}: {median:?} (median of {times})");
    }
    Ok(())
}

/// Returns zeros, or pseudo-random bytes (xorshift).
fn content(length: usize, fill: u8) -> Vec<u8> {
    if fill == 0 {
        return vec![0; length];
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
