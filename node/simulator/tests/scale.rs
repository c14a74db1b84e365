//! The happy path: three network delays from a proposal to finality, at every validator, whatever their number.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bizra_simulator::absence;
use bizra_simulator::scale::{self, Case};

#[test]
fn with_equal_delays_every_block_is_final_exactly_three_delays_after_its_proposal() {
    for (validators, delay) in [(4, 40), (7, 25), (16, 70)] {
        let row = scale::run(validators, Case::Equal(delay), 20).unwrap();
        assert!(row.blocks >= 20 && row.finality.len() >= 20 * validators);
        assert!(row.finality.iter().all(|finality| *finality == 3 * delay), "{row:?}");
        assert!(!row.dissemination.is_empty(), "no batch was ordered");
    }
}

#[test]
fn validators_that_are_down_and_a_slow_region_delay_finality_and_stop_nothing() {
    let calm = scale::run(7, Case::Regions, 20).unwrap();
    for case in [Case::Down, Case::SlowRegion] {
        let row = scale::run(7, case, 20).unwrap();
        assert!(row.blocks >= 20, "{row:?}");
        let median = |row: &scale::Row| scale::Row::percentile(&row.finality, 50);
        assert!(median(&row) >= median(&calm), "{row:?}");
    }
}

/// T2: who is away gets fewer turns, and all of them back soon after it is.
#[test]
fn an_absent_validator_costs_less_from_epoch_to_epoch_and_has_its_turns_again_when_it_is_back() {
    const WHOLE: u64 = 1024;
    let spans = absence::run(4, 20, 256, (4, 5)).unwrap();
    let [first, .., last] = spans[..4] else { panic!("{spans:?}") };
    assert_eq!((first.share, last.share), (WHOLE, WHOLE / 8), "{spans:?}");
    // A quarter of the views at first, a twenty-fifth in the end.
    assert!(first.given_up > 5 * last.given_up, "{spans:?}");
    assert!(last.latency < first.latency, "{spans:?}");
    let back = spans.last().unwrap();
    assert_eq!((back.share, back.given_up), (WHOLE, 0), "{spans:?}");
    assert!(back.latency < first.latency, "{spans:?}");
    println!("{spans:#?}");
}
