//! The simulation itself: nothing is broken over many seeds, and a seed means one run.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bizra_simplex::types::Epoch;
use bizra_simulator::campaign::{self, COVERING_SEEDS};
use bizra_simulator::{Scenario, Trace};

#[test]
fn no_promise_is_broken_and_every_kind_of_fault_happens() {
    let campaign = campaign::run(1, COVERING_SEEDS, 2);
    assert!(campaign.violations.is_empty(), "{:#?}", campaign.violations);
    assert_eq!(campaign.missing_faults(), Vec::<&str>::new());
    assert!(campaign.evidence > 0, "no contradiction of a Byzantine validator was ever found");
    assert!(campaign.reported > 0, "no contradiction was ever reported on chain");
    assert!(campaign.activations > 0, "no newer version of the protocol was ever activated");
    assert!(campaign.blocks > 10 * COVERING_SEEDS);
    assert!(campaign.epochs > COVERING_SEEDS / 2, "only {} epochs ended", campaign.epochs);
}

#[test]
fn the_same_seeds_give_the_same_hash_on_any_number_of_threads() {
    let once = campaign::run(7_000, 12, 1);
    let again = campaign::run(7_000, 12, 3);
    assert_eq!((once.hash, once.steps, &once.faults), (again.hash, again.steps, &again.faults));
    assert_ne!(campaign::run_seed(1, Trace::Off).hash, campaign::run_seed(2, Trace::Off).hash);
}

#[test]
fn byzantine_validators_stay_below_a_third_of_the_power() {
    for seed in 0..2_000 {
        let scenario = Scenario::new(seed);
        for epoch in (0..40).map(Epoch) {
            let members = scenario.schedule.of(epoch);
            let is_bad = |node: usize| scenario.byzantine.iter().any(|(bad, _)| *bad == node);
            let bad: u64 = members.iter().filter(|(node, _)| is_bad(*node)).map(|(_, power)| power).sum();
            assert!(3 * bad < members.iter().map(|(_, power)| power).sum(), "{epoch} {scenario:?}");
        }
    }
}
