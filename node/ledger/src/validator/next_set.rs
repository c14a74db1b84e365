//! The set of the next epoch, from the present one and what validators want (PROTOCOL E3, E4). Pure.
//!
//! Jailed members leave at once. Every other change is taken in the order it was asked for, as long as
//! - all changes together, jailings included, stay below a third of the old and of the new total power (E3);
//! - no member leaves a set of four or fewer, and nobody comes to hold a third of the power or more (E4).
//!
//! What does not fit stays in the queue for the next epoch. A network that began with fewer than four validators, or
//! with one that holds a third, runs on and may grow: E4 forbids changes for the worse, not the state it began with.

use std::collections::BTreeSet;

use bizra_proto::ceremony::VALIDATORS_MAX;
use bizra_simplex::planted::{Bug, planted};

use super::record::{Member, ValidatorSetRecord};
use bizra_transaction::Address;

/// No change may leave fewer validators than this (E4).
const MEMBERS_MIN: usize = 4;

/// What became of a wanted change, or who waits.
pub(super) struct NextMembers {
    /// Members of the next set.
    pub(super) members: Vec<Member>,
    /// Owners whose change did not fit.
    pub(super) queued: Vec<Address>,
}

/// A validator as its owner wants it in the set; `None` in place of the member means out of the set.
pub(super) struct Wanted {
    pub(super) owner: Address,
    pub(super) queued_at: u64,
    pub(super) member: Option<Member>,
}

fn total(members: &[Member]) -> u128 {
    members.iter().map(|member| u128::from(member.power)).sum()
}

/// Power that changes hands: all of it with a new key, else the difference.
fn cost(old: Option<&Member>, new: Option<&Member>) -> u128 {
    match (old, new) {
        (None, None) => 0,
        (Some(member), None) | (None, Some(member)) => member.power.into(),
        (Some(old), Some(new)) if old.consensus_key == new.consensus_key => old.power.abs_diff(new.power).into(),
        (Some(old), Some(new)) => old.power.max(new.power).into(),
    }
}

/// E4: nobody holds a third who did not hold at least that share before.
fn holders_are_no_stronger(before: &[Member], after: &[Member]) -> bool {
    let (total_before, total_after) = (total(before), total(after));
    after.iter().all(|member| {
        let power = u128::from(member.power);
        let had = before.iter().find(|old| old.owner == member.owner).map_or(0, |old| u128::from(old.power));
        3 * power < total_after || power * total_before <= had * total_after
    })
}

pub(super) fn next_members(
    current: &ValidatorSetRecord,
    jailed: &BTreeSet<Address>,
    mut wanted: Vec<Wanted>,
) -> NextMembers {
    let old_total = total(&current.members);
    let mut members = current.members.clone();
    members.retain(|member| !jailed.contains(&member.owner) || planted(Bug::JailedStays));
    if members.is_empty() {
        // Jailing stops before a third of the power (E4), so this is a set of jailed members only: impossible, and
        // a network without validators would be the worse answer.
        members.clone_from(&current.members);
    }
    let mut spent = old_total - total(&members);
    let mut queued = Vec::new();
    wanted.sort_by_key(|change| (change.queued_at, change.owner));
    for Wanted { owner, member, .. } in wanted {
        let position = members.iter().position(|member| member.owner == owner);
        let old = position.and_then(|position| members.get(position));
        if old == member.as_ref() {
            continue;
        }
        let cost = cost(old, member.as_ref());
        let mut changed = members.clone();
        match (position, member) {
            (Some(position), Some(member)) => changed[position] = member,
            (Some(position), None) => drop(changed.remove(position)),
            (None, Some(member)) => changed.push(member),
            (None, None) => {}
        }
        let new_total = total(&changed);
        let within_a_third =
            (3 * (spent + cost) < old_total && 3 * (spent + cost) < new_total) || planted(Bug::ChangeUnbounded);
        let enough = changed.len() >= members.len() || changed.len() >= MEMBERS_MIN;
        let fits = changed.len() <= VALIDATORS_MAX && i64::try_from(new_total).is_ok();
        let shared = holders_are_no_stronger(&members, &changed) || planted(Bug::ThirdHeld);
        if within_a_third && enough && fits && shared {
            spent += cost;
            members = changed;
        } else {
            queued.push(owner);
        }
    }
    NextMembers { members, queued }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reputation::Conduct;
    use super::*;

    fn member(owner: u8, key: u8, power: u64) -> Member {
        let (name, conduct) = (format!("v{owner}"), Conduct::default());
        Member { owner: Address([owner; 32]), name, consensus_key: [key; 32], power, conduct }
    }

    fn set(powers: &[u64]) -> ValidatorSetRecord {
        let members = (1..).zip(powers).map(|(owner, &power)| member(owner, owner, power)).collect();
        ValidatorSetRecord { epoch: 0, cutoff: 0, version: 1, members }
    }

    fn join(owner: u8, queued_at: u64, power: u64) -> Wanted {
        Wanted { owner: Address([owner; 32]), queued_at, member: Some(member(owner, owner, power)) }
    }

    fn leave(owner: u8) -> Wanted {
        Wanted { owner: Address([owner; 32]), queued_at: 0, member: None }
    }

    fn next(current: &ValidatorSetRecord, jailed: &[u8], wanted: Vec<Wanted>) -> (Vec<u8>, Vec<u8>) {
        let jailed = jailed.iter().map(|&owner| Address([owner; 32])).collect();
        let NextMembers { members, queued } = next_members(current, &jailed, wanted);
        (members.iter().map(|member| member.owner.0[0]).collect(), queued.iter().map(|owner| owner.0[0]).collect())
    }

    #[test]
    fn changes_below_a_third_happen_in_their_order_and_the_rest_queues() {
        let four = set(&[1; 4]);
        assert_eq!(next(&four, &[], vec![join(6, 8, 1), join(5, 7, 1)]), (vec![1, 2, 3, 4, 5], vec![6]));
        // A third of the old total exactly is too much.
        assert_eq!(next(&set(&[1; 3]), &[], vec![join(4, 1, 1)]), (vec![1, 2, 3], vec![4]));
        let rotated = Wanted { owner: Address([2; 32]), queued_at: 3, member: Some(member(2, 99, 1)) };
        let result = next_members(&four, &BTreeSet::new(), vec![rotated]);
        assert_eq!((result.members[1].consensus_key, result.members.len()), ([99; 32], 4));
    }

    #[test]
    fn nobody_leaves_four_and_nobody_comes_to_hold_a_third() {
        assert_eq!(next(&set(&[1; 4]), &[], vec![leave(4)]), (vec![1, 2, 3, 4], vec![4]));
        assert_eq!(next(&set(&[1; 5]), &[], vec![leave(4)]), (vec![1, 2, 3, 5], vec![]));
        let five = set(&[30, 30, 30, 30, 30]);
        let raise = |power| vec![Wanted { member: Some(member(1, 1, power)), ..join(1, 1, 0) }];
        assert_eq!(next(&five, &[], raise(59)).1, Vec::<u8>::new());
        assert_eq!(next(&five, &[], raise(60)).1, [1]);
    }

    #[test]
    fn a_network_of_one_can_grow() {
        let one = set(&[100]);
        assert_eq!(next(&one, &[], vec![join(2, 1, 33)]), (vec![1, 2], vec![]));
        assert_eq!(next(&one, &[], vec![join(2, 1, 34)]), (vec![1], vec![2]));
    }

    #[test]
    fn jailing_is_exempt_but_counts_as_change() {
        assert_eq!(next(&set(&[1; 4]), &[2], vec![join(5, 1, 1)]), (vec![1, 3, 4], vec![5]));
    }

    proptest! {
        #[test]
        fn every_next_set_keeps_the_limits(
            powers in prop::collection::vec(1_u64..50, 1..9),
            changes in prop::collection::vec((1_u8..14, 0_u64..60, any::<bool>(), 0_u64..5), 0..12),
        ) {
            let current = set(&powers);
            let mut seen = BTreeSet::new();
            let wanted = changes.into_iter().filter(|(owner, ..)| seen.insert(*owner)).map(|(owner, power, key, at)| {
                let key = if key { owner } else { owner + 100 };
                let member = (power > 0).then(|| member(owner, key, power));
                Wanted { owner: Address([owner; 32]), queued_at: at, member }
            }).collect();
            let next = next_members(&current, &BTreeSet::new(), wanted).members;
            let find = |members: &[Member], owner: u8| members.iter().find(|m| m.owner.0[0] == owner).cloned();
            let changed: u128 = (1..14)
                .map(|owner| cost(find(&current.members, owner).as_ref(), find(&next, owner).as_ref())).sum();
            prop_assert!(changed == 0 || (3 * changed < total(&current.members) && 3 * changed < total(&next)));
            prop_assert!(next.len() >= current.members.len().min(MEMBERS_MIN));
            let third = |members: &[Member]| members.iter().any(|m| 3 * u128::from(m.power) >= total(members));
            prop_assert!(third(&current.members) || !third(&next));
        }
    }
}
