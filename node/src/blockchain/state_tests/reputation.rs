//! What the ledger makes of turns to lead (PROTOCOL T2).

use bizra_simplex::{Reputation, Turns};

use super::*;
use crate::validator::{Conduct, ValidatorSetRecord};

impl World {
    /// Executes a block that the leader of this view has made.
    fn run_in_view(&mut self, epoch: u64, view: View) {
        let proposer = self.set(epoch).validator_set().unwrap().leader(view);
        let block = Block { epoch: Epoch(epoch), view, proposer, ..self.block(&[]) };
        let mut writes = self.database.writes();
        let outcome = self.ledger.execute(&block, &[], &mut writes).unwrap();
        writes.commit_unsynced().unwrap();
        self.blocks.push(outcome.hash);
        self.executed.push((block, Vec::new()));
    }

    /// Executes blocks to a height; the views of this validator are given up.
    fn run_without(&mut self, absent: Option<u16>, epoch: u64, from: View, height: u64) -> View {
        let leaders = self.set(epoch).validator_set().unwrap();
        let mut view = from;
        while self.ledger.executed() < Height(height) {
            if Some(leaders.leader(view).0) != absent {
                self.run_in_view(epoch, view);
            }
            view = view.next();
        }
        view
    }

    fn set(&self, epoch: u64) -> ValidatorSetRecord {
        (*self.ledger.validators_of_epoch(epoch).unwrap()).clone()
    }

    fn turns(&self, seed: u8) -> Turns {
        match self.reader().validator(&address(seed), None).unwrap() {
            AtHeight::Found((_, _, turns), _) => turns,
            other => panic!("{other:?}"),
        }
    }

    fn conduct(&self, epoch: u64, index: usize) -> Conduct {
        self.set(epoch).members[index].conduct
    }
}

#[test]
fn missed_turns_shrink_the_share_of_turns_and_never_the_power() {
    let mut world = world();
    let begun = world.run_without(Some(3), 0, View(1), 20);
    assert_eq!((world.turns(4), world.turns(1)), (Turns { led: 0, missed: 6 }, Turns { led: 6, missed: 0 }));
    // What was counted is in the state: a restart changes nothing.
    world.ledger = open_ledger(&world.database);
    let begun = world.run_without(Some(3), 0, begun, 32);
    let absent = world.conduct(1, 3);
    let missed = Turns { led: 0, missed: 10 };
    assert_eq!(absent, Conduct { reputation: Reputation::FULL.after(missed), turns: missed });
    for index in 0..3 {
        assert_eq!(world.conduct(1, index).reputation, Reputation::FULL);
    }
    let (set, voters) = (world.set(1), world.set(1).voters());
    assert_eq!((voters[3].power, voters[3].reputation), (voters[0].power, absent.reputation));
    assert_eq!(world.turns(4), Turns::default(), "a cut-off begins the count anew");
    // E1: the boundary names who leads, and so does what it is compared with after a restart.
    let mut whole = set.clone();
    whole.members[3].conduct = Conduct::default();
    assert_ne!(set.hash(), whole.hash());
    world.ledger = open_ledger(&world.database);
    assert_eq!(world.set(1), set);
    assert_eq!(ValidatorSetRecord::decode(&set.encode()).unwrap(), set);

    // The last blocks of the epoch count for the one after the next.
    world.run_without(Some(3), 0, begun, 40);
    assert_eq!(world.turns(4), Turns { led: 0, missed: 3 });
    // It is back: fewer turns at first, all of them counted, all of its power in turns soon.
    world.run_without(None, 1, View(1), 64);
    let back = world.conduct(2, 3);
    assert_eq!((back.turns.missed, back.turns.led > 0), (3, true));
    for epoch in 2..6 {
        world.run_without(None, epoch, View(1), 32 * (epoch + 1));
    }
    assert_eq!(world.conduct(6, 3).reputation, Reputation::FULL);
    verify_commitment(&world.database).unwrap();
}

#[test]
fn reputation_follows_the_owner_to_a_new_key() {
    let mut world = world();
    world.run_without(Some(3), 0, View(1), 30);
    let proof = world.recent_proof(4, 77);
    assert_eq!(world.act(4, &Operation::RotateConsensusKey(proof)), None);
    world.run_to(32);
    let member = world.set(1).members[3].clone();
    assert_eq!(member.consensus_key, public(77));
    assert_eq!(member.conduct.turns.led, 0);
    assert!(member.conduct.reputation < Reputation::FULL);
}

#[test]
fn who_joins_has_all_the_reputation_there_is() {
    let mut world = world();
    world.join(5, 30_000);
    world.run_to(32);
    let joined = world.set(1).members.into_iter().find(|member| member.owner == address(5)).unwrap();
    assert_eq!(joined.conduct, Conduct::default());
}
