//! Plans: one fault at one place of what an undisturbed run has done. All of them are derived from the trace of such runs, and
//! are named by what they hit, so that a plan is the same in the next campaign.

use std::collections::BTreeMap;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing: a false alarm would show here.
    Calm,
    /// A write is done and answered; then the operator dies.
    Seen,
    /// A write is done; the operator dies before the answer.
    Lost,
    /// The operator dies on the way to a write, which is not done.
    Unsent,
    /// A write is done, the connection breaks before the answer, and the operator lives.
    Cut,
    /// A write is not done, the connection breaks, and the operator lives.
    Refused,
    /// From a write on, the watch of what was written tells nothing for a while.
    Held,
    /// The operator dies after a write; for a while its successor's watches tell of the world as it was right before.
    Rewound,
    /// The same, but as it was before the user's change.
    RewoundFar,
    /// A watch does not tell of a change, nor of later ones of the same object, until it has to list anew.
    Missed,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 10] = [
        Self::Calm,
        Self::Seen,
        Self::Lost,
        Self::Unsent,
        Self::Cut,
        Self::Refused,
        Self::Held,
        Self::Rewound,
        Self::RewoundFar,
        Self::Missed,
    ];

    /// In the name of a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Seen => "seen",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::Held => "held",
            Self::Rewound => "rewound",
            Self::RewoundFar => "rewound-far",
            Self::Missed => "missed",
        }
    }

    /// True if the operator dies of it.
    pub(crate) fn kills(self) -> bool {
        matches!(self, Self::Seen | Self::Lost | Self::Unsent | Self::Rewound | Self::RewoundFar)
    }
}

/// One fault at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub workload: &'static str,
    pub mode: Mode,
    /// The write or the event that is hit, such as `create pods/demo-v0`, and the how manyth of its sort since the change.
    pub place: Option<(String, usize)>,
}

impl Plan {
    /// The same in every campaign.
    pub(crate) fn name(&self) -> String {
        let start = format!("{}/{}", self.workload, self.mode.name());
        match &self.place {
            None => start,
            Some((key, number)) => format!("{start}/{}#{number}", key.replace(' ', ":")),
        }
    }
}

/// Every plan that a trace has in it.
pub(crate) fn derive(workload: &'static str, writes: &[String], events: &[String]) -> Vec<Plan> {
    let mut plans = vec![Plan { workload, mode: Mode::Calm, place: None }];
    for place in numbered(writes) {
        let modes = [Mode::Seen, Mode::Lost, Mode::Unsent, Mode::Cut, Mode::Refused, Mode::Held];
        // A status is nobody's cause to destroy something: other causes are written beside it.
        let is_status = place.0.ends_with("/status");
        let of_former_worlds = [Mode::Rewound, Mode::RewoundFar].into_iter().filter(|_| !is_status);
        let hit = |mode| Plan { workload, mode, place: Some(place.clone()) };
        plans.extend(modes.into_iter().chain(of_former_worlds).map(hit));
    }
    plans.extend(numbered(events).into_iter().map(|place| Plan { workload, mode: Mode::Missed, place: Some(place) }));
    plans
}

/// Each key with the how manyth of its sort it is.
fn numbered(keys: &[String]) -> Vec<(String, usize)> {
    let mut seen: BTreeMap<&String, usize> = BTreeMap::new();
    keys.iter()
        .map(|key| {
            let number = seen.entry(key).or_default();
            *number += 1;
            (key.clone(), *number)
        })
        .collect()
}

/// What two traces have in common, in the order of the first: the rest is chance.
pub(crate) fn common(one: &[String], other: &[String]) -> Vec<String> {
    let other = numbered(other);
    numbered(one).into_iter().filter(|place| other.contains(place)).map(|(key, _)| key).collect()
}

/// About so many plans, spread evenly over workloads and modes.
pub(crate) fn spread(plans: Vec<Plan>, limit: usize) -> Vec<Plan> {
    let mut groups: BTreeMap<(&str, Mode), Vec<Plan>> = BTreeMap::new();
    for plan in plans {
        groups.entry((plan.workload, plan.mode)).or_default().push(plan);
    }
    let mut groups: Vec<Vec<Plan>> = groups.into_values().collect();
    // What small groups leave is for the large ones.
    groups.sort_by_key(Vec::len);
    let (mut left, mut number) = (limit, groups.len());
    let mut chosen = Vec::new();
    for (turn, group) in groups.into_iter().enumerate() {
        // With fewer plans than groups some have none; not always those of the same mode.
        let share = if left >= number {
            left / number
        } else {
            usize::from(turn * left / number != (turn + 1) * left / number)
        };
        let share = share.min(group.len());
        chosen.extend((0..share).map(|index| group[(2 * index + 1) * group.len() / (2 * share)].clone()));
        left -= share;
        number -= 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn every_write_is_hit_in_every_mode_and_every_event_is_missed_once() {
        let writes = keys(&["create pods/a", "update networks/demo/status", "create pods/a"]);
        let plans = derive("w", &writes, &keys(&["ADDED pods/a"]));
        assert_eq!(plans.len(), 1 + 8 + 6 + 8 + 1);
        let names: Vec<String> = plans.iter().map(Plan::name).collect();
        for name in
            ["w/calm", "w/lost/create:pods/a#2", "w/held/update:networks/demo/status#1", "w/missed/ADDED:pods/a#1"]
        {
            assert!(names.contains(&name.to_owned()), "{name} of {names:?}");
        }
    }

    #[test]
    fn what_only_one_run_has_done_is_no_place() {
        assert_eq!(common(&keys(&["a", "b", "a"]), &keys(&["c", "a", "b"])), ["a", "b"]);
    }

    #[test]
    fn a_limit_is_spread_over_workloads_and_modes() {
        let writes: Vec<String> = (0..20).map(|number| format!("create pods/{number}")).collect();
        let all: Vec<Plan> = ["x", "y"].into_iter().flat_map(|workload| derive(workload, &writes, &writes)).collect();
        let some = spread(all.clone(), 100);
        assert_eq!(some.len(), 100);
        for workload in ["x", "y"] {
            for mode in Mode::ALL {
                assert!(some.iter().any(|plan| plan.workload == workload && plan.mode == mode), "{workload} {mode:?}");
            }
        }
        assert!(spread(all.clone(), 7).len() <= 7);
        assert_eq!(spread(all.clone(), 10_000).len(), all.len());
    }
}
