//! A hostile server: alters, exchanges, replays, delays and truncates replies, or sends replies without end.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{
    super::{key_names::record_key, random::NodeRandom},
    resp_server::{Arguments, Strings, array, bulk, start, start_store},
    *,
};

/// Number of altered lookups. `STORE_TAMPERED_READS` replaces it.
const TAMPERED_READS: u64 = 10_000;

/// Number of contents. Those with odd numbers are infected.
const CONTENTS: u64 = 20;

/// Time of the records that have expired.
const PAST: u64 = 1_000_000_000;

fn now() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    elapsed.unwrap().as_secs()
}

/// Value that names its key.
fn value_of(key: &RecordKey) -> Vec<u8> {
    format!("{key:?}").into_bytes()
}

fn seal(key: &RecordKey, expiry: u64) -> Vec<u8> {
    secret().seal(key, expiry, &value_of(key)).unwrap()
}

/// Records in an honest server: infected contents were clean by an earlier version, which the server may replay under
/// its own key only.
fn all_records() -> Strings {
    let strings = Strings::default();
    let mut map = strings.0.lock();
    for number in 0..CONTENTS {
        let (infected, clean) = (not_clean(number), finished(number));
        let old = RecordKey { version: Some([1; 8]), ..clean };
        if number % 2 == 1 {
            map.insert(record_key(&infected), seal(&infected, now() + 3600));
        } else {
            map.insert(record_key(&clean), seal(&clean, now() + 3600));
        }
        map.insert(record_key(&old), seal(&old, now() + 3600));
    }
    drop(map);
    strings
}

/// Everything that the server has ever received or may guess, to replay.
fn replays() -> Vec<Vec<u8>> {
    let mut replays: Vec<_> = all_records().0.lock().values().cloned().collect();
    for number in 0..CONTENTS {
        // Clean by the current version, but long ago.
        replays.push(seal(&finished(number), PAST));
        replays.push(seal(&not_clean(number), PAST));
    }
    replays.push(StoreSecret::derive(b"x").seal(&finished(1), now() + 3600, b"clean").unwrap());
    replays.push(Vec::new());
    replays.push(vec![0; 100]);
    replays
}

/// Returns an altered reply to MGET.
fn tamper(
    honest: &Strings,
    replays: &[Vec<u8>],
    random: &NodeRandom,
    arguments: &Arguments,
) -> Vec<u8> {
    let pick = |length: usize| usize::try_from(random.below(length as u64)).unwrap();
    let strings = honest.0.lock();
    let mut values: Vec<_> = arguments[1..].iter().map(|key| strings.get(key).cloned()).collect();
    drop(strings);
    let index = pick(values.len());
    match random.below(12) {
        0 => values.reverse(),
        1..=3 => values[index] = Some(replays[pick(replays.len())].clone()),
        4 => values[index] = None,
        5 | 6 => {
            if let Some(value) = &mut values[index] {
                let position = pick(value.len());
                value[position] ^= 1 << random.below(8);
            }
        }
        7 => {
            if let Some(value) = &mut values[index] {
                value.truncate(pick(value.len()));
            }
        }
        8 => {
            for value in &mut values {
                *value = Some(replays[pick(replays.len())].clone());
            }
        }
        9 => drop(values.pop()),
        _ => {}
    }
    let values: Vec<_> = values.iter().map(|value| bulk(value.as_deref())).collect();
    let mut bytes = array(&values);
    match random.below(30) {
        0 => bytes.truncate(pick(bytes.len())),
        1 => {
            let position = pick(bytes.len());
            bytes[position] ^= 1 << random.below(8);
        }
        // Shifts all further replies of the connection.
        2 => bytes.extend(array(&values)),
        3 => bytes = b"-ERR no\r\n".to_vec(),
        _ => {}
    }
    bytes
}

/// What a lookup of "not clean", then "clean by this version", means.
fn is_clean(values: &[StoredValue]) -> bool {
    matches!(values, [StoredValue::Missing, StoredValue::Valid(_)])
}

/// The server may hide that a content is infected, which costs a scan; and never make it clean, because no record
/// "clean by this version" was ever made for it with a time that has not passed.
#[tokio::test]
async fn tampered_reads_never_make_content_clean() {
    #[expect(clippy::disallowed_methods, reason = "a parameter of a test")]
    let reads = std::env::var("STORE_TAMPERED_READS")
        .map_or(TAMPERED_READS, |reads| reads.parse().unwrap());
    let honest = all_records();
    let (replays, random) = (replays(), NodeRandom::from_seed(reads));
    let random = Arc::new(random);
    let in_server = Arc::clone(&random);
    let server = start(Arc::new(move |arguments| match &*arguments[0] {
        b"MGET" => tamper(&honest, &replays, &in_server, arguments),
        // Altered records are not removed.
        b"DEL" => b":0\r\n".to_vec(),
        _ => honest.reply(arguments),
    }))
    .await;
    let (mut store, mut valid, mut clean, mut bad) = (None, 0, 0, 0);
    for read in 0..reads {
        let (open, _) = store.get_or_insert_with(|| {
            start_store(&format!("redis://{}", server.address), Duration::from_millis(20))
        });
        let number = random.below(CONTENTS);
        let keys = [not_clean(number), finished(number)];
        match open.get_all(keys.to_vec()).await {
            Some(values) => {
                for (key, value) in keys.iter().zip(&values) {
                    if let StoredValue::Valid(value) = value {
                        assert_eq!(*value, value_of(key), "read {read}");
                        valid += 1;
                    }
                }
                clean += u64::from(is_clean(&values));
                assert!(!is_clean(&values) || number % 2 == 0, "read {read}: {values:?}");
            }
            // A new store instead of the pause of the circuit breaker.
            None if !open.is_available() => {
                bad += open.counters().bad_records;
                store = None;
            }
            None => {}
        }
    }
    bad += store.map_or(0, |(store, _)| store.counters().bad_records);
    println!("{reads} reads: {valid} valid records, {clean} clean, {bad} bad records");
    assert!(valid > reads / 4 && clean > reads / 10 && bad > reads / 10);
}

/// Replies of other shapes than requested are misses, and later calls work.
#[tokio::test]
async fn invalid_replies_are_misses() {
    let long_error = format!("-{}\r\n", "x".repeat(900));
    let many = array(&vec![b":1\r\n".to_vec(); 60_000]);
    let large = array(&vec![bulk(Some(&vec![7; 65_000])); 60]);
    let nested = "*1\r\n".repeat(200_000);
    let line = format!("+{}", "x".repeat(1 << 20));
    let replies: [&[u8]; 26] = [
        b"+OK\r\n",
        b":1\r\n",
        b"$1\r\nx\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*1\r\n$-1\r\n",
        b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*2\r\n*0\r\n$-1\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"*2\r\n-ERR x\r\n$-1\r\n",
        b"garbage\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b">3\r\n+message\r\n+a\r\n+b\r\n",
        b"|1\r\n+a\r\n+b\r\n:1\r\n",
        b"$1000000000000000000\r\n",
        b"*1000000000000000000\r\n",
        b"$-9223372036854775809\r\n",
        long_error.as_bytes(),
        &many,
        &large,
        nested.as_bytes(),
        line.as_bytes(),
    ];
    for reply in replies {
        let shown = reply[..reply.len().min(40)].escape_ascii().to_string();
        let (reply, is_hostile) = (reply.to_vec(), Arc::new(AtomicBool::new(true)));
        let honest = all_records();
        let hostile = Arc::clone(&is_hostile);
        let server = start(Arc::new(move |arguments| {
            if arguments[0] == b"MGET" && hostile.swap(false, Ordering::Relaxed) {
                return reply.clone();
            }
            honest.reply(arguments)
        }))
        .await;
        let url = format!("redis://{}", server.address);
        let (store, _events) = start_store(&url, Duration::from_secs(5));
        let keys = vec![not_clean(1), finished(1)];
        assert_eq!(store.get_all(keys.clone()).await, None, "{shown}");
        // A poll may have used the same connection.
        assert!(store.counters().failed_commands >= 1, "{shown}");
        let found = store.get_all(keys).await.unwrap();
        assert_eq!(
            found,
            [StoredValue::Valid(value_of(&not_clean(1))), StoredValue::Missing],
            "{shown}"
        );
        assert!(store.is_available());
    }
}

/// Bytes that a hostile server has sent on one connection.
static SENT: Mutex<Vec<Arc<AtomicUsize>>> = Mutex::new(Vec::new());

/// Sends a start, then the same part again and again until the connection ends. Returns the number of bytes sent.
async fn send_without_end(start: &'static [u8], part: &'static [u8]) -> usize {
    use tokio::io::AsyncWriteExt as _;

    let sent = Arc::new(AtomicUsize::new(0));
    SENT.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&sent));
    let count = Arc::clone(&sent);
    let server = mcs_testing::FakeServer::start(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut is_sent = stream.write_all(start).await.is_ok();
            while is_sent {
                count.fetch_add(part.len(), Ordering::Relaxed);
                is_sent = stream.write_all(part).await.is_ok();
            }
        }
    })
    .await;
    let url = format!("redis://{}", server.address);
    let (store, _events) = start_store(&url, Duration::from_millis(500));
    for _ in 0..10 {
        assert_eq!(get(&store, not_clean(1)).await, None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await;
    let connections = server.connections();
    assert!(connections > 0);
    sent.load(Ordering::Relaxed) / connections
}

/// Endless replies end the connection after a few megabytes at most, including what buffers of the system hold.
#[tokio::test]
async fn endless_replies_are_cut() {
    static PART: [u8; 1 << 16] = [b'x'; 1 << 16];
    static ELEMENTS: &[u8] = b":1\r\n$1\r\nx\r\n";
    for (start, part, limit) in [
        (&b"+"[..], &PART[..], 8 << 20),
        (b"$65000\r\n", &PART[..], 8 << 20),
        (b"*60000\r\n", ELEMENTS, 8 << 20),
        (b"*1\r\n", b"*1\r\n", 8 << 20),
    ] {
        let sent = send_without_end(start, part).await;
        println!("{}: {sent} bytes", start.escape_ascii());
        assert!(sent < limit, "{sent}");
    }
}

/// Unrequested complete replies are read and discarded, which bounds the memory.
#[tokio::test]
async fn unrequested_replies_are_discarded() {
    let server = mcs_testing::FakeServer::start(|mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        let part = b"+OK\r\n".repeat(10_000);
        for _ in 0..100 {
            if stream.write_all(&part).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("redis://{}", server.address);
    let (store, _events) = start_store(&url, Duration::from_millis(100));
    for _ in 0..3 {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
}

/// A server that returns keys without end.
#[tokio::test]
async fn removal_of_all_records_ends_after_its_time() {
    let key = format!("mcs1:{{{}}}:n", "0".repeat(32));
    let scan = format!("*2\r\n$1\r\n1\r\n*1\r\n${}\r\n{key}\r\n", key.len()).into_bytes();
    let server = start(Arc::new(move |command| {
        if command.first().is_some_and(|name| name == b"SCAN") {
            scan.clone()
        } else {
            b":1\r\n".to_vec()
        }
    }))
    .await;
    let url = format!("redis://{}", server.address);
    let (store, _events) = start_store(&url, Duration::from_secs(5));
    let mut number = 0;
    let result = store.remove_all(Duration::from_millis(500), |removed| number += removed).await;
    assert!(result.is_err() && number > 1, "{number}");
}

/// A server that replies to all commands with errors.
#[tokio::test]
async fn failing_commands_are_misses() {
    let server = start(Arc::new(|_| b"-ERR no\r\n".to_vec())).await;
    let url = format!("redis://{}", server.address);
    let (store, _events) = start_store(&url, Duration::from_secs(5));
    assert_eq!(store.references(name(RecordKind::Reference, 1)).await, None);
    assert_eq!(store.fingerprints([1; 8]).await, None);
    let removed = store.remove_all(Duration::from_secs(5), |_| panic!());
    assert!(removed.await.is_err());
    assert!(store.list(RecordKind::Media, 10, |_, _| panic!()).await.is_err());
    let lease = store.acquire_lease(not_clean(1).name, VERSION).await;
    assert!(matches!(lease, LeaseResult::Unavailable));
}
