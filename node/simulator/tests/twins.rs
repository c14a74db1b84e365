//! Twins: no split of a network with one Byzantine validator breaks anything; with two of four, forks are found.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bizra_simulator::twins::{self, Selection};

#[test]
fn twins_below_a_third_of_the_power_break_nothing() {
    for (validators, twins, count) in [(4, 1, 2_000), (7, 2, 100)] {
        let summary = twins::run(validators, twins, Selection::Sample { count, seed: 1 }, 2);
        assert!(summary.violations.is_empty(), "{:#?}", summary.violations.first());
        assert_eq!(summary.scenarios, count);
        assert!(summary.with_evidence > count / 20, "evidence in only {} plans", summary.with_evidence);
    }
}

#[test]
fn half_of_the_power_forks_the_chain_and_evidence_names_only_the_guilty() {
    let summary = twins::run(4, 2, Selection::Sample { count: 100, seed: 2 }, 2);
    assert!(!summary.forks.is_empty(), "the generator cannot find a fork");
    let named = summary.forks.iter().filter(|(_, accused)| !accused.is_empty()).count();
    assert!(named > 0, "no evidence in any of {} forks", summary.forks.len());
    for (plan, accused) in &summary.forks {
        let guilty = [plan.offset, (plan.offset + 1) % 4];
        assert!(accused.iter().all(|validator| guilty.contains(validator)), "{plan:?} {accused:?}");
    }
}
