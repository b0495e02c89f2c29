//! Replacement of the resident evaluator.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use matrix_content_scanner::{
    config::Config,
    media::{run_directory::RunDirectory, spool::Spool},
    scan::{
        ScanContext,
        engines::{Engines, Evaluator, EvaluatorEnv, RemoteEngines, slots::ScanSlots},
    },
};
use mcs_sandbox::{Policy, ResourceLimits, SandboxBuilder};

use crate::harness::{
    ScannerBuilder,
    scanner::{PROGRAM, list_dir},
    wait_until,
};

/// A limit of this test only, by which its evaluators are found: it is an argument.
const MARKER: &str = "123456789";

fn evaluators() -> Vec<String> {
    let is_evaluator = |path: &&std::path::PathBuf| {
        let command_line = fs::read(path.join("cmdline")).unwrap_or_default();
        let command_line = String::from_utf8_lossy(&command_line);
        command_line.contains("evaluate-resident") && command_line.contains(MARKER)
    };
    let all = list_dir(Path::new("/proc"));
    all.iter().filter(is_evaluator).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn evaluator_is_replaced_after_a_number_of_files() {
    let lines = format!(
        "scan.engines = [\"rules\"]\nrules.paths = [\"none.yar\"]\nunpack.max_total = {MARKER}"
    );
    let builder = ScannerBuilder::new("exit 0").config(&lines);
    fs::write(builder.dir().path("none.yar"), "rule None { condition: false }").unwrap();
    let (config, _) = Config::load(Some(&builder.write_config()), std::iter::empty()).unwrap();
    // Without the limit of processes: without a user namespace, it would count those of other tests of this user.
    let limits = ResourceLimits { processes: None, ..ResourceLimits::default() };
    let policy = Policy { user: config.sandbox.user, limits, ..Policy::default() };
    let sandbox = SandboxBuilder::with_helper(Path::new(PROGRAM), policy)
        .unwrap()
        .build_unprobed(&[])
        .unwrap();
    let directory = RunDirectory::create(&builder.dir().path("temp"), true).unwrap();
    let directory = Arc::new(directory);
    let rules = &config.scan.rules().unwrap().rules;
    let env = EvaluatorEnv {
        evaluator: Arc::new(Evaluator::prepare(PROGRAM.into(), Some(rules), None).unwrap()),
        sandbox: sandbox.clone(),
        directory: Arc::clone(&directory),
        max_files: 3,
        audits_types: false,
    };
    let scan_slots = ScanSlots::new(1, config.scan.slow_after);
    let remote = Arc::new(RemoteEngines::default());
    let engines = Engines::new(&config.scan, &sandbox, &env, &scan_slots, &remote).unwrap();
    let context = ScanContext {
        settings: config.scan.clone(),
        sandbox,
        engines,
        spool: Spool::new(directory, 1 << 30, 1 << 20),
        max_size: 1 << 20,
    };
    let media = builder.dir().path("media");
    fs::write(&media, "media").unwrap();
    let mut seen = BTreeSet::new();
    for number in 1_usize..=7 {
        context.scan_file(&media).await.unwrap();
        wait_until("one evaluator is left", || evaluators().len() == 1).await;
        seen.extend(evaluators());
        // The first evaluator examines the files 1 to 3.
        assert_eq!(seen.len(), number.div_ceil(3), "after file {number}");
    }
    env.evaluator.stop().await;
    wait_until("no evaluator is left", || evaluators().is_empty()).await;
    let error = context.scan_file(&media).await.unwrap_err();
    assert!(error.to_string().contains("could not be inspected"), "{error}");
}
