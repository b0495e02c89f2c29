//! SIGHUP: what changes at once, what waits for a restart, and that nobody's request notices.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use tokio::task::JoinHandle;

use crate::{
    harness::{
        Attachment, Builder, Client, Homeserver, Reply, Scanner,
        attachment::seal,
        png,
        scanner::{as_root, entries, start_again},
        skipped, until,
    },
    operations::scraped,
    service_manager::Manager,
};

const RUNS: &str = r#"
    echo "run $0" >> "$MARKS/runs"
"#;

const HOLDS: &str = r#"
    echo run >> "$MARKS/runs"
    read go < "$MARKS/go"
"#;

/// Knows the EICAR test file.
const KNOWS: &str = r#"
    echo "run $0" >> "$MARKS/runs"
    if grep -q EICAR-STANDARD "$1"; then exit 1; fi
"#;

/// Writes these lines over the configuration that is there: `section.key = value`, or with `-` the key
/// alone, to take it out.
fn rewrite(scanner: &Scanner, lines: &str) {
    let path = scanner.place.path("config.toml");
    let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap_or((line.trim_start_matches('-'), ""));
        let (section, name) = key.split_once('.').unwrap();
        let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
        let section = entry.as_table_mut().unwrap();
        section.remove(name);
        if !value.is_empty() {
            let value: toml::Table = format!("it = {value}").parse().unwrap();
            section.insert(name.to_owned(), value["it"].clone());
        }
    }
    // Renamed into place, as careful people do: it may be read at any moment.
    let fresh = scanner.place.path("config.fresh");
    fs::write(&fresh, table.to_string()).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// What it has said of reloads: an end each.
fn ends(scanner: &Scanner) -> usize {
    scanner.log().matches("\"message\":\"reloaded").count()
        + scanner.log().matches("the reload is refused").count()
}

/// Sends SIGHUP and waits for the reload's end; gives what was logged meanwhile.
async fn reload(scanner: &Scanner) -> String {
    let (before, ended) = (scanner.log().len(), ends(scanner));
    scanner.signal(Signal::SIGHUP);
    until("the reload's end", || ends(scanner) > ended).await;
    scanner.log().split_off(before)
}

pub(crate) async fn takes_over(scanner: &Scanner, lines: &str) -> String {
    rewrite(scanner, lines);
    let said = reload(scanner).await;
    assert!(said.contains("\"message\":\"reloaded"), "{lines}: {said}");
    said
}

async fn refuses(scanner: &Scanner, lines: &str) -> String {
    rewrite(scanner, lines);
    let said = reload(scanner).await;
    assert!(said.contains("everything stays as it was"), "{lines}: {said}");
    said
}

/// Asks for media, one new one after another and one that is known, until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn begin(homeserver: &Arc<Homeserver>, client: &Client) -> Self {
        let (stop, answered) = (Arc::default(), Arc::default());
        let tasks = (0..3)
            .map(|person| {
                let (homeserver, client) = (Arc::clone(homeserver), client.clone());
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                let ask = async move {
                    for turn in 0.. {
                        if AtomicBool::load(&stop, Ordering::Relaxed) {
                            return;
                        }
                        let id = format!("traffic{person}x{}", turn % 5 * (turn % 2) + turn / 3);
                        let bytes = [png(), id.clone().into_bytes()].concat();
                        let media = homeserver.has_bytes(&id, bytes.clone());
                        client.get(&format!("/download/{media}")).await.is_media(&bytes);
                        AtomicUsize::fetch_add(&answered, 1, Ordering::Relaxed);
                    }
                };
                tokio::spawn(ask)
            })
            .collect();
        Self { stop, answered, tasks }
    }

    /// Waits until more requests have begun and ended.
    async fn flows(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until("answers", || {
            self.answered.load(Ordering::Relaxed) > before + 6
                || self.tasks.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every request was answered as it should be");
        }
    }
}

fn ask(scanner: &Scanner, path: String) -> JoinHandle<Reply> {
    let client = scanner.client.clone();
    tokio::spawn(async move { client.get(&path).await })
}

#[tokio::test]
async fn every_kind_of_key_is_taken_over_under_traffic_and_no_request_fails() {
    let homeserver = Arc::new(Homeserver::start().await);
    let elsewhere = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let traffic = Traffic::begin(&homeserver, &scanner.client);
    traffic.flows().await;
    let scan = async |id: &str, bytes: &[u8]| {
        let media = homeserver.has_bytes(id, bytes.to_vec());
        scanner.client.get(&format!("/scan/{media}")).await
    };

    // A limit.
    scan("large", &[1; 9000]).await.is_clean();
    let said = takes_over(&scanner, "download.max_size = 8000").await;
    assert!(said.contains("\"changed\":\"download.max_size\""), "{said}");
    scan("larger", &[2; 9000]).await.is_error(413, "MCS_MEDIA_REQUEST_FAILED");
    traffic.flows().await;
    takes_over(&scanner, "-download.max_size").await;
    scan("larger", &[2; 9000]).await.is_clean();

    // A list, which counts for what is known too.
    scan("listed", b"just text\n").await.is_clean();
    takes_over(&scanner, "scan.allowed_mimetypes = [\"image/png\"]").await;
    scan("listed", b"just text\n").await.is_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    traffic.flows().await;
    takes_over(&scanner, "-scan.allowed_mimetypes").await;
    scan("listed", b"just text\n").await.is_clean();

    // Requests.
    let long = format!("{{\"padding\": \"{}\"}}", "x".repeat(2000));
    let post = async || scanner.client.post_bytes("/scan_encrypted", long.clone()).await;
    post().await.is_error(400, "MCS_MALFORMED_JSON");
    takes_over(&scanner, "web.max_body_size = 1500").await;
    post().await.is_error(413, "MCS_MALFORMED_JSON");

    // Headers, and the map of homeservers.
    takes_over(&scanner, "download.additional_headers = { X-From = \"scanner\" }").await;
    scan("headers", b"headers").await.is_clean();
    let asked = homeserver.asked();
    let of_it = asked.iter().rfind(|it| it.uri.contains("/headers")).unwrap();
    assert_eq!(of_it.headers["x-from"], "scanner");
    let map = format!("download.homeservers = {{ \"other.example\" = \"{}\" }}", elsewhere.url());
    takes_over(&scanner, &map).await;
    let media = elsewhere.has_bytes("over-there", "over there");
    let request = scanner.client.request(reqwest::Method::GET, &format!("/download/{media}"));
    let request = request.bearer_auth("good-token").header("host", "other.example");
    crate::harness::client::send(request).await.is_media(b"over there");
    traffic.flows().await;

    // The script's arguments, and what its exit means: another judge, so what is known is judged anew.
    scanner.place.write_script("by-argument.sh", "[ $# = 1 ] || exit \"$1\"");
    takes_over(&scanner, "scan.script = \"by-argument.sh\"").await;
    scan("listed", b"just text\n").await.is_clean();
    traffic.end().await;
    takes_over(&scanner, "scan.script_args = [\"3\"]").await;
    scan("listed", b"just text\n").await.is_not_clean("File not clean (no output)");
    takes_over(&scanner, "scan.failure_exit_codes = [3]").await;
    scan("listed", b"just text\n").await.is_error(500, "M_UNKNOWN");

    // What is in force can be told from the log's level as well.
    takes_over(&scanner, "log.level = \"info,matrix_content_scanner::http=error\"").await;
    let quiet = scanner.log().len();
    scan("listed", b"just text\n").await.is_error(500, "M_UNKNOWN");
    takes_over(&scanner, "log.level = \"debug\"").await;
    assert!(!scanner.log()[quiet..].contains("answered"), "{}", &scanner.log()[quiet..]);
    scanner.idle().await;
}

#[tokio::test]
async fn a_job_that_was_begun_ends_by_the_settings_that_it_began_with() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(HOLDS).homeserver(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "content");
    let begun = ask(&scanner, format!("/download/{media}"));
    until("the script runs", || scanner.place.marks("runs") == 1).await;

    scanner.place.write_script("strict.sh", "echo no\nexit 1");
    takes_over(&scanner, "scan.script = \"strict.sh\"").await;
    // The same media, asked for now, is no business of the job that is under way.
    scanner
        .client
        .get(&format!("/scan/{media}"))
        .await
        .is_not_clean("File not clean. Output: 'no'");
    takes_over(&scanner, "scan.timeout = \"100ms\"").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    scanner.place.let_go("go").await;
    begun.await.unwrap().is_media(b"content");
    takes_over(&scanner, "-scan.timeout").await;
    // And its verdict is not that of the script that is in force.
    scanner
        .client
        .get(&format!("/scan/{media}"))
        .await
        .is_not_clean("File not clean. Output: 'no'");
    scanner.idle().await;
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_with_all_that_is_wrong_and_nothing_changes() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let config = scanner.place.path("config.toml");
    let good = fs::read_to_string(&config).unwrap();
    let works = async |id: &str| {
        let media = homeserver.has_bytes(id, [1; 5000].to_vec());
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    };

    let said = refuses(
        &scanner,
        "download.max_size = 1000\nscan.timeout = \"soon\"\nscan.wrokers = 3\nweb.max_body_size = 0",
    )
    .await;
    for wrong in ["scan.timeout", "scan.wrokers", "web.max_body_size"] {
        let line =
            said.lines().find(|line| line.contains(wrong)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("\"level\":\"ERROR\""), "{line}");
    }
    works("after-a-bad-file").await;

    fs::write(&config, "this = is [no TOML").unwrap();
    let said = reload(&scanner).await;
    assert!(
        said.contains("config.toml:1") && said.contains("everything stays as it was"),
        "{said}"
    );
    works("after-no-toml").await;

    fs::remove_file(&config).unwrap();
    let said = reload(&scanner).await;
    assert!(said.contains("config.toml") && said.contains("everything stays as it was"), "{said}");
    works("after-no-file").await;

    fs::write(&config, &good).unwrap();
    let said = refuses(&scanner, "scan.script = \"none.sh\"\ndownload.max_size = 1000").await;
    assert!(said.contains("scan.script") && said.contains("none.sh"), "{said}");
    works("after-no-script").await;

    fs::write(&config, &good).unwrap();
    fs::write(scanner.place.path("ca.pem"), "no certificate").unwrap();
    let said = refuses(&scanner, "download.ca_certificates = \"ca.pem\"").await;
    assert!(said.contains("ca.pem"), "{said}");
    works("after-no-certificates").await;

    fs::write(&config, &good).unwrap();
    fs::rename(scanner.place.path("request_secret"), scanner.place.path("away")).unwrap();
    let said = refuses(&scanner, "").await;
    assert!(said.contains("only a start makes a new one"), "{said}");
    assert!(!scanner.place.path("request_secret").exists(), "a reload makes no key");
    works("after-no-key").await;

    fs::rename(scanner.place.path("away"), scanner.place.path("request_secret")).unwrap();
    let said = reload(&scanner).await;
    assert!(said.contains("the configuration is the same"), "{said}");
    works("after-all").await;
    scanner.idle().await;
}

#[tokio::test]
async fn a_script_that_the_canary_finds_wrong_is_refused_and_the_one_before_goes_on() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(KNOWS).homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.logged("ready: each engine knows", 1).await;
    let media = homeserver.has_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();

    scanner.place.write_script("blind.sh", "exit 0");
    let said = refuses(&scanner, "scan.script = \"blind.sh\"").await;
    assert!(said.contains("calls the infected sample clean"), "{said}");
    // What the next script may not do, this one goes on with; and a limit under which it cannot work is the same.
    let said =
        refuses(&scanner, "scan.script = \"script.sh\"\nscan.failure_exit_codes = [1]").await;
    assert!(said.contains("no verdict on the infected sample"), "{said}");
    let other = homeserver.has_bytes("def", "other");
    scanner.client.get(&format!("/scan/{other}")).await.is_clean();
    let runs = scanner.place.mark("runs");
    assert!(runs.lines().all(|line| line.ends_with("script.sh")), "{runs}");

    scanner.place.write_script("better.sh", KNOWS);
    takes_over(&scanner, "scan.script = \"better.sh\"\n-scan.failure_exit_codes").await;
    scanner.client.get(&format!("/scan/{other}")).await.is_clean();
    assert!(scanner.place.mark("runs").trim_end().ends_with("better.sh"));

    // One that is changed where it lies is in force already: a reload has it asked about at once.
    scanner.place.write_script("better.sh", "exit 0");
    takes_over(&scanner, "").await;
    scanner.logged("not ready", 1).await;
    scanner.client.get(&format!("/scan/{other}")).await.is_error(503, "M_UNKNOWN");
    takes_over(&scanner, "scan.script = \"script.sh\"").await;
    scanner.logged("ready: each engine knows", 2).await;
    scanner.client.get(&format!("/scan/{other}")).await.is_clean();
}

#[tokio::test]
async fn the_sandbox_is_another_one_and_one_that_holds_less_is_refused() {
    let homeserver = Homeserver::start().await;
    let scanner =
        Builder::new(r#"cat "$LICENCE_FILE" && exit 1"#).homeserver(&homeserver).start().await;
    let media = homeserver.has_bytes("abc", "content");
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.is_not_clean("File not clean (no output)");
    fs::create_dir(scanner.place.path("shown")).unwrap();
    fs::write(scanner.place.path("shown/licence"), "seen").unwrap();
    let licence = scanner.place.path("shown/licence");
    let variable = format!("sandbox.environment = {{ LICENCE_FILE = \"{}\" }}", licence.display());
    let said = takes_over(&scanner, &variable).await;
    assert!(said.contains("sandbox.environment"), "{said}");
    takes_over(&scanner, "sandbox.read_only_paths = [\"shown\"]").await;
    scanner.client.get(&path).await.is_not_clean("File not clean. Output: 'seen'");

    let said = refuses(&scanner, "sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]").await;
    assert!(said.contains("cgroup"), "{said}");
    scanner.client.get(&path).await.is_not_clean("File not clean. Output: 'seen'");
    scanner.idle().await;
}

#[tokio::test]
async fn a_sandbox_that_would_hold_less_than_the_one_in_force_is_refused() {
    let test = "a_sandbox_that_would_hold_less_than_the_one_in_force_is_refused";
    if as_root() {
        return skipped(test, "root's namespaces cannot be taken away from within");
    }
    // In a user namespace of its own, whose owner lets nobody make another one when told to.
    let taken_away = r#"
        (read go < "$MARKS/take" && echo 0 > /proc/sys/user/max_user_namespaces && echo gone > "$MARKS/taken") &
        exec setpriv --inh-caps=-all --ambient-caps=-all "$@""#;
    let wrapper =
        ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", taken_away, "sh"];
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver).inside(&wrapper);
    let marks = builder.place().path("marks").display().to_string();
    builder.place().make_fifo("take");
    let scanner = builder.environment("MARKS", &marks).start().await;
    if !scanner.log().contains("namespaces: ") || scanner.log().contains("namespaces: OFF") {
        return skipped(test, "there are no user namespaces");
    }
    scanner.place.let_go("take").await;
    until("the layer is taken away", || scanner.place.marks("taken") == 1).await;
    let said = refuses(&scanner, "sandbox.environment = { ANOTHER = \"one\" }").await;
    assert!(said.contains("without namespaces"), "{said}");
    // What is in force does not get weaker either: the job fails.
    let media = homeserver.has_bytes("abc", "content");
    scanner.client.get(&format!("/scan/{media}")).await.is_error(500, "M_UNKNOWN");
}

#[tokio::test]
async fn a_rotated_key_is_told_at_once_and_the_old_one_opens_for_its_time() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.has_bytes("abc", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}")).to_string();
    let old = scanner.client.public_key().await;
    let scan =
        async |key: &str| scanner.client.post("/scan_encrypted", &seal(key, body.as_bytes())).await;
    scan(&old).await.is_clean();

    let secret = scanner.place.path("request_secret");
    fs::write(&secret, STANDARD.encode([7; 32])).unwrap();
    takes_over(&scanner, "").await;
    let new = scanner.client.public_key().await;
    assert_ne!(new, old);
    scan(&new).await.is_clean();
    scan(&old).await.is_clean();

    // A time that is over, for a key that was replaced before the time was set.
    takes_over(&scanner, "crypto.previous_key_ttl = \"1ms\"").await;
    scan(&old).await.is_error(403, "MCS_BAD_DECRYPTION");
    scan(&new).await.is_clean();

    // And one that runs out by itself.
    takes_over(&scanner, "crypto.previous_key_ttl = \"300ms\"").await;
    fs::write(&secret, STANDARD.encode([8; 32])).unwrap();
    takes_over(&scanner, "").await;
    scanner.logged("the time of a replaced request key is over", 1).await;
    scan(&new).await.is_error(403, "MCS_BAD_DECRYPTION");
    scan(&scanner.client.public_key().await).await.is_clean();

    // What is no key keeps the one that is.
    fs::write(&secret, "hush-hush").unwrap();
    let said = refuses(&scanner, "").await;
    assert!(said.contains("request_secret") && !said.contains("hush-hush"), "{said}");
    scan(&scanner.client.public_key().await).await.is_clean();
}

#[tokio::test]
async fn what_takes_a_restart_is_named_key_by_key_and_the_rest_is_taken_over() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    fs::create_dir(scanner.place.path("temp2")).unwrap();
    let lines = "web.port = 1\nscan.workers = 3\nscan.max_scripts = 1\nscan.queue_capacity = 7\n\
                 scan.temp_directory = \"temp2\"\nweb.max_connections = 9\nlog.format = \"human\"\n\
                 result_cache.max_size = 5\nresult_cache.max_file_size = 6\n\
                 result_cache.max_total_size = 7\ndownload.max_size = 1000";
    let said = takes_over(&scanner, lines).await;
    for key in [
        "web.port",
        "web.max_connections",
        "scan.workers",
        "scan.queue_capacity",
        "scan.temp_directory",
        "result_cache.max_size",
        "result_cache.max_file_size",
        "result_cache.max_total_size",
        "log.format",
    ] {
        let line = said.lines().find(|line| line.contains(&format!("\"key\":\"{key}\"")));
        let line = line.unwrap_or_else(|| panic!("{key} in {said}"));
        assert!(line.contains("\"WARN\"") && line.contains("takes a restart"), "{line}");
    }
    assert!(said.contains("download.max_size"), "{said}");
    let media = homeserver.has_bytes("abc", [1; 5000].to_vec());
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.is_error(413, "MCS_MEDIA_REQUEST_FAILED");
    assert!(entries(&scanner.place.path("temp2")).is_empty());
    assert_eq!(entries(&scanner.place.path("temp")).len(), 1, "it is where it was");
    // It is not forgotten.
    let said = takes_over(&scanner, "web.port = 0\nscan.workers = 3\nlog.format = \"json\"").await;
    assert!(said.contains("\"key\":\"scan.workers\"") && !said.contains("web.port"), "{said}");
    drop(start_again(scanner.kill()).await);
}

#[tokio::test]
async fn many_signals_in_a_row_end_in_what_was_written_last() {
    let homeserver = Arc::new(Homeserver::start().await);
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let traffic = Traffic::begin(&homeserver, &scanner.client);
    for turn in 0..40 {
        rewrite(&scanner, &format!("scan.max_scripts = {}", turn % 4 + 1));
        scanner.signal(Signal::SIGHUP);
        tokio::time::sleep(Duration::from_millis(turn % 7)).await;
    }
    traffic.flows().await;
    // Of the signals that came while one was under way, one is left over at the most.
    rewrite(&scanner, "download.max_size = 1000");
    scanner.signal(Signal::SIGHUP);
    scanner.logged("\"changed\":\"download.max_size", 1).await;
    traffic.flows().await;
    traffic.end().await;
    let media = homeserver.has_bytes("abc", [1; 5000].to_vec());
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.is_error(413, "MCS_MEDIA_REQUEST_FAILED");
    assert!(!scanner.log().contains("reload is refused"), "{}", scanner.log());
    scanner.idle().await;
}

#[tokio::test]
async fn fewer_scripts_at_a_time_are_that_many_and_more_are_more() {
    let homeserver = Homeserver::start().await;
    // Each waits at a FIFO of its own.
    let holds = r#"echo run >> "$MARKS/runs"; read go < "$MARKS/$(cat "$1")""#;
    let builder = Builder::new(holds).homeserver(&homeserver);
    let scanner = builder.config("scan.workers = 16\nscan.max_scripts = 2").start().await;
    for name in ["one", "two", "three", "four"] {
        scanner.place.make_fifo(name);
    }
    let scan =
        |id: &str| ask(&scanner, format!("/scan/{}", homeserver.has_bytes(id, id.to_owned())));
    let mut begun = vec![scan("one"), scan("two")];
    until("both run", || scanner.place.marks("runs") == 2).await;
    takes_over(&scanner, "scan.max_scripts = 1").await;
    begun.push(scan("three"));
    homeserver.was_asked(3).await;
    scanner.place.let_go("one").await;
    begun.remove(0).await.unwrap().is_clean();
    // One runs still, and that is all that may.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scanner.place.marks("runs"), 2);
    takes_over(&scanner, "scan.max_scripts = 3").await;
    begun.push(scan("four"));
    until("all that are left run", || scanner.place.marks("runs") == 4).await;
    for name in ["two", "three", "four"] {
        scanner.place.let_go(name).await;
    }
    for reply in begun {
        reply.await.unwrap().is_clean();
    }
}

#[tokio::test]
async fn a_signal_to_reload_while_it_stops_changes_nothing_and_ends_nothing() {
    let homeserver = Homeserver::start().await;
    let mut scanner = Builder::new(HOLDS).homeserver(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let media = homeserver.has_bytes("abc", "content");
    let begun = ask(&scanner, format!("/download/{media}"));
    until("the script runs", || scanner.place.marks("runs") == 1).await;
    scanner.signal(Signal::SIGTERM);
    scanner.logged("stopping; what runs may end", 1).await;
    rewrite(&scanner, "download.max_size = 1");
    scanner.signal(Signal::SIGHUP);
    scanner.place.let_go("go").await;
    begun.await.unwrap().is_media(b"content");
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(!scanner.log().contains("asked to reload"), "{}", scanner.log());
    assert!(entries(&scanner.place.path("temp")).is_empty());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_reload_whose_canary_hangs() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(KNOWS).homeserver(&homeserver);
    let mut scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.logged("ready: each engine knows", 1).await;
    scanner
        .place
        .write_script("hangs.sh", "echo run >> \"$MARKS/hangs\"\nwhile :; do sleep 1000; done");
    rewrite(&scanner, "scan.script = \"hangs.sh\"");
    scanner.signal(Signal::SIGHUP);
    until("the canary hangs", || scanner.place.marks("hangs") == 1).await;
    // Meanwhile everything goes on as it was.
    let media = homeserver.has_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    until("nothing is left", || scanner.place.processes().is_empty()).await;
    assert!(entries(&scanner.place.path("temp")).is_empty());
}

#[tokio::test]
async fn engines_are_taken_over_with_their_settings_unless_one_does_not_know_the_samples() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let scanner = Scanner::start(&homeserver, KNOWS).await;
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.is_clean();
    // Nobody is there: what the script said is not this one's word.
    let absent = "scan.engines = [\"clamd\"]\nclamd.addresses = [\"./absent.ctl\"]";
    takes_over(&scanner, absent).await;
    scanner.client.get(&path).await.is_error(500, "M_UNKNOWN");
    takes_over(&scanner, "scan.engines = [\"script\"]").await;
    scanner.client.get(&path).await.is_clean();
    takes_over(&scanner, "scan.canary = \"eicar\"").await;
    rewrite(&scanner, absent);
    let said = reload(&scanner).await;
    assert!(said.contains("the reload is refused"), "{said}");
    assert!(said.contains("clamd gives no verdict on the infected sample"), "{said}");
    scanner.client.get(&path).await.is_clean();
}

/// As systemd compares it, in microseconds.
fn monotonic() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
}

#[tokio::test]
async fn the_service_manager_is_told_when_a_reload_begins_and_ends() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver).config("scan.canary = \"eicar\"");
    let (mut manager, builder) = Manager::of(builder);
    let scanner = builder.start().await;
    manager.hears("STATUS=Not ready").await;
    // Who is still starting goes on starting.
    reload(&scanner).await;
    scanner.place.write_script("script.sh", KNOWS);
    manager.hears("READY=1").await;
    assert!(!manager.has_heard("RELOADING=1"), "a start is no reload");

    scanner.place.write_script("better.sh", KNOWS);
    for (lines, is_tried) in
        [("scan.script = \"better.sh\"", true), ("scan.timeout = \"soon\"", false)]
    {
        rewrite(&scanner, lines);
        let before = monotonic();
        scanner.signal(Signal::SIGHUP);
        let said = manager.hears("RELOADING=1\nMONOTONIC_USEC=").await;
        let told: u128 = said.rsplit_once('=').unwrap().1.parse().unwrap();
        assert!((before..=monotonic()).contains(&told), "{before} {told}");
        if is_tried {
            // Twice scan.timeout, and a minute.
            manager.hears("EXTEND_TIMEOUT_USEC=180000000").await;
        }
        manager.hears("READY=1").await;
    }
}

#[tokio::test]
async fn reloads_are_counted_by_what_became_of_them() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let operations = scanner.operations().await;
    let counted = async |taken_over: usize, refused: usize| {
        let line = |result, count| format!("mcs_reloads_total{{result=\"{result}\"}} {count}");
        let metrics = scraped(&operations, &line("taken_over", taken_over)).await;
        assert!(metrics.lines().any(|it| it == line("refused", refused)), "{metrics}");
    };
    counted(0, 0).await;
    takes_over(&scanner, "download.max_size = 1000").await;
    counted(1, 0).await;
    refuses(&scanner, "scan.timeout = \"soon\"").await;
    counted(1, 1).await;
    takes_over(&scanner, "-scan.timeout").await;
    counted(2, 1).await;
}

#[tokio::test]
async fn another_ttl_counts_for_what_is_remembered_already() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(RUNS).homeserver(&homeserver).start().await;
    let media = homeserver.has_bytes("abc", png());
    let runs_after_a_scan = async || {
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
        scanner.place.marks("runs")
    };
    assert_eq!(runs_after_a_scan().await, 1);
    takes_over(&scanner, "download.max_size = 9000000").await;
    assert_eq!(runs_after_a_scan().await, 1, "a reload forgets nothing");
    takes_over(&scanner, "result_cache.ttl = \"1ms\"").await;
    assert_eq!(runs_after_a_scan().await, 2, "a shorter ttl is over");
    takes_over(&scanner, "result_cache.ttl = \"1h\"").await;
    assert_eq!(runs_after_a_scan().await, 2, "a longer one is not");
}
