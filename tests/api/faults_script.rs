//! Faulty and compromised scan scripts. Media is clean only if the script exits with code 0, a failure
//! is no verdict, and no files or processes remain.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{MockHomeserver, ScannerBuilder, ScannerProcess, eicar, noise, png};

/// Does not cache failures, so that each request runs the script.
const NO_FAILURE_CACHE: &str = r#"result_cache.failure_ttl = "0s""#;

async fn start_scanner(homeserver: &MockHomeserver, script: &str, config: &str) -> ScannerProcess {
    ScannerBuilder::new(script).homeserver(homeserver).config(config).start().await
}

/// Asserts that the media is reported neither as clean nor as infected, and that the error exposes no paths.
async fn assert_scan_fails(scanner: &ScannerProcess, media: &str) {
    for route in ["scan", "download"] {
        let response = scanner.client.get(&format!("/{route}/{media}")).await;
        response.assert_error(500, "M_UNKNOWN");
        let info = response.json()["info"].as_str().unwrap().to_owned();
        assert!(!info.contains('/') && !info.contains("script.sh"), "{info}");
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_500_while_script_cannot_be_started() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start_scanner(&homeserver, "exit 0", NO_FAILURE_CACHE).await;
    let script = scanner.dir.path("script.sh");

    let breakages: [(&str, &dyn Fn()); 7] = [
        ("deleted", &|| fs::remove_file(&script).unwrap()),
        ("a directory", &|| {
            fs::remove_file(&script).unwrap();
            fs::create_dir(&script).unwrap();
        }),
        ("not executable", &|| {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("without its interpreter", &|| {
            scanner.dir.write_executable("script.sh", "#!/nonexistent/sh\nexit 0\n");
        }),
        ("without any interpreter", &|| {
            scanner.dir.write_executable("script.sh", "exit 0\n");
        }),
        // A shell would run this successfully.
        ("empty", &|| {
            scanner.dir.write_executable("script.sh", "");
        }),
        ("a link to itself", &|| {
            fs::remove_file(&script).unwrap();
            std::os::unix::fs::symlink(&script, &script).unwrap();
        }),
    ];
    for (name, break_script) in breakages {
        eprintln!("{name}");
        let media = homeserver.add_bytes(&name.replace(' ', "_"), name);
        break_script();
        assert_scan_fails(&scanner, &media).await;
        if script.is_dir() {
            fs::remove_dir(&script).unwrap();
        }
        scanner.dir.write_script("script.sh", "exit 0");
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    }
}

#[tokio::test]
async fn kills_hanging_script_and_returns_500() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"
        echo run >> "$MARKS/runs"
        trap '' TERM INT HUP
        if [ -e "$MARKS/quick" ]; then exit 0; fi
        sleep 1000; sleep 1000
    "#;
    // Long enough for a script that exits by itself.
    let config = format!("{NO_FAILURE_CACHE}\nscan.timeout = \"2s\"");
    let scanner = start_scanner(&homeserver, script, &config).await;
    let media = homeserver.add_bytes("abc", png());

    assert_scan_fails(&scanner, &media).await;
    assert_eq!(scanner.dir.mark_count("runs"), 2, "expected one run for each of two requests");
    fs::write(scanner.dir.path("marks/quick"), "").unwrap();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn caches_failure_for_failure_ttl() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; kill -9 $$"#;
    let config = r#"result_cache.failure_ttl = "1h""#;
    let scanner = start_scanner(&homeserver, script, config).await;
    let media = homeserver.add_bytes("abc", png());
    let same_bytes = homeserver.add_bytes("def", png());

    for media in [&media, &media, &same_bytes] {
        assert_scan_fails(&scanner, media).await;
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

#[tokio::test]
async fn caches_scan_that_exceeded_deadline() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;
    // Half of the deadline is long enough for everything that precedes the scan.
    let config = "scan.deadline = \"5s\"\nresult_cache.failure_ttl = \"1h\"";
    let scanner = start_scanner(&homeserver, script, config).await;
    scanner.dir.make_fifo("gate");
    let media = homeserver.add_bytes("abc", png());

    for _ in 0..2 {
        assert_scan_fails(&scanner, &media).await;
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

#[tokio::test]
async fn exit_codes_are_verdicts_except_failure_codes_and_signals() {
    let homeserver = MockHomeserver::start().await;
    let config = format!("{NO_FAILURE_CACHE}\nscan.failure_exit_codes = [2, 126, 127]");
    // The script executes the media as shell code.
    let scanner = start_scanner(&homeserver, r#". "$1""#, &config).await;
    let add_script = |index: usize, content: &str| {
        homeserver.add_bytes(&format!("do{index}"), content.to_owned())
    };

    let failures = [
        "exit 2",
        "exit 126",
        "exit 127",
        "kill -9 $$",
        "kill -TERM $$",
        "kill -SEGV $$",
        "kill -PIPE $$",
        "no-such-program-at-all",
        "exec /nonexistent/scanner",
        "/etc/passwd",
        // Another process of the group exits with 0.
        "(exit 0) & kill -9 $$",
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        eprintln!("{failure}");
        assert_scan_fails(&scanner, &add_script(index, failure)).await;
    }
    for (index, not_clean) in ["exit 1", "exit 3", "exit 128", "exit 255"].iter().enumerate() {
        let media = add_script(100 + index, not_clean);
        let response = scanner.client.get(&format!("/scan/{media}")).await;
        response.assert_not_clean("File not clean (no output)");
        let response = scanner.client.get(&format!("/download/{media}")).await;
        response.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    }
    // A script may close its standard streams, and its standard input is empty.
    for (index, clean) in
        ["exit 0", "exec >&- 2>&- <&-; exit 0", "cat; read x; exit 0"].iter().enumerate()
    {
        let media = add_script(200 + index, clean);
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn discards_output_above_limit_without_buffering_it() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"
        head -c 1000000000 /dev/zero | tr '\0' x
        head -c 100000000 /dev/zero >&2
        ! grep -q EICAR "$1"
    "#;
    let scanner = start_scanner(&homeserver, script, r#"scan.max_output_size = "100B""#).await;
    let clean = homeserver.add_bytes("clean", png());
    let bad = homeserver.add_bytes("bad", eicar());
    let before = scanner.peak_memory();

    scanner.client.get(&format!("/scan/{clean}")).await.assert_clean();
    let info = format!("File not clean. Output: '{}'", "x".repeat(100));
    scanner.client.get(&format!("/scan/{bad}")).await.assert_not_clean(&info);
    let growth = scanner.peak_memory() - before;
    assert!(growth < 20_000_000, "peak memory grew by {growth} bytes");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_output_as_plain_text_without_job_path() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"
        printf '\033[31mred\033[0m \007\000\177 \377\376 \302\205 \303\251\n'
        printf '"\\ %s: FOUND in %s\n' "$1" "$PWD"
        exit 1
    "#;
    let scanner = start_scanner(&homeserver, script, "").await;
    let media = homeserver.add_bytes("bad", eicar());

    let response = scanner.client.get(&format!("/scan/{media}")).await;
    let json = response.json();
    let info = json["info"].as_str().unwrap();
    assert_eq!(json["clean"], false);
    assert!(!info.contains(char::is_control), "{info:?}");
    assert!(!info.contains("mcs-") && !info.contains("/temp/"), "{info:?}");
    for part in ["red", "\u{e9}", "\u{fffd}", "\"\\ media: FOUND in"] {
        assert!(info.contains(part), "{part:?} in {info:?}");
    }
    let download = scanner.client.get(&format!("/download/{media}")).await;
    download.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    assert_eq!(download.json()["info"], info);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn kills_background_processes_of_script_without_waiting() {
    let homeserver = MockHomeserver::start().await;
    // Processes that inherit the script's output, run in the background or in their own session, are
    // double-forked, or ignore signals.
    let script = r#"
        sleep 1000 &
        setsid sh -c 'trap "" TERM HUP INT; sleep 1000 & sleep 1000' &
        setsid sh -c 'setsid sh -c "sleep 1000 & cd /; sleep 1000" >/dev/null 2>&1 &' &
        nohup sleep 1000 > /dev/null 2>&1 &
        (while :; do sleep 1000; done) &
        echo printed
        exit 1
    "#;
    let scanner = start_scanner(&homeserver, script, "").await;
    let media = homeserver.add_bytes("abc", png());

    let response = scanner.client.get(&format!("/scan/{media}")).await;
    response.assert_not_clean("File not clean. Output: 'printed'");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn removes_all_files_that_script_creates_in_job_directory() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"
        mkdir -p locked/deep/er "$TMPDIR/a/b"
        : > locked/deep/er/file; chmod 0 locked/deep/er locked/deep locked
        i=0; while [ $i -lt 2000 ]; do : > "$TMPDIR/file$i"; i=$((i+1)); done
        ln -s / root; ln -s .. "$TMPDIR/up"; mkfifo pipe; : > ' -rf'; : > "$(printf 'new\nline')"
        chmod 0 "$TMPDIR" .
        exit 0
    "#;
    let scanner = start_scanner(&homeserver, script, "").await;
    let media = homeserver.add_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    scanner.wait_until_idle().await;
    assert!(scanner.dir.path("marks").exists(), "removed a directory outside of the job");
}

#[tokio::test]
async fn serves_original_bytes_when_script_modifies_file() {
    let homeserver = MockHomeserver::start().await;
    for (index, modification) in [
        r#"rm -f "$1""#,
        r#"rm -f "$1"; echo other > "$1""#,
        r#"echo other > "$1""#,
        r#"chmod u+w "$1"; echo other >> "$1"; true > "$1""#,
        r#"rm -f "$1"; ln -s /etc/passwd "$1""#,
        r#"rm -f "$1"; mkdir "$1""#,
        r#"mv "$1" "$TMPDIR/x""#,
        r#"rm -rf "$PWD" 2>/dev/null"#,
    ]
    .into_iter()
    .enumerate()
    {
        eprintln!("{modification}");
        let scanner =
            start_scanner(&homeserver, &format!("{modification} 2>/dev/null\nexit 0"), "").await;
        for (id, bytes) in [("small", png()), ("large", noise(index as u64, 2_000_000))] {
            let media = homeserver.add_bytes(&format!("{id}{index}"), bytes.clone());
            scanner.client.get(&format!("/download/{media}")).await.assert_media(&bytes);
        }
        scanner.wait_until_idle().await;
    }
}
