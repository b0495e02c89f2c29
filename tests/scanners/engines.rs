//! Built-in engines (clamd, ICAP, rules), alone, together and with a script, including their failures.

mod clamd;
mod evaluator;
mod icap;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use matrix_content_scanner::{
    config::Config,
    media::run_directory::RunDirectory,
    scan::{
        Settings,
        engines::slots::ScanSlots,
        engines::{
            EngineSettings, EngineSetupError, Engines, Evaluator, EvaluatorEnv, MAX_FILES,
            RemoteEngines,
        },
    },
};
use mcs_sandbox::{Policy, SandboxBuilder};
use reqwest::Method;

use crate::{
    SampleFiles,
    clamav::ClamdDaemon,
    harness::{MockHomeserver, ScannerBuilder, client::send, eicar, scanner::PROGRAM},
    machine_profiles, skip_without,
};

const CLAMD_PROGRAMS: [&str; 2] = ["clamd", "python3"];

/// MD5 and size of the EICAR test file.
const EICAR_SIGNATURE: &str = "44d88612fea8a8f36de82e1278abb02f:68:Test.EICAR\n";

/// Returns a builder with these lines of configuration and a script that accepts everything.
fn builder_with(config: &str) -> ScannerBuilder {
    ScannerBuilder::new("exit 0").config(config)
}

/// Returns a port that was free at the time of the call.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_file(builder: &ScannerBuilder, name: &str, content: &[u8]) -> PathBuf {
    let path = builder.dir().path(name);
    fs::write(&path, content).unwrap();
    path
}

/// Runs `scan` on one file. Returns exit code and output.
fn scan(builder: &ScannerBuilder, path: &Path) -> (Option<i32>, String) {
    let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
    (code, stdout + &stderr)
}

/// Asserts correct verdicts on all samples and a passing canary.
fn assert_verdicts(builder: &ScannerBuilder) {
    for (sample, path) in SampleFiles::new().all() {
        let (code, output) = scan(builder, &path);
        let infected = sample != "clean.txt";
        assert_eq!(code, Some(infected.into()), "{sample}: {output}");
        assert_eq!(output.contains("not clean: Test.EICAR"), infected, "{sample}: {output}");
    }
    let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("every engine detects the infected sample"), "{stdout}");
}

fn assert_scan_errors(builder: &ScannerBuilder, message: &str) {
    for (sample, path) in SampleFiles::new().all() {
        let (code, output) = scan(builder, &path);
        assert_eq!(code, Some(2), "{sample}: {output}");
        assert!(output.contains(message), "{sample}: {output}");
    }
}

const CANARY: &str = "scan.canary = \"eicar\"";

#[tokio::test]
async fn clamd_and_script_combine_verdicts_under_every_profile() {
    if skip_without("clamd_and_script_combine_verdicts_under_every_profile", &CLAMD_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    let socket = clamd.socket();
    for profile in machine_profiles() {
        let engines = |script: &str| {
            ScannerBuilder::new(script).wrapped_by(profile.wrapper).config(&format!(
                "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{socket:?}]"
            ))
        };
        // The script overwrites the file if it can and accepts everything.
        let overwriting = engines("echo nothing > \"$1\"; exit 0");
        for (sample, path) in SampleFiles::new().all() {
            let (code, output) = scan(&overwriting, &path);
            assert_eq!(
                code,
                Some((sample != "clean.txt").into()),
                "{sample}, {}: {output}",
                profile.name
            );
        }
        let samples = SampleFiles::new();
        let clean = samples.all().next().unwrap().1;
        let (code, output) = scan(&engines("echo mine; exit 1"), &clean);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("not clean: mine"), "{output}");
        let (code, output) = scan(&engines("exit 126"), &clean);
        assert_eq!(code, Some(2), "{output}");
        let infected = samples.all().nth(1).unwrap().1;
        let (code, output) = scan(&engines("exit 126"), &infected);
        assert_eq!(code, Some(1), "a verdict outweighs a failure of another engine: {output}");
    }
}

#[test]
fn rules_read_file_before_script_regardless_of_engine_order() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    for profile in machine_profiles() {
        let script = "rm -f \"$1\"; echo nothing > \"$1\"; exit 0";
        let builder = ScannerBuilder::new(script)
            .wrapped_by(profile.wrapper)
            .config(&format!("scan.engines = [\"script\", \"rules\"]\nrules.paths = [{rules:?}]"));
        let (code, output) = scan(&builder, &write_file(&builder, "eicar.txt", &eicar()));
        assert_eq!(code, Some(1), "{}: {output}", profile.name);
        assert!(output.contains("not clean: EICAR_Test_File"), "{}: {output}", profile.name);
    }
}

#[test]
fn engine_setup_fails_if_listed_engine_is_missing() {
    let builder = builder_with("");
    let lines = "scan.engines = [\"script\", \"rules\", \"clamd\", \"icap\"]\nscan.script = \"/bin/true\"\n\
                 clamd.addresses = [\"./absent.ctl\"]\nicap.urls = [\"icap://127.0.0.1/x\"]\n\
                 rules.paths = [\"none.yar\"]\ncrypto.request_secret_path = \"key\"";
    write_file(&builder, "none.yar", b"rule None { condition: false }");
    let (config, _) = Config::load(
        Some(&write_file(&builder, "whole.toml", lines.as_bytes())),
        std::iter::empty(),
    )
    .unwrap();
    let policy = Policy { user: config.sandbox.user, ..Policy::default() };
    let sandbox = SandboxBuilder::with_helper(Path::new(PROGRAM), policy)
        .unwrap()
        .build_unprobed(&[])
        .unwrap();
    let settings = config.scan;
    let rules = &settings.rules().unwrap().rules;
    let evaluator = |rules| Evaluator::prepare(PathBuf::from(PROGRAM), rules, None).unwrap();
    let directory = RunDirectory::create(&builder.dir().path(""), false).unwrap();
    let directory = Arc::new(directory);
    let env = |rules| EvaluatorEnv {
        evaluator: Arc::new(evaluator(rules)),
        sandbox: sandbox.clone(),
        directory: Arc::clone(&directory),
        max_files: MAX_FILES,
        audits_types: false,
    };
    let remote_engines = Arc::new(RemoteEngines::new(&settings.engines).unwrap());
    let create_engines =
        |settings: &Settings, evaluator: &EvaluatorEnv, remote_engines: &Arc<RemoteEngines>| {
            Engines::new(
                settings,
                &sandbox,
                evaluator,
                &ScanSlots::new(1, settings.slow_after),
                remote_engines,
            )
        };
    let all = create_engines(&settings, &env(Some(rules)), &remote_engines).unwrap();
    assert_eq!(all.names().collect::<Vec<_>>(), ["script", "rules", "clamd", "icap"]);
    let without = |name: &str| {
        let is_other = |engine: &&EngineSettings| {
            !matches!(
                (name, engine),
                ("clamd", EngineSettings::Clamd(_)) | ("icap", EngineSettings::Icap(_))
            )
        };
        let others: Vec<_> = settings.engines.iter().filter(is_other).cloned().collect();
        let remote_engines = Arc::new(RemoteEngines::new(&others).unwrap());
        let evaluator = env(Some(rules).filter(|_| name != "rules"));
        let script = settings.script.clone().filter(|_| name != "script");
        create_engines(&Settings { script, ..settings.clone() }, &evaluator, &remote_engines)
    };
    for name in ["script", "rules", "clamd", "icap"] {
        let error = without(name).unwrap_err();
        assert!(
            matches!(error, EngineSetupError::Missing(missing) if missing == name),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn canary_checks_each_engine_separately() {
    if skip_without("canary_checks_each_engine_separately", &CLAMD_PROGRAMS) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    let both = |script: &str| {
        ScannerBuilder::new(script).config(CANARY).config(&format!(
            "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{:?}]",
            clamd.socket()
        ))
    };
    let (code, _, stderr) = both("exit 0").run(&["check-config"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the script reports the infected sample as clean"), "{stderr}");
    let detects_eicar = "if grep -q EICAR-STANDARD \"$1\"; then exit 1; fi";
    assert_eq!(both(detects_eicar).run(&["check-config"]).0, Some(0));
    if skip_without("canary_checks_each_engine_separately", &["sigtool"]) {
        return;
    }
    clamd.replace_signatures(2, &EICAR_SIGNATURE.replace("44d8", "0000")).await;
    let (code, _, stderr) = both(detects_eicar).run(&["check-config"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("clamd reports the infected sample as clean"), "{stderr}");
}

/// Number of Unix sockets with this path, in all processes.
fn socket_count(path: &Path) -> usize {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    all.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
}

#[tokio::test]
async fn skipped_engine_failure_leaves_verdict_to_other_engine() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", "some text");
    let config = "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]\n\
                  clamd.on_failure = \"skip\"\nresult_cache.failure_ttl = \"1ms\"";
    let script = "echo run >> \"$MARKS/runs\"";
    let scanner = ScannerBuilder::new(script).config(config).homeserver(&homeserver).start().await;
    for runs in 1..=2 {
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
        // The verdict expires with the failure, because the skipped engine may be back by then.
        assert_eq!(scanner.dir.mark_count("runs"), runs);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scanner.wait_for_log("engine failed and was skipped", 1).await;
    let operations = scanner.operations_client().await;
    let metrics = send(operations.request_outside_prefix(Method::GET, "/metrics")).await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    for labels in ["engine=\"clamd\",result=\"skipped\"", "engine=\"script\",result=\"clean\""] {
        assert!(metrics.contains(&format!("mcs_engine_scans_total{{{labels}}} 2\n")), "{metrics}");
    }
    let alone = builder_with(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]\n\
                    clamd.on_failure = \"skip\"",
    );
    let (code, output) = scan(&alone, &write_file(&alone, "a.txt", b"a"));
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("all were skipped"), "{output}");
}
