//! Validators, epochs, commitments, history and proofs, on a real database.

#![allow(clippy::unwrap_used, clippy::panic)]

use bizra_driver::batch::Batch;
use bizra_proto::parameters::Parameters;
use bizra_simplex::block::Block;
use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Vote, VoteKind};
use bytes::Bytes;
use proptest::prelude::*;

use super::ledger::{BlockOutcome, Ledger};
use super::reader::AtHeight;
use super::{Failure, LedgerReader, forget_history, prune_ledger, verify_commitment, verify_conservation};
use crate::chain_testing::{GENESIS_HASH, address, genesis, genesis_block, key, open_ledger, public};
use crate::golden::assert_golden;
use crate::storage::{Database, Family};
use crate::transaction::{
    Address, ChainId, Equivocation, KeyProof, Operation, PayloadBuilder, Terms, TraceId, TransactionId, Transfer,
};
use crate::validator::{Stake, ValidatorStatus};

mod protocol;
mod reputation;
mod restart;

struct World {
    database: Database,
    ledger: Ledger,
    blocks: Vec<Digest>,
    executed: Vec<(Block, Vec<Batch>)>,
    nonces: [u64; 16],
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let ledger = open_ledger(&database);
    let blocks = vec![genesis_block().digest()];
    World { database, ledger, blocks, executed: Vec::new(), nonces: [0; 16], _folder: folder }
}

impl World {
    fn terms(&self, seed: u8) -> Terms {
        let nonce = self.nonces[usize::from(seed)];
        // Another expiry each time: the same transaction again would be a duplicate.
        let expiry_height = 5_000 + self.blocks.len() as u64;
        Terms { chain: ChainId::new("demo-1").unwrap(), nonce, fee: 1, expiry_height }
    }

    fn block(&self, batches: &[Batch]) -> Block {
        let height = self.ledger.executed().next();
        let digest = |batch: &Batch| batch.digest(GENESIS_HASH);
        let parent = self.blocks[self.blocks.len() - 1];
        let batches = batches.iter().map(digest).collect();
        Block { height, batches, ..Block::genesis(parent, height.0) }
    }

    fn run(&mut self, transactions: &[Bytes]) -> BlockOutcome {
        let batches: Vec<Batch> = batch(self.blocks.len() as u64, transactions).into_iter().collect();
        let block = self.block(&batches);
        let mut writes = self.database.writes();
        let outcome = self.ledger.execute(&block, &batches, &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        self.blocks.push(outcome.hash);
        self.executed.push((block, batches));
        outcome
    }

    /// Executes one operation in a block of its own.
    fn act(&mut self, owner: u8, operation: &Operation) -> Option<Failure> {
        let transaction = self.terms(owner).sign(operation, &key(owner)).unwrap();
        let failure = self.run(&[transaction]).receipts[0].failure;
        self.nonces[usize::from(owner)] += u64::from(failure.is_none());
        verify_conservation(&self.database).unwrap();
        failure
    }

    fn pay(&mut self, from: u8, to: u8, amount: u64) -> TransactionId {
        let Terms { chain, nonce, fee, expiry_height } = self.terms(from);
        let recipient = address(to);
        let bytes =
            Transfer { chain, nonce, fee, expiry_height, recipient, amount, memo: b"" }.sign(&key(from)).unwrap();
        self.nonces[usize::from(from)] += 1;
        assert_eq!(self.run(std::slice::from_ref(&bytes)).receipts[0].failure, None);
        TransactionId::of(&bytes)
    }

    fn run_to(&mut self, height: u64) {
        while self.ledger.executed() < Height(height) {
            self.run(&[]);
        }
    }

    fn proof(&self, owner: u8, consensus: u8, height: u64) -> KeyProof {
        let block = self.blocks[height as usize];
        let message = KeyProof::message(address(owner), height, block);
        let signature = Signature(key(consensus).sign(&message).into());
        KeyProof { public_key: public(consensus), height, block, signature }
    }

    fn recent_proof(&self, owner: u8, consensus: u8) -> KeyProof {
        self.proof(owner, consensus, self.ledger.executed().0)
    }

    fn reader(&self) -> LedgerReader {
        LedgerReader::new(self.database.clone())
    }

    fn balance(&self, seed: u8, height: u64) -> AtHeight<u64> {
        match self.reader().account(&address(seed), Some(height)).unwrap() {
            AtHeight::Found(account, height) => AtHeight::Found(account.balance, height),
            AtHeight::Pruned { oldest } => AtHeight::Pruned { oldest },
            AtHeight::Future { executed } => AtHeight::Future { executed },
        }
    }

    fn stake(&self, seed: u8) -> Stake {
        match self.reader().validator(&address(seed), None).unwrap() {
            AtHeight::Found((_, stake, _), _) => stake,
            other => panic!("{other:?}"),
        }
    }

    fn set_owners(&self, cutoff: u64) -> Vec<Address> {
        self.ledger.validators_at_cutoff(cutoff).unwrap().members.iter().map(|member| member.owner).collect()
    }

    /// Registers owner's validator with this much stake and activates it.
    fn join(&mut self, owner: u8, amount: u64) {
        assert_eq!(self.act(owner, &Operation::ReserveStake { amount }), None);
        assert_eq!(self.act(owner, &Operation::RegisterValidator { name: format!("v{owner}") }), None);
        let proof = self.recent_proof(owner, 100 + owner);
        assert_eq!(self.act(owner, &Operation::ActivateValidator(proof)), None);
    }
}

#[test]
fn a_stake_of_the_genesis_is_a_part_of_the_supply_and_can_be_taken_back() {
    let mut world = world();
    let mut staked = genesis();
    (staked.genesis.validators[0].power, staked.genesis.validators[0].stake) =
        ("101".to_owned(), Some("100999".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    world.database = Database::open(folder.path()).unwrap();
    let metrics = crate::blockchain::LedgerMetrics::new(&prometheus::Registry::new()).unwrap();
    world.ledger = Ledger::open(world.database.clone(), &staked.genesis, GENESIS_HASH, metrics).unwrap();
    let supply = world.reader().totals().unwrap();
    assert_eq!((supply.supply, supply.staked), (9_000_000 + 100_999, 100_999));
    assert_eq!(world.stake(1), Stake { reserved: 100_999, unbonding: Vec::new() });
    verify_conservation(&world.database).unwrap();
    // 100 of its power is the stake's, and one was granted.
    assert_eq!(world.act(1, &Operation::ReleaseStake { amount: 50_999 }), None);
    world.run_to(32);
    let set = world.ledger.validators_at_cutoff(32).unwrap();
    let power = set.members.iter().find(|member| member.owner == address(1)).unwrap().power;
    assert_eq!(power, 51);
    assert_eq!(world.stake(1).reserved, 50_000);
}

fn batch(sequence: u64, transactions: &[Bytes]) -> Option<Batch> {
    let mut builder = PayloadBuilder::default();
    for transaction in transactions {
        builder.push(TraceId::default(), transaction);
    }
    let payload = builder.finish()?;
    Some(Batch { epoch: Epoch(0), origin: ValidatorIndex(0), sequence, payload, signature: Signature([0; 64]) })
}

fn equivocation(consensus: u8, epoch: u64) -> Equivocation {
    let vote = |digest: u8| {
        let vote = Vote { epoch: Epoch(epoch), view: View(7), kind: VoteKind::Notarize, digest: Digest([digest; 32]) };
        (vote, Signature(key(consensus).sign(&vote.signed_bytes(GENESIS_HASH)).into()))
    };
    Equivocation { public_key: public(consensus), first: vote(1), second: vote(2) }
}

#[test]
fn a_validator_joins_at_the_next_cutoff_and_leaves_again() {
    let mut world = world();
    world.join(5, 50_000);
    assert_eq!(world.stake(5), Stake { reserved: 50_000, unbonding: Vec::new() });
    world.run_to(32);
    let set = world.ledger.validators_at_cutoff(32).unwrap();
    assert_eq!((set.epoch, set.cutoff, set.members.len(), set.members[4].power), (1, 32, 5, 50));
    assert_eq!(world.ledger.validators_at_cutoff(33), None);
    assert_eq!(world.ledger.validators_of_epoch(1), Some(set));

    assert_eq!(world.act(5, &Operation::DeregisterValidator), Some(Failure::StillValidating));
    assert_eq!(world.act(5, &Operation::DeactivateValidator), None);
    world.run_to(64);
    assert_eq!(world.set_owners(64).len(), 4);
    assert_eq!(world.act(5, &Operation::DeregisterValidator), Some(Failure::StillValidating), "it may vote still");
    world.run_to(96);
    assert_eq!(world.act(5, &Operation::DeregisterValidator), None);
    assert_eq!(world.act(5, &Operation::ReleaseStake { amount: 50_000 }), None);
    // Released in epoch 3, so it answers for the set after and two epochs more: until epoch 6, cut off at 192.
    world.run_to(191);
    for left in [50_000, 0] {
        // The transactions of block 192 come before its cut-off, those of block 193 after it.
        assert_eq!(world.act(5, &Operation::ReleaseStake { amount: 0 }), None);
        assert_eq!(world.stake(5).total(), left);
    }
}

#[test]
fn changes_that_do_not_fit_queue_in_their_order() {
    let mut world = world();
    for owner in 5..=7 {
        world.join(owner, 60_000);
    }
    // 60 and 120 of 400 are less than a third, 180 is not.
    world.run_to(32);
    assert_eq!(world.set_owners(32)[4..], [address(5), address(6)]);
    world.run_to(64);
    assert_eq!(world.set_owners(64)[4..], [address(5), address(6), address(7)]);
}

#[test]
fn every_way_to_fail_an_operation_has_its_own_receipt() {
    let mut world = world();
    let reserve = |amount| Operation::ReserveStake { amount };
    let register = |name: &str| Operation::RegisterValidator { name: name.to_owned() };
    assert_eq!(world.act(5, &reserve(2_000_000)), Some(Failure::InsufficientBalance));
    assert_eq!(world.act(5, &Operation::ReleaseStake { amount: 1 }), Some(Failure::InsufficientStake));
    assert_eq!(world.act(5, &register("v5")), Some(Failure::InsufficientStake));
    assert_eq!(world.act(5, &Operation::DeactivateValidator), Some(Failure::NotRegistered));
    assert_eq!(world.act(5, &reserve(2_000)), None);
    assert_eq!(world.act(5, &register("v1")), Some(Failure::NameTaken));
    assert_eq!(world.act(5, &register("v5")), None);
    assert_eq!(world.act(5, &register("v5")), Some(Failure::AlreadyRegistered));
    assert_eq!(world.act(5, &Operation::ReleaseStake { amount: 2_000 }), Some(Failure::StakeInUse));
    assert_eq!(world.act(5, &Operation::DeactivateValidator), Some(Failure::NotActive));
    let activate = Operation::ActivateValidator;
    let proof = world.recent_proof(5, 101);
    assert_eq!(world.act(5, &activate(proof)), Some(Failure::KeyInUse));
    let proof = KeyProof { public_key: public(105), ..world.recent_proof(5, 106) };
    assert_eq!(world.act(5, &activate(proof)), Some(Failure::InvalidKeyProof));
    let proof = world.recent_proof(6, 105);
    assert_eq!(world.act(5, &activate(proof)), Some(Failure::InvalidKeyProof), "made for another owner");
    let proof = KeyProof { block: Digest([1; 32]), ..world.recent_proof(5, 105) };
    assert_eq!(world.act(5, &activate(proof)), Some(Failure::StaleKeyProof));
    let proof = world.recent_proof(5, 105);
    assert_eq!(world.act(5, &activate(proof)), None);
    assert_eq!(world.act(5, &activate(proof)), Some(Failure::AlreadyActive));
    assert_eq!(world.act(5, &Operation::UpdateParameters(Parameters::default())), Some(Failure::NotAValidator));
    assert_eq!(world.act(5, &Operation::ReportEquivocation(equivocation(101, 9))), Some(Failure::EvidenceOutOfRange));
    assert_eq!(world.act(5, &Operation::ReportEquivocation(equivocation(99, 0))), Some(Failure::InvalidEvidence));
    let forged = Equivocation { public_key: public(101), ..equivocation(102, 0) };
    assert_eq!(world.act(5, &Operation::ReportEquivocation(forged)), Some(Failure::InvalidEvidence));
}

#[test]
fn a_key_proof_is_good_for_exactly_a_hundred_blocks() {
    let mut world = world();
    let old = world.proof(1, 111, 0);
    world.run_to(100);
    assert_eq!(world.act(1, &Operation::RotateConsensusKey(old)), Some(Failure::StaleKeyProof));
    let proof = world.proof(1, 111, 2);
    // In block 102 the header of block 2 is 100 blocks old; a restart changes nothing about that.
    world.ledger = open_ledger(&world.database);
    assert_eq!(world.act(1, &Operation::RotateConsensusKey(proof)), None);
    world.run_to(128);
    assert_eq!(world.ledger.validators_at_cutoff(128).unwrap().members[0].consensus_key, public(111));
    assert_eq!(world.ledger.validators_at_cutoff(96).unwrap().members[0].consensus_key, public(101));
}

#[test]
fn an_equivocation_jails_and_slashes_once_and_jailing_stops_before_a_third() {
    let mut world = world();
    assert_eq!(world.act(1, &Operation::ReserveStake { amount: 10_000 }), None);
    assert_eq!(world.act(1, &Operation::ReleaseStake { amount: 4_000 }), None);
    let report = |consensus, epoch| Operation::ReportEquivocation(equivocation(consensus, epoch));
    assert_eq!(world.act(9, &report(101, 0)), None);
    assert_eq!(world.stake(1).total(), 9_500, "5 % of what is reserved and of what unbonds");
    assert_eq!(world.reader().totals().unwrap().slashed, 500);
    assert_eq!(world.act(9, &report(101, 0)), Some(Failure::AlreadyPunished));
    assert_eq!(world.act(9, &report(102, 0)), Some(Failure::JailingStopped), "half of the power would be jailed");
    let proof = world.recent_proof(1, 111);
    assert_eq!(world.act(1, &Operation::ActivateValidator(proof)), Some(Failure::Jailed));
    world.run_to(32);
    assert_eq!(world.set_owners(32), [address(2), address(3), address(4)]);
    let AtHeight::Found((validator, ..), _) = world.reader().validator(&address(1), None).unwrap() else { panic!() };
    assert_eq!(validator.unwrap().status, ValidatorStatus::Jailed);
}

#[test]
fn parameters_need_more_than_two_thirds_and_hold_from_the_cutoff() {
    let mut world = world();
    let wanted = Parameters { stake_per_power: 7, ..genesis().genesis.parameters };
    let longer = Parameters { epoch_blocks: 64, ..wanted };
    assert_eq!(world.act(1, &Operation::UpdateParameters(longer)), Some(Failure::EpochLengthFixed));
    for owner in [1, 2] {
        assert_eq!(world.act(owner, &Operation::UpdateParameters(wanted)), None);
    }
    world.run_to(32);
    assert_eq!(*world.ledger.parameters(), genesis().genesis.parameters, "half is not enough");
    assert_eq!(world.act(3, &Operation::UpdateParameters(wanted)), None);
    world.run_to(63);
    assert_eq!(*world.ledger.parameters(), genesis().genesis.parameters);
    world.run_to(64);
    assert_eq!((*world.ledger.parameters(), world.ledger.next_cutoff()), (wanted, 96));
}

/// A long life: joins, payments, a jailing, cut-offs.
fn busy(world: &mut World, restart: bool) {
    world.join(5, 50_000);
    for round in 0..90 {
        if restart && round % 7 == 0 {
            world.ledger = open_ledger(&world.database);
        }
        world.pay(6, 7 + round % 3, 10 + u64::from(round));
        if round == 40 {
            let report = Operation::ReportEquivocation(equivocation(102, 1));
            assert_eq!(world.act(9, &report), None);
            // A third of the power would be jailed: remembered for this epoch.
            world.run_made(1, 0, 2, vec![protocol::contradiction(1, 2)]);
        }
    }
}

#[test]
fn the_commitment_is_that_of_the_whole_state_and_survives_restarts() {
    let (mut one, mut other) = (world(), world());
    assert_eq!(verify_commitment(&one.database).unwrap().height, Height(0));
    busy(&mut one, false);
    busy(&mut other, true);
    let checkpoint = verify_commitment(&one.database).unwrap();
    assert_eq!(checkpoint.height, Height(80));
    assert_eq!(one.ledger.checkpoint(80).unwrap(), Some(checkpoint));
    assert_eq!(other.ledger.checkpoint(80).unwrap(), Some(checkpoint));
    assert_eq!(one.ledger.checkpoint(81).unwrap(), None);
    // A changed entry is found.
    let mut writes = one.database.writes();
    writes.put(Family::Accounts, &address(3).0, &[1; 16]).unwrap();
    writes.commit_unsynced().unwrap();
    assert!(verify_commitment(&one.database).is_err());
}

#[test]
fn version_1_of_every_stored_form_never_changes() {
    let mut world = world();
    busy(&mut world, false);
    // One entry of every kind of key, in key order, after a life that fills them all.
    let mut now = String::new();
    for (family, name) in [
        (Family::Accounts, "accounts"),
        (Family::State, "state"),
        (Family::Ledger, "ledger"),
        (Family::History, "history"),
    ] {
        let mut kinds = std::collections::BTreeSet::new();
        for item in world.database.scan(family, &[]).unwrap() {
            let (key, value) = item.unwrap();
            // Addresses are of one kind. The lanes have a test of their own; behind them are the totals.
            let kind = if family == Family::Accounts { 0 } else { key[0] };
            if kinds.insert((kind, key.len())) {
                let value = value.get(2_048..).unwrap_or(&value);
                now += &[name, &hex::encode(&key), &hex::encode(value)].join(" ");
                now.push('\n');
            }
        }
    }
    assert_golden("blockchain/golden/stored.txt", &now);
}

#[test]
fn several_blocks_in_one_turn_have_the_checkpoint_of_one_turn_each() {
    let mut separate = world();
    busy(&mut separate, false);
    let mut together = world();
    let database = together.database.clone();
    let mut writes = database.writes();
    // The same blocks again, with one commit every 20 blocks: over checkpoints and cut-offs.
    for height in 1..=separate.ledger.executed().0 {
        let (block, batches) = &separate.executed[height as usize - 1];
        together.ledger.execute(block, batches, &mut writes).unwrap();
        if height.is_multiple_of(16) {
            assert_eq!(together.ledger.checkpoint(height).unwrap(), separate.ledger.checkpoint(height).unwrap());
        }
        if height.is_multiple_of(20) {
            std::mem::replace(&mut writes, database.writes()).commit_unsynced().unwrap();
        }
    }
    writes.commit_unsynced().unwrap();
    assert_eq!(verify_commitment(&database).unwrap(), verify_commitment(&separate.database).unwrap());
    verify_conservation(&database).unwrap();
}

#[test]
fn every_retained_height_is_remembered_and_the_rest_is_refused() {
    let mut world = world();
    let mut expected = vec![1_000_000];
    for round in 0..90_u64 {
        if round % 3 == 0 {
            world.pay(6, 7, 100 + round);
        } else {
            world.run(&[]);
        }
        let AtHeight::Found(balance, height) = world.balance(7, round + 1) else { panic!() };
        assert_eq!(height, round + 1);
        expected.push(balance);
    }
    let total: u64 = (0..90).step_by(3).map(|round| 100 + round).sum();
    assert_eq!(expected[90], 1_000_000 + total);
    for (height, &balance) in (0..).zip(&expected) {
        assert_eq!(world.balance(7, height), AtHeight::Found(balance, height));
    }
    assert_eq!(world.balance(7, 91), AtHeight::Future { executed: 90 });
    assert_eq!(world.balance(15, 40), AtHeight::Found(0, 40));

    let mut writes = world.database.writes();
    prune_ledger(&mut writes, 0, 50).unwrap();
    writes.commit_unsynced().unwrap();
    forget_history(&world.database, 50, 90);
    let entries = || world.database.scan(Family::History, &[]).unwrap().count();
    let before = entries();
    world.database.compact(Family::History).unwrap();
    assert!(entries() < before, "compaction drops what no retained height needs");
    assert_eq!(world.balance(7, 49), AtHeight::Pruned { oldest: 50 });
    for (height, &balance) in (0..).zip(&expected).skip(50) {
        assert_eq!(world.balance(7, height), AtHeight::Found(balance, height));
    }
    assert_eq!(world.reader().checkpoint(48).unwrap(), None);
    assert!(world.reader().checkpoint(64).unwrap().is_some());
}

#[test]
fn a_transaction_is_proven_against_its_checkpoint_only() {
    let mut world = world();
    let mut ids = Vec::new();
    for amount in 1..=20 {
        ids.push((amount, world.pay(6, 7, amount)));
    }
    let first = ids[2].1;
    let reader = world.reader();
    let proof = reader.proof(&first, &[first]).unwrap().unwrap();
    let root = |height| world.ledger.checkpoint(height).unwrap().unwrap().receipts;
    assert_eq!((proof.height, proof.checkpoint), (3, 16));
    assert_eq!(proof.verify(root(16)), Ok(None));
    assert!(proof.verify(root(0)).is_err());
    let mut lie = proof.clone();
    lie.outcome = Failure::BadNonce as u8;
    assert!(lie.verify(root(16)).is_err());
    let mut lie = proof.clone();
    lie.height = 4;
    assert!(lie.verify(root(16)).is_err());
    // Its checkpoint is not executed yet.
    assert_eq!(reader.proof(&ids[18].1, &[ids[18].1]).unwrap(), None);
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let amount = 0_u64..80_000;
    prop_oneof![
        amount.clone().prop_map(|amount| Operation::ReserveStake { amount }),
        amount.prop_map(|amount| Operation::ReleaseStake { amount }),
        (5_u8..8).prop_map(|name| Operation::RegisterValidator { name: format!("v{name}") }),
        Just(Operation::DeregisterValidator),
        Just(Operation::DeactivateValidator),
        (1_u8..8, 0_u64..3).prop_map(|(seed, epoch)| Operation::ReportEquivocation(equivocation(100 + seed, epoch))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn money_is_conserved_at_every_block_and_the_commitment_follows(
        steps in proptest::collection::vec((1_u8..8, any_operation(), any::<bool>()), 1..80),
    ) {
        let mut world = world();
        for (owner, operation, activate) in steps {
            let operation = if activate { Operation::ActivateValidator(world.recent_proof(owner, 100 + owner)) } else { operation };
            // Conservation is checked after each.
            world.act(owner, &operation);
        }
        verify_commitment(&world.database).unwrap();
    }
}

#[path = "snapshot_tests.rs"]
mod snapshots;
