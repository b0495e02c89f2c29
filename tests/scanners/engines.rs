//! Engines that the service asks itself: clamd and an ICAP server, alone, together and beside a script,
//! with everything that can be wrong with them.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use matrix_content_scanner::{
    config::Config,
    scan::{
        Settings,
        engines::{Engines, Evaluator, Kind, Network, SetupError},
        script::Turns,
    },
};
use mcs_sandbox::{Candidate, Policy};
use reqwest::Method;

use crate::{
    Samples,
    clamav::Clamd,
    harness::{Builder, Homeserver, client::send, eicar, scanner::PROGRAM, skipped, until},
    icap::{self, Icap},
    lacks, outside, plans,
};

const CLAMD: [&str; 2] = ["clamd", "python3"];
const ICAP: [&str; 3] = ["c-icap", "clamd", "python3"];

/// MD5 and size of the EICAR test file.
const EICAR: &str = "44d88612fea8a8f36de82e1278abb02f:68:Test.EICAR\n";

/// A program that knows nothing, by these lines.
fn by(config: &str) -> Builder {
    Builder::new("exit 0").config(config)
}

fn clamd_at(address: &str) -> Builder {
    by(&format!("scan.engines = [\"clamd\"]\nclamd.addresses = [\"{address}\"]"))
}

fn clamd_by_socket(clamd: &Clamd) -> Builder {
    clamd_at(clamd.socket().to_str().unwrap())
}

fn icap_at(icap: &Icap) -> Builder {
    icap_of(&[icap.port], "avscan")
}

fn icap_of(ports: &[u16], service: &str) -> Builder {
    let urls: Vec<_> =
        ports.iter().map(|port| format!("icap://127.0.0.1:{port}/{service}")).collect();
    by(&format!("scan.engines = [\"icap\"]\nicap.urls = {urls:?}"))
}

/// A port that nobody else is told.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

/// Clean, infected, zipped and zipped twice, and the canary.
fn judges_rightly(builder: &Builder) {
    for (sample, path) in Samples::new().all() {
        let (code, said) = scan(builder, &path);
        let infected = sample != "clean.txt";
        assert_eq!(code, Some(infected.into()), "{sample}: {said}");
        assert_eq!(said.contains("not clean: Test.EICAR"), infected, "{sample}: {said}");
    }
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("each engine knows a bad file from a good one"), "{stdout}");
}

fn fails(builder: &Builder, why: &str) {
    for (sample, path) in Samples::new().all() {
        let (code, said) = scan(builder, &path);
        assert_eq!(code, Some(2), "{sample}: {said}");
        assert!(said.contains(why), "{sample}: {said}");
    }
}

const CANARY: &str = "scan.canary = \"eicar\"";

#[tokio::test]
async fn clamd_by_descriptor() {
    if lacks("clamd_by_descriptor", &CLAMD) {
        return;
    }
    let mut clamd = Clamd::start().await;
    let builder = clamd_by_socket(&clamd).config(CANARY);
    judges_rightly(&builder);
    let (_, stdout, _) = builder.run(&["check-config"]);
    assert!(stdout.contains("# clamd: ClamAV "), "{stdout}");
    clamd.stop();
    fails(&builder, "clamd failed: it cannot be reached");
    let (code, _, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("clamd gives no verdict on the infected sample"), "{stderr}");
    clamd.run().await;
    judges_rightly(&builder);
}

#[tokio::test]
async fn clamd_by_stream_and_one_dead_of_two() {
    if lacks("clamd_by_stream_and_one_dead_of_two", &CLAMD) {
        return;
    }
    let port_of_clamd = port();
    let lines = format!("TCPAddr 127.0.0.1\nTCPSocket {port_of_clamd}");
    let _clamd = Clamd::start_with(&lines).await;
    judges_rightly(&clamd_at(&format!("127.0.0.1:{port_of_clamd}")).config(CANARY));
    let two = format!("[\"127.0.0.1:{}\", \"127.0.0.1:{port_of_clamd}\"]", port());
    judges_rightly(&by(&format!("scan.engines = [\"clamd\"]\nclamd.addresses = {two}\n{CANARY}")));
}

#[tokio::test]
async fn clamd_beside_a_script_under_every_plan() {
    if lacks("clamd_beside_a_script_under_every_plan", &CLAMD) {
        return;
    }
    let clamd = Clamd::start().await;
    let socket = clamd.socket();
    for plan in plans() {
        let engines = |script: &str| {
            Builder::new(script).inside(plan.inside).config(&format!(
                "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{socket:?}]"
            ))
        };
        // A script that rewrites what it can, and calls everything clean.
        let rewrites = engines("echo nothing > \"$1\"; exit 0");
        for (sample, path) in Samples::new().all() {
            let (code, said) = scan(&rewrites, &path);
            assert_eq!(
                code,
                Some((sample != "clean.txt").into()),
                "{sample}, {}: {said}",
                plan.name
            );
        }
        let samples = Samples::new();
        let clean = samples.all().next().unwrap().1;
        let (code, said) = scan(&engines("echo mine; exit 1"), &clean);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("not clean: mine"), "{said}");
        let (code, said) = scan(&engines("exit 126"), &clean);
        assert_eq!(code, Some(2), "{said}");
        let infected = samples.all().nth(1).unwrap().1;
        let (code, said) = scan(&engines("exit 126"), &infected);
        assert_eq!(code, Some(1), "who says so outweighs who fails: {said}");
    }
}

#[test]
fn rules_read_a_media_before_a_script_does_whatever_is_listed_first() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    for plan in plans() {
        let script = "rm -f \"$1\"; echo nothing > \"$1\"; exit 0";
        let builder = Builder::new(script)
            .inside(plan.inside)
            .config(&format!("scan.engines = [\"script\", \"rules\"]\nrules.paths = [{rules:?}]"));
        let (code, said) = scan(&builder, &file(&builder, "eicar.txt", &eicar()));
        assert_eq!(code, Some(1), "{}: {said}", plan.name);
        assert!(said.contains("not clean: EICAR_Test_File"), "{}: {said}", plan.name);
    }
}

#[test]
fn an_engine_that_is_listed_is_there_or_nothing_is() {
    let builder = by("");
    let lines = "scan.engines = [\"script\", \"rules\", \"clamd\", \"icap\"]\nscan.script = \"/bin/true\"\n\
                 clamd.addresses = [\"./absent.ctl\"]\nicap.urls = [\"icap://127.0.0.1/x\"]\n\
                 rules.paths = [\"none.yar\"]\ncrypto.request_secret_path = \"key\"";
    file(&builder, "none.yar", b"rule None { condition: false }");
    let (config, _) =
        Config::load(Some(&file(&builder, "whole.toml", lines.as_bytes())), std::iter::empty())
            .unwrap();
    let policy = Policy { user: config.sandbox.user, ..Policy::default() };
    let sandbox = Candidate::with_helper(Path::new(PROGRAM), policy).unwrap().untried(&[]);
    let settings = config.scan;
    let rules = &settings.rules().unwrap().rules;
    let program = PathBuf::from(PROGRAM);
    let evaluator = Evaluator::prepare(program, rules).unwrap();
    let evaluator = Some(Arc::new(evaluator));
    let network = Arc::new(Network::new(&settings.engines).unwrap());
    let made = |settings: &Settings, evaluator: &Option<Arc<Evaluator>>, network: &Arc<Network>| {
        Engines::new(settings, &sandbox, evaluator.as_ref(), &Turns::new(1), network)
    };
    let all = made(&settings, &evaluator, &network).unwrap();
    assert_eq!(all.names().collect::<Vec<_>>(), ["script", "rules", "clamd", "icap"]);
    let without = |name: &str| {
        let one = |engine: &&Kind| {
            !matches!((name, engine), ("clamd", Kind::Clamd(_)) | ("icap", Kind::Icap(_)))
        };
        let others: Vec<_> = settings.engines.iter().filter(one).cloned().collect();
        let network = Arc::new(Network::new(&others).unwrap());
        let evaluator = evaluator.clone().filter(|_| name != "rules");
        let script = settings.script.clone().filter(|_| name != "script");
        made(&Settings { script, ..settings.clone() }, &evaluator, &network)
    };
    for name in ["script", "rules", "clamd", "icap"] {
        let error = without(name).unwrap_err();
        assert!(matches!(error, SetupError::Missing(it) if it == name), "{name}: {error}");
    }
}

#[tokio::test]
async fn each_engine_has_to_know_the_samples_by_itself() {
    if lacks("each_engine_has_to_know_the_samples_by_itself", &CLAMD) {
        return;
    }
    let clamd = Clamd::start().await;
    let both = |script: &str| {
        Builder::new(script).config(CANARY).config(&format!(
            "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{:?}]",
            clamd.socket()
        ))
    };
    let (code, _, stderr) = both("exit 0").run(&["check-config"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the script calls the infected sample clean"), "{stderr}");
    let knows = "if grep -q EICAR-STANDARD \"$1\"; then exit 1; fi";
    assert_eq!(both(knows).run(&["check-config"]).0, Some(0));
    if lacks("each_engine_has_to_know_the_samples_by_itself", &["sigtool"]) {
        return;
    }
    clamd.knows(2, &EICAR.replace("44d8", "0000")).await;
    let (code, _, stderr) = both(knows).run(&["check-config"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("clamd calls the infected sample clean"), "{stderr}");
}

#[tokio::test]
async fn what_is_over_a_limit_is_never_clean() {
    if lacks("what_is_over_a_limit_is_never_clean", &CLAMD) {
        return;
    }
    let tcp = port();
    let lines = format!(
        "MaxFileSize 1M\nMaxScanSize 1M\nStreamMaxLength 1M\nTCPAddr 127.0.0.1\nTCPSocket {tcp}"
    );
    let clamd = Clamd::start_with(&lines).await;
    let large = vec![b'x'; 3 << 20];
    // The daemon's own.
    let builder = clamd_by_socket(&clamd);
    let (code, said) = scan(&builder, &file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("Heuristics.Limits.Exceeded"), "{said}");
    let builder = clamd_at(&format!("127.0.0.1:{tcp}"));
    let (code, said) = scan(&builder, &file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{said}");
    // Ours, told before anything is sent.
    let builder = clamd_by_socket(&clamd).config("clamd.max_size = \"1MiB\"");
    let (code, said) = scan(&builder, &file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("larger than the 1048576 bytes"), "{said}");
    // Skipped by the only one, nobody has a word; beside a script, the script has.
    let skips = "clamd.max_size = \"1MiB\"\nclamd.larger = \"skip\"";
    let builder = clamd_by_socket(&clamd).config(skips);
    let (code, said) = scan(&builder, &file(&builder, "large", &large));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("each was skipped"), "{said}");
    let socket = clamd.socket();
    let builder = by(&format!(
        "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [{socket:?}]\n{skips}"
    ));
    let (code, said) = scan(&builder, &file(&builder, "large", &large));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("not asked"), "it is logged: {said}");
}

#[tokio::test]
async fn encrypted_contents_have_the_outcome_of_the_setting() {
    if lacks("encrypted_contents_have_the_outcome_of_the_setting", &CLAMD) {
        return;
    }
    let clamd = Clamd::start_with("AlertEncrypted yes").await;
    for (on_encrypted, expected) in [("refuse", 1), ("fail", 2), ("pass", 0)] {
        let setting = format!("scan.on_encrypted = {on_encrypted:?}");
        let builder = clamd_by_socket(&clamd).config(&setting);
        file(&builder, "in.txt", b"some text in an archive\n");
        let zip_of = |name: &str, content: &str| {
            let mut python = outside("python3");
            python.current_dir(builder.place().path(""));
            assert!(
                python.args(["-m", "zipfile", "-c", name, content]).status().unwrap().success()
            );
            fs::read(builder.place().path(name)).unwrap()
        };
        let zip = encrypted_by_name(zip_of("a.zip", "in.txt"));
        let encrypted = file(&builder, "encrypted.zip", &zip);
        // The daemon looks into archives in archives, which the service does not.
        zip_of("outer.zip", "encrypted.zip");
        let outer = builder.place().path("outer.zip");
        for (path, what) in [(encrypted, "zip"), (outer, "Heuristics.Encrypted.Zip")] {
            let (code, said) = scan(&builder, &path);
            assert_eq!(code, Some(expected), "{on_encrypted}: {said}");
            assert_eq!(said.contains(what), expected != 0 || what == "zip", "{said}");
        }
    }
}

#[tokio::test]
async fn encrypted_office_documents_are_refused_which_clamd_calls_clean() {
    if lacks("encrypted_office_documents_are_refused_which_clamd_calls_clean", &CLAMD) {
        return;
    }
    let clamd = Clamd::start_with("AlertEncrypted yes").await;
    let document = include_bytes!("../../fuzz/corpus/encrypted/encrypted.docx");
    for (on_encrypted, expected) in [("refuse", 1), ("pass", 0)] {
        let setting = format!("scan.on_encrypted = {on_encrypted:?}");
        let builder = clamd_by_socket(&clamd).config(&setting);
        let (code, said) = scan(&builder, &file(&builder, "encrypted.docx", document));
        assert_eq!(code, Some(expected), "{on_encrypted}: {said}");
    }
}

#[tokio::test]
async fn what_is_infected_beside_an_encrypted_file_is_found_unless_the_daemon_stops_there() {
    let test = "what_is_infected_beside_an_encrypted_file_is_found_unless_the_daemon_stops_there";
    if lacks(test, &CLAMD) {
        return;
    }
    for (precedence, expected) in [("no", 1), ("yes", 0)] {
        let lines = format!("AlertEncrypted yes\nHeuristicScanPrecedence {precedence}");
        let clamd = Clamd::start_with(&lines).await;
        let builder = clamd_by_socket(&clamd).config("scan.on_encrypted = \"pass\"");
        file(&builder, "in.txt", b"some text in an archive\n");
        file(&builder, "eicar.txt", &eicar());
        let mut python = outside("python3");
        python.current_dir(builder.place().path(""));
        python.args(["-m", "zipfile", "-c", "a.zip", "in.txt", "eicar.txt"]);
        assert!(python.status().unwrap().success());
        let zip = encrypted_by_name(fs::read(builder.place().path("a.zip")).unwrap());
        let (code, said) = scan(&builder, &file(&builder, "encrypted.zip", &zip));
        assert_eq!(code, Some(expected), "{precedence}: {said}");
        assert_eq!(said.contains("Test.EICAR"), expected == 1, "{said}");
    }
}

/// With the bit that says so, in both headers of its first file.
fn encrypted_by_name(mut zip: Vec<u8>) -> Vec<u8> {
    for (signature, at) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let header = zip.windows(4).position(|it| it == signature).unwrap();
        zip[header + at] |= 1;
    }
    zip
}

#[tokio::test]
async fn a_daemon_that_is_killed_over_a_media_has_no_word_on_it() {
    let test = "a_daemon_that_is_killed_over_a_media_has_no_word_on_it";
    if lacks(test, &CLAMD) {
        return;
    }
    let mut clamd = Clamd::start().await;
    let socket = clamd.socket();
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", "some text");
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{socket:?}]\n\
         result_cache.failure_ttl = \"1ms\""
    );
    let scanner = by(&config).homeserver(&homeserver).start().await;
    clamd.freeze();
    let path = format!("/scan/{media}");
    let reply = scanner.client.get(&path);
    let killed = async {
        // Its listener, and the service's connection.
        until("a connection", || connections(&socket) >= 2).await;
        clamd.kill();
    };
    let (reply, ()) = tokio::join!(reply, killed);
    reply.is_error(500, "M_UNKNOWN");
    scanner.logged("its answer broke off", 1).await;
    // It is back, and the failure long forgotten.
    clamd.run().await;
    scanner.client.get(&path).await.is_clean();
}

/// Sockets of this path, whoever's.
fn connections(path: &Path) -> usize {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    all.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
}

#[tokio::test]
async fn a_failure_may_be_passed_over_where_another_has_a_word() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", "some text");
    let config = "scan.engines = [\"script\", \"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]\n\
                  clamd.on_failure = \"skip\"\nresult_cache.failure_ttl = \"1ms\"";
    let script = "echo run >> \"$MARKS/runs\"";
    let scanner = Builder::new(script).config(config).homeserver(&homeserver).start().await;
    for runs in 1..=2 {
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
        // Not for longer than a failure: the engine that was left out may be back.
        assert_eq!(scanner.place.marks("runs"), runs);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scanner.logged("passed over", 1).await;
    let operations = scanner.operations().await;
    let metrics = send(operations.elsewhere(Method::GET, "/metrics")).await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    for counted in ["engine=\"clamd\",result=\"skipped\"", "engine=\"script\",result=\"clean\""] {
        assert!(metrics.contains(&format!("mcs_engine_scans_total{{{counted}}} 2\n")), "{metrics}");
    }
    let alone = by("scan.engines = [\"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]\n\
                    clamd.on_failure = \"skip\"");
    let (code, said) = scan(&alone, &file(&alone, "a.txt", b"a"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("each was skipped"), "{said}");
}

#[tokio::test]
async fn new_signatures_undo_clean_and_old_ones_are_not_forgotten() {
    let test = "new_signatures_undo_clean_and_old_ones_are_not_forgotten";
    if lacks(test, &["clamd", "sigtool", "python3"]) {
        return;
    }
    let clamd = Clamd::start().await;
    clamd.knows(1, EICAR).await;
    let homeserver = Homeserver::start().await;
    let infected = homeserver.has_bytes("eicar", eicar());
    // MD5 6cd3556deb0da54bca060b4c39479839.
    let worse = homeserver.has_bytes("worse", "Hello, world!");
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{:?}]\nscan.version_interval = \"1s\"",
        clamd.socket()
    );
    let scanner = by(&config).homeserver(&homeserver).start().await;
    let name = "File not clean. Output: 'Test.EICAR.UNOFFICIAL'";
    scanner.client.get(&format!("/scan/{infected}")).await.is_not_clean(name);
    scanner.client.get(&format!("/scan/{worse}")).await.is_clean();
    scanner.client.get(&format!("/download/{worse}")).await.is_media(b"Hello, world!");

    clamd.knows(2, "6cd3556deb0da54bca060b4c39479839:13:Test.Worse\n").await;
    // One line for each version.
    scanner.logged("tells its version", 2).await;
    let worse_name = "File not clean. Output: 'Test.Worse.UNOFFICIAL'";
    scanner.client.get(&format!("/scan/{worse}")).await.is_not_clean(worse_name);
    scanner.client.get(&format!("/download/{worse}")).await.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    // These signatures do not know it, and it stays what it was.
    scanner.client.get(&format!("/scan/{infected}")).await.is_not_clean(name);
}

#[tokio::test]
async fn c_icap_asked_as_a_proxy_would() {
    if lacks("c_icap_asked_as_a_proxy_would", &ICAP) {
        return;
    }
    let mut clamd = Clamd::start().await;
    let mut icap = Icap::start(&clamd).await;
    judges_icap(&icap_at(&icap).config(CANARY));
    judges_icap(&icap_at(&icap).config(CANARY).config("icap.method = \"reqmod\""));
    judges_icap(&icap_of(&[port(), icap.port], "avscan").config(CANARY));
    let builder = icap_at(&icap).config("icap.max_size = \"1MiB\"");
    let (code, said) = scan(&builder, &file(&builder, "large", &vec![b'x'; 2 << 20]));
    assert_eq!(code, Some(2), "{said}");
    // Below its limit, large ones too: longer than any buffer on the way.
    let builder = icap_at(&icap).config("icap.max_size = \"32MiB\"");
    let (code, said) = scan(&builder, &file(&builder, "large", &vec![b'x'; 20 << 20]));
    assert_eq!(code, Some(0), "{said}");
    fails(&icap_of(&[icap.port], "nothing"), "ICAP status 404");
    let both = format!(
        "scan.engines = [\"icap\", \"clamd\"]\nclamd.addresses = [{:?}]\n\
         icap.urls = [\"icap://127.0.0.1:{}/avscan\"]",
        clamd.socket(),
        icap.port
    );
    judges_rightly(&by(&both).config(CANARY));
    // The server answers, and its engine has gone.
    clamd.stop();
    fails(&icap_at(&icap), "icap failed");
    icap.stop();
    fails(&icap_at(&icap), "it cannot be reached");
}

#[tokio::test]
async fn c_icap_that_sends_a_media_back_has_called_it_clean_if_it_is_the_same() {
    let test = "c_icap_that_sends_a_media_back_has_called_it_clean_if_it_is_the_same";
    if lacks(test, &ICAP) {
        return;
    }
    let clamd = Clamd::start().await;
    // One that sends back what it gets, and one that scans it and does not speak 204.
    let lines = "Service echo srv_echo.so\n\
                 ServiceAlias whole virus_scan?allow204=off&sizelimit=off&mode=simple\n";
    let icap = Icap::start_with(&clamd, lines).await;
    let large: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let small = b"some text".to_vec();
    for method in ["respmod", "reqmod"] {
        for (service, media) in [
            // Of each second media it says that it is unchanged.
            ("echo", vec![(&small, 0), (&small, 0), (&large, 0), (&large, 0)]),
            ("whole", vec![(&small, 0), (&large, 0), (&eicar(), 1)]),
        ] {
            let way = format!("icap.method = {method:?}");
            let builder = icap_of(&[icap.port], service).config(&way);
            let count = if service == "echo" { media.len() / 2 } else { media.len() };
            for (content, expected) in media {
                let (code, said) = scan(&builder, &file(&builder, "media", content));
                assert_eq!(code, Some(expected), "{service}, {} bytes: {said}", content.len());
                assert_eq!(said.contains("not clean: Test.EICAR"), expected == 1, "{said}");
            }
            let method = method.to_uppercase();
            until("answers", || icap.answered(&method, service, 200) >= count).await;
        }
    }
}

#[tokio::test]
async fn c_icap_that_sends_a_page_in_a_medias_place_has_not_called_it_clean() {
    let test = "c_icap_that_sends_a_page_in_a_medias_place_has_not_called_it_clean";
    if lacks(test, &ICAP) {
        return;
    }
    if !icap::modules().join("srv_url_check.so").exists() {
        return skipped(test, "not installed: c-icap's url_check");
    }
    let clamd = Clamd::start().await;
    // Without a word on infections: it blocks addresses, and the one that all media have.
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(&hosts, "media.invalid\n").unwrap();
    fs::set_permissions(&hosts, fs::Permissions::from_mode(0o644)).unwrap();
    let lines = format!(
        "Service url_check srv_url_check.so\n\
         url_check.LookupTableDB blocked host hash:{}\n\
         url_check.Profile default block blocked\n",
        hosts.path().display()
    );
    let icap = Icap::start_with(&clamd, &lines).await;
    let builder = icap_of(&[icap.port], "url_check").config("icap.method = \"reqmod\"");
    for content in [b"some text".to_vec(), vec![b'x'; 2 << 20]] {
        let (code, said) = scan(&builder, &file(&builder, "media", &content));
        assert_eq!(code, Some(1), "{said}");
        // X-Response-Info: BLOCKED.
        assert!(said.contains("not clean: blocked by the ICAP server"), "{said}");
    }
    until("the answers", || icap.answered("REQMOD", "url_check", 200) == 2).await;
    // The other way is not offered.
    let (code, said) = scan(&icap_of(&[icap.port], "url_check"), &file(&builder, "media", b"x"));
    assert_eq!(code, Some(2), "{said}");
}

#[tokio::test]
async fn another_istag_undoes_clean() {
    let test = "another_istag_undoes_clean";
    if lacks(test, &["c-icap", "clamd", "sigtool", "python3"]) {
        return;
    }
    let clamd = Clamd::start().await;
    clamd.knows(1, EICAR).await;
    let mut icap = Icap::start(&clamd).await;
    let homeserver = Homeserver::start().await;
    // MD5 6cd3556deb0da54bca060b4c39479839.
    let worse = homeserver.has_bytes("worse", "Hello, world!");
    let scanner = icap_at(&icap)
        .config("scan.version_interval = \"1s\"")
        .homeserver(&homeserver)
        .start()
        .await;
    let path = format!("/scan/{worse}");
    scanner.client.get(&path).await.is_clean();
    scanner.client.get(&path).await.is_clean();
    until("an answer", || icap.answered("RESPMOD", "avscan", 204) == 1).await;

    clamd.knows(2, "6cd3556deb0da54bca060b4c39479839:13:Test.Worse\n").await;
    // It asks its daemon for the version when it starts.
    icap.stop();
    icap.run().await;
    scanner.logged("tells its version", 2).await;
    let name = "File not clean. Output: 'Test.Worse.UNOFFICIAL'";
    scanner.client.get(&path).await.is_not_clean(name);
}

fn judges_icap(builder: &Builder) {
    judges_rightly(builder);
    let (_, stdout, _) = builder.run(&["check-config"]);
    assert!(stdout.contains("# icap: \""), "its ISTag: {stdout}");
}

#[tokio::test]
async fn an_icap_server_that_is_killed_over_a_media_has_no_word_on_it() {
    let test = "an_icap_server_that_is_killed_over_a_media_has_no_word_on_it";
    if lacks(test, &ICAP) {
        return;
    }
    let clamd = Clamd::start().await;
    let mut icap = Icap::start(&clamd).await;
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", "some text");
    let scanner = icap_at(&icap).homeserver(&homeserver).start().await;
    // It waits for its engine, and is killed then.
    clamd.freeze();
    let path = format!("/scan/{media}");
    let killed = async {
        until("a connection to the engine", || connections(&clamd.socket()) >= 2).await;
        icap.kill();
    };
    let (reply, ()) = tokio::join!(scanner.client.get(&path), killed);
    reply.is_error(500, "M_UNKNOWN");
}
