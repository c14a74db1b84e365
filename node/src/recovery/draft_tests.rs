#![allow(clippy::unwrap_used)]

use bizra_simplex::VoteKind;

use super::super::document::{encode_block, encode_certificate};
use super::super::fixture::{CHAIN, block, genesis, public, validator};
use super::super::report::ReportedValidator;
use super::*;

fn finalize(epoch: u64, view: u64, block: &str) -> ReportedFinalize {
    ReportedFinalize { at: ReportedVote { epoch, view }, block: block.to_owned() }
}

/// The report of one of four validators, whose best block is this one; final is the one `above` lower.
fn report(node: u8, epoch: u64, height: u64, view: u64, kind: VoteKind) -> Report {
    let (block, certificate) = block(epoch, height, view, kind);
    let hash = genesis().hash.to_string();
    let above = vec![block.digest().to_string()];
    Report {
        version: Report::VERSION,
        chain_id: CHAIN.to_owned(),
        genesis_hash: hash.clone(),
        restarts: 0,
        previous: hash,
        node_name: format!("v{node}"),
        public_key: public(node),
        finalized_height: height - 1,
        finalized_hash: format!("{height:064}"),
        above,
        height,
        block: encode_block(&block),
        certificate: encode_certificate(&certificate),
        state_commitment: "05".repeat(32),
        latest_vote: Some(ReportedVote { epoch, view: view + 1 }),
        latest_finalize: Some(finalize(epoch, view, &"77".repeat(32))),
        validators: (1..=4)
            .map(|node| ReportedValidator {
                owner: public(100 + node),
                name: format!("v{node}"),
                public_key: public(node),
                power: 1,
            })
            .collect(),
    }
}

fn drafted(reports: &[Report], may_lose_finality: bool) -> Result<Draft, DraftError> {
    draft(reports, (1..=4).map(|owner| validator(owner, 10 + owner, 1)).collect(), may_lose_finality)
}

#[test]
fn the_block_of_the_highest_view_of_the_highest_epoch_is_chosen_and_its_epoch_is_above_every_vote() {
    let ahead =
        Report { latest_vote: Some(ReportedVote { epoch: 7, view: 1 }), ..report(1, 2, 30, 8, VoteKind::Finalize) };
    let Draft { document, reporting, total } =
        drafted(&[ahead, report(2, 2, 41, 9, VoteKind::Notarize)], false).unwrap();
    assert_eq!((document.height, document.epoch, reporting, total), (41, 10, 2, 4));
    document.check(&genesis()).unwrap();
    let later = [report(1, 3, 50, 1, VoteKind::Notarize), report(2, 2, 48, 90, VoteKind::Finalize)];
    assert_eq!(drafted(&later, false).unwrap().document.height, 50);
}

#[test]
fn nobody_goes_on_without_knowing_what_was_final_unless_the_owners_say_so() {
    let one = report(1, 2, 40, 9, VoteKind::Finalize);
    // Exactly a quarter of the power; a third would do.
    assert!(matches!(drafted(std::slice::from_ref(&one), false), Err(DraftError::MayLoseFinality { .. })));
    let Draft { document, .. } = drafted(std::slice::from_ref(&one), true).unwrap();
    assert!(document.may_lose_finality);
    // Its database was made anew after it had voted.
    let two = || report(2, 2, 40, 9, VoteKind::Finalize);
    let voted = |block: &str| Report { latest_finalize: Some(finalize(2, 10, block)), ..two() };
    let lost = drafted(&[one.clone(), voted(&"77".repeat(32))], false);
    assert!(matches!(lost, Err(DraftError::MayLoseFinality { .. })));
    // The same block again, as the last one of an epoch may be.
    drafted(&[one.clone(), voted(&one.above[0])], false).unwrap();
    let stranger = Report { public_key: public(50), ..report(9, 2, 40, 9, VoteKind::Finalize) };
    assert!(matches!(drafted(&[one, stranger], false), Err(DraftError::MayLoseFinality { .. })));
}

#[test]
fn reports_of_two_chains_make_no_document() {
    let one = || report(1, 2, 40, 9, VoteKind::Finalize);
    let two = || report(2, 2, 40, 9, VoteKind::Finalize);
    drafted(&[one(), two()], false).unwrap();
    for wrong in [
        Report { chain_id: "demo-2".to_owned(), ..two() },
        Report { genesis_hash: "11".repeat(32), ..two() },
        Report { restarts: 1, ..two() },
        Report { previous: "11".repeat(32), ..two() },
        Report { state_commitment: "06".repeat(32), ..two() },
        Report { finalized_hash: "11".repeat(32), ..two() },
        Report { version: 2, ..two() },
        Report { height: 41, ..two() },
        Report { public_key: public(1), ..two() },
    ] {
        assert!(matches!(drafted(&[one(), wrong.clone()], true), Err(DraftError::Report { .. })), "{wrong:?}");
    }
    assert!(matches!(drafted(&[], true), Err(DraftError::None)));
}
