#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use bizra_proto::v1;
use proptest::prelude::*;

use super::*;

const OWNER: [u8; 32] = [9; 32];
const KEY: [u8; 32] = [5; 32];
const UNBONDING: u64 = 2;

/// The ledger as far as one owner sees it; the rules are those of the node's registry.
#[derive(Clone, Debug)]
struct World {
    view: OwnerView,
}

impl World {
    fn new(balance: u64) -> Self {
        let set = v1::GetValidatorSetResponse { epoch: 1, ..Default::default() };
        Self { view: OwnerView { balance, set, ..OwnerView::default() } }
    }

    fn money(&self) -> u64 {
        let validator = &self.view.validator;
        self.view.balance + validator.reserved_stake + validator.unbonding.iter().map(|part| part.amount).sum::<u64>()
    }

    fn collect(&mut self) {
        let epoch = self.view.set.epoch;
        let validator = &mut self.view.validator;
        let parts = std::mem::take(&mut validator.unbonding);
        let (mature, rest): (Vec<v1::Unbonding>, _) = parts.into_iter().partition(|part| part.epoch <= epoch);
        validator.unbonding = rest;
        self.view.balance += mature.iter().map(|part| part.amount).sum::<u64>();
    }

    /// Executes as the registry does; panics on what the registry would refuse: the saga asks for nothing like that.
    fn execute(&mut self, operation: &Operation, key: [u8; 32]) {
        self.view.nonce += 1;
        let may_vote = self.view.may_vote(&OWNER);
        match operation {
            Operation::Reserve(amount) => {
                self.collect();
                self.view.balance = self.view.balance.checked_sub(*amount).expect("InsufficientBalance");
                self.view.validator.reserved_stake += amount;
            }
            Operation::Register(name) => {
                assert!(!self.view.validator.registered, "AlreadyRegistered");
                assert!(self.view.validator.reserved_stake > 0, "InsufficientStake");
                self.view.validator.registered = true;
                self.view.validator.node_name.clone_from(name);
                self.view.validator.status = INACTIVE.to_owned();
            }
            Operation::Activate => {
                assert_eq!(self.view.validator.status, INACTIVE);
                self.view.validator.status = ACTIVE.to_owned();
                self.view.validator.consensus_key = key.to_vec();
            }
            Operation::Rotate => {
                assert_eq!(self.view.validator.status, ACTIVE);
                self.view.validator.consensus_key = key.to_vec();
            }
            Operation::Deactivate => {
                assert_eq!(self.view.validator.status, ACTIVE);
                self.view.validator.status = INACTIVE.to_owned();
            }
            Operation::Deregister => {
                assert!(self.view.validator.registered && self.view.validator.status != ACTIVE && !may_vote);
                self.view.validator.registered = false;
                self.view.validator.status.clear();
                self.view.validator.consensus_key.clear();
            }
            Operation::Release(amount) => {
                self.collect();
                let left = self.view.validator.reserved_stake.checked_sub(*amount).expect("InsufficientStake");
                assert!(!self.view.validator.registered || left > 0, "StakeInUse");
                self.view.validator.reserved_stake = left;
                let epoch = self.view.set.epoch + 1 + UNBONDING;
                self.view.validator.unbonding.push(v1::Unbonding { epoch, amount: *amount });
            }
            Operation::Collect => self.collect(),
        }
    }

    /// The next epoch's set is computed.
    fn cut_off(&mut self) {
        let validator = &self.view.validator;
        let members = (validator.status == ACTIVE).then(|| v1::ValidatorSetMember {
            owner: OWNER.to_vec(),
            consensus_key: validator.consensus_key.clone(),
            power: validator.reserved_stake,
            ..Default::default()
        });
        let next = v1::GetValidatorSetResponse {
            epoch: self.view.set.epoch + 1,
            members: members.into_iter().collect(),
            ..Default::default()
        };
        self.view.before = std::mem::replace(&mut self.view.set, next);
    }

    /// Goes on until there is nothing to do, and says which steps that took.
    fn run(&mut self, wish: &Wish<'_>) -> Vec<SagaStep> {
        let mut steps = Vec::new();
        let key = if let Wish::Member { key: Some(key), .. } = wish { *key } else { KEY };
        for _ in 0..64 {
            match next(&self.view, &OWNER, wish, 0) {
                Next::Step(operation) => {
                    steps.push(operation.step());
                    self.execute(&operation, key);
                }
                Next::Wait(reason) if ["Queued", "Leaving", "Unbonding"].contains(&reason.word.as_str()) => {
                    self.cut_off();
                }
                Next::Done => return steps,
                other => panic!("{other:?}"),
            }
        }
        panic!("it does not end: {:?}", self.view);
    }
}

fn member(stake: u64) -> Wish<'static> {
    Wish::Member { node: "reader-0", key: Some(KEY), stake }
}

#[test]
fn there_and_back_again_to_the_last_unit() {
    let mut world = World::new(1_000);
    assert_eq!(
        world.run(&member(600)),
        [SagaStep::ReserveStake, SagaStep::RegisterValidator, SagaStep::ActivateValidator]
    );
    assert_eq!((world.view.balance, world.view.validator.reserved_stake), (400, 600));
    let out =
        [SagaStep::DeactivateValidator, SagaStep::DeregisterValidator, SagaStep::ReleaseStake, SagaStep::CollectStake];
    assert_eq!(world.run(&Wish::Out), out);
    assert_eq!(world.view.balance, 1_000);
    assert_eq!(world.run(&Wish::Out), []);
}

#[test]
fn more_stake_is_a_top_up_and_less_unbonds() {
    let mut world = World::new(1_000);
    world.run(&member(600));
    assert_eq!(world.run(&member(700)), [SagaStep::ReserveStake]);
    assert_eq!(world.run(&member(200)), [SagaStep::ReleaseStake]);
    assert_eq!((world.view.balance, world.view.validator.reserved_stake), (300, 200));
    (0..=UNBONDING).for_each(|_| world.cut_off());
    assert_eq!(world.run(&member(200)), [SagaStep::CollectStake]);
    assert_eq!(world.view.balance, 800);
}

#[test]
fn another_node_is_a_way_out_and_a_way_in_with_the_stake_where_it_was() {
    let mut world = World::new(1_000);
    world.run(&member(600));
    let moved = Wish::Member { node: "reader-1", key: Some([6; 32]), stake: 600 };
    let steps = [
        SagaStep::DeactivateValidator,
        SagaStep::DeregisterValidator,
        SagaStep::RegisterValidator,
        SagaStep::ActivateValidator,
    ];
    assert_eq!(world.run(&moved), steps);
    let rotated = Wish::Member { node: "reader-1", key: Some([7; 32]), stake: 600 };
    assert_eq!(world.run(&rotated), [SagaStep::RotateConsensusKey], "the node has another key: its volume was lost");
}

#[test]
fn what_is_missing_is_said_and_nothing_is_sent() {
    let told = |world: &World, wish: &Wish<'_>, fee| match next(&world.view, &OWNER, wish, fee) {
        Next::Wait(reason) | Next::Stop(reason) => (reason.word, reason.message),
        other => panic!("{other:?}"),
    };
    let poor = World::new(599);
    let (reason, message) = told(&poor, &member(600), 0);
    assert_eq!(reason, "InsufficientBalance");
    assert!(message.contains("has 599 and needs 600") && message.contains("1 are missing"), "{message}");
    assert_eq!(told(&World::new(600), &member(600), 1).0, "InsufficientBalance", "the fee comes on top");

    let mut world = World::new(1_000);
    world.execute(&Operation::Reserve(600), KEY);
    world.execute(&Operation::Register("reader-0".to_owned()), KEY);
    let silent = Wish::Member { node: "reader-0", key: None, stake: 600 };
    assert_eq!(told(&world, &silent, 0).0, "NodeNotReady");
    world.view.validator.status = JAILED.to_owned();
    assert_eq!(told(&world, &member(600), 0).0, "Jailed");
    // A jailed one can leave: it is in no set any more.
    assert!(!world.run(&Wish::Out).is_empty());
}

#[test]
fn a_release_waits_while_the_chain_keeps_no_more_parts() {
    let mut world = World::new(1_000);
    world.run(&member(600));
    let epoch = world.view.set.epoch + 1;
    world.view.validator.unbonding = vec![v1::Unbonding { epoch, amount: 1 }; UNBONDING_MAX];
    assert!(matches!(next(&world.view, &OWNER, &member(500), 0), Next::Wait(reason) if reason.word == "Unbonding"));
    world.cut_off();
    assert_eq!(next(&world.view, &OWNER, &member(500), 0), Next::Step(Operation::Release(100)));
}

#[test]
fn only_what_stays_refused_is_definite() {
    assert_eq!(meaning(SagaStep::ActivateValidator, "KeyInUse"), Meaning::Definite);
    assert_eq!(meaning(SagaStep::RegisterValidator, "InsufficientStake"), Meaning::Definite);
    for passing in ["BadNonce", "Expired", "StaleKeyProof", "BlockBusy"] {
        assert_eq!(meaning(SagaStep::ActivateValidator, passing), Meaning::LookAgain);
    }
}

proptest! {
    #[test]
    fn whatever_is_wished_in_between_the_money_is_conserved_and_the_last_wish_comes_true(
        wishes in prop::collection::vec((0..4_u8, 1..500_u64, 0..6_usize), 1..8), stake in 1..500_u64,
    ) {
        let mut world = World::new(1_000);
        let wish = |kind: u8, stake: u64| match kind {
            0 => Wish::Out,
            1 => Wish::Member { node: "reader-1", key: Some([6; 32]), stake },
            _ => member(stake),
        };
        for (kind, stake, steps) in wishes {
            let wish = wish(kind, stake);
            let key = if let Wish::Member { key: Some(key), .. } = wish { key } else { KEY };
            for _ in 0..steps {
                match next(&world.view, &OWNER, &wish, 0) {
                    Next::Step(operation) => world.execute(&operation, key),
                    _ => world.cut_off(),
                }
                prop_assert_eq!(world.money(), 1_000);
            }
        }
        // Released parts come back before there is enough again.
        (0..=UNBONDING).for_each(|_| world.cut_off());
        world.run(&member(stake));
        prop_assert_eq!(world.view.validator.reserved_stake, stake);
        world.run(&Wish::Out);
        prop_assert_eq!(world.view.balance, 1_000);
    }
}
