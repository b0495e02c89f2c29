//! What the machine gives is found by trying, told with reasons, and kept: no weaker run later.

use mcs_sandbox::{Candidate, Layer, Policy};

use crate::place::{HELPER, Place, is_root, policy};

fn candidate(policy: Policy) -> Candidate {
    Candidate::with_helper(std::path::Path::new(HELPER), policy).unwrap()
}

#[tokio::test]
async fn a_trial_run_tells_what_holds() {
    let place = Place::new();
    let sandbox = candidate(policy()).settle(&place.jobs()).await.unwrap();
    let told = sandbox.layers().to_string();
    assert!(told.starts_with("base: "), "{told}");
    assert_eq!(told.contains("uid 61234"), is_root(), "{told}");
    for (layer, state) in sandbox.layers().rows().iter().skip(1) {
        let held = Layer::ALL.into_iter().find(|it| it.name() == *layer).unwrap();
        assert_eq!(sandbox.layers().holds(held), !state.starts_with("OFF: "), "{layer}: {state}");
    }
    assert!(place.is_empty());
}
