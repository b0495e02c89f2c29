//! Lookups in a shared store compared with bare ones: `cargo bench -p mcs-store --bench shared`. Needs `redis-server`;
//! without it, prints so and ends.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot run must abort; it starts a server"
)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mcs_store::{
    RecordKey, RecordKind, SharedSettings, SharedStore, StoreSecret, StoreServers, StoredValue,
};
use redis::aio::MultiplexedConnection;

const LOOKUPS: u32 = 20_000;

/// Lookups at the same time.
const CONCURRENT: u32 = 64;

/// Number of repetitions, of which the median counts.
const ROUNDS: usize = 9;

/// Server that is killed at the end.
struct BenchServer(Child);

impl Drop for BenchServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_server(port: u16) -> Option<BenchServer> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "no"]).stdout(Stdio::null()).stderr(Stdio::null());
    Some(BenchServer(command.spawn().ok()?))
}

fn keys(number: u32) -> Vec<RecordKey> {
    let name = StoreSecret::derive(b"bench").name(RecordKind::Finished, &[&number.to_le_bytes()]);
    let version = Some([1; 8]);
    vec![
        RecordKey { kind: RecordKind::NotClean, name, version: None },
        RecordKey { kind: RecordKind::Finished, name, version },
    ]
}

/// Keys in the server, as documented.
fn raw_keys(keys: &[RecordKey]) -> [String; 2] {
    let name = format!("{:?}", keys[0].name);
    [format!("mcs1:{{{name}}}:n"), format!("mcs1:{{{name}}}:c:0101010101010101")]
}

async fn bare(connection: &MultiplexedConnection, keys: &[String; 2]) {
    let mut command = redis::cmd("MGET");
    let (connection, command) = (&mut connection.clone(), command.arg(keys));
    let values: Vec<Option<Vec<u8>>> = command.query_async(connection).await.unwrap();
    assert!(values[0].is_none() && values[1].is_some());
}

async fn shared(store: &SharedStore, keys: Vec<RecordKey>) {
    let found = store.get_all(keys).await.unwrap();
    assert!(matches!(&*found, [StoredValue::Missing, StoredValue::Valid(_)]));
}

/// Measures a lookup, `concurrent` at a time.
async fn measure(concurrent: u32, lookup: impl AsyncFn(usize)) -> Duration {
    let start = Instant::now();
    for _ in 0..LOOKUPS / concurrent {
        join_all((0..concurrent as usize).map(|index| lookup(index))).await;
    }
    start.elapsed() / LOOKUPS
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(_server) = start_server(port) else {
        println!("redis-server is not installed");
        return;
    };
    let url = format!("redis://127.0.0.1:{port}");
    let servers = StoreServers::parse(std::slice::from_ref(&url), None, None).unwrap();
    let settings =
        SharedSettings { timeout: Duration::from_secs(1), ..SharedSettings::new(servers) };
    let (store, _events) = SharedStore::start(settings, StoreSecret::derive(b"bench")).unwrap();
    let all: Vec<_> = (0..CONCURRENT).map(keys).collect();
    for keys in &all {
        while store.get_all(keys.clone()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let written = store.put_and_get(keys[1], 1 << 40, &[7; 150], vec![keys[1]]).await;
        assert!(matches!(&*written.unwrap(), [StoredValue::Valid(_)]));
    }
    let raw: Vec<_> = all.iter().map(|keys| raw_keys(keys)).collect();
    let client = redis::Client::open(url).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    for concurrent in [1, CONCURRENT] {
        let mut results = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let lookup = async |index: usize| bare(&connection, &raw[index]).await;
            let first = measure(concurrent, lookup).await;
            let lookup = async |index: usize| shared(&store, all[index].clone()).await;
            let second = measure(concurrent, lookup).await;
            let micros = [first, second].map(|duration| duration.as_secs_f64() * 1e6);
            let figures = [micros[0], micros[1], micros[1] / micros[0]];
            for (result, figure) in results.iter_mut().zip(figures) {
                result.push(figure);
            }
        }
        let [bare, shared, ratio] = results.map(median);
        println!(
            "{concurrent} at a time: bare MGET {bare:.1} µs, through the store {shared:.1} µs, \
             ratio {ratio:.2}"
        );
    }
}
