//! Compares the table of memory bounds in docs/sizing.md with the constants and the defaults, and measures the tables:
//! each module with such a table has a test that fills the table in a process of its own.

use std::{env, fs, net::Ipv4Addr};

use futures_util::FutureExt;

use crate::{
    http::{connection::MAX_BUFFER, connection_table},
    media::{MAX_HEADER_VALUE, authorise, discovery},
    scan::cache::ENTRY_WEIGHT,
    single_flight::SingleFlight,
    tenancy::{
        self, ClientNetwork, Demotable, SentToken, Tenant, TenantGroup, TenantTable,
        fair_queue::FairQueue, fair_slots::FairSlots,
    },
};

const PAGE: &str = include_str!("../docs/sizing.md");
const DEFAULTS: &str = include_str!("../config/default.toml");

/// Memory of one tenant that waits for a slot, bytes.
const TENANT_BYTES: usize = 4 * tenancy::COUNTS_BYTES + tenancy::SLOT_WAITER_BYTES;

/// Set in a process that measures one table.
const MEASURE: &str = "MCS_TEST_MEASURE";

/// Returns an integer of the default configuration.
pub(crate) fn default(key: &str) -> usize {
    let prefix = format!("{key} = ");
    let value = DEFAULTS.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    value.parse().unwrap()
}

/// Bytes of a row: number of entries times bytes of an entry.
fn rows() -> Vec<(&'static str, usize)> {
    let entries = DEFAULTS.split_once("[result_cache]").unwrap().1;
    let max_size = entries.lines().find_map(|line| line.strip_prefix("max_size = ")).unwrap();
    let cached = max_size.parse::<usize>().unwrap() * usize::try_from(ENTRY_WEIGHT).unwrap();
    let (queue, workers) = (default("queue_capacity"), default("workers"));
    let connections = default("max_connections");
    vec![
        ("media entries", cached),
        ("verdicts and failures", cached),
        ("grants", authorise::CAPACITY * 128),
        ("discovered base URLs", discovery::CAPACITY * discovery::ENTRY_BYTES),
        ("queue and scans in progress", (queue + workers) * MAX_BUFFER),
        ("single flights", connections * 1024),
        ("accepted tokens", tenancy::MAX_ACCEPTED * tenancy::TOKEN_BYTES),
        // A scan or an authorisation, and its name lookup: each has a tenant and a group.
        ("tenants", 4 * (queue + workers + connections) * tenancy::COUNTS_BYTES),
        ("waiters for a slot", (workers + connections) * tenancy::SLOT_WAITER_BYTES),
        ("connection table", connections * connection_table::ENTRY_BYTES),
    ]
}

/// Returns the bytes of a row.
pub(crate) fn row_bytes(name: &str) -> usize {
    rows().iter().find(|(row, _)| *row == name).unwrap().1
}

/// Returns the resident memory without file-backed pages such as the program's code, bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Asserts that the table that `fill` returns takes at most `bound` bytes, plus a twentieth for the allocator. `test` is
/// the calling test of `module`, which runs again in a process of its own, where only the table allocates memory.
pub(crate) fn assert_table_memory<T>(
    module: &str,
    test: &str,
    bound: usize,
    fill: impl FnOnce() -> T,
) {
    if env::var_os(MEASURE).is_none() {
        let path = module.split_once("::").unwrap().1;
        #[expect(clippy::disallowed_methods, reason = "runs this test alone")]
        let mut command = std::process::Command::new(env::current_exe().unwrap());
        command.args(["--exact", &format!("{path}::{test}")]).env(MEASURE, "1");
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
        return;
    }
    let before = resident();
    let table = fill();
    let grown = resident().saturating_sub(before);
    drop(table);
    println!("{test}: {grown} of {bound} bytes");
    assert!(grown <= bound + bound / 20, "{grown} of {bound} bytes");
    // The table was not empty, and the bound is not arbitrary.
    assert!(grown >= bound / 10, "{grown} of {bound} bytes");
}

#[test]
fn sizing_page_states_the_bound_of_each_table() {
    let mut total = 0;
    for (name, bytes) in rows() {
        total += bytes;
        let mebibytes = bytes.div_ceil(1 << 20);
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let row = row.unwrap_or_else(|| panic!("docs/sizing.md has no row {name}"));
        assert!(row.ends_with(&format!("| {mebibytes} MiB |")), "{row}: {mebibytes} MiB");
    }
    let total = total.div_ceil(1 << 20);
    assert!(PAGE.contains(&format!("together at most {total} MiB")), "{total}");
    // The base of the formula: the idle service and all tables.
    assert!(total + 23 <= 256, "{total}");
    let buffers = (default("max_connections") * 2 * MAX_BUFFER) >> 20;
    assert!(PAGE.contains(&format!("2048 connections take {buffers} MiB")), "{buffers}");
    assert!(PAGE.contains(&format!("value has at most {MAX_HEADER_VALUE} bytes")));
}

#[test]
fn entry_of_a_discovered_url_fits_into_its_bound() {
    // The server's name, the URL and the table's slots.
    let longest = 255 + discovery::MAX_BASE_URL + size_of::<reqwest::Url>() + 256;
    assert!(longest <= discovery::ENTRY_BYTES, "{longest}");
}

#[test]
fn accepted_tokens_stay_within_their_memory() {
    let test = "accepted_tokens_stay_within_their_memory";
    assert_table_memory(module_path!(), test, row_bytes("accepted tokens"), || {
        let table = TenantTable::new();
        for number in 0..tenancy::MAX_ACCEPTED * 5 / 4 {
            let authorization = format!("Bearer {number}");
            let authorization = authorization.as_bytes();
            table.accept(SentToken { homeserver: "https://home.example", authorization });
        }
        table
    });
}

/// Returns a tenant of its own for each number.
fn tenant(number: usize) -> TenantGroup {
    let address = Ipv4Addr::from_bits(u32::try_from(number).unwrap());
    TenantGroup { tenant: Tenant::Network(ClientNetwork::new(address.into())), group: 1 }
}

#[test]
fn tenants_stay_within_their_memory() {
    let test = "tenants_stay_within_their_memory";
    let (capacity, workers) = (default("queue_capacity"), default("workers"));
    // A quarter, because each new waiter is compared with all others.
    let connections = default("max_connections") / 4;
    let tenants: Vec<_> = (0..capacity + workers + connections).map(tenant).collect();
    assert_table_memory(module_path!(), test, tenants.len() * TENANT_BYTES, || {
        let queue = FairQueue::new(capacity, workers, |()| false);
        let mut running = Vec::new();
        for tenant in &tenants[..workers] {
            queue.submit((), *tenant, Demotable::new(true)).unwrap();
            running.push(queue.next().now_or_never().flatten().unwrap());
        }
        for tenant in &tenants[workers..workers + capacity] {
            queue.submit((), *tenant, Demotable::new(true)).unwrap();
        }
        // Each connection waits for a slot, of a scan or of an authorisation.
        let slots: &'static FairSlots = Box::leak(Box::new(FairSlots::new(1)));
        let acquire = |number: usize| Box::pin(slots.acquire(leaked(tenant(number)), false));
        let mut waiting: Vec<_> = (0..connections).map(acquire).collect();
        let served: Vec<_> = waiting.iter_mut().filter_map(FutureExt::now_or_never).collect();
        assert_eq!(served.len(), 1);
        (queue, running, waiting, served)
    });
}

fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn single_flights_stay_within_their_memory() {
    let test = "single_flights_stay_within_their_memory";
    let connections = default("max_connections");
    assert_table_memory(module_path!(), test, row_bytes("single flights"), || {
        let flights: &'static SingleFlight<[u8; 32], ()> = leaked(SingleFlight::new());
        let run = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            Box::pin(flights.run(key, |(), _| true, std::future::pending()))
        };
        let mut waiting: Vec<_> = (0..connections).map(run).collect();
        assert!(waiting.iter_mut().all(|flight| flight.now_or_never().is_none()));
        waiting
    });
}
