//! Tests of the embedded rules engine: this program as the evaluator, in the sandbox.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::harness::{
    MockHomeserver, ScannerBuilder, eicar, png, report_skipped,
    scanner::{PROGRAM, is_root},
};

/// Returns a builder with the rules of this repository and additional configuration lines.
fn rules_builder(lines: &str) -> ScannerBuilder {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    builder_with(&format!(
        "scan.engines = [\"rules\"]\nrules.paths = [\"{}\"]\n{lines}",
        rules.display()
    ))
}

/// Returns a builder with additional configuration lines. Its script accepts every file.
fn builder_with(lines: &str) -> ScannerBuilder {
    ScannerBuilder::new("exit 0").config(lines)
}

fn file(builder: &ScannerBuilder, name: &str, content: &[u8]) -> PathBuf {
    let path = builder.dir().path(name);
    fs::write(&path, content).unwrap();
    path
}

/// Runs `scan` on one file; returns the exit code and the output.
fn scan(builder: &ScannerBuilder, path: &Path) -> (Option<i32>, String) {
    let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
    (code, stdout + &stderr)
}

#[tokio::test]
async fn verdict_names_matching_rule() {
    let homeserver = MockHomeserver::start().await;
    let scanner = rules_builder("").homeserver(&homeserver).start().await;
    let good = homeserver.add_bytes("good", png());
    scanner.client.get(&format!("/download/{good}")).await.assert_media(&png());
    let bad = homeserver.add_bytes("bad", eicar());
    let verdict = scanner.client.get(&format!("/scan/{bad}")).await;
    verdict.assert_not_clean("File not clean. Output: 'EICAR_Test_File'");
    let program = homeserver.add_bytes("program", fs::read("/bin/true").unwrap());
    let verdict = scanner.client.get(&format!("/scan/{program}")).await;
    verdict.assert_not_clean("File not clean. Output: 'Linux_Program'");
    scanner.wait_until_idle().await;
}

#[test]
fn check_config_reports_rules_and_canary_result() {
    let builder =
        rules_builder("scan.canary = \"eicar\"\nrules.ignore = [\"Script_With_Interpreter\"]");
    let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for expected in [
        "engines = [\"rules\"]",
        "[rules]",
        " 1 of them ignored",
        "every engine detects the infected sample",
    ] {
        assert!(stdout.contains(expected), "{expected} in {stdout}");
    }
    let script = file(&builder, "script", b"#!/bin/sh\n");
    assert_eq!(scan(&builder, &script).0, Some(0), "the matching rule is ignored");
}

#[test]
fn large_file_is_scanned_to_its_end() {
    let builder = rules_builder("download.max_size = \"256MiB\"");
    let large = builder.dir().path("large");
    File::create(&large).unwrap().set_len(256 << 20).unwrap();
    let (code, output) = scan(&builder, &large);
    assert_eq!(code, Some(0), "{output}");
    // The trailer of a disk image lies in its last 512 bytes.
    let image = builder.dir().path("image");
    let mut content = File::create(&image).unwrap();
    content.set_len((256 << 20) - 512).unwrap();
    std::io::copy(&mut &b"x"[..0], &mut content).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&content, b"conectix\0\0\0\x02", (256 << 20) - 512)
        .unwrap();
    content.set_len(256 << 20).unwrap();
    let (code, output) = scan(&builder, &image);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("not clean: Disk_Image"), "{output}");
}

#[test]
fn incomplete_evaluation_is_never_clean() {
    let frequent = "rule Everywhere { strings: $a = \"ab\" condition: #a == 1 }\n\
                    rule Slow { condition: for all i in (0..filesize - 1) : (uint8(i) == 0) }";
    for (lines, content, reason) in [
        // Time limit; too little memory for the file; too many matches of one string; size limit.
        ("rules.timeout = \"1ms\"", vec![0; 16 << 20], "the time limit expired"),
        ("sandbox.limits.address_space = \"64MiB\"", vec![0; 80 << 20], "signal 31"),
        ("", b"ab".repeat(300_000), "too many matches"),
        ("rules.max_size = 5", b"longer".to_vec(), "too large for the engine rules"),
    ] {
        let builder = builder_with(&format!(
            "scan.engines = [\"rules\"]\nrules.paths = [\"every.yar\"]\n{lines}"
        ));
        file(&builder, "every.yar", frequent.as_bytes());
        let media = file(&builder, "sample", &content);
        let (code, output) = scan(&builder, &media);
        assert_eq!(code, Some(2), "{lines}: {output}");
        assert!(output.contains(reason), "{lines}: {output}");
    }
}

#[test]
fn loads_rule_sets_above_the_engine_limit_completely() {
    for count in [1_515, 6_000] {
        let builder = builder_with(
            "scan.engines = [\"rules\"]\nrules.paths = [\"many.yar\"]\nscan.canary = \"off\"",
        );
        let numbered_rule = |number| {
            format!("rule Number_{number} {{ strings: $a = \"<{number}>\" condition: $a }}\n")
        };
        let mut text: String = (0..count).map(numbered_rule).collect();
        text.push_str("rule A { condition: filesize > 10000 and not Number_7 }\n");
        file(&builder, "many.yar", text.as_bytes());
        let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(&format!("# rules: {},", count + 1)), "{stdout}");
        let (code, output) = scan(&builder, &file(&builder, "large", &[0; 10_847]));
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("not clean: A"), "{output}");
        let last = format!("<{}>", count - 1);
        let (code, output) = scan(&builder, &file(&builder, "last", last.as_bytes()));
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(&format!("not clean: Number_{}", count - 1)), "{output}");
        let (code, output) = scan(&builder, &file(&builder, "none", b"nothing"));
        assert_eq!(code, Some(0), "{output}");
    }
}

#[test]
fn condition_that_cannot_be_loaded_completely_is_a_configuration_error() {
    let builder = builder_with("scan.engines = [\"rules\"]\nrules.paths = [\"long.yar\"]");
    let sizes: Vec<_> = (0..1_100).map(|size| format!("filesize == {size}")).collect();
    let rule = format!("rule Long {{ condition: {} }}", sizes.join(" or "));
    file(&builder, "long.yar", rule.as_bytes());
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    assert!(
        output.contains("long.yar: rule Long: the engine cannot load it completely"),
        "{output}"
    );
}

#[test]
fn invalid_rule_is_a_configuration_error_with_position() {
    let builder = builder_with("scan.engines = [\"rules\"]\nrules.paths = [\"broken.yar\"]");
    file(&builder, "broken.yar", b"rule Broken\n{\n  condition: $nowhere\n}\n");
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("broken.yar:3:14: error"), "{output}");
}

#[test]
fn evaluator_runs_from_directory_unreadable_in_sandbox() {
    let test = "evaluator_runs_from_directory_unreadable_in_sandbox";
    if !is_root() {
        return report_skipped(
            test,
            "only root has directories that the user of scripts cannot read",
        );
    }
    let builder = rules_builder("");
    let directory = builder.dir().path("private");
    fs::create_dir(&directory).unwrap();
    let program = directory.join("matrix-content-scanner");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let bad = file(&builder, "bad", &eicar());
    let command = format!("shift; exec '{}' \"$@\"", program.display());
    let (code, output) = scan(&builder.wrapped_by(&["sh", "-c", &command, "sh"]), &bad);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("EICAR_Test_File"), "{output}");
}

#[test]
fn evaluator_works_without_writable_executable_memory() {
    // Calls prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), as MemoryDenyWriteExecute= does on kernels that support it.
    // Executed programs inherit the restriction. With the argument `probe`, verifies that it is effective.
    const DENY_SCRIPT: &str = "\
        import ctypes, os, sys\n\
        if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0: sys.exit(77)\n\
        if sys.argv[1:] != ['probe']: os.execv(sys.argv[1], sys.argv[1:])\n\
        import mmap\n\
        try: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)\n\
        except PermissionError: sys.exit(0)\n\
        sys.exit(1)\n";
    let test = "evaluator_works_without_writable_executable_memory";
    #[expect(clippy::disallowed_methods, reason = "python3 is not the program under test")]
    let mut python = std::process::Command::new("/usr/bin/python3");
    let Ok(status) = python.args(["-c", DENY_SCRIPT, "probe"]).status() else {
        return report_skipped(test, "not installed: python3");
    };
    if status.code() == Some(77) {
        return report_skipped(test, "PR_SET_MDWE needs Linux 6.3");
    }
    assert_eq!(status.code(), Some(0), "writable memory can be executed");
    let denied = ["/usr/bin/python3", "-c", DENY_SCRIPT];
    let builder = rules_builder("scan.canary = \"eicar\"").wrapped_by(&denied);
    let (code, output) = scan(&builder, &file(&builder, "bad", &eicar()));
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("EICAR_Test_File"), "{output}");
    let (code, output) = scan(&builder, &file(&builder, "good", &png()));
    assert_eq!(code, Some(0), "{output}");
}

#[tokio::test]
async fn reload_applies_changed_rules_and_rejects_invalid_rules() {
    let homeserver = MockHomeserver::start().await;
    let builder = builder_with(
        "scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]\nscan.canary = \"off\"",
    )
    .homeserver(&homeserver);
    let rules = file(&builder, "some.yar", b"rule Some { condition: false }");
    let scanner = builder.start().await;
    let media = homeserver.add_bytes("some", b"some media".to_vec());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();

    fs::write(&rules, "rule Some { strings: $a = \"some\" condition: $a }").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 1).await;
    scanner.client.get(&path).await.assert_not_clean("File not clean. Output: 'Some'");

    fs::write(&rules, "rule Some { condition: $nowhere }").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("reload rejected", 1).await;
    scanner.client.get(&path).await.assert_not_clean("File not clean. Output: 'Some'");
}
