//! The probe run determines the available layers, with reasons, for all later jobs.

use mcs_sandbox::{Layer, Policy, SandboxBuilder};

use crate::fixture::{Fixture, HELPER, is_root, policy};

fn builder(policy: Policy) -> SandboxBuilder {
    SandboxBuilder::with_helper(std::path::Path::new(HELPER), policy).unwrap()
}

#[tokio::test]
async fn probe_reports_active_layers() {
    let fixture = Fixture::new();
    let sandbox = builder(policy()).probe(&fixture.jobs()).await.unwrap();
    let layers = sandbox.layers().to_string();
    assert!(layers.starts_with("base: "), "{layers}");
    assert_eq!(layers.contains("uid 61234"), is_root(), "{layers}");
    for (layer, state) in sandbox.layers().states().iter().skip(1) {
        let layer_kind = Layer::ALL.into_iter().find(|kind| kind.name() == *layer).unwrap();
        assert_eq!(
            sandbox.layers().is_active(layer_kind),
            !state.starts_with("OFF: "),
            "{layer}: {state}"
        );
    }
    assert!(fixture.is_empty());
}
