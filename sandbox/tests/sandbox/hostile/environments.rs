//! Reruns tests in restricted environments: Docker's defaults, a read-only root, a full process table.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mcs_sandbox::{Error, Layer, Policy, Termination};

use super::{ALL, PLANS, Targets, Victim, has_scopes, program, sh};
use crate::fixture::{Fixture, LONG_TIMEOUT, is_root, unsandboxed};

const ENVIRONMENT: &str = "MCS_SANDBOX_TEST_ENVIRONMENT";

/// Runs a test in a restricted environment with a private temporary directory and returns its output.
fn rerun_in_environment(environment: &str, test: &str) -> String {
    let scratch = Fixture::new_root();
    fs::set_permissions(&scratch, Permissions::from_mode(0o777)).unwrap();
    let result = unsandboxed(program())
        .args(["within", environment])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(ENVIRONMENT, environment)
        .env("TMPDIR", &scratch)
        .output()
        .unwrap();
    let _ = mcs_sandbox::remove_tree(&scratch);
    let output = String::from_utf8_lossy(&result.stdout).into_owned();
    assert!(result.status.success(), "{output}\n{}", String::from_utf8_lossy(&result.stderr));
    assert!(output.contains("1 passed"), "{output}");
    output
}

const RESTRICTED_TEST: &str = "hostile::environments::child_in_restricted_environment";

#[test]
fn docker_defaults_leave_other_layers_active() {
    assert!(rerun_in_environment("docker", RESTRICTED_TEST).contains("namespaces are off"));
}

/// Runs the column "Landlock, seccomp" of the table, which describes containers.
#[test]
fn docker_defaults_block_the_listed_attacks() {
    rerun_in_environment("docker", "hostile_table::attacks_on_landlock_and_seccomp");
}

#[test]
fn missing_user_namespaces_leave_other_layers_active() {
    if is_root() {
        crate::fixture::report_skipped(
            "missing_user_namespaces_leave_other_layers_active",
            "root needs no user namespaces",
        );
        return;
    }
    assert!(
        rerun_in_environment("no-user-namespaces", RESTRICTED_TEST).contains("namespaces are off")
    );
}

/// Not a test: part of two other tests.
#[tokio::test]
#[ignore = "part of other tests"]
async fn child_in_restricted_environment() {
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    let targets = Targets::new(&[Layer::Landlock, Layer::Seccomp]).await;
    let probed = targets.fixture.builder().probe(&targets.fixture.jobs()).await;
    if !is_root() && !has_scopes().await {
        // No layer isolates the program from the server.
        assert!(matches!(probed, Err(Error::InsufficientLayers { .. })), "{probed:?}");
        targets.end().await;
        println!("namespaces are off");
        return;
    }
    let probed = probed.unwrap();
    assert!(!probed.layers().is_active(Layer::Namespaces), "{}", probed.layers());
    assert!(
        probed.layers().is_active(Layer::Landlock) && probed.layers().is_active(Layer::Seccomp)
    );
    let layers = probed.layers().to_string();
    assert!(layers.contains("namespaces: OFF: entering namespaces: "), "{layers}");
    // A plan with namespaces is not run without them.
    let stronger = targets.fixture.builder().build_unprobed(&ALL).unwrap();
    let refused = stronger.prepare(&targets.fixture.jobs(), "media").await;
    assert!(
        matches!(refused, Err(Error::NotStarted { step: mcs_sandbox::Step::Namespaces, .. })),
        "{refused:?}"
    );
    let victim = targets.victim.id().to_string();
    let tcp = targets.tcp.local_addr().unwrap().to_string();
    let mut attacks = vec![vec!["read", targets.secret.to_str().unwrap()], vec!["tcp", &tcp]];
    if has_scopes().await {
        attacks.extend([vec!["kill", &victim], vec!["kill-all"]]);
    }
    for words in attacks {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        assert!(!targets.attack_succeeds(&words).await, "{words:?}");
    }
    targets.end().await;
    println!("namespaces are off");
}

#[test]
fn jobs_run_on_read_only_root_with_writable_temp_directory() {
    rerun_in_environment("read-only", "hostile::environments::child_on_read_only_root");
}

/// Not a test: part of the test above; only the temporary directory is writable.
#[tokio::test]
#[ignore = "part of another test"]
async fn child_on_read_only_root() {
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    for (plan, layers) in PLANS {
        let targets = Targets::new(layers).await;
        let exit = sh(&targets, r#"cp "$1" "$TMPDIR/copy"; exit 7"#, LONG_TIMEOUT).await.unwrap();
        assert_eq!(exit.termination, Termination::Exited(7), "{plan}");
        let read_only = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(File::create(read_only.join("control")).is_err(), "the control");
        let job = targets.fixture.sandbox.prepare(read_only, "media").await;
        match job {
            // Files of the job are in memory.
            Ok(job) if layers.contains(&Layer::Namespaces) => job.close().await.unwrap(),
            Err(Error::NotStarted { step: mcs_sandbox::Step::Directory, source }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{plan}");
            }
            other => panic!("{plan}: {other:?}"),
        }
        targets.end().await;
    }
}

/// A helper or program that cannot be started fails its job only; the next job runs.
#[test]
fn full_process_table_fails_only_the_job() {
    rerun_in_environment("unchanged", "hostile::environments::child_in_full_process_table");
}

/// Not a test: part of the test above, run in a process with its own limits.
#[tokio::test]
#[ignore = "part of another test"]
async fn child_in_full_process_table() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    if is_root() {
        // Processes of root are not counted, so the limit applies to the script's user, which already has one process.
        let _existing_process = Victim::new();
        let limit_to_one = |mut policy: Policy| {
            policy.limits.processes = Some(1);
            policy
        };
        let targets = Targets::with_policy(PLANS[1].1, limit_to_one).await;
        let refused = sh(&targets, "exit 0", LONG_TIMEOUT).await;
        assert!(
            matches!(refused, Err(Error::NotStarted { step: mcs_sandbox::Step::Execute, .. })),
            "{refused:?}"
        );
        return targets.end().await;
    }
    for (plan, layers) in PLANS {
        let targets = Targets::new(layers).await;
        assert_eq!(
            sh(&targets, "exit 0", LONG_TIMEOUT).await.unwrap().termination,
            Termination::Exited(0)
        );
        setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
        let refused = targets.fixture.sandbox.prepare(&targets.fixture.jobs(), "media").await;
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        let Err(Error::HelperUnusable { source, .. }) = refused else {
            panic!("{plan}: {refused:?}")
        };
        assert_eq!(source.raw_os_error(), Some(nix::libc::EAGAIN), "{plan}");
        let exit = sh(&targets, "exit 5", LONG_TIMEOUT).await.unwrap();
        assert_eq!(exit.termination, Termination::Exited(5), "{plan}");
        targets.end().await;
    }
}
