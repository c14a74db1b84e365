//! The model check of the shipped core, on bounds that fit a test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use bizra_simulator::model::{Bounds, check};

/// Both tests together stay below a minute; `make model` goes further.
const LIMIT: Duration = Duration::from_secs(12);

#[test]
fn no_order_of_messages_timeouts_and_restarts_breaks_a_promise() {
    for (views, byzantine, crashes) in [(2, 1, 0), (2, 0, 1)] {
        let summary = check(Bounds { views, byzantine, crashes }, 2, LIMIT).unwrap();
        println!("{views} views, {byzantine} Byzantine, {crashes} crashes: {summary:?}");
        assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
        assert!(!summary.unreached.contains(&"a block is final"), "{summary:?}");
    }
}

#[test]
fn two_byzantine_validators_of_four_break_agreement() {
    let summary = check(Bounds { views: 1, byzantine: 2, crashes: 0 }, 2, LIMIT).unwrap();
    assert!(summary.violations.iter().any(|(name, _)| *name == "agreement"), "{summary:?}");
}
