//! The embedded rules engine: this program again, in the sandbox, on every media.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::harness::{
    Builder, Homeserver, eicar, png,
    scanner::{PROGRAM, as_root},
    skipped,
};

/// The project's own rules, and these lines.
fn by_rules(lines: &str) -> Builder {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    by(&format!("scan.engines = [\"rules\"]\nrules.paths = [\"{}\"]\n{lines}", own.display()))
}

/// A script that lets everything pass, which nobody asks, and these lines.
fn by(lines: &str) -> Builder {
    Builder::new("exit 0").config(lines)
}

fn file(builder: &Builder, name: &str, content: &[u8]) -> PathBuf {
    let path = builder.place().path(name);
    fs::write(&path, content).unwrap();
    path
}

/// What `scan` says of one file: exit code and output.
fn scan(builder: &Builder, path: &Path) -> (Option<i32>, String) {
    let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
    (code, stdout + &stderr)
}

#[tokio::test]
async fn media_are_judged_by_rules_and_the_verdict_names_the_rule() {
    let homeserver = Homeserver::start().await;
    let scanner = by_rules("").homeserver(&homeserver).start().await;
    let good = homeserver.has_bytes("good", png());
    scanner.client.get(&format!("/download/{good}")).await.is_media(&png());
    let bad = homeserver.has_bytes("bad", eicar());
    let verdict = scanner.client.get(&format!("/scan/{bad}")).await;
    verdict.is_not_clean("File not clean. Output: 'EICAR_Test_File'");
    let program = homeserver.has_bytes("program", fs::read("/bin/true").unwrap());
    let verdict = scanner.client.get(&format!("/scan/{program}")).await;
    verdict.is_not_clean("File not clean. Output: 'Linux_Program'");
    scanner.idle().await;
}

#[test]
fn check_config_tells_the_engine_its_rules_and_the_canary() {
    let builder = by_rules("scan.canary = \"eicar\"\nrules.ignore = [\"Script_With_Interpreter\"]");
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for words in
        ["engines = [\"rules\"]", "[rules]", " 1 of them ignored", "each engine knows a bad file"]
    {
        assert!(stdout.contains(words), "{words} in {stdout}");
    }
    let script = file(&builder, "script", b"#!/bin/sh\n");
    assert_eq!(scan(&builder, &script).0, Some(0), "its rule is ignored");
}

#[test]
fn a_large_media_is_looked_at_to_its_end() {
    let builder = by_rules("download.max_size = \"256MiB\"");
    let large = builder.place().path("large");
    File::create(&large).unwrap().set_len(256 << 20).unwrap();
    let (code, said) = scan(&builder, &large);
    assert_eq!(code, Some(0), "{said}");
    // The trailer of a disk image, in its last 512 bytes.
    let image = builder.place().path("image");
    let mut content = File::create(&image).unwrap();
    content.set_len((256 << 20) - 512).unwrap();
    std::io::copy(&mut &b"x"[..0], &mut content).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&content, b"conectix\0\0\0\x02", (256 << 20) - 512)
        .unwrap();
    content.set_len(256 << 20).unwrap();
    let (code, said) = scan(&builder, &image);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not clean: Disk_Image"), "{said}");
}

#[test]
fn an_evaluator_that_cannot_tell_never_says_clean() {
    let everywhere = "rule Everywhere { strings: $a = \"ab\" condition: #a == 1 }";
    for (lines, content, why) in [
        // No time; no memory for the media; a string that is everywhere.
        ("rules.timeout = \"1ms\"", vec![0; 16 << 20], "longer than its time limit"),
        ("sandbox.limits.address_space = \"64MiB\"", vec![0; 80 << 20], "the media cannot be read"),
        ("", b"ab".repeat(300_000), "more often than can be looked at"),
        ("rules.max_size = 5", b"longer".to_vec(), "larger than the 5 bytes"),
    ] {
        let builder =
            by(&format!("scan.engines = [\"rules\"]\nrules.paths = [\"every.yar\"]\n{lines}"));
        file(&builder, "every.yar", everywhere.as_bytes());
        let media = file(&builder, "sample", &content);
        let (code, said) = scan(&builder, &media);
        assert_eq!(code, Some(2), "{lines}: {said}");
        assert!(said.contains(why), "{lines}: {said}");
    }
}

#[test]
fn no_rule_of_a_set_that_is_larger_than_the_engine_loads_at_once_is_lost() {
    for count in [1_515, 6_000] {
        let builder =
            by("scan.engines = [\"rules\"]\nrules.paths = [\"many.yar\"]\nscan.canary = \"off\"");
        let numbered = |number| {
            format!("rule Number_{number} {{ strings: $a = \"<{number}>\" condition: $a }}\n")
        };
        let mut text: String = (0..count).map(numbered).collect();
        text.push_str("rule A { condition: filesize > 10000 and not Number_7 }\n");
        file(&builder, "many.yar", text.as_bytes());
        let (code, stdout, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(&format!("# rules: {},", count + 1)), "{stdout}");
        let (code, said) = scan(&builder, &file(&builder, "large", &[0; 10_847]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("not clean: A"), "{said}");
        let last = format!("<{}>", count - 1);
        let (code, said) = scan(&builder, &file(&builder, "last", last.as_bytes()));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("not clean: Number_{}", count - 1)), "{said}");
        let (code, said) = scan(&builder, &file(&builder, "none", b"nothing"));
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn a_condition_that_evaluators_would_load_in_part_is_a_wrong_configuration() {
    let builder = by("scan.engines = [\"rules\"]\nrules.paths = [\"long.yar\"]");
    let sizes: Vec<_> = (0..1_100).map(|size| format!("filesize == {size}")).collect();
    let rule = format!("rule Long {{ condition: {} }}", sizes.join(" or "));
    file(&builder, "long.yar", rule.as_bytes());
    let (code, said) = builder.fails();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("long.yar: rule Long: the engine cannot load it completely"), "{said}");
}

#[test]
fn a_broken_rule_is_a_wrong_configuration_with_its_place() {
    let builder = by("scan.engines = [\"rules\"]\nrules.paths = [\"broken.yar\"]");
    file(&builder, "broken.yar", b"rule Broken\n{\n  condition: $nowhere\n}\n");
    let (code, said) = builder.fails();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("broken.yar:3:14: error"), "{said}");
}

#[test]
fn the_program_may_lie_where_programs_in_the_sandbox_may_not_look() {
    let test = "the_program_may_lie_where_programs_in_the_sandbox_may_not_look";
    if !as_root() {
        return skipped(test, "only root has places that its scripts' user may not look into");
    }
    let builder = by_rules("");
    let place = builder.place().path("private");
    fs::create_dir(&place).unwrap();
    let program = place.join("matrix-content-scanner");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();
    let bad = file(&builder, "bad", &eicar());
    let instead = format!("shift; exec '{}' \"$@\"", program.display());
    let (code, said) = scan(&builder.inside(&["sh", "-c", &instead, "sh"]), &bad);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("EICAR_Test_File"), "{said}");
}

#[test]
fn they_are_evaluated_where_no_memory_may_be_written_and_executed() {
    // prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), which is what MemoryDenyWriteExecute= does where the kernel has it: what is
    // executed from here on inherits it. Then whether that is so.
    const DENIED: &str = "\
        import ctypes, os, sys\n\
        if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0: sys.exit(77)\n\
        if sys.argv[1:] != ['tried']: os.execv(sys.argv[1], sys.argv[1:])\n\
        import mmap\n\
        try: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)\n\
        except PermissionError: sys.exit(0)\n\
        sys.exit(1)\n";
    let test = "they_are_evaluated_where_no_memory_may_be_written_and_executed";
    #[expect(clippy::disallowed_methods, reason = "no part of what is tested")]
    let mut python = std::process::Command::new("/usr/bin/python3");
    let Ok(tried) = python.args(["-c", DENIED, "tried"]).status() else {
        return skipped(test, "not installed: python3");
    };
    if tried.code() == Some(77) {
        return skipped(test, "PR_SET_MDWE needs Linux 6.3");
    }
    assert_eq!(tried.code(), Some(0), "memory may be written and executed");
    let denied = ["/usr/bin/python3", "-c", DENIED];
    let builder = by_rules("scan.canary = \"eicar\"").inside(&denied);
    let (code, said) = scan(&builder, &file(&builder, "bad", &eicar()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("EICAR_Test_File"), "{said}");
    let (code, said) = scan(&builder, &file(&builder, "good", &png()));
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn rules_that_have_changed_are_in_force_after_a_reload_and_broken_ones_are_not() {
    let homeserver = Homeserver::start().await;
    let builder =
        by("scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]\nscan.canary = \"off\"")
            .homeserver(&homeserver);
    let rules = file(&builder, "some.yar", b"rule Some { condition: false }");
    let scanner = builder.start().await;
    let media = homeserver.has_bytes("some", b"some media".to_vec());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.is_clean();

    fs::write(&rules, "rule Some { strings: $a = \"some\" condition: $a }").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.logged("\"reloaded", 1).await;
    scanner.client.get(&path).await.is_not_clean("File not clean. Output: 'Some'");

    fs::write(&rules, "rule Some { condition: $nowhere }").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.logged("the reload is refused", 1).await;
    scanner.client.get(&path).await.is_not_clean("File not clean. Output: 'Some'");
}
