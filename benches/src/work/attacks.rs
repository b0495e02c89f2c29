//! Responses to one client while another attacks: pending uploads, slow downloads, idle connections, slow scans, and
//! programs that use all processors.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::sleep};

use super::{API, BenchSuite, CLEAN_VERDICT, EMPTY_SCRIPT};
use crate::{
    load::{self, ExpectedBody, LoadConnection, LoadResult, RequestSource},
    programs::{self, ServerProcess},
    report::{BenchReport, Goal},
};

const ROUNDS: usize = 5;

/// Files that the other user requests in each round.
const FILES: usize = 20;

/// Time for the attacker's requests to take effect.
const ATTACK_LEAD: Duration = Duration::from_millis(500);

/// Scripts by the content of the file: the attacker's hang, or start processes that use all processors. The shell exits
/// when it cannot start another process, so a child starts them.
const SCRIPT: &str = "#!/bin/sh\n\
    case $(head -c 4 \"$1\") in\n\
    hang) exec sleep 60 ;;\n\
    spin) (i=0; while [ $i -lt 400 ]; do setsid sh -c 'while :; do :; done' & i=$((i + 1)); done); exec sleep 60 ;;\n\
    esac\n\
    exit 0\n";

const TRUSTED_PROXY: &str = "download.trusted_proxies = [\"127.0.0.0/8\"]\n";

impl BenchSuite {
    /// Measures with the default settings, except for the trusted proxy that gives each client an address.
    pub(super) async fn attacks(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        self.authorisation(nginx, report).await;
        programs::write_script(self.dir(), SCRIPT);
        let homeserver = programs::homeserver().await;
        self.pending_uploads(&homeserver, report).await;
        self.slow_downloads(&homeserver, report).await;
        self.idle_connections(&homeserver, report).await;
        self.slow_scans(&homeserver, report).await;
        self.spinning_processes(&homeserver, report).await;
        self.busy_machine(&homeserver, report).await;
        programs::write_script(self.dir(), EMPTY_SCRIPT);
    }

    /// One known file, whose every response needs an authorisation request.
    async fn authorisation(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let media = &self.write_files("known", 1, 1024).await[0];
        let settings = "download.authorisation_ttl = 0\n";
        let service = programs::service(self.dir(), nginx, settings).await;
        let scan = load::get(&format!("{API}/scan/{}", media.mxc_path()));
        let direct = load::get(&format!("/_matrix/media/v3/download/{}", media.mxc_path()));
        let (mut rates, mut p99, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        let run = async |to: SocketAddr, request: &[u8], expect| {
            let requests = RequestSource::repeated(request.to_vec(), Duration::from_millis(1500));
            load::run(to, 32, &requests, expect).await
        };
        for _ in 0..ROUNDS {
            let known = run(service.address, &scan, CLEAN_VERDICT).await;
            let homeserver = run(nginx.address, &direct, ExpectedBody::Length(1024)).await;
            rates.push(known.rate());
            p99.push(known.percentile(99));
            limits.push(3.0 * homeserver.percentile(99) + 5.0);
        }
        let name = "cached verdict with an authorisation request for each, 32 connections";
        report.add_figure(name, "per second", &rates, Some(Goal::AtLeast(9000.0)));
        let limit = ("3 × the p99 of nginx + 5 ms", &*limits);
        report.add_comparison("p99 of these", "ms", &p99, limit, Some(Goal::AtMost(1.0)));
    }

    /// Eight media IDs that were reserved and are never uploaded, requested with one token.
    async fn pending_uploads(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let mut slowest = Vec::new();
        for round in 0..ROUNDS {
            let service = programs::service(self.dir(), homeserver, TRUSTED_PROXY).await;
            let mut attack = attack(service.address, 8, |index| {
                (format!("home.example/pending{index}"), "attacker", format!("192.0.2.{index}"))
            })
            .await;
            let result = other_user(service.address, &format!("local{round}")).await;
            slowest.push(result.percentile(100) / 1000.0);
            assert!(unanswered(&mut attack) > 0, "the attack ended before the measurement");
        }
        let name = "slowest scan of another user, 8 pending uploads of one token";
        report.add_figure(name, "s", &slowest, Some(Goal::AtMost(1.0)));
    }

    /// 300 server names of one domain, each with a download at 1.3 KB/s, requested with one token.
    async fn slow_downloads(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let mut slowest = Vec::new();
        for round in 0..ROUNDS {
            let service = programs::service(self.dir(), homeserver, TRUSTED_PROXY).await;
            let mut attack = attack(service.address, 300, |index| {
                let media = format!("s{index}.flood.example/slow{index}");
                (media, "attacker", "192.0.2.1".to_owned())
            })
            .await;
            let result = other_user(service.address, &format!("quick{round}")).await;
            slowest.push(result.percentile(100) / 1000.0);
            assert!(unanswered(&mut attack) > 0, "the attack ended before the measurement");
        }
        let name = "slowest scan of another user, 300 slow downloads of one token";
        report.add_figure(name, "s", &slowest, Some(Goal::AtMost(1.0)));
    }

    /// 2 100 connections that have sent half a request.
    async fn idle_connections(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let service = programs::service(self.dir(), homeserver, "").await;
        let mut idle = Vec::new();
        for _ in 0..2100 {
            let mut stream = TcpStream::connect(service.address).await.unwrap();
            // Fails if the service has closed the connection already.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
            idle.push(stream);
        }
        let mut latencies = Vec::new();
        for _ in 0..FILES {
            let begin = Instant::now();
            let mut connection = LoadConnection::open(service.address).await;
            connection.measure(&public_key(), ExpectedBody::Text("public_key")).await;
            latencies.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        let name = "response to a new client beside 2 100 unfinished requests";
        report.add_figure(name, "ms", &latencies, Some(Goal::AtMost(100.0)));
    }

    /// Eight files of one token whose scripts hang.
    async fn slow_scans(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let (mut alone, mut slowest) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let service = programs::service(self.dir(), homeserver, TRUSTED_PROXY).await;
            let result = other_user(service.address, &format!("alone{round}")).await;
            // One and a half times its own time, and a time slice: `scan.slow_after`.
            alone.push(result.percentile(50) / 1000.0 * 1.5 + 2.0);
            let mut attack = attack(service.address, 8, |index| {
                (format!("home.example/hang{index}"), "attacker", "192.0.2.1".to_owned())
            })
            .await;
            let result = other_user(service.address, &format!("beside{round}")).await;
            slowest.push(result.percentile(100) / 1000.0);
            assert!(unanswered(&mut attack) > 0, "the attack ended before the measurement");
        }
        let limit = ("1.5 × its time alone + 2 s", &*alone);
        let name = "slowest scan of another user, 8 hanging scans of one token";
        report.add_comparison(name, "s", &slowest, limit, Some(Goal::AtMost(1.0)));
    }

    /// Two scripts that start processes, each in its own session, until `script.limits.processes`. They use all processors.
    async fn spinning_processes(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let (mut calm, mut attacked) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let service = programs::service(self.dir(), homeserver, TRUSTED_PROXY).await;
            calm.push(public_key_p99(service.address).await);
            let mut attack = attack(service.address, 2, |index| {
                let media = format!("home.example/spin{index}x{round}");
                (media, "attacker", "192.0.2.1".to_owned())
            })
            .await;
            sleep(Duration::from_secs(1)).await;
            attacked.push(public_key_p99(service.address).await);
            assert_eq!(unanswered(&mut attack), 2, "the attack ended before the measurement");
        }
        let name = "p99 of public_key beside two scripts with spinning processes up to their limit";
        report.add_comparison(name, "ms", &attacked, ("calm", &calm), Some(Goal::AtMost(3.0)));
    }

    /// Two busy processes outside of the service, such as a homeserver on the same machine.
    async fn busy_machine(&self, homeserver: &ServerProcess, report: &mut BenchReport) {
        let service = programs::service(self.dir(), homeserver, TRUSTED_PROXY).await;
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let result = other_user(service.address, &format!("idle{round}")).await;
            alone.push(result.percentile(50));
            let busy = [BusyProcess::start(), BusyProcess::start()];
            let result = other_user(service.address, &format!("busy{round}")).await;
            beside.push(result.percentile(50));
            drop(busy);
        }
        let name = "scan beside two busy processes outside of the service";
        report.add_comparison(name, "ms", &beside, ("alone", &alone), Some(Goal::AtMost(4.0)));
    }
}

/// Requests verdicts of `count` media with a token each, from an address each, and waits until the requests have taken
/// effect. The requests end when the result is dropped.
async fn attack(
    service: SocketAddr,
    count: usize,
    request: impl Fn(usize) -> (String, &'static str, String),
) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for index in 0..count {
        let (media, token, address) = request(index);
        let request = scan_request(&media, token, &address);
        let mut connection = LoadConnection::open(service).await;
        running.spawn(async move {
            // Any response, since the service may refuse the attacker.
            connection.begin(&request).await;
        });
    }
    sleep(ATTACK_LEAD).await;
    running
}

/// Returns how many of the requests have no response yet.
fn unanswered(attack: &mut JoinSet<()>) -> usize {
    while attack.try_join_next().is_some() {}
    attack.len()
}

/// Requests the verdicts of another user's files one after another.
async fn other_user(service: SocketAddr, prefix: &str) -> LoadResult {
    let request =
        |index| scan_request(&format!("home.example/{prefix}x{index}"), "other", "198.51.100.7");
    let requests = RequestSource::once((0..FILES).map(request).collect());
    load::run(service, 1, &requests, CLEAN_VERDICT).await
}

async fn public_key_p99(service: SocketAddr) -> f64 {
    let requests = RequestSource::repeated(public_key(), Duration::from_secs(2));
    load::run(service, 4, &requests, ExpectedBody::Text("public_key")).await.percentile(99)
}

fn public_key() -> Vec<u8> {
    load::get(&format!("{API}/public_key"))
}

fn scan_request(media: &str, token: &str, address: &str) -> Vec<u8> {
    format!(
        "GET {API}/scan/{media} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         X-Forwarded-For: {address}\r\n\r\n"
    )
    .into_bytes()
}

/// A process that uses one processor; killed when dropped.
struct BusyProcess(Child);

impl BusyProcess {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}
