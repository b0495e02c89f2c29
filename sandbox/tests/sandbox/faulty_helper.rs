//! The server and a helper that says what no helper of ours says: an error of that job, without a panic, and nothing is left.
//! The helper is `examples/hostile.rs`, which reads its part from a file beside the jobs.

use std::fs;
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Error, Exit, Sandbox};
use proptest::prelude::*;

use crate::hostile::program;
use crate::place::{AMPLE, Place, policy, sh};

/// A packet, and descriptors beside it. One is sent for each message of the server's; then the helper ends.
type Lie = (Vec<u8>, usize);

/// What a helper may rightly say, of which the lies are made.
const TRUTHS: [&str; 5] = [
    r#""Prepared""#,
    r#"{"Started":{"pid":1999999999}}"#,
    r#"{"Ended":{"status":0,"timed_out":false,"usage":{"user_time":{"secs":0,"nanos":0},"system_time":{"secs":0,"nanos":0},"max_rss":1},"program":null,"survivors":false,"attempts":[]}}"#,
    r#"{"Refused":{"step":"Execute","errno":2}}"#,
    r#"{"Refused":{"step":"Namespaces","errno":1}}"#,
];

fn liar() -> (Place, Sandbox) {
    let place = Place::new();
    let sandbox = Candidate::with_helper(&program(), policy()).unwrap().untried(&[]);
    (place, sandbox)
}

/// A whole job with such a helper.
async fn job_with(place: &Place, sandbox: &Sandbox, lies: &[Lie]) -> Result<Exit, Error> {
    fs::write(place.root.join("lies"), serde_json::to_vec(lies).unwrap()).unwrap();
    let mut job = sandbox.prepare(&place.jobs(), "media").await?;
    let exit = job.run(&sh(&job, "exit 0"), AMPLE, 100).await;
    job.close().await.unwrap();
    exit
}

fn said(text: &str, fds: usize) -> Lie {
    (text.as_bytes().to_vec(), fds)
}

#[tokio::test]
async fn a_helper_that_breaks_the_protocol_is_an_error_of_that_job() {
    let (place, sandbox) = liar();
    let [prepared, started, ended, refused, _] = TRUTHS;
    let prepared = || said(prepared, 1);
    let protocol: fn(&Error) -> bool = |error| matches!(error, Error::Protocol(_));
    let gone: fn(&Error) -> bool = |error| matches!(error, Error::HelperGone);
    let not_started: fn(&Error) -> bool = |error| matches!(error, Error::NotStarted { .. });
    let cases = [
        (vec![], gone),
        (vec![said("[]", 0)], protocol),
        (vec![said("\"Prepared\"", 0)], protocol),
        (vec![said("\"Prepared\"", 2)], protocol),
        (vec![said(ended, 0)], protocol),
        (vec![said(refused, 0)], not_started),
        (vec![(vec![b' '; 70_000], 0)], protocol),
        (vec![prepared()], gone),
        (vec![prepared(), prepared()], protocol),
        (vec![prepared(), said("nonsense", 0)], protocol),
        (vec![prepared(), said(started, 0)], protocol),
        (vec![prepared(), said(started, 1)], gone),
        (vec![prepared(), (vec![0xff; 3], 200)], protocol),
        (vec![prepared(), said(refused, 0)], not_started),
    ];
    for (lies, expected) in cases {
        let error = job_with(&place, &sandbox, &lies).await.unwrap_err();
        assert!(expected(&error), "{lies:?}: {error:?}");
        assert!(place.is_empty(), "{lies:?}");
    }
    // The control: this is how it would be believed.
    job_with(&place, &sandbox, &[prepared(), said(ended, 0)]).await.unwrap();
}

fn lie() -> impl Strategy<Value = Lie> {
    let random = prop::collection::vec(any::<u8>(), 0..300);
    let truths = prop::sample::select(&TRUTHS[..]);
    let changed = (truths, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(truth, at, byte, cut)| {
            let mut packet = truth.as_bytes().to_vec();
            let at = at.index(packet.len());
            packet.splice(at..=at, [byte]);
            packet.truncate(if cut { at } else { packet.len() });
            packet
        },
    );
    let truth = prop::sample::select(&TRUTHS[..]).prop_map(|truth| truth.as_bytes().to_vec());
    (prop_oneof![1 => random, 2 => changed, 2 => truth], 0_usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_helper_says_makes_the_server_panic_or_leaves_anything(lies in prop::collection::vec(lie(), 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (place, sandbox) = liar();
        let begin = Instant::now();
        let _ = runtime.block_on(job_with(&place, &sandbox, &lies));
        prop_assert!(begin.elapsed() < Duration::from_secs(9), "it was waited for");
        prop_assert!(place.is_empty());
    }
}
