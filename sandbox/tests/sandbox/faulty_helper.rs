//! A helper that sends unexpected replies: the job fails, the server does not panic, and nothing is left. The helper is
//! `examples/hostile/`, which reads its replies from a file next to the jobs.

use std::fs;
use std::time::{Duration, Instant};

use mcs_sandbox::{Error, Exit, Sandbox, SandboxBuilder};
use proptest::prelude::*;

use crate::fixture::{Fixture, LONG_TIMEOUT, policy, sh};
use crate::hostile::program;

/// A packet and its number of descriptors. The helper sends one reply for each message of the server, then exits.
type ReplyPacket = (Vec<u8>, usize);

/// Valid replies, from which the invalid ones are derived.
const VALID_REPLIES: [&str; 5] = [
    r#""Prepared""#,
    r#"{"Started":{"pid":1999999999}}"#,
    r#"{"Ended":{"status":0,"timed_out":false,"usage":{"user_time":{"secs":0,"nanos":0},"system_time":{"secs":0,"nanos":0},"max_rss":1},"program":null,"survivors":false,"attempts":[]}}"#,
    r#"{"Refused":{"step":"Execute","errno":2}}"#,
    r#"{"Refused":{"step":"Namespaces","errno":1}}"#,
];

fn faulty_helper() -> (Fixture, Sandbox) {
    let fixture = Fixture::new();
    let sandbox =
        SandboxBuilder::with_helper(&program(), policy()).unwrap().build_unprobed(&[]).unwrap();
    (fixture, sandbox)
}

/// Runs a complete job with this helper.
async fn job_with(
    fixture: &Fixture,
    sandbox: &Sandbox,
    replies: &[ReplyPacket],
) -> Result<Exit, Error> {
    fs::write(fixture.root.join("replies"), serde_json::to_vec(replies).unwrap()).unwrap();
    let mut job = sandbox.prepare(&fixture.jobs(), "media").await?;
    let exit = job.run(&sh(&job, "exit 0"), LONG_TIMEOUT, 100).await;
    job.close().await.unwrap();
    exit
}

fn packet(text: &str, fds: usize) -> ReplyPacket {
    (text.as_bytes().to_vec(), fds)
}

#[tokio::test]
async fn protocol_violations_fail_the_job() {
    let (fixture, sandbox) = faulty_helper();
    let [prepared, started, ended, refused, _] = VALID_REPLIES;
    let prepared = || packet(prepared, 1);
    let protocol: fn(&Error) -> bool = |error| matches!(error, Error::Protocol(_));
    let gone: fn(&Error) -> bool = |error| matches!(error, Error::HelperExited);
    let not_started: fn(&Error) -> bool = |error| matches!(error, Error::NotStarted { .. });
    let cases = [
        (vec![], gone),
        (vec![packet("[]", 0)], protocol),
        (vec![packet("\"Prepared\"", 0)], protocol),
        (vec![packet("\"Prepared\"", 2)], protocol),
        (vec![packet(ended, 0)], protocol),
        (vec![packet(refused, 0)], not_started),
        (vec![(vec![b' '; 70_000], 0)], protocol),
        (vec![prepared()], gone),
        (vec![prepared(), prepared()], protocol),
        (vec![prepared(), packet("nonsense", 0)], protocol),
        (vec![prepared(), packet(started, 0)], protocol),
        (vec![prepared(), packet(started, 1)], gone),
        (vec![prepared(), (vec![0xff; 3], 200)], protocol),
        (vec![prepared(), packet(refused, 0)], not_started),
    ];
    for (replies, expected) in cases {
        let error = job_with(&fixture, &sandbox, &replies).await.unwrap_err();
        assert!(expected(&error), "{replies:?}: {error:?}");
        assert!(fixture.is_empty(), "{replies:?}");
    }
    // Control: valid replies are accepted.
    job_with(&fixture, &sandbox, &[prepared(), packet(ended, 0)]).await.unwrap();
}

fn reply() -> impl Strategy<Value = ReplyPacket> {
    let random = prop::collection::vec(any::<u8>(), 0..300);
    let valid = prop::sample::select(&VALID_REPLIES[..]);
    let changed = (valid, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(reply, at, byte, cut)| {
            let mut packet = reply.as_bytes().to_vec();
            let at = at.index(packet.len());
            packet.splice(at..=at, [byte]);
            packet.truncate(if cut { at } else { packet.len() });
            packet
        },
    );
    let unchanged =
        prop::sample::select(&VALID_REPLIES[..]).prop_map(|reply| reply.as_bytes().to_vec());
    (prop_oneof![1 => random, 2 => changed, 2 => unchanged], 0_usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_replies_do_not_panic_server(replies in prop::collection::vec(reply(), 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (fixture, sandbox) = faulty_helper();
        let begin = Instant::now();
        let _ = runtime.block_on(job_with(&fixture, &sandbox, &replies));
        prop_assert!(begin.elapsed() < Duration::from_secs(9), "the server waited for the helper");
        prop_assert!(fixture.is_empty());
    }
}
