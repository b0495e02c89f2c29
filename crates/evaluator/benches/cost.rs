//! Measures compiling and preparing of rules, and loading and scanning in a new process. Prints a table.
//!
//! `cargo bench -p mcs-evaluator [-- RULES…]`, by default with the rules in `config/rules`.
#![expect(clippy::disallowed_methods, reason = "evaluators are started without a sandbox")]

use std::{
    env, fs, hint,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mcs_evaluator::{RuleSet, UnpackSettings, arguments};

const MIB: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The benchmark starts its own program as an evaluator, as the service does.
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

    let directory = tempfile::tempdir()?;
    let prepared = mcs_sandbox::sealed("rules", rules.prepared())?;
    let program = env::current_exe()?;
    let run = |media: &Path| -> Result<Duration, std::io::Error> {
        let start = Instant::now();
        let status = Command::new(&program)
            .args(arguments([], &UnpackSettings::default()))
            .arg(media)
            .stdin(prepared.try_clone()?)
            .stdout(Stdio::null())
            .status()?;
        hint::black_box(status);
        Ok(start.elapsed())
    };
    let shell = |media: &Path| -> Result<Duration, std::io::Error> {
        let start = Instant::now();
        hint::black_box(Command::new("/bin/sh").args(["-c", "exit 0"]).arg(media).status()?);
        Ok(start.elapsed())
    };
    let empty = directory.path().join("empty");
    fs::write(&empty, "x")?;
    println!("new process, 1 byte: {:?} (median of 200)", median(200, || run(&empty))?);
    println!("new shell, exit 0: {:?} (median of 200)", median(200, || shell(&empty))?);
    let text = "A line of text, which is no code and has no tags.\n".repeat(100 * 1024 / 50);
    for (name, bytes) in [("noise", content(100 * 1024, 1)), ("text", text.into_bytes())] {
        let media = directory.path().join(name);
        fs::write(&media, bytes)?;
        println!("100 KiB of {name}: {:?} (median of 200)", median(200, || run(&media))?);
    }
    for (name, fill) in [("zeros", 0_u8), ("noise", 1)] {
        let media = directory.path().join(name);
        fs::write(&media, content(50 * MIB, fill))?;
        println!("50 MiB of {name}: {:?} (median of 5)", median(5, || run(&media))?);
    }
    let usage = fs::read_to_string("/proc/self/status")?;
    println!("{}", usage.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}

fn median(
    times: usize,
    run: impl Fn() -> Result<Duration, std::io::Error>,
) -> Result<Duration, std::io::Error> {
    let mut durations = (0..times).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    durations.sort();
    Ok(durations.get(times / 2).copied().unwrap_or_default())
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
