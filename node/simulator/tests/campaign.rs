//! The simulation itself: nothing is broken over many seeds, and a seed means one run.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bizra_simulator::campaign::{self, COVERING_SEEDS};
use bizra_simulator::{Fault, Scenario, Trace, Turn};

/// A short campaign; `make test` runs the long one, which also wants every kind of fault to happen.
const SEEDS: u64 = 40;

#[test]
fn no_promise_is_broken() {
    let campaign = campaign::run(1, SEEDS, 2);
    println!("{}", campaign.totals());
    assert!(campaign.violations.is_empty(), "{:#?}", campaign.violations);
    assert!(campaign.evidence > 0, "no contradiction of a Byzantine validator was ever found");
    assert!(campaign.blocks > 100 * SEEDS, "only {} views were finalised", campaign.blocks);
    assert!(campaign.loaded_blocks > 50 * SEEDS, "only {} blocks carry transactions", campaign.loaded_blocks);
    assert!(campaign.reported > 0, "no contradiction was ever reported on chain");
    assert!(campaign.activations > 0, "no newer version of the protocol was ever activated");
    assert!(campaign.epochs > SEEDS, "only {} epochs ended", campaign.epochs);
    for turn in [Turn::Join, Turn::Leave, Turn::Rotation, Turn::Jailing, Turn::Raise, Turn::Lowering] {
        assert!(campaign.turnover.of(turn) > 0, "no {} of a validator", turn.name());
    }
}

/// T3: a delay between the timeout and half of it. Every view was notarized just after everybody had given it up: one that
/// is not nullified did not lengthen the timer, so nothing became final for ever.
#[test]
fn a_network_in_which_views_are_given_up_and_then_notarized_comes_to_finality() {
    let report = campaign::run_scenario(Scenario::restless(311), Trace::Off);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}

/// A node that lost its database 186 epochs ago asks for the next range when it has entered the epoch, not half a second after
/// it asked in vain.
#[test]
fn many_short_epochs_are_caught_up_with_in_time() {
    let report = campaign::run_seed(5_043, Trace::Off);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}

#[test]
fn a_fault_that_never_happens_is_a_defect_of_the_simulator() {
    let campaign = campaign::run(5, 2, 1);
    assert!(campaign.faults.missing().len() > 1, "two seeds cannot show everything");
    assert!(campaign.is_clean(), "so few seeds need not");
    let large = campaign::Campaign { seeds: COVERING_SEEDS, ..campaign };
    assert!(!large.is_clean());
}

#[test]
fn the_same_seeds_give_the_same_hash_on_any_number_of_threads() {
    let (campaign, different) = campaign::run_twice(7_000, 12, 1);
    assert_eq!(different, Vec::<u64>::new());
    assert_eq!(campaign.hashes.len(), 12);
    assert_ne!(campaign::run_seed(1, Trace::Off).hash, campaign::run_seed(2, Trace::Off).hash);
}

/// P1 to P3: networks that begin with old rules while some of their nodes know new ones. The oracle compares the version that
/// each node goes by with its own count of the signals, at every turn, and wants every node to have caught up in the end.
#[test]
fn networks_upgraded_while_they_run_activate_the_new_version_and_laggards_follow() {
    let upgraded = |seed: &u64| Scenario::new(*seed).upgrades.iter().any(Option::is_some);
    let (mut activated, mut followed) = (0, 0);
    for seed in (20_000..).filter(upgraded).take(24) {
        let report = campaign::run_seed(seed, Trace::Off);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        activated += report.activations;
        followed += u64::from(report.activations > 0 && report.faults.of(Fault::OldBinary) > 0);
    }
    assert!(activated > 4 && followed > 0, "{activated} activated, {followed} of them without a laggard that follows");
}
