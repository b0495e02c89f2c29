//! What a scan script can do wrong, by accident or because it was taken over: only exit code 0 of a
//! finished script makes media clean, a failure is no verdict, and nothing is left behind.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{Builder, Homeserver, Scanner, eicar, noise, png};

/// Failures are forgotten at once, so that each request runs the script.
const FORGETFUL: &str = r#"result_cache.failure_ttl = "0s""#;

async fn with(homeserver: &Homeserver, script: &str, config: &str) -> Scanner {
    Builder::new(script).homeserver(homeserver).config(config).start().await
}

/// Media are given out neither as clean nor as infected.
async fn fails(scanner: &Scanner, media: &str) {
    for route in ["scan", "download"] {
        let reply = scanner.client.get(&format!("/{route}/{media}")).await;
        reply.is_error(500, "M_UNKNOWN");
        let info = reply.json()["info"].as_str().unwrap().to_owned();
        assert!(!info.contains('/') && !info.contains("script.sh"), "{info}");
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_script_that_cannot_be_started_is_a_failure_until_it_can() {
    let homeserver = Homeserver::start().await;
    let scanner = with(&homeserver, "exit 0", FORGETFUL).await;
    let script = scanner.place.path("script.sh");

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
            scanner.place.write_executable("script.sh", "#!/nonexistent/sh\nexit 0\n");
        }),
        ("without any interpreter", &|| {
            scanner.place.write_executable("script.sh", "exit 0\n");
        }),
        // A shell would run it, and end with 0.
        ("empty", &|| {
            scanner.place.write_executable("script.sh", "");
        }),
        ("a link to itself", &|| {
            fs::remove_file(&script).unwrap();
            std::os::unix::fs::symlink(&script, &script).unwrap();
        }),
    ];
    for (what, break_it) in breakages {
        eprintln!("{what}");
        let media = homeserver.has_bytes(&what.replace(' ', "_"), what);
        break_it();
        fails(&scanner, &media).await;
        if script.is_dir() {
            fs::remove_dir(&script).unwrap();
        }
        scanner.place.write_script("script.sh", "exit 0");
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    }
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_and_no_word_on_the_media() {
    let homeserver = Homeserver::start().await;
    let script = r#"
        echo run >> "$MARKS/runs"
        trap '' TERM INT HUP
        if [ -e "$MARKS/quick" ]; then exit 0; fi
        sleep 1000; sleep 1000
    "#;
    // Ample for a script that ends by itself.
    let config = format!("{FORGETFUL}\nscan.timeout = \"2s\"");
    let scanner = with(&homeserver, script, &config).await;
    let media = homeserver.has_bytes("abc", png());

    fails(&scanner, &media).await;
    assert_eq!(scanner.place.marks("runs"), 2, "each of two requests tried it");
    fs::write(scanner.place.path("marks/quick"), "").unwrap();
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    scanner.idle().await;
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while_and_not_tried_again_and_again() {
    let homeserver = Homeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; kill -9 $$"#;
    let config = r#"result_cache.failure_ttl = "1h""#;
    let scanner = with(&homeserver, script, config).await;
    let media = homeserver.has_bytes("abc", png());
    let same_bytes = homeserver.has_bytes("def", png());

    for media in [&media, &media, &same_bytes] {
        fails(&scanner, media).await;
    }
    assert_eq!(scanner.place.marks("runs"), 1);
}

#[tokio::test]
async fn a_scan_that_took_a_jobs_whole_time_is_not_tried_again_at_once() {
    let homeserver = Homeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;
    // Half of it is ample for all that comes before the scan.
    let config = "scan.deadline = \"5s\"\nresult_cache.failure_ttl = \"1h\"";
    let scanner = with(&homeserver, script, config).await;
    scanner.place.make_fifo("gate");
    let media = homeserver.has_bytes("abc", png());

    for _ in 0..2 {
        fails(&scanner, &media).await;
    }
    assert_eq!(scanner.place.marks("runs"), 1);
}

#[tokio::test]
async fn an_exit_code_is_a_verdict_unless_it_is_a_failure_and_a_signal_never_is() {
    let homeserver = Homeserver::start().await;
    let config = format!("{FORGETFUL}\nscan.failure_exit_codes = [2, 126, 127]");
    // What the script does lies in the media.
    let scanner = with(&homeserver, r#". "$1""#, &config).await;
    let does =
        |index: usize, what: &str| homeserver.has_bytes(&format!("do{index}"), what.to_owned());

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
        // Though somebody else of its group says 0.
        "(exit 0) & kill -9 $$",
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        eprintln!("{failure}");
        fails(&scanner, &does(index, failure)).await;
    }
    for (index, refusal) in ["exit 1", "exit 3", "exit 128", "exit 255"].iter().enumerate() {
        let media = does(100 + index, refusal);
        let reply = scanner.client.get(&format!("/scan/{media}")).await;
        reply.is_not_clean("File not clean (no output)");
        let reply = scanner.client.get(&format!("/download/{media}")).await;
        reply.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    }
    // Its streams are its own to close, and its input is at its end.
    for (index, clean) in
        ["exit 0", "exec >&- 2>&- <&-; exit 0", "cat; read x; exit 0"].iter().enumerate()
    {
        let media = does(200 + index, clean);
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_gigabyte_of_output_takes_no_memory_and_changes_no_verdict() {
    let homeserver = Homeserver::start().await;
    let script = r#"
        head -c 1000000000 /dev/zero | tr '\0' x
        head -c 100000000 /dev/zero >&2
        ! grep -q EICAR "$1"
    "#;
    let scanner = with(&homeserver, script, r#"scan.max_output_size = "100B""#).await;
    let clean = homeserver.has_bytes("clean", png());
    let bad = homeserver.has_bytes("bad", eicar());
    let before = scanner.peak_memory();

    scanner.client.get(&format!("/scan/{clean}")).await.is_clean();
    let info = format!("File not clean. Output: '{}'", "x".repeat(100));
    scanner.client.get(&format!("/scan/{bad}")).await.is_not_clean(&info);
    let more = scanner.peak_memory() - before;
    assert!(more < 20_000_000, "{more} bytes of memory for output");
    scanner.idle().await;
}

#[tokio::test]
async fn output_is_shown_as_plain_text_without_the_jobs_path() {
    let homeserver = Homeserver::start().await;
    let script = r#"
        printf '\033[31mred\033[0m \007\000\177 \377\376 \302\205 \303\251\n'
        printf '"\\ %s: FOUND in %s\n' "$1" "$PWD"
        exit 1
    "#;
    let scanner = with(&homeserver, script, "").await;
    let media = homeserver.has_bytes("bad", eicar());

    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    let json = reply.json();
    let info = json["info"].as_str().unwrap();
    assert_eq!(json["clean"], false);
    assert!(!info.contains(char::is_control), "{info:?}");
    assert!(!info.contains("mcs-") && !info.contains("/temp/"), "{info:?}");
    for part in ["red", "\u{e9}", "\u{fffd}", "\"\\ media: FOUND in"] {
        assert!(info.contains(part), "{part:?} in {info:?}");
    }
    let download = scanner.client.get(&format!("/download/{media}")).await;
    download.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    assert_eq!(download.json()["info"], info);
    scanner.idle().await;
}

#[tokio::test]
async fn children_that_a_script_leaves_behind_are_not_waited_for_and_not_left() {
    let homeserver = Homeserver::start().await;
    // With the script's output in hand; in the background; away in a session of its own, forked
    // twice, deaf to signals.
    let script = r#"
        sleep 1000 &
        setsid sh -c 'trap "" TERM HUP INT; sleep 1000 & sleep 1000' &
        setsid sh -c 'setsid sh -c "sleep 1000 & cd /; sleep 1000" >/dev/null 2>&1 &' &
        nohup sleep 1000 > /dev/null 2>&1 &
        (while :; do sleep 1000; done) &
        echo printed
        exit 1
    "#;
    let scanner = with(&homeserver, script, "").await;
    let media = homeserver.has_bytes("abc", png());

    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.is_not_clean("File not clean. Output: 'printed'");
    scanner.idle().await;
}

#[tokio::test]
async fn whatever_a_script_leaves_in_its_directory_is_removed() {
    let homeserver = Homeserver::start().await;
    let script = r#"
        mkdir -p locked/deep/er "$TMPDIR/a/b"
        : > locked/deep/er/file; chmod 0 locked/deep/er locked/deep locked
        i=0; while [ $i -lt 2000 ]; do : > "$TMPDIR/file$i"; i=$((i+1)); done
        ln -s / root; ln -s .. "$TMPDIR/up"; mkfifo pipe; : > ' -rf'; : > "$(printf 'new\nline')"
        chmod 0 "$TMPDIR" .
        exit 0
    "#;
    let scanner = with(&homeserver, script, "").await;
    let media = homeserver.has_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    scanner.idle().await;
    assert!(scanner.place.path("marks").exists(), "nothing else went with it");
}

#[tokio::test]
async fn a_script_that_meddles_with_the_media_changes_nothing_that_is_served() {
    let homeserver = Homeserver::start().await;
    for (index, meddling) in [
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
        eprintln!("{meddling}");
        let scanner = with(&homeserver, &format!("{meddling} 2>/dev/null\nexit 0"), "").await;
        for (id, bytes) in [("small", png()), ("large", noise(index as u64, 2_000_000))] {
            let media = homeserver.has_bytes(&format!("{id}{index}"), bytes.clone());
            scanner.client.get(&format!("/download/{media}")).await.is_media(&bytes);
        }
        scanner.idle().await;
    }
}
