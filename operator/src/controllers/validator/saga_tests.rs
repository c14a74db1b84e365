#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use bizra_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::controllers::validator::small_ledger::{KEY, SmallLedger, UNBONDING, operation};

const OWNER: [u8; 32] = [9; 32];

/// The ledger, of which the saga asks for nothing that it would refuse.
struct World(SmallLedger);

impl std::ops::Deref for World {
    type Target = SmallLedger;

    fn deref(&self) -> &SmallLedger {
        &self.0
    }
}

impl std::ops::DerefMut for World {
    fn deref_mut(&mut self) -> &mut SmallLedger {
        &mut self.0
    }
}

impl World {
    fn new(balance: u64) -> Self {
        Self(SmallLedger::new(OWNER, balance))
    }

    fn execute(&mut self, wanted: &Operation, key: [u8; 32]) {
        self.0.execute(&operation(wanted, key)).unwrap();
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
fn it_is_done_when_the_set_has_the_power_that_the_stake_gives_and_who_would_hold_a_third_is_told() {
    let mut world = World::new(10_000);
    let other = v1::ValidatorSetMember { owner: vec![1; 32], power: 2_000, ..Default::default() };
    world.view.set.members = vec![other];
    world.run(&member(600));
    assert_eq!(world.view.member(&OWNER).map(|member| member.power), Some(600));
    let waits = |world: &World, stake| match next(&world.view, &OWNER, &member(stake), 0) {
        Next::Wait(reason) => reason,
        other => panic!("{other:?}"),
    };
    world.execute(&Operation::Reserve(300), KEY);
    assert_eq!(waits(&world, 900).word, "Queued");
    world.cut_off();
    assert_eq!(next(&world.view, &OWNER, &member(900), 0), Next::Done);
    world.execute(&Operation::Reserve(100), KEY);
    let told = waits(&world, 1_000);
    assert_eq!(told.word, "ShareTooLarge");
    assert!(told.message.contains("1000 of 3000") && told.message.contains("power 900"), "{}", told.message);
    // Nodes of an earlier version do not say what power the stake gives.
    world.view.validator.power = 0;
    assert_eq!(next(&world.view, &OWNER, &member(1_000), 0), Next::Done);
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
