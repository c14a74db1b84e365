//! Restarts by owners (PROTOCOL E6), as the ledger executes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{LedgerRestart, RestartError};
use super::*;
use crate::storage::StorageError;
use crate::validator::{Conduct, Member};

const EPOCH: u64 = 4;

type IsExpected = fn(&RestartError) -> bool;

fn member(owner: u8, consensus: u8, power: u64) -> Member {
    Member {
        owner: address(owner),
        name: format!("v{owner}"),
        consensus_key: public(consensus),
        power,
        conduct: Conduct::default(),
    }
}

/// A chain of 45 blocks with a fifth validator, and a restart there: owners 3 and 4 have new keys, 2 and 5 are left out,
/// and 6 is new, with the name of 2's node.
fn stopped() -> (World, LedgerRestart) {
    let mut world = world();
    world.join(5, 50_000);
    assert_eq!(world.act(1, &Operation::ReserveStake { amount: 3_000 }), None);
    world.run_to(45);
    let newcomer = Member { name: "v2".to_owned(), ..member(6, 106, 100) };
    let restart = LedgerRestart {
        number: 1,
        height: 45,
        block: world.blocks[45],
        block_epoch: 0,
        state: world.ledger.state_commitment().unwrap(),
        epoch: EPOCH,
        members: vec![member(1, 101, 100), member(3, 113, 100), member(4, 114, 100), newcomer],
        signers: [1, 2, 3].map(address).into(),
        domain: Digest([9; 32]),
    };
    (world, restart)
}

/// Executes the next block, of this epoch, with these restarts pinned.
fn next(world: &mut World, restarts: &[LedgerRestart], epoch: u64) -> Result<BlockOutcome, StorageError> {
    world.ledger = open_ledger(&world.database).with_restarts(Arc::new(restarts.to_vec()));
    let block = Block { epoch: Epoch(epoch), ..world.block(&[]) };
    let mut writes = world.database.writes();
    let outcome = world.ledger.execute(&block, &[], &mut writes)?;
    writes.commit_unsynced().unwrap();
    world.blocks.push(outcome.hash);
    world.executed.push((block, Vec::new()));
    Ok(outcome)
}

#[test]
fn the_commitment_between_checkpoints_is_that_of_the_checkpoint_where_there_is_one() {
    let mut world = world();
    world.join(5, 50_000);
    let mut seen = BTreeSet::new();
    while world.ledger.executed() < Height(64) {
        world.pay(6, 7, 5);
        let height = world.ledger.executed().0;
        let now = world.ledger.state_commitment().unwrap();
        assert!(seen.insert(now.0), "height {height}");
        if let Some(checkpoint) = world.ledger.checkpoint(height).unwrap() {
            assert_eq!(now, checkpoint.state, "height {height}");
        }
        assert_eq!(open_ledger(&world.database).state_commitment().unwrap(), now, "read back at height {height}");
    }
}

#[test]
fn a_restart_is_executed_with_the_first_block_after_it() {
    let (mut world, restart) = stopped();
    let pinned = [restart];
    let outcome = next(&mut world, &pinned, EPOCH).unwrap();
    assert_eq!(outcome.effects.len(), 1, "{:?}", outcome.effects);
    let set = world.ledger.validators_of_epoch(EPOCH).unwrap();
    assert_eq!((set.members.clone(), set.cutoff), (pinned[0].members.clone(), 46));
    assert_eq!(world.ledger.next_cutoff(), (EPOCH + 1) * 32);
    assert_eq!(world.ledger.validators_of_epoch(1), None, "the epoch that was named never begins");
    assert!(world.ledger.validators_of_epoch(0).is_some());
    verify_conservation(&world.database).unwrap();

    // Owners that were left out are inactive, and keep their money; the newcomer has the name.
    let status = |world: &World, owner: u8| match world.reader().validator(&address(owner), None).unwrap() {
        AtHeight::Found((validator, ..), _) => validator.map(|validator| validator.status),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(&world, 2), None);
    assert_eq!(status(&world, 5), Some(ValidatorStatus::Inactive));
    assert_eq!(world.stake(5).reserved, 50_000);
    assert_eq!(status(&world, 6), Some(ValidatorStatus::Active));

    // The chain goes on over checkpoints and the end of the epoch, and what is stored is what was committed to.
    while world.ledger.executed() < Height((EPOCH + 1) * 32) {
        next(&mut world, &pinned, EPOCH).unwrap();
    }
    verify_commitment(&world.database).unwrap();
    let after = world.ledger.validators_of_epoch(EPOCH + 1).unwrap();
    let as_named = |member: &Member| Member { conduct: Conduct::default(), ..member.clone() };
    let members: Vec<_> = after.members.iter().map(as_named).collect();
    assert_eq!(members, pinned[0].members, "nobody has changed anything");
    assert_eq!(after.members[0].conduct.turns.led, (EPOCH + 1) * 32 - 45, "turns before the restart do not count");
}

#[test]
fn a_restart_that_the_state_does_not_confirm_is_never_executed() {
    let (mut world, restart) = stopped();
    let cases: Vec<(LedgerRestart, IsExpected)> = vec![
        (LedgerRestart { state: Digest([1; 32]), ..restart.clone() }, |error| {
            matches!(error, RestartError::State { .. })
        }),
        (LedgerRestart { block: Digest([1; 32]), ..restart.clone() }, |error| {
            matches!(error, RestartError::Block { .. })
        }),
        (LedgerRestart { signers: [1, 2].map(address).into(), ..restart.clone() }, |error| {
            matches!(error, RestartError::Owners { signed: 200, total: 400, .. })
        }),
        // Consensus keys and a validator that joined too late weigh nothing.
        (LedgerRestart { signers: [1, 2, 5, 101, 102, 103].map(address).into(), ..restart.clone() }, |error| {
            matches!(error, RestartError::Owners { signed: 200, .. })
        }),
        (LedgerRestart { block_epoch: 3, ..restart.clone() }, |error| matches!(error, RestartError::NoSet { .. })),
    ];
    for (wrong, is_expected) in cases {
        assert!(next(&mut world, std::slice::from_ref(&wrong), EPOCH).is_err(), "{wrong:?}");
        let error = world.ledger.restarted_set(EPOCH).unwrap_err();
        assert!(is_expected(&error), "{error}");
        assert_eq!(open_ledger(&world.database).executed(), Height(45), "nothing was written");
    }
    // The old validators go on without having heard of it: not here.
    assert!(next(&mut world, std::slice::from_ref(&restart), 0).is_err());
    next(&mut world, &[restart], EPOCH).unwrap();
}

#[test]
fn of_two_restarts_at_one_block_the_later_one_is_executed() {
    let (mut world, first) = stopped();
    let second = LedgerRestart {
        number: 2,
        epoch: EPOCH + 3,
        members: vec![member(1, 121, 50), member(2, 122, 50)],
        domain: Digest([10; 32]),
        ..first.clone()
    };
    let pinned = [first, second.clone()];
    assert!(next(&mut world, &pinned, EPOCH).is_err());
    next(&mut world, &pinned, EPOCH + 3).unwrap();
    assert_eq!(world.ledger.validators_of_epoch(EPOCH), None);
    assert_eq!(world.ledger.validators_of_epoch(EPOCH + 3).unwrap().members, second.members);
}

#[test]
fn contradictions_are_judged_in_the_domain_of_their_epoch() {
    let (mut world, restart) = stopped();
    let evidence = |epoch: u64, consensus: u8, domain: Digest| {
        let vote = |digest: u8| {
            let (epoch, view, digest) = (Epoch(epoch), View(7), Digest([digest; 32]));
            let vote = Vote { epoch, view, kind: VoteKind::Notarize, digest };
            (vote, Signature(key(consensus).sign(&vote.signed_bytes(domain)).into()))
        };
        let (first, second) = (vote(1), vote(2));
        Operation::ReportEquivocation(Equivocation { public_key: public(consensus), first, second })
    };
    next(&mut world, std::slice::from_ref(&restart), EPOCH).unwrap();
    world.ledger = open_ledger(&world.database).with_restarts(Arc::new(vec![restart]));
    let (before, after) = (GENESIS_HASH, Digest([9; 32]));
    assert_eq!(world.act(7, &evidence(EPOCH, 101, before)), Some(Failure::InvalidEvidence));
    assert_eq!(world.act(7, &evidence(0, 101, after)), Some(Failure::InvalidEvidence));
    assert_eq!(world.act(7, &evidence(EPOCH, 101, after)), None);
}
