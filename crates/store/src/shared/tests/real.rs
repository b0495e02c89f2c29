//! Stores in a real server.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::{
    super::key_names::{lease_key, record_key},
    redis_server::{
        ACL, RedisServer, expiry, free_port, is_installed, store, wait_available, write,
    },
    *,
};
use crate::{IncidentAddition, OutboxRecord};

/// Checks records, references, events, leases and fingerprints of two stores.
async fn check_all(first: (SharedStore, StoreEvents), second: (SharedStore, StoreEvents)) {
    let ((store, _events), (other, mut events)) = (first, second);
    wait_available(&store).await;
    wait_available(&other).await;
    assert_eq!(next_event(&mut events).await.filter(|event| *event != StoreEvent::Lost), None);
    let reference = key(RecordKind::Reference, 1);
    store.put(finished(1), expiry(), b"clean").unwrap();
    store.put(key(RecordKind::Media, 1), expiry(), b"media").unwrap();
    store.put(reference, expiry(), b"reference").unwrap();
    store.put(not_clean(1), expiry(), b"infected").unwrap();
    store.publish(b"not clean");
    written(&store).await;
    let found = other.put_and_get(finished(1), expiry(), b"clean", vec![not_clean(1), finished(1)]);
    let expected =
        [StoredValue::Valid(b"infected".to_vec()), StoredValue::Valid(b"clean".to_vec())];
    assert_eq!(found.await.unwrap(), expected);
    wait_until("the media is stored", async || {
        get(&other, key(RecordKind::Media, 1)).await == valid(b"media")
    })
    .await;
    wait_until("the reference is stored", async || {
        other.references(reference.name).await.unwrap() == [b"reference".to_vec()]
    })
    .await;
    assert_eq!(next_event(&mut events).await, message(b"not clean"));
    let lease = acquired(store.acquire_lease(finished(1).name, VERSION).await);
    let held = other.acquire_lease(finished(1).name, VERSION).await;
    assert!(matches!(held, LeaseResult::Held));
    lease.release().await;
    acquired(other.acquire_lease(finished(1).name, VERSION).await).release().await;
    assert!(store.fingerprints([1; 8]).await.unwrap().contains(&[1; 8]));
    assert_eq!(other.fingerprints([2; 8]).await.unwrap().len(), 2);
    let mut listed = Vec::new();
    other.list(RecordKind::NotClean, 10, |key, value| listed.push((key, value))).await.unwrap();
    assert_eq!(listed, [(not_clean(1), b"infected".to_vec())]);
    let mut references = 0;
    other.list(RecordKind::Reference, 10, |_, _| references += 1).await.unwrap();
    assert_eq!(references, 1);
    store.delete(not_clean(1));
    written(&store).await;
    assert_eq!(get(&other, not_clean(1)).await, Some(StoredValue::Missing));
    check_outbox(&store, &other).await;
    // The last one is the mark of an incident.
    assert_eq!(remove_all(&store).await, 4);
    assert_eq!(get(&other, finished(1)).await, Some(StoredValue::Missing));
    for store in [&store, &other] {
        assert_eq!(store.counters().failed_commands, 0, "{:?}", store.counters());
        store.close().await;
    }
}

/// Incidents, as all replicas of a store see them.
async fn check_outbox(store: &SharedStore, other: &SharedStore) {
    let incident = name(RecordKind::Incident, 1);
    let add = async |store: &SharedStore| {
        store.add_incident(incident, expiry(), expiry(), b"found").await.unwrap()
    };
    assert_eq!(add(store).await, IncidentAddition::Added);
    assert_eq!(add(other).await, IncidentAddition::Known);
    assert_eq!(other.outbox_names().await.unwrap().len(), 1);
    // An earlier check has left its lease.
    wait_until("the outbox is owned", async || store.hold_outbox().await == Some(true)).await;
    assert_eq!(other.hold_outbox().await, Some(false));
    assert_eq!(store.hold_outbox().await, Some(true));
    store.update_outbox(incident, expiry(), b"done").unwrap();
    written(store).await;
    let records = other.outbox_records(&[incident, name(RecordKind::Incident, 2)]).await.unwrap();
    assert!(
        matches!(&records[..], [OutboxRecord::Valid(entry), OutboxRecord::Missing] if entry.value == b"done"),
        "{records:?}"
    );
    store.remove_from_outbox(incident);
    written(store).await;
    assert_eq!(other.has_outbox_entry(incident).await, Some(false));
    assert_eq!(other.outbox_names().await, Some(Vec::new()));
    assert_eq!(add(other).await, IncidentAddition::Known);
    let seen = key(RecordKind::Seen, 1);
    store.put(seen, expiry() - 3000, b"media").unwrap();
    wait_until("the media is kept", async || {
        other.seen(seen.name).await.unwrap() == [(seen, b"media".to_vec())]
    })
    .await;
    store.delete(seen);
    written(store).await;
}

#[tokio::test]
async fn records_are_kept_in_a_server() {
    if !is_installed("records_are_kept_in_a_server") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let start = || store(&[server.url()], None, None);
    check_all(start(), start()).await;
    let database = || store(&[format!("{}/7", server.url())], None, None);
    check_all(database(), database()).await;
}

#[tokio::test]
async fn records_expire_in_the_server() {
    if !is_installed("records_expire_in_the_server") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let (store, _events) = store(&[server.url()], None, None);
    store.put(not_clean(1), expiry() - 3600 + 3, b"infected").unwrap();
    written(&store).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    wait_until("it expires", async || {
        get(&store, not_clean(1)).await == Some(StoredValue::Missing)
    })
    .await;
    wait_until("it is removed", async || server.cli(&["DBSIZE"]) == "0").await;
    assert_eq!(store.counters().bad_records, 0);
}

#[tokio::test]
async fn recommended_rights_are_sufficient() {
    if !is_installed("recommended_rights_are_sufficient") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let rights: Vec<_> = ACL.split(' ').collect();
    let user = ["ACL", "SETUSER", "mcs", "on", ">secret word", "resetkeys"];
    assert_eq!(server.cli(&[&user[..], &rights].concat()), "OK");
    // Without HELLO and CLIENT.
    let user = ["ACL", "SETUSER", "minimal", "on", ">secret word", "resetkeys"];
    assert_eq!(server.cli(&[&user[..], &rights, &["-hello", "-client"]].concat()), "OK");
    for user in ["mcs", "minimal"] {
        let url = format!("redis://{user}@127.0.0.1:{}", server.port);
        let start = || store(std::slice::from_ref(&url), Some("secret word"), None);
        check_all(start(), start()).await;
    }
    // A wrong password, and missing rights.
    assert_eq!(server.cli(&["ACL", "SETUSER", "reader", "on", ">p", "~other:*", "+@read"]), "OK");
    for (user, password) in [("mcs", "wrong"), ("reader", "p")] {
        let url = format!("redis://{user}@127.0.0.1:{}", server.port);
        let (store, _events) = store(&[url], Some(password), None);
        assert_eq!(get(&store, not_clean(1)).await, None);
        assert!(store.counters().failed_commands > 0);
    }
}

#[tokio::test]
async fn server_with_a_private_certificate_is_verified() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    if !is_installed("server_with_a_private_certificate_is_verified") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let server_key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = names.signed_by(&server_key, &issuer).unwrap().pem();
    let path = |name, content: &str| {
        write(directory.path(), name, content).into_os_string().into_string().unwrap()
    };
    let (certificate, server_key) =
        (path("cert", &certificate), path("key", &server_key.serialize_pem()));
    let tls_port = free_port();
    let port_text = tls_port.to_string();
    let authority_path = path("ca", &authority);
    let options = [
        ["--tls-port", &port_text],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &server_key],
        ["--tls-ca-cert-file", &authority_path],
        ["--tls-auth-clients", "no"],
    ];
    let _server = RedisServer::start(options.as_flattened()).await;
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let start = || store(std::slice::from_ref(&url), None, Some(&authority));
    check_all(start(), start()).await;
    // Another authority, and another name.
    let other = CertificateParams::new(Vec::new()).unwrap();
    let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let by_name = format!("rediss://localhost:{tls_port}");
    for (url, authority) in [(&url, &other), (&by_name, &authority)] {
        let (store, _events) = store(std::slice::from_ref(url), None, Some(authority));
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
}

/// All keys disappear: lookups miss, and the loss of events is reported.
#[tokio::test]
async fn emptied_server_costs_scans_only() {
    if !is_installed("emptied_server_costs_scans_only") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let (first, _events) = store(&[server.url()], None, None);
    let (other, mut events) = store(&[server.url()], None, None);
    wait_available(&other).await;
    first.put(not_clean(1), expiry(), b"infected").unwrap();
    first.publish(b"first");
    written(&first).await;
    while next_event(&mut events).await.is_some() {}
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    assert_eq!(get(&other, not_clean(1)).await, Some(StoredValue::Missing));
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    first.put(not_clean(1), expiry(), b"infected").unwrap();
    first.publish(b"second");
    assert_eq!(next_event(&mut events).await, message(b"second"));
    assert_eq!(get(&other, not_clean(1)).await, valid(b"infected"));
}

/// The memory of the server is full: lookups continue, and not-clean records wait.
#[tokio::test]
async fn full_server_is_written_when_there_is_space() {
    if !is_installed("full_server_is_written_when_there_is_space") {
        return;
    }
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let (store, _events) = store(&[server.url()], None, None);
    store.put(not_clean(1), expiry(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    store.put(not_clean(2), expiry(), b"infected").unwrap();
    store.put(finished(2), expiry(), b"clean").unwrap();
    wait_until("writes fail", async || store.counters().dropped_writes == 1).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    let found = store.put_and_get(finished(1), expiry(), b"clean", vec![not_clean(1)]).await;
    assert_eq!(found.unwrap().pop(), valid(b"infected"));
    let lease = store.acquire_lease(finished(1).name, VERSION).await;
    assert!(matches!(lease, LeaseResult::Unavailable));
    assert_eq!(store.counters().pending_writes, 1);
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    written(&store).await;
    assert_eq!(get(&store, not_clean(2)).await, valid(b"infected"));
}

/// A server that does not reply, then continues; and one that is killed, then started again.
#[tokio::test]
async fn stopped_server_is_used_again() {
    if !is_installed("stopped_server_is_used_again") {
        return;
    }
    let mut server = RedisServer::start(&[]).await;
    let url = server.url();
    let (store, mut events) = resp_server::start_store(&url, TIMEOUT);
    wait_available(&store).await;
    while next_event(&mut events).await.is_some() {}
    for is_killed in [false, true] {
        if is_killed {
            server.kill();
        } else {
            server.signal(Signal::SIGSTOP);
        }
        let start = Instant::now();
        while store.is_available() {
            assert_eq!(get(&store, not_clean(1)).await, None);
        }
        assert!(start.elapsed() < TIMEOUT * 8, "{:?}", start.elapsed());
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(get(&store, not_clean(2)).await, None);
        }
        assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
        store.put(not_clean(1), expiry(), b"infected").unwrap();
        store.publish(b"own");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(store.counters().pending_writes, 2);
        if is_killed {
            server.restart().await;
        } else {
            server.signal(Signal::SIGCONT);
        }
        let start = Instant::now();
        written(&store).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
        assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    }
}

/// A replica that is stopped for longer than its lease does not delete the lease of the next one.
#[tokio::test]
async fn lease_ends_without_renewal() {
    if !is_installed("lease_ends_without_renewal") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let (first, _events) = store(&[server.url()], None, None);
    let (other, _events) = store(&[server.url()], None, None);
    let lease = acquired(first.acquire_lease(finished(1).name, VERSION).await);
    let key = String::from_utf8(lease_key(&finished(1).name, VERSION)).unwrap();
    let remaining: u64 = server.cli(&["PTTL", &key]).parse().unwrap();
    assert!((10_000..=15_000).contains(&remaining));
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let remaining: u64 = server.cli(&["PTTL", &key]).parse().unwrap();
    assert!((12_000..=15_000).contains(&remaining), "{remaining}");
    drop(lease);
    assert_eq!(server.cli(&["PEXPIRE", &key, "300"]), "1");
    tokio::time::sleep(Duration::from_millis(400)).await;
    drop(acquired(other.acquire_lease(finished(1).name, VERSION).await));
    // A lease of another type is no lease.
    assert_eq!(server.cli(&["DEL", &key]), "1");
    assert_eq!(server.cli(&["HSET", &key, "a", "b"]), "1");
    let held = other.acquire_lease(finished(1).name, VERSION).await;
    assert!(matches!(held, LeaseResult::Held), "{held:?}");
}

/// Altered in the server by its own commands.
#[tokio::test]
async fn altered_record_is_removed_from_the_server() {
    if !is_installed("altered_record_is_removed_from_the_server") {
        return;
    }
    let server = RedisServer::start(&[]).await;
    let (store, _events) = store(&[server.url()], None, None);
    store.put(not_clean(1), expiry(), b"infected").unwrap();
    written(&store).await;
    let key = String::from_utf8(record_key(&not_clean(1))).unwrap();
    assert_ne!(server.cli(&["APPEND", &key, "x"]), "0");
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Invalid));
    wait_until("it is removed", async || server.cli(&["EXISTS", &key]) == "0").await;
    assert_eq!(store.counters().bad_records, 1);
}
