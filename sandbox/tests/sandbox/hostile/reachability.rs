//! Ports and Unix sockets that a job can connect to.

use std::fs;
use std::net::TcpListener;

use mcs_sandbox::{Layer, NetworkAccess, Policy};

use super::{ALL, PLANS, Targets, skip_without_layers};
use crate::fixture::Fixture;

/// Verifies that the filter covers what Landlock does not restrict as TCP connections. The control is Landlock alone.
#[tokio::test]
async fn only_listed_ports_are_reachable() {
    let test = "only_listed_ports_are_reachable";
    let ports = TcpListener::bind("127.0.0.1:0").unwrap();
    let listed = ports.local_addr().unwrap();
    let policy =
        |policy: Policy| Policy { network: NetworkAccess::Ports(vec![listed.port()]), ..policy };
    let fixture = Fixture::with(policy(crate::fixture::policy()));
    if let Err(error) = fixture.builder().probe(&fixture.jobs()).await {
        crate::fixture::report_skipped(test, &format!("ports: {error}"));
        return;
    }
    for (layers, blocked) in [(&[Layer::Landlock][..], false), (PLANS[1].1, true), (&ALL, true)] {
        if skip_without_layers(layers, test).await {
            continue;
        }
        let targets = Targets::with_policy(layers, policy).await;
        let other = targets.tcp.local_addr().unwrap().to_string();
        let attack_succeeds = async |words: &[&str]| {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            targets.attack_succeeds(&words).await
        };
        assert!(attack_succeeds(&["tcp", &listed.to_string()]).await, "{layers:?}");
        assert!(!attack_succeeds(&["tcp", &other]).await, "{layers:?}");
        let mptcp = fs::read_to_string("/proc/sys/net/mptcp/enabled");
        for (attack, unblocked_result) in [
            (["mptcp", &other], mptcp.is_ok_and(|enabled| enabled.trim() == "1")),
            (["fastopen", &other], true),
            (["listen", ""], true),
        ] {
            let attack: Vec<_> = attack.into_iter().filter(|word| !word.is_empty()).collect();
            let succeeded = attack_succeeds(&attack).await;
            // Future versions of Landlock may deny these as well.
            assert!(!blocked || !succeeded, "{layers:?}: {attack:?}");
            if !blocked && succeeded != unblocked_result {
                crate::fixture::report_skipped(
                    test,
                    &format!("control: Landlock alone blocks {attack:?}"),
                );
            }
        }
        targets.end().await;
    }
}

#[tokio::test]
async fn unix_sockets_are_unreachable_unless_configured() {
    for (plan, layers) in PLANS {
        let targets = Targets::with_policy(layers, |mut policy| {
            policy.paths.unix_sockets.clear();
            policy
        })
        .await;
        for (word, path) in [("connect", &targets.socket), ("datagram", &targets.datagrams)] {
            let words = [word.to_owned(), path.display().to_string()];
            let succeeded = targets.attack_succeeds(&words).await;
            // The base layer alone is the control.
            assert_eq!(succeeded, layers.is_empty(), "{plan}: {word}");
        }
        targets.end().await;
    }
}
