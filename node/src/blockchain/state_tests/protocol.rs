//! What the ledger makes of what blocks say of their makers and of contradictions.

use bizra_simplex::{Contradiction, SignedVote, Version};

use super::*;
use crate::validator::Report;

impl World {
    /// Executes a block of the epoch of a height, made by a validator that goes by this version.
    pub(super) fn run_made(
        &mut self,
        epoch: u64,
        proposer: u16,
        signals: u32,
        contradictions: Vec<Contradiction>,
    ) -> BlockOutcome {
        let (epoch, proposer, signals) = (Epoch(epoch), ValidatorIndex(proposer), Version(signals));
        let block = Block { epoch, proposer, signals, contradictions, ..self.block(&[]) };
        let mut writes = self.database.writes();
        let outcome = self.ledger.execute(&block, &[], &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        self.blocks.push(outcome.hash);
        self.executed.push((block, Vec::new()));
        outcome
    }

    fn version_of(&self, epoch: u64) -> u32 {
        self.ledger.validators_of_epoch(epoch).unwrap().version
    }
}

/// Two notarize votes that the validator behind an index of epoch 0 signed in one view.
pub(super) fn contradiction(epoch: u64, signer: u16) -> Contradiction {
    let Equivocation { first, second, .. } = equivocation(101 + signer as u8, epoch);
    let by_signer = |(vote, signature)| SignedVote { vote, signer: ValidatorIndex(signer), signature };
    Contradiction::new(by_signer(first), by_signer(second))
}

/// P1, P2.
#[test]
fn a_version_is_activated_at_the_cutoff_once_more_than_two_thirds_of_the_power_signal_it() {
    let mut world = world();
    assert_eq!(world.version_of(0), 2);
    // The first validator makes all other blocks here, and goes by version 1.
    world.run_made(0, 1, 4, Vec::new());
    world.run_made(0, 2, 3, Vec::new());
    world.run_to(31);
    assert_eq!(world.ledger.power_signalling(3), 200, "half of the power is not enough");
    // The cut-off's own block counts: three quarters go by version 3, one quarter by version 4.
    world.run_made(0, 3, 3, Vec::new());
    assert_eq!(
        (world.version_of(1), world.ledger.power_signalling(3), world.ledger.power_signalling(4)),
        (3, 300, 100)
    );
    assert_eq!(world.ledger.parameters().protocol_version, 3);
    // Signals survive a restart; the last one counts, and none takes back what was activated.
    world.ledger = open_ledger(&world.database);
    assert_eq!(world.ledger.power_signalling(4), 100);
    for proposer in 1..4 {
        world.run_made(1, proposer, 2, Vec::new());
    }
    world.run_to(64);
    assert_eq!((world.version_of(2), world.ledger.power_signalling(3)), (3, 0));
    verify_commitment(&world.database).unwrap();
}

/// P2: the set that begins must be able to run what the one that ends has agreed on.
#[test]
fn a_version_waits_for_a_quorum_of_the_next_set_too() {
    let mut world = world();
    world.join(5, 99_000);
    for proposer in [1, 2, 3] {
        world.run_made(0, proposer, 3, Vec::new());
    }
    // Validator 1 never signals: 300 of 400 are enough for the set that ends, 300 of 499 are not for the next one.
    world.run_to(32);
    assert_eq!((world.ledger.validators_of_epoch(1).unwrap().total(), world.version_of(1)), (499, 2));
    world.run_made(1, 4, 3, Vec::new());
    world.run_to(64);
    assert_eq!(world.version_of(2), 3);
}

#[test]
fn owners_cannot_set_the_version() {
    let mut world = world();
    let wanted = Parameters { protocol_version: 3, ..genesis().genesis.parameters };
    assert_eq!(world.act(1, &Operation::UpdateParameters(wanted)), Some(Failure::ProtocolVersionSignalled));
    // What they approved before a version was activated holds without undoing that.
    let wanted = Parameters { stake_per_power: 7, ..genesis().genesis.parameters };
    for owner in [1, 2, 3] {
        assert_eq!(world.act(owner, &Operation::UpdateParameters(wanted)), None);
    }
    (1..4).for_each(|proposer| drop(world.run_made(0, proposer, 3, Vec::new())));
    world.run_to(32);
    assert_eq!(*world.ledger.parameters(), Parameters { protocol_version: 3, ..wanted });
}

/// V7, E4.
#[test]
fn a_report_in_a_block_jails_as_a_transaction_does_and_is_told_once() {
    let mut world = world();
    assert_eq!(world.act(1, &Operation::ReserveStake { amount: 10_000 }), None);
    assert!(!world.ledger.is_reported(public(101), 0).unwrap());
    let outcome = world.run_made(0, 2, 2, vec![contradiction(0, 0), contradiction(0, 1)]);
    let report = |seed, slashed, failure| {
        let (owner, consensus_key) = (address(seed), public(100 + seed));
        Report { owner, consensus_key, slashed, failure }
    };
    assert_eq!(outcome.reports, [report(1, 500, None), report(2, 0, Some(Failure::JailingStopped))]);
    assert_eq!(world.stake(1).total(), 9_500);
    verify_conservation(&world.database).unwrap();
    for reopened in [false, true] {
        if reopened {
            world.ledger = open_ledger(&world.database);
        }
        assert!(world.ledger.is_reported(public(101), 9).unwrap(), "punished for good");
        assert!(world.ledger.is_reported(public(102), 0).unwrap());
        assert!(!world.ledger.is_reported(public(102), 1).unwrap(), "half of the power was jailed: again next epoch");
    }
    let outcome = world.run_made(0, 2, 2, vec![contradiction(0, 0)]);
    assert_eq!(outcome.reports, [report(1, 0, Some(Failure::AlreadyPunished))]);
    // A signature that is not the validator's changes nothing, and neither does one of an unknown validator.
    let mut forged = contradiction(0, 2);
    forged.second.signature = Signature([1; 64]);
    let outcome = world.run_made(0, 2, 2, vec![forged, contradiction(0, 7)]);
    assert_eq!(outcome.reports, [report(3, 0, Some(Failure::InvalidEvidence))]);
    world.run_to(32);
    assert_eq!(world.set_owners(32), [address(2), address(3), address(4)]);
    verify_commitment(&world.database).unwrap();
}
