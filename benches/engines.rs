//! Scans per second of 100 KiB files by each engine and by `scan`, compared with direct use of clamd's socket.
//!
//! `cargo bench --bench engines` starts its own clamd and c-icap and prints the table, in about a minute, with
//! `-- TEXT` only the rows that contain the text, and the first one. The methods
//! alternate within each round, so that other activity on the machine affects all of them, and ratios are computed
//! within a round. All files differ, and clamd's cache is off. Programs in the sandbox run on as many processors as there are.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::panic,
    clippy::unnecessary_debug_formatting,
    reason = "a benchmark that cannot run must abort; it starts servers and prints figures"
)]

use std::{
    fs::{self, File, Permissions},
    io::{IoSlice, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_content_scanner::{
    app::{self, SandboxEnv},
    config::Config,
    scan::{
        ScanContext, Verdict,
        engines::{RunOutcome, Sample, SampleAccess},
    },
};
use mcs_evaluator::EvaluatorTask;
use mcs_filetype::MimeRules;
use mcs_sandbox::{JobLimits, JobPriority, ResidentLimits};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::task::JoinSet;

const ROUNDS: usize = 15;

/// Files per round.
const FILES: usize = 160;
/// Concurrent scans.
const CONCURRENCY: usize = 16;
/// Number of rules of a large set.
const MANY_RULES: usize = 5_000;

const SIZE: usize = 100 * 1024;

#[derive(Clone)]
enum ScanMethod {
    /// Direct use of clamd's socket: connect, FILDES, read.
    Socket(PathBuf),
    /// The engines alone, on an open file.
    Engines(Arc<ScanContext>),
    /// The complete local scan: copy, hash, type detection, engines.
    LocalScan(Arc<ScanContext>),
}

impl ScanMethod {
    async fn scan(&self, path: &Path) {
        match self {
            Self::Socket(socket) => {
                let (socket, path) = (socket.clone(), path.to_owned());
                let scan = tokio::task::spawn_blocking(move || scan_descriptor(&socket, &path));
                assert!(scan.await.unwrap().ends_with(b": OK\0"));
            }
            Self::Engines(scanner) => {
                let sample = Sample::from_file(&File::open(path).unwrap()).unwrap();
                let media = SampleAccess::without_job(&sample);
                let run = Box::pin(scanner.engines.scan(media, &MimeRules::All)).await;
                let RunOutcome::Scanned(outcome) = run.outcome else { panic!("not scanned") };
                let decision = scanner.engines.policies().decide(&outcome);
                let is_clean = matches!(decision.verdict, Ok(Verdict::Clean { .. }));
                assert!(is_clean, "{:?}: {:?}", run.results, decision.verdict);
            }
            Self::LocalScan(scanner) => {
                let verdict = Box::pin(scanner.scan_file(path)).await.unwrap();
                assert!(matches!(verdict, Verdict::Clean { .. }));
            }
        }
    }

    /// Returns files per second.
    async fn round(&self, files: &[PathBuf]) -> f64 {
        let begin = Instant::now();
        let mut scans = JoinSet::new();
        for part in files.chunks(files.len().div_ceil(CONCURRENCY)) {
            let (method, part) = (self.clone(), part.to_vec());
            scans.spawn(async move {
                for path in part {
                    method.scan(&path).await;
                }
            });
        }
        scans.join_all().await;
        files.len() as f64 / begin.elapsed().as_secs_f64()
    }
}

/// Scans a file with clamd's FILDES command. Returns the response.
fn scan_descriptor(socket: &Path, path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"zFILDES\0").unwrap();
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(b"\0")];
    sendmsg::<()>(stream.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    response
}

/// Running daemon. Terminated when dropped.
struct BenchDaemon(Child);

impl BenchDaemon {
    fn start(program: &str, arguments: &[&str], is_ready: impl Fn() -> bool) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).spawn();
        let mut daemon = Self(child.unwrap_or_else(|error| panic!("{program}: {error}")));
        let end = Instant::now() + Duration::from_secs(60);
        while !is_ready() {
            assert!(daemon.0.try_wait().unwrap().is_none() && Instant::now() < end, "{program}");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for BenchDaemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        // SIGTERM lets c-icap terminate its children.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Creates a scanner with these lines of configuration.
async fn scanner(directory: &Path, name: &str, lines: &str) -> (Arc<ScanContext>, SandboxEnv) {
    let temp = directory.join(format!("{name}.d"));
    fs::create_dir(&temp).unwrap();
    fs::set_permissions(&temp, Permissions::from_mode(0o755)).unwrap();
    let file = directory.join(format!("{name}.toml"));
    let text =
        format!("scan.temp_directory = {temp:?}\ncrypto.request_secret_path = \"key\"\n{lines}\n");
    fs::write(&file, text).unwrap();
    let (config, _) = Config::load(Some(&file), std::iter::empty()).expect("valid configuration");
    let env = SandboxEnv::for_command(&config, None).await.unwrap();
    let network = app::remote_engines(&config).await.unwrap();
    (Arc::new(app::scan_context(&config, &env, &network).unwrap()), env)
}

fn main() {
    mcs_sandbox::dispatch();
    mcs_evaluator::dispatch();
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}

async fn measure() {
    let temp_dir = tempfile::tempdir().unwrap();
    let directory = temp_dir.path();
    fs::set_permissions(directory, Permissions::from_mode(0o1777)).unwrap();
    let clamd = BenchClamd::start(directory);
    let (_icap_daemon, icap_port) = start_icap(directory, &clamd.socket);
    let (mut methods, envs) = scan_methods(directory, &clamd, icap_port).await;
    if let Some(text) = std::env::args().skip(1).find(|argument| argument != "--bench") {
        let mut row = 0..;
        methods.retain(|(name, _)| row.next() == Some(0) || name.contains(&text));
    }
    let mut random = File::open("/dev/urandom").unwrap();
    let files: Vec<PathBuf> = (0..FILES)
        .map(|number| {
            let mut bytes = vec![0; SIZE];
            random.read_exact(&mut bytes).unwrap();
            let path = directory.join(format!("file-{number}"));
            fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    let mut rates = vec![Vec::new(); methods.len()];
    for round in 0..=ROUNDS {
        for ((_, method), rates) in methods.iter().zip(&mut rates) {
            let rate = method.round(&files).await;
            // The first round is a warm-up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    print_rates(&methods, &rates);
    let rules_env =
        envs.iter().max_by_key(|env| env.evaluator.prepared().metadata().unwrap().len());
    let rules_env = rules_env.unwrap();
    measure_evaluator(directory, rules_env, random).await;
}

/// clamd on a socket and a port. Terminated when dropped.
struct BenchClamd {
    socket: PathBuf,
    port: u16,
    conf: PathBuf,
    _daemon: BenchDaemon,
}

impl BenchClamd {
    fn start(directory: &Path) -> Self {
        let (socket, port) = (directory.join("clamd.ctl"), free_port());
        fs::create_dir(directory.join("db")).unwrap();
        let signatures = include_str!("../tests/scanners/eicar.hdb");
        fs::write(directory.join("db/test.hdb"), signatures).unwrap();
        let conf = directory.join("clamd.conf");
        let user = if nix::unistd::geteuid().is_root() { "User clamav\n" } else { "" };
        let text = include_str!("../tests/scanners/clamd.conf")
            .replace("@HERE@", directory.to_str().unwrap());
        let more = format!("DisableCache yes\nTCPAddr 127.0.0.1\nTCPSocket {port}\n{user}");
        fs::write(&conf, text + &more).unwrap();
        let arguments = ["--config-file", conf.to_str().unwrap()];
        let daemon = BenchDaemon::start("clamd", &arguments, || {
            UnixStream::connect(&socket).is_ok() && TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { socket, port, conf, _daemon: daemon }
    }
}

/// Starts c-icap with this clamd. Returns its port.
fn start_icap(directory: &Path, clamd: &Path) -> (BenchDaemon, u16) {
    let port = free_port();
    let modules = fs::read_dir("/usr/lib").unwrap();
    let modules =
        modules.map(|entry| entry.unwrap().path().join("c_icap")).find(|path| path.exists());
    let text = include_str!("../tests/scanners/c-icap.conf")
        .replace("@HERE@", directory.to_str().unwrap())
        .replace("@PORT@", &port.to_string())
        .replace("@MODULES@", modules.expect("c-icap's modules").to_str().unwrap())
        .replace("@CLAMD@", clamd.to_str().unwrap())
        // Debian's values. The tests need a single process.
        .replace("StartServers 1", "StartServers 3")
        .replace("MaxServers 1", "MaxServers 10")
        .replace("ThreadsPerChild 4", "ThreadsPerChild 10");
    let is_root = nix::unistd::geteuid().is_root();
    let user = if is_root { "User c-icap\nGroup c-icap\n" } else { "" };
    let conf = directory.join("c-icap.conf");
    fs::write(&conf, text + user).unwrap();
    let arguments = ["-N", "-f", conf.to_str().unwrap()];
    let is_ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    (BenchDaemon::start("c-icap", &arguments, is_ready), port)
}

/// Writes an executable script.
fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Creates the methods with their names, and what their scanners need to keep running.
async fn scan_methods(
    directory: &Path,
    BenchClamd { socket, port, conf, .. }: &BenchClamd,
    icap_port: u16,
) -> (Vec<(&'static str, ScanMethod)>, Vec<SandboxEnv>) {
    let script = directory.join("clamdscan.sh");
    write_script(&script, include_str!("../config/clamdscan.sh"));
    let empty_script = directory.join("nothing.sh");
    write_script(&empty_script, "#!/bin/sh\n");
    let shipped_rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    let by_socket = format!("scan.engines = [\"clamd\"]\nclamd.addresses = [{socket:?}]");
    let by_stream = format!("scan.engines = [\"clamd\"]\nclamd.addresses = [\"127.0.0.1:{port}\"]");
    let by_icap =
        format!("scan.engines = [\"icap\"]\nicap.urls = [\"icap://127.0.0.1:{icap_port}/avscan\"]");
    let by_script = format!(
        "scan.script = {script:?}\nscan.script_args = [{conf:?}]\nsandbox.unix_sockets = [{socket:?}]\n\
         sandbox.read_only_paths = [{conf:?}]\nscan.failure_exit_codes = [2, 126, 127]"
    );
    let by_rules = format!("scan.engines = [\"rules\"]\nrules.paths = [{shipped_rules:?}]");
    let (clamd, clamd_env) = scanner(directory, "clamd", &by_socket).await;
    let (stream, stream_env) = scanner(directory, "stream", &by_stream).await;
    let (icap, icap_env) = scanner(directory, "icap", &by_icap).await;
    let (script, script_env) = scanner(directory, "script", &by_script).await;
    let (rules, rules_env) = scanner(directory, "rules", &by_rules).await;
    let large_set = directory.join("many.yar");
    fs::write(&large_set, many_rules()).unwrap();
    let by_many_rules = format!("scan.engines = [\"rules\"]\nrules.paths = [{large_set:?}]");
    let (many_rules, many_rules_env) = scanner(directory, "many", &by_many_rules).await;
    let by_empty_script = format!("scan.script = {empty_script:?}");
    let (empty, empty_env) = scanner(directory, "empty", &by_empty_script).await;
    let methods = vec![
        ("FILDES on clamd's socket", ScanMethod::Socket(socket.clone())),
        ("clamd, by descriptor", ScanMethod::Engines(Arc::clone(&clamd))),
        ("clamd, by stream", ScanMethod::Engines(stream)),
        ("icap (c-icap with the same clamd)", ScanMethod::Engines(icap)),
        ("`scan` with clamd", ScanMethod::LocalScan(clamd)),
        ("`scan` with clamdscan.sh", ScanMethod::LocalScan(script)),
        ("rules of config/rules", ScanMethod::Engines(Arc::clone(&rules))),
        ("5,000 rules", ScanMethod::Engines(many_rules)),
        ("`scan` with the rules of config/rules", ScanMethod::LocalScan(rules)),
        ("`scan` with an empty script", ScanMethod::LocalScan(empty)),
    ];
    let envs =
        vec![clamd_env, stream_env, icap_env, script_env, rules_env, many_rules_env, empty_env];
    (methods, envs)
}

/// Returns rules that search for two texts and some bytes each, like most public ones.
fn many_rules() -> String {
    let rule = |number: usize| {
        let digest = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "rule Many_{number} {{ strings: $a = \"text {digest:016x}\" $b = \"other {digest:016x}\" wide \
             $c = {{ {:02x} 41 ?? {:02x} 43 44 {:02x} }} condition: 2 of them }}\n",
            digest & 0xff,
            digest >> 8 & 0xff,
            digest >> 16 & 0xff,
        )
    };
    (0..MANY_RULES).map(rule).collect()
}

fn print_rates(methods: &[(&str, ScanMethod)], rates: &[Vec<f64>]) {
    println!(
        "| files of 100 KiB per second, {CONCURRENCY} concurrent | median (quartiles) | ratio to the first |"
    );
    println!("|---|---|---|");
    for ((name, _), method_rates) in methods.iter().zip(rates) {
        let ratios = method_rates.iter().zip(&rates[0]).map(|(rate, reference)| rate / reference);
        let [low, median, high] = quartiles(method_rates.clone());
        let [_, ratio, _] = quartiles(ratios.collect());
        println!("| {name} | {median:.0} ({low:.0}–{high:.0}) | {ratio:.2} |");
    }
}

async fn measure_evaluator(directory: &Path, env: &SandboxEnv, mut random: File) {
    let settings = mcs_evaluator::EvaluatorSettings::default();
    let memory = mcs_evaluator::memory_allowance(&settings.unpack);
    let evaluator = &env.evaluator;
    let data = [evaluator.prepared()];
    let start = || {
        env.sandbox.start_resident(
            env.directory.path(),
            mcs_sandbox::Command {
                program: evaluator.program().to_owned(),
                args: mcs_evaluator::arguments(&settings),
            },
            &data,
            ResidentLimits { jobs: 1, job_memory: memory },
        )
    };
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        drop(start().await.unwrap());
        starts.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    println!("\nrules evaluator: {:.1} ms from start to ready", quartiles(starts)[1]);
    println!("\n| rules evaluator | one file at a time, ms |\n|---|---|");
    let resident = start().await.unwrap();
    for (name, size) in [("1 byte", 1), ("100 KiB", SIZE), ("50 MiB", 50 << 20)] {
        let path = directory.join("large");
        let mut bytes = vec![0; size];
        random.read_exact(&mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let media = File::open(&path).unwrap();
            let limits = JobLimits { memory, time: Duration::from_secs(60) };
            let begin = Instant::now();
            let task = EvaluatorTask { evaluates_rules: true, ..EvaluatorTask::INSPECT }.argument();
            resident.evaluate(media, task, limits, &JobPriority::new()).await.unwrap();
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        println!("| {name} of noise | {:.2} |", quartiles(times)[1]);
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values.len() / 4, values.len() / 2, values.len() * 3 / 4].map(|index| values[index])
}
