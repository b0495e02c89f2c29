//! Scans per second of 100 KiB files by each engine, beside clamd's own socket used as plainly as can be, and the
//! whole way of a local file beside it. `cargo bench --bench engines` starts a clamd and a c-icap of its own and prints
//! the table; it takes a minute. Candidates take turns round by round, so that what else the machine does strikes all
//! of them, and ratios are of the same round. All files differ, and clamd remembers none. Programs in the sandbox run
//! one at a time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::panic,
    clippy::unnecessary_debug_formatting,
    reason = "a benchmark that cannot run is to say so and end; it starts servers, and prints figures"
)]

use std::{
    fs::{self, File, Permissions},
    io::{IoSlice, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::PermissionsExt as _,
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_content_scanner::{
    app::{self, Grounds},
    config::Config,
    scan::{
        Verdict,
        engines::{Exposed, Specimen},
        filetype::Detector,
        local::LocalScanner,
    },
};
use mcs_sandbox::{Outcome, Usage};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::task::JoinSet;

const ROUNDS: usize = 15;

/// Files a round, and how many at a time.
const FILES: usize = 40;
const AT_A_TIME: usize = 4;

const SIZE: usize = 100 * 1024;

#[derive(Clone)]
enum Way {
    /// Connect, FILDES, read.
    Raw(PathBuf),
    /// An engine on a file that is open.
    Engine(Arc<LocalScanner>),
    /// A file's whole way: copied, hashed, its type found, its engines asked.
    Whole(Arc<LocalScanner>),
}

impl Way {
    async fn scan(&self, path: &Path) {
        match self {
            Self::Raw(socket) => {
                let (socket, path) = (socket.clone(), path.to_owned());
                let said = tokio::task::spawn_blocking(move || raw(&socket, &path)).await.unwrap();
                assert!(said.ends_with(b": OK\0"));
            }
            Self::Engine(scanner) => {
                let specimen = Specimen::of(&File::open(path).unwrap()).unwrap();
                let media = Exposed { specimen: &specimen, job: None, tamper_proof: true };
                let run = Box::pin(scanner.engines.judge(media)).await;
                assert!(matches!(run.outcome.unwrap().verdict, Verdict::Clean { .. }));
            }
            Self::Whole(scanner) => {
                let verdict = Box::pin(scanner.scan(path)).await.unwrap();
                assert!(matches!(verdict, Verdict::Clean { .. }));
            }
        }
    }

    /// Files a second.
    async fn round(&self, files: &[PathBuf]) -> f64 {
        let begun = Instant::now();
        let mut scans = JoinSet::new();
        for part in files.chunks(files.len().div_ceil(AT_A_TIME)) {
            let (way, part) = (self.clone(), part.to_vec());
            scans.spawn(async move {
                for path in part {
                    way.scan(&path).await;
                }
            });
        }
        scans.join_all().await;
        files.len() as f64 / begun.elapsed().as_secs_f64()
    }
}

fn raw(socket: &Path, path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"zFILDES\0").unwrap();
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(b"\0")];
    sendmsg::<()>(stream.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    said
}

/// A server, killed in the end.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str], ready: impl Fn() -> bool) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).spawn();
        let mut this = Self(child.unwrap_or_else(|error| panic!("{program}: {error}")));
        let end = Instant::now() + Duration::from_secs(60);
        while !ready() {
            assert!(this.0.try_wait().unwrap().is_none() && Instant::now() < end, "{program}");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        // c-icap has children, which go when they are asked to.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A scanner by these lines.
async fn scanner(here: &Path, name: &str, lines: &str) -> (Arc<LocalScanner>, Grounds) {
    let temp = here.join(format!("{name}.d"));
    fs::create_dir(&temp).unwrap();
    fs::set_permissions(&temp, Permissions::from_mode(0o755)).unwrap();
    let file = here.join(format!("{name}.toml"));
    let text =
        format!("scan.temp_directory = {temp:?}\ncrypto.request_secret_path = \"key\"\n{lines}\n");
    fs::write(&file, text).unwrap();
    let (config, _) = Config::load(Some(&file), std::iter::empty()).expect("a configuration");
    let grounds = Grounds::of_command(&config, None).await.unwrap();
    let network = app::network(&config).await.unwrap();
    let detector = Arc::new(Detector::new().unwrap());
    (Arc::new(app::local_scanner(&config, &grounds, detector, &network).unwrap()), grounds)
}

fn main() {
    mcs_sandbox::dispatch();
    mcs_rules::dispatch();
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}

async fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    fs::set_permissions(here, Permissions::from_mode(0o777)).unwrap();
    let as_root = nix::unistd::geteuid().is_root();

    let (socket, port) = (here.join("clamd.ctl"), free_port());
    fs::create_dir(here.join("db")).unwrap();
    fs::write(here.join("db/test.hdb"), include_str!("../tests/scanners/eicar.hdb")).unwrap();
    let conf = here.join("clamd.conf");
    let user = if as_root { "User clamav\n" } else { "" };
    let text =
        include_str!("../tests/scanners/clamd.conf").replace("@HERE@", here.to_str().unwrap());
    let more = format!("DisableCache yes\nTCPAddr 127.0.0.1\nTCPSocket {port}\n{user}");
    fs::write(&conf, text + &more).unwrap();
    let _clamd = Server::start("clamd", &["--config-file", conf.to_str().unwrap()], || {
        UnixStream::connect(&socket).is_ok() && TcpStream::connect(("127.0.0.1", port)).is_ok()
    });

    let icap_port = free_port();
    let modules = fs::read_dir("/usr/lib").unwrap();
    let modules = modules.map(|entry| entry.unwrap().path().join("c_icap")).find(|it| it.exists());
    let text = include_str!("../tests/scanners/c-icap.conf")
        .replace("@HERE@", here.to_str().unwrap())
        .replace("@PORT@", &icap_port.to_string())
        .replace("@MODULES@", modules.expect("c-icap's modules").to_str().unwrap())
        .replace("@CLAMD@", socket.to_str().unwrap());
    let user = if as_root { "User c-icap\nGroup c-icap\n" } else { "" };
    let icap_conf = here.join("c-icap.conf");
    fs::write(&icap_conf, text + user).unwrap();
    let _icap = Server::start("c-icap", &["-N", "-f", icap_conf.to_str().unwrap()], || {
        TcpStream::connect(("127.0.0.1", icap_port)).is_ok()
    });

    let script = here.join("clamdscan.sh");
    fs::write(&script, include_str!("../config/clamdscan.sh")).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let by_socket = format!("scan.engines = [\"clamd\"]\nclamd.addresses = [{socket:?}]");
    let by_stream = format!("scan.engines = [\"clamd\"]\nclamd.addresses = [\"127.0.0.1:{port}\"]");
    let by_icap =
        format!("scan.engines = [\"icap\"]\nicap.urls = [\"icap://127.0.0.1:{icap_port}/avscan\"]");
    let by_script = format!(
        "scan.script = {script:?}\nscan.script_args = [{conf:?}]\nsandbox.unix_sockets = [{socket:?}]\n\
         sandbox.read_only_paths = [{conf:?}]\nscan.failure_exit_codes = [2, 126, 127]"
    );
    let (clamd, _grounds) = scanner(here, "clamd", &by_socket).await;
    let (stream, _grounds_too) = scanner(here, "stream", &by_stream).await;
    let (icap, _grounds_three) = scanner(here, "icap", &by_icap).await;
    let (script, _grounds_four) = scanner(here, "script", &by_script).await;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    let by_rules = format!("scan.engines = [\"rules\"]\nrules.paths = [{own:?}]");
    let (rules, rules_grounds) = scanner(here, "rules", &by_rules).await;
    let nothing = here.join("nothing.sh");
    fs::write(&nothing, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&nothing, Permissions::from_mode(0o755)).unwrap();
    let (empty, _grounds_five) =
        scanner(here, "empty", &format!("scan.script = {nothing:?}")).await;
    let ways = [
        ("FILDES on the socket, nothing else", Way::Raw(socket)),
        ("clamd, by descriptor", Way::Engine(Arc::clone(&clamd))),
        ("clamd, by stream", Way::Engine(stream)),
        ("icap (c-icap with the same clamd)", Way::Engine(icap)),
        ("`scan` with clamd", Way::Whole(clamd)),
        ("`scan` with clamdscan.sh", Way::Whole(script)),
        ("`scan` with the rules", Way::Whole(rules)),
        ("`scan` with an empty script", Way::Whole(empty)),
    ];

    let mut random = File::open("/dev/urandom").unwrap();
    let files: Vec<PathBuf> = (0..FILES)
        .map(|number| {
            let mut bytes = vec![0; SIZE];
            random.read_exact(&mut bytes).unwrap();
            let path = here.join(format!("file-{number}"));
            fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for ((_, way), rates) in ways.iter().zip(&mut rates) {
            let rate = way.round(&files).await;
            // The first is for what is done once.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    println!(
        "| files of 100 KiB a second, {AT_A_TIME} at a time | median (middle half) | of the first |"
    );
    println!("|---|---|---|");
    for ((name, _), own) in ways.iter().zip(&rates) {
        let ratios = own.iter().zip(&rates[0]).map(|(own, raw)| own / raw);
        let [low, median, high] = quartiles(own.clone());
        let [_, ratio, _] = quartiles(ratios.collect());
        println!("| {name} | {median:.0} ({low:.0}–{high:.0}) | {ratio:.2} |");
    }
    measure_evaluator(here, &rules_grounds, random).await;
}

async fn measure_evaluator(here: &Path, grounds: &Grounds, mut random: File) {
    println!(
        "\n| the rules' evaluator | processor time, ms | largest resident set, MiB |\n|---|---|---|"
    );
    for (name, size) in [("1 byte", 1), ("100 KiB", SIZE), ("50 MiB", 50 << 20)] {
        let path = here.join("large");
        let mut bytes = vec![0; size];
        random.read_exact(&mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        let mut usages = Vec::new();
        for _ in 0..ROUNDS {
            usages.push(evaluated(grounds, &path).await);
        }
        let middle = |value: fn(&Usage) -> f64| quartiles(usages.iter().map(value).collect())[1];
        let time = middle(|it| (it.user_time + it.system_time).as_secs_f64() * 1000.0);
        let memory = middle(|it| it.max_rss as f64 / f64::from(1 << 20));
        println!("| {name} of noise | {time:.1} | {memory:.1} |");
    }
}

/// What it costs to look at a file by the rules.
async fn evaluated(grounds: &Grounds, path: &Path) -> Usage {
    let evaluator = grounds.evaluator.as_ref().unwrap();
    let mut job = grounds.sandbox.prepare(grounds.directory.path(), "media").await.unwrap();
    std::io::copy(&mut File::open(path).unwrap(), &mut job.take_media().unwrap()).unwrap();
    let mut args = mcs_rules::arguments([]);
    args.push(job.media_path().into());
    let command = mcs_sandbox::Command { program: evaluator.program().to_owned(), args };
    let limit = Duration::from_secs(60);
    let run = job.run_with_input(&command, evaluator.prepared().as_fd(), limit, 4096).await;
    let exit = run.unwrap();
    job.close().await.unwrap();
    assert_eq!(exit.outcome, Outcome::Exited(mcs_rules::CLEAN));
    exit.usage
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values.len() / 4, values.len() / 2, values.len() * 3 / 4].map(|at| values[at])
}
