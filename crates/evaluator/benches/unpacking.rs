//! Measures evaluators on archives beside 7-Zip and clamscan, and on decompression bombs. Prints a table. Each evaluation
//! includes the start of the resident evaluator, as clamscan loads its signatures.
//!
//! `cargo bench -p mcs-evaluator --bench unpacking`. Needs `7zz` (Debian: 7zip) and `clamscan` (Debian: clamav).
#![expect(clippy::disallowed_methods, reason = "starts other programs to compare with")]

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use mcs_evaluator::{EvaluatorSettings, EvaluatorTask, RuleSet, arguments, memory_allowance};
use mcs_sandbox::{
    JobLimits, JobPriority, Mode, Paths, Policy, ResidentLimits, SandboxBuilder, User,
};
use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::geteuid,
};

/// Number of rounds. Each program runs once in each round.
const ROUNDS: usize = 5;

/// One signature, which loads at once.
const SIGNATURE: &str = "Test:0:0:4d5a90000300000004000000ffff0000b800000000000000deadbeef\n";

fn main() -> Result<(), Box<dyn Error>> {
    // The benchmark starts its own program as helper and evaluator, as the service does.
    mcs_sandbox::dispatch();
    mcs_evaluator::dispatch();
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if let [prepared, media] = &arguments[..] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(evaluate(Path::new(prepared), Path::new(media)))?;
        // Waits for the helper, whose processor time counts.
        runtime.shutdown_timeout(Duration::from_secs(10));
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let supplied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules");
    let prepared = directory.path().join("prepared");
    fs::write(&prepared, RuleSet::load(&[supplied])?.prepared())?;
    let program = env::current_exe()?;
    let evaluator = |media: &Path| {
        let mut command = Command::new(&program);
        command.arg(&prepared).arg(media);
        command
    };
    let database = directory.path().join("test.ndb");
    fs::write(&database, SIGNATURE)?;
    for (name, files, length) in [("1 000 files", 1_000, 28_000), ("10 files", 10, 1_400_000)] {
        let archive = write_zip(directory.path(), files, length)?;
        let size = fs::metadata(&archive)?.len() / 1_000_000;
        let mut durations: [Vec<Duration>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let mut clamscan = Command::new("clamscan");
            clamscan.arg("--no-summary").arg("-d").arg(&database).arg(&archive);
            let mut seven_zip = Command::new("7zz");
            seven_zip.arg("t").arg(&archive);
            let commands = [evaluator(&archive), clamscan, seven_zip];
            for (command, durations) in commands.into_iter().zip(&mut durations) {
                durations.push(processor_time(command)?);
            }
        }
        let [own, clamscan, seven_zip] = durations;
        println!(
            "zip of {size} MB, {name}: {}; clamscan {}, ratio {}; 7zz t {}, ratio {}",
            spread(&own),
            spread(&clamscan),
            ratios(&own, &clamscan),
            spread(&seven_zip),
            ratios(&own, &seven_zip),
        );
    }
    let bomb = directory.path().join("zeros.gz");
    let mut encoder = GzEncoder::new(File::create(&bomb)?, Compression::fast());
    for _ in 0..1024 {
        encoder.write_all(&vec![0; 1 << 20])?;
    }
    encoder.finish()?;
    let durations = (0..ROUNDS).map(|_| processor_time(evaluator(&bomb)));
    println!("gz of 1 GiB of zeros: {}", spread(&durations.collect::<Result<Vec<_>, _>>()?));
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    println!("largest memory of all programs: {} MiB", memory / 1024);
    Ok(())
}

/// Evaluates one file with prepared rules, in a resident evaluator of its own.
async fn evaluate(prepared: &Path, media: &Path) -> Result<(), Box<dyn Error>> {
    let prepared = mcs_sandbox::sealed("rules", &fs::read(prepared)?)?;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
    let program = env::current_exe()?;
    let policy = Policy {
        mode: Mode::Degraded,
        user: geteuid().is_root().then_some(User { uid: 61_234, gid: 61_235 }),
        paths: Paths { read_only: vec![program.clone()], ..Paths::default() },
        ..Policy::default()
    };
    let sandbox = SandboxBuilder::new(policy)?.build_unprobed(&[])?;
    let settings = EvaluatorSettings::default();
    let memory = memory_allowance(&settings.unpack);
    let command = mcs_sandbox::Command { program, args: arguments(&settings) };
    let limits = ResidentLimits { jobs: 1, job_memory: memory };
    let evaluator = sandbox.start_resident(directory.path(), command, &[&prepared], limits).await?;
    let limits = JobLimits { memory, time: Duration::from_secs(60) };
    let task = EvaluatorTask { evaluates_rules: true, ..EvaluatorTask::INSPECT }.argument();
    evaluator.evaluate(File::open(media)?, task, limits, &JobPriority::new()).await?;
    drop(evaluator);
    // The helper removes the directory of the job when the evaluator has ended.
    while fs::read_dir(directory.path())?.next().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Writes files of words and noise, and packs them with 7-Zip.
fn write_zip(directory: &Path, files: usize, length: usize) -> io::Result<std::path::PathBuf> {
    let folder = directory.join(format!("files-{files}"));
    fs::create_dir(&folder)?;
    let mut state = 1_u64;
    for number in 0..files {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if bytes.len() % 2 == 0 {
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            bytes.extend_from_slice(b"words of a text ");
        }
        fs::write(folder.join(format!("{number}.bin")), bytes)?;
    }
    let archive = directory.join(format!("{files}.zip"));
    processor_time({
        let mut command = Command::new("7zz");
        command.args(["a", "-tzip", "-mx=1"]).arg(&archive).arg(&folder);
        command
    })?;
    Ok(archive)
}

/// Runs a program. Returns its processor time, which depends less on other load than the elapsed time.
fn processor_time(mut command: Command) -> io::Result<Duration> {
    let used = || -> io::Result<Duration> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let microseconds = |time: nix::sys::time::TimeVal| {
            u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default()
        };
        Ok(Duration::from_micros(
            microseconds(usage.user_time()) + microseconds(usage.system_time()),
        ))
    };
    let before = used()?;
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?}: {status}")));
    }
    Ok(used()?.saturating_sub(before))
}

/// Returns the median, least and greatest duration.
fn spread(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    match (sorted.get(sorted.len() / 2), sorted.first(), sorted.last()) {
        (Some(median), Some(least), Some(greatest)) => {
            format!("{median:.0?} ({least:.0?} to {greatest:.0?})")
        }
        _ => "none".to_owned(),
    }
}

/// Returns the median, least and greatest ratio of the rounds.
fn ratios(own: &[Duration], other: &[Duration]) -> String {
    let mut ratios: Vec<_> =
        own.iter().zip(other).map(|(own, other)| own.as_secs_f64() / other.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    match (ratios.get(ratios.len() / 2), ratios.first(), ratios.last()) {
        (Some(median), Some(least), Some(greatest)) => {
            format!("{median:.2} ({least:.2} to {greatest:.2})")
        }
        _ => "none".to_owned(),
    }
}
