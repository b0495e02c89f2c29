//! Addresses, keys and slots.

use proptest::prelude::*;
use redis::{Value, parse_redis_value};
use zeroize::Zeroizing;

use super::{
    super::{
        key_names::{
            StoredKey, hash_key, lease_key, parse_key, parse_reference, record_key, reference_field,
        },
        servers::{ServerAddress, ServerTopology, StoreServers, StoreServersError},
        slots::{SlotMap, key_slot},
    },
    *,
};

fn parse(urls: &[&str]) -> Result<StoreServers, StoreServersError> {
    let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
    StoreServers::parse(&urls, None, None)
}

fn address(host: &str, port: u16) -> ServerAddress {
    ServerAddress::new(host, port).unwrap()
}

#[test]
fn addresses_are_parsed() {
    let single = |url: &str| {
        let servers = parse(&[url]).unwrap();
        let ServerTopology::Single(address) = servers.topology else { panic!("{servers:?}") };
        (address.to_string(), servers.credentials, servers.database)
    };
    let (address_text, credentials, database) = single("redis://valkey.example.org");
    assert_eq!((&*address_text, database), ("valkey.example.org:6379", 0));
    assert_eq!((credentials.user, credentials.password), (None, None));
    assert_eq!(single("redis://[::1]:7/3").0, "[::1]:7");
    assert_eq!(single("redis://[::1]/3/").2, 3);
    let (address_text, credentials, _) = single("redis://mcs:p%40s%2Fs@10.0.0.1:7000/0");
    assert_eq!(address_text, "10.0.0.1:7000");
    assert_eq!(credentials.user.as_deref(), Some("mcs"));
    assert_eq!(credentials.password.as_deref().map(|password| &**password), Some("p@s/s"));
    // Special characters that are not escaped.
    let (address_text, credentials, _) = single("redis://:a/b@c@host");
    assert_eq!((&*address_text, credentials.user), ("host:6379", None));
    assert_eq!(credentials.password.as_deref().map(|password| &**password), Some("a/b@c"));
}

#[test]
fn clusters_and_sentinels_are_parsed() {
    let cluster = parse(&["redis://a:1", "redis://b"]).unwrap().topology;
    assert!(
        matches!(cluster, ServerTopology::Cluster(seeds) if seeds == [address("a", 1), address("b", 6379)])
    );
    let cluster = parse(&["redis+cluster://a:1"]).unwrap().topology;
    assert!(matches!(cluster, ServerTopology::Cluster(seeds) if seeds == [address("a", 1)]));
    let servers = parse(&["redis+sentinel://u:p@a:1,[::2],c:3/main/4"]).unwrap();
    assert_eq!((servers.database, servers.credentials.user.as_deref()), (4, Some("u")));
    let ServerTopology::Sentinel { sentinels, service } = servers.topology else { panic!() };
    assert_eq!(service, "main");
    assert_eq!(sentinels, [address("a", 1), address("::2", 26379), address("c", 3)]);
}

#[test]
fn wrong_addresses_are_explained() {
    use StoreServersError as E;
    let error = |urls: &[&str]| {
        let error = parse(urls).unwrap_err();
        println!("{error}");
        error
    };
    assert_eq!(error(&[]), E::NoAddress);
    for url in ["", "valkey", "http://a", "redis:/a", "redis+x://a", "unix:///run/redis"] {
        assert_eq!(error(&["redis://a", url]), E::Scheme { number: 2 }, "{url}");
    }
    for url in [
        "redis://",
        "redis://a b",
        "redis://a:x",
        "redis://a:0",
        "redis://[a]",
        "redis://::1",
        "redis://a:99999",
    ] {
        assert_eq!(error(&[url]), E::Host { number: 1 }, "{url}");
    }
    assert_eq!(error(&["redis://a,b"]), E::SeveralHosts { number: 1 });
    for url in [
        "redis://a/x",
        "redis://a/1/2",
        "redis://a?db=1",
        "redis+sentinel://a",
        "redis+sentinel://a/s/x",
    ] {
        assert_eq!(error(&[url]), E::Path { number: 1 }, "{url}");
    }
    assert_eq!(error(&["redis+cluster://a/1"]), E::ClusterDatabase { number: 1 });
    assert_eq!(error(&["redis://a", "redis://b/1"]), E::ClusterDatabase { number: 2 });
    assert_eq!(error(&["redis://a", "rediss://b"]), E::Mixed { number: 2 });
    assert_eq!(error(&["redis://u:p@a", "redis://u:q@b"]), E::Mixed { number: 2 });
    assert_eq!(error(&["redis://a", "redis+sentinel://b/s"]), E::SeveralWithSentinel);
    assert_eq!(error(&["redis://u@a"]), E::NoPassword);
    assert_eq!(error(&["redis://%ff:p@a"]), E::Credentials { number: 1 });
    let with = |url: &str, password: Option<&str>, certificates: Option<&[u8]>| {
        let password = password.map(|password| Zeroizing::new(password.to_owned()));
        StoreServers::parse(&[url.to_owned()], password, certificates).unwrap_err()
    };
    assert_eq!(with("redis://:p@a", Some("q"), None), E::TwoPasswords);
    assert_eq!(with("redis://a", None, Some(b"")), E::CertificatesWithoutTls);
    for certificates in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let error = with("rediss://a", None, Some(certificates.as_bytes()));
        println!("{error}");
        assert!(matches!(error, E::Certificates(_)));
    }
}

#[test]
fn passwords_are_not_printed() {
    let password = Some(Zeroizing::new("hunter2".to_owned()));
    let servers = StoreServers::parse(&["redis://user@a".to_owned()], password, None).unwrap();
    let text = format!("{servers:?}");
    assert!(text.contains("user") && !text.contains("hunter2"), "{text}");
    for url in [
        "redis://:hunter2",
        "redis://u:hunter2@a b",
        "redis://hunter2/x?",
        "hunter2",
        "redis://u:hunter2@a/x",
    ] {
        let error = parse(&[url]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn keys_are_those_of_the_documentation() {
    let name = RecordName([0xab; 16]);
    let text =
        |kind, version| String::from_utf8(record_key(&RecordKey { kind, name, version })).unwrap();
    let hex = "ab".repeat(16);
    assert_eq!(text(RecordKind::NotClean, None), format!("mcs1:{{{hex}}}:n"));
    assert_eq!(text(RecordKind::Forgotten, None), format!("mcs1:{{{hex}}}:g"));
    assert_eq!(
        text(RecordKind::Finished, Some([1; 8])),
        format!("mcs1:{{{hex}}}:c:0101010101010101")
    );
    assert_eq!(text(RecordKind::Media, Some([1; 8])), format!("mcs1:m:{hex}:0101010101010101"));
    assert_eq!(text(RecordKind::Reference, Some([1; 8])), format!("mcs1:i:{hex}"));
    let lease = String::from_utf8(lease_key(&name, [1; 8])).unwrap();
    assert_eq!(lease, format!("mcs1:{{{hex}}}:f:0101010101010101"));
    // The records about a content are at one node.
    let slot = |key: String| key_slot(key.as_bytes());
    assert_eq!(
        slot(text(RecordKind::NotClean, None)),
        slot(text(RecordKind::Finished, Some([2; 8])))
    );
    assert_eq!(slot(lease), slot(text(RecordKind::Forgotten, None)));
}

proptest! {
    #[test]
    fn keys_are_parsed_as_they_are_made(bytes: [u8; 16], kind in 0..7_usize, version: Option<[u8; 8]>) {
        let kinds = [
            RecordKind::NotClean,
            RecordKind::Finished,
            RecordKind::Media,
            RecordKind::Forgotten,
            RecordKind::Reference,
            RecordKind::Seen,
            RecordKind::Rescan,
        ];
        let key = RecordKey { kind: kinds[kind], name: RecordName(bytes), version };
        let parsed = parse_key(&record_key(&key));
        if key.kind.is_in_hash() {
            prop_assert_eq!(parsed, Some(StoredKey::Hash(key.kind, key.name)));
            prop_assert_eq!(&record_key(&key), &hash_key(key.kind, &key.name));
            prop_assert_eq!(parse_reference(key.kind, key.name, &reference_field(&key)), Some(key));
        } else {
            prop_assert_eq!(parsed, Some(StoredKey::Record(key)));
        }
        prop_assert_eq!(parse_key(&lease_key(&key.name, [3; 8])), Some(StoredKey::Lease));
    }

    /// A key that is parsed is the one that is made.
    #[test]
    fn other_keys_are_not_parsed(text in "mcs1:(\\{|m:|i:|)[0-9a-fA-F]{30,34}\\}?:?[ncgfx]?:?[0-9a-f]{0,18}") {
        match parse_key(text.as_bytes()) {
            Some(StoredKey::Record(key)) => prop_assert_eq!(record_key(&key), text.as_bytes()),
            Some(StoredKey::Hash(kind, name)) => prop_assert_eq!(hash_key(kind, &name), text.as_bytes()),
            Some(StoredKey::OutboxIndex) => prop_assert_eq!(b"mcs1:{o}:index", text.as_bytes()),
            Some(StoredKey::Lease) | None => {}
        }
    }
}

/// Examples of the Redis cluster specification.
#[test]
fn slots_are_those_of_the_specification() {
    assert_eq!(key_slot(b"123456789"), 0x31c3);
    assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
    assert_eq!(key_slot(b"foo{}{bar}"), 8363);
    assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
    assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
    assert_eq!(key_slot(b""), 0);
}

#[test]
fn maps_of_slots_are_parsed() {
    let asked = address("seed", 7);
    let parse = |text: &str| -> Option<SlotMap> {
        let text = text.replace('\n', "\r\n");
        let value: Value = parse_redis_value(text.as_bytes()).unwrap();
        SlotMap::parse(&value, &asked)
    };
    let node = |host: &str, port: u16| format!("*3\n${}\n{host}\n:{port}\n$2\nid\n", host.len());
    let range = |first: i64, last: i64, node: &str| format!("*3\n:{first}\n:{last}\n{node}");
    let (b, empty) = (node("10.0.0.2", 7001), node("", 7000));
    let map = parse(&format!("*2\n{}{}", range(8192, 16383, &b), range(0, 5000, &empty))).unwrap();
    assert_eq!(map.nodes(), [address("10.0.0.2", 7001), address("seed", 7000)]);
    assert_eq!(map.node(b"foo{}{bar}"), Some(&address("10.0.0.2", 7001)));
    assert_eq!(map.node(b""), Some(&address("seed", 7000)));
    // 5061.
    assert_eq!(map.node(b"bar"), None);
    for invalid in [
        "*0\n".to_owned(),
        "$2\nid\n".to_owned(),
        format!("*1\n{}", range(0, 16384, &b)),
        format!("*1\n{}", range(-1, 5, &b)),
        format!("*1\n{}", range(6, 5, &b)),
        format!("*1\n{}", range(0, 5, &node("a b", 7))),
        format!("*1\n{}", range(0, 5, "*2\n$1\na\n:70000\n")),
        "*1\n*2\n:0\n:1\n".to_owned(),
    ] {
        assert_eq!(parse(&invalid), None, "{invalid}");
    }
}
