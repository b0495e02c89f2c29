//! Tests of the evaluator as a process: this program starts itself as an evaluator in the sandbox. Not with the test harness, because
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
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mcs_evaluator::{
    Encryption, EvaluationReport, EvaluatorAnswer, EvaluatorSettings, EvaluatorTask, FileReport,
    Inspection, RuleSet, UnpackSettings, memory_allowance,
};
use mcs_filetype::MimeRules;
use mcs_sandbox::{
    JobLimits, JobPriority, Mode, Paths, Policy, Resident, ResidentLimits, SandboxBuilder, User,
};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};

const MIB: u64 = 1 << 20;

fn main() {
    // This program is the helper of its sandbox as well.
    mcs_sandbox::dispatch();
    mcs_evaluator::dispatch();
    if env::args().nth(1).as_deref() == Some("recurse") {
        return recurse_after_raising_the_limit();
    }
    stack_grows_up_to_a_limit_raised_at_run_time();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = SearchableDirectory::new();
        reports_findings(directory.path()).await;
        failed_allocation_is_a_failure(directory.path()).await;
        rules_that_cannot_be_loaded_are_an_error(directory.path()).await;
        decoders_make_no_forbidden_call(directory.path()).await;
        detections_make_no_forbidden_call(directory.path()).await;
        inspects_without_rules(directory.path()).await;
        lists_apply_to_unpacked_files(directory.path()).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// A directory that the user of the sandbox can search.
struct SearchableDirectory(tempfile::TempDir);

impl SearchableDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(directory.path(), mode).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn load(directory: &Path, rules: &str) -> RuleSet {
    let file = directory.join("rules.yar");
    fs::write(&file, rules).unwrap();
    RuleSet::load(&[file]).unwrap()
}

/// Starts an evaluator with these prepared rules.
async fn start(
    directory: &Path,
    prepared: &[u8],
    settings: &EvaluatorSettings,
) -> Result<Resident, mcs_sandbox::Error> {
    let program: PathBuf = env::current_exe().unwrap();
    let policy = Policy {
        mode: Mode::Degraded,
        user: geteuid().is_root().then_some(User { uid: 61_234, gid: 61_235 }),
        paths: Paths { read_only: vec![program.clone()], ..Paths::default() },
        ..Policy::default()
    };
    let sandbox = SandboxBuilder::new(policy).unwrap().build_unprobed(&[]).unwrap();
    let command = mcs_sandbox::Command { program, args: mcs_evaluator::arguments(settings) };
    let data = mcs_sandbox::sealed("rules", prepared).unwrap();
    let limits = ResidentLimits { jobs: 1, job_memory: memory_allowance(&settings.unpack) };
    sandbox.start_resident(directory, command, &[&data], limits).await
}

const RULES: EvaluatorTask =
    EvaluatorTask { evaluates_rules: true, limits_types: true, searches_hashes: false };

/// Settings with these limits of unpacking.
fn with_unpack(unpack: UnpackSettings) -> EvaluatorSettings {
    let ignored = vec!["Ignored".to_owned()];
    EvaluatorSettings { ignored, unpack, ..EvaluatorSettings::default() }
}

async fn examine(
    evaluator: &Resident,
    directory: &Path,
    task: EvaluatorTask,
    media: &[u8],
) -> Result<FileReport, String> {
    let path = directory.join("media");
    fs::write(&path, media).unwrap();
    // The same with and without unpacking.
    let memory = memory_allowance(&UnpackSettings { enabled: false, ..UnpackSettings::default() });
    let limits = JobLimits { memory, time: Duration::from_secs(60) };
    let media = File::open(path).unwrap();
    let answer = evaluator.evaluate(media, task.argument(), limits, &JobPriority::new()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

async fn evaluate(
    evaluator: &Resident,
    directory: &Path,
    media: &[u8],
) -> Result<EvaluationReport, String> {
    let report = examine(evaluator, directory, RULES, media).await?;
    match report.rules.unwrap() {
        EvaluatorAnswer::Report(report) => Ok(report),
        EvaluatorAnswer::Failed(reason) => Err(reason),
    }
}

async fn reports_findings(directory: &Path) {
    let rules = r#"
        rule Found { strings: $a = "bad" condition: $a }
        rule Ignored { condition: true }"#;
    let settings = with_unpack(UnpackSettings::default());
    let evaluator = start(directory, load(directory, rules).prepared(), &settings).await.unwrap();
    for _ in 0..3 {
        let report = evaluate(&evaluator, directory, b"a bad file").await.unwrap();
        assert_eq!(report.finding.unwrap().rules, ["Found"]);
        let report = evaluate(&evaluator, directory, b"a file").await.unwrap();
        assert_eq!(report, EvaluationReport::default());
        let report = evaluate(&evaluator, directory, b"").await.unwrap();
        assert_eq!(report, EvaluationReport::default());
    }
}

/// Rules that need more memory than an evaluation may take.
async fn failed_allocation_is_a_failure(directory: &Path) {
    let settings = with_unpack(UnpackSettings { enabled: false, ..UnpackSettings::default() });
    // Every offset matches, and without fixed bytes to search for, the number of matches is not limited.
    let rules = "rule Everywhere { strings: $a = /.{1,3}/s condition: #a > 100000000 }";
    let evaluator = start(directory, load(directory, rules).prepared(), &settings).await.unwrap();
    let media = vec![b'a'; 32 << 20];
    let result = evaluate(&evaluator, directory, &media).await;
    // The filter kills the child when it prints the reason.
    assert_eq!(result.unwrap_err(), "signal 31 (forbidden system call or out of memory)");
    // With less media, the same rule is evaluated.
    let report = evaluate(&evaluator, directory, &vec![b'a'; 1 << 16]).await.unwrap();
    assert_eq!(report, EvaluationReport::default());
}

async fn rules_that_cannot_be_loaded_are_an_error(directory: &Path) {
    let error = start(directory, b"other rules", &EvaluatorSettings::default()).await.unwrap_err();
    assert!(error.to_string().contains("another version of this program"), "{error}");
}

/// Unpacks all formats under the filter: the inputs of the fuzz target.
async fn decoders_make_no_forbidden_call(directory: &Path) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/unpack");
    let settings = EvaluatorSettings {
        detects_types: true,
        sets_file_type: true,
        inner_types: MimeRules::all_but(["application/x-none"]),
        ..EvaluatorSettings::default()
    };
    let rules = load(directory, "rule None { condition: filetype == \"\" }");
    let evaluator = start(directory, rules.prepared(), &settings).await.unwrap();
    let mut files = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let media = fs::read(&path).unwrap();
        let report = evaluate(&evaluator, directory, &media).await;
        assert_eq!(report.unwrap().finding, None, "{}", path.display());
        files += 1;
    }
    assert!(files > 100, "{files} files");
}

/// Inspects the inputs of the fuzz targets of both detections under the filter.
async fn detections_make_no_forbidden_call(directory: &Path) {
    let settings = EvaluatorSettings { detects_types: true, ..EvaluatorSettings::default() };
    let evaluator = start(directory, b"", &settings).await.unwrap();
    for corpus in ["encrypted", "filetype"] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
        let mut files = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            let path = entry.unwrap().path();
            let media = fs::read(&path).unwrap();
            let report = examine(&evaluator, directory, EvaluatorTask::INSPECT, &media).await;
            let mime = report.unwrap().inspection.mime.unwrap();
            assert!(mcs_filetype::MediaType::from_name(&mime).is_some(), "{mime}");
            files += 1;
        }
        assert!(files > 10, "{files} files");
    }
}

async fn inspects_without_rules(directory: &Path) {
    let encrypted = include_bytes!("../../../fuzz/corpus/encrypted/encrypted.docx");
    for detects_types in [false, true] {
        let settings = EvaluatorSettings { detects_types, ..EvaluatorSettings::default() };
        let evaluator = start(directory, b"", &settings).await.unwrap();
        for (media, mime, encrypted) in [
            (&b"text"[..], "text/plain", None),
            (encrypted, "application/encrypted", Some(Encryption::OlePackage)),
        ] {
            let mime = detects_types.then(|| mime.to_owned());
            let inspection = Inspection { mime, encrypted };
            let report = examine(&evaluator, directory, EvaluatorTask::INSPECT, media).await;
            assert_eq!(report.unwrap(), FileReport { inspection, rules: None, hashes: None });
        }
        // Rules that are not loaded have not called the file clean.
        let error = evaluate(&evaluator, directory, b"text").await.unwrap_err();
        assert_eq!(error, "no rules are loaded");
    }
}

async fn lists_apply_to_unpacked_files(directory: &Path) {
    let script = b"#!/bin/sh\necho\n";
    // A gzip file whose contents are stored.
    let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".to_vec();
    let length = u16::try_from(script.len()).unwrap();
    packed.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
    packed.extend(script);
    packed.extend([crc32(script), u32::from(length)].map(u32::to_le_bytes).concat());
    let rules = load(directory, "rule None { condition: false }");
    let settings = EvaluatorSettings {
        detects_types: true,
        inner_types: MimeRules::all_but(["text/x-shellscript"]),
        ..EvaluatorSettings::default()
    };
    let evaluator = start(directory, rules.prepared(), &settings).await.unwrap();
    let report = evaluate(&evaluator, directory, &packed).await.unwrap();
    let finding = report.finding.unwrap();
    assert_eq!(finding.rules, ["file type text/x-shellscript is not allowed"]);
    assert!(!finding.path.is_empty());
    // The service applies the lists to the media file itself.
    assert_eq!(evaluate(&evaluator, directory, script).await.unwrap().finding, None);
    let task = EvaluatorTask { limits_types: false, ..RULES };
    let report = examine(&evaluator, directory, task, &packed).await.unwrap();
    assert_eq!(report.rules, Some(EvaluatorAnswer::Report(EvaluationReport::default())));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
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
