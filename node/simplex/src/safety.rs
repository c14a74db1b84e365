//! Everything that keeps a validator from contradicting itself, in one place. Each `may_…` has a twin that asserts it;
//! the core signs nothing that did not pass through here.

use std::collections::BTreeMap;

use crate::planted::{Bug, planted};
use crate::types::{Digest, View};
use crate::vote::{Vote, VoteKind};

/// What this validator signed in one view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewVotes {
    /// Block proposed.
    pub proposed: Option<Digest>,
    /// Block notarized.
    pub notarized: Option<Digest>,
    /// Whether the view was nullified.
    pub nullified: bool,
    /// Block finalized.
    pub finalized: Option<Digest>,
}

impl ViewVotes {
    /// True if signing `vote`, for the first time, contradicts nothing signed in this view (V1, V3).
    pub fn allows(&self, vote: &Vote) -> bool {
        match vote.kind {
            VoteKind::Propose => self.proposed.is_none_or(|digest| digest == vote.digest),
            VoteKind::Notarize => {
                self.notarized.is_none_or(|digest| digest == vote.digest)
                    && (!self.nullified || planted(Bug::NotarizeAfterNullify))
            }
            VoteKind::Nullify => self.finalized.is_none() || planted(Bug::NullifyAfterFinalize),
            VoteKind::Finalize => {
                self.finalized.is_none_or(|digest| digest == vote.digest)
                    && (!self.nullified || planted(Bug::FinalizeAfterNullify))
            }
        }
    }

    /// True if exactly this vote was signed before.
    pub fn contains(&self, vote: &Vote) -> bool {
        match vote.kind {
            VoteKind::Propose => self.proposed == Some(vote.digest),
            VoteKind::Notarize => self.notarized == Some(vote.digest),
            VoteKind::Nullify => self.nullified,
            VoteKind::Finalize => self.finalized == Some(vote.digest),
        }
    }

    /// Notes a vote.
    pub fn insert(&mut self, vote: &Vote) {
        match vote.kind {
            VoteKind::Propose => self.proposed = Some(vote.digest),
            VoteKind::Notarize => self.notarized = Some(vote.digest),
            VoteKind::Nullify => self.nullified = true,
            VoteKind::Finalize => self.finalized = Some(vote.digest),
        }
    }

    /// The votes noted, as (kind, digest).
    pub fn votes(self) -> impl Iterator<Item = (VoteKind, Digest)> + use<> {
        [
            self.proposed.map(|digest| (VoteKind::Propose, digest)),
            self.notarized.map(|digest| (VoteKind::Notarize, digest)),
            self.nullified.then_some((VoteKind::Nullify, Digest::default())),
            self.finalized.map(|digest| (VoteKind::Finalize, digest)),
        ]
        .into_iter()
        .flatten()
    }
}

/// The votes of this validator, above a floor at and below which nothing new is signed.
#[derive(Clone, Debug, Default)]
pub struct Safety {
    floor: View,
    views: BTreeMap<View, ViewVotes>,
}

impl Safety {
    /// Restores what a signing record holds.
    pub fn restore(floor: View, votes: impl IntoIterator<Item = Vote>) -> Self {
        let mut views: BTreeMap<View, ViewVotes> = BTreeMap::new();
        for vote in votes {
            views.entry(vote.view).or_default().insert(&vote);
        }
        Self { floor, views }
    }

    /// What was signed in a view.
    pub fn votes(&self, view: View) -> ViewVotes {
        self.views.get(&view).copied().unwrap_or_default()
    }

    /// Views with votes, ascending, above `above`.
    pub fn views_above(&self, above: View) -> impl DoubleEndedIterator<Item = (View, ViewVotes)> + '_ {
        self.views.range(above.next()..).map(|(view, votes)| (*view, *votes))
    }

    /// True if `vote` may be signed for the first time, or is a re-send (V5).
    pub fn may_sign(&self, vote: &Vote) -> bool {
        let votes = self.votes(vote.view);
        votes.contains(vote) || (vote.view > self.floor && votes.allows(vote))
    }

    /// Notes that `vote` is being signed.
    ///
    /// # Panics
    /// If the vote contradicts an earlier one. The core asks [`Self::may_sign`] first; reaching this is a bug, and
    /// stopping is the only safe answer.
    pub fn sign(&mut self, vote: &Vote) {
        assert!(
            self.may_sign(vote),
            "refusing to contradict an earlier vote: {vote:?} after {:?}",
            self.votes(vote.view)
        );
        self.views.entry(vote.view).or_default().insert(vote);
    }

    /// Forgets views at or below `view`: they are finalised, and the floor keeps them closed.
    pub fn close(&mut self, view: View) {
        self.floor = self.floor.max(view);
        self.views = self.views.split_off(&view.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;
    use proptest::prelude::*;

    fn any_vote() -> impl Strategy<Value = Vote> {
        (1_u8..=4, 1_u64..4, 0_u8..3).prop_map(|(kind, view, digest)| {
            let kind = VoteKind::from_number(kind).unwrap_or(VoteKind::Nullify);
            let digest = if kind == VoteKind::Nullify { Digest::default() } else { Digest([digest; 32]) };
            Vote { epoch: Epoch(0), view: View(view), kind, digest }
        })
    }

    proptest! {
        #[test]
        fn no_sequence_of_allowed_votes_conflicts(
            wanted in prop::collection::vec(any_vote(), 0..40),
            restart in 0_usize..40,
        ) {
            let mut safety = Safety::default();
            let mut signed: Vec<Vote> = Vec::new();
            for (position, vote) in wanted.into_iter().enumerate() {
                if position == restart {
                    safety = Safety::restore(View(0), signed.clone());
                }
                if safety.may_sign(&vote) {
                    safety.sign(&vote);
                    prop_assert!(signed.iter().all(|earlier| !earlier.conflicts_with(&vote)));
                    // Never a notarize after the own nullify of that view.
                    let first = !signed.contains(&vote);
                    let nullified = signed.iter().any(|e| e.view == vote.view && e.kind == VoteKind::Nullify);
                    prop_assert!(!(first && nullified && matches!(vote.kind, VoteKind::Notarize | VoteKind::Finalize)));
                    signed.push(vote);
                }
            }
        }
    }

    #[test]
    fn at_or_below_the_floor_only_recorded_votes_are_repeated() {
        let vote = |view, digest| Vote {
            epoch: Epoch(0),
            view: View(view),
            kind: VoteKind::Notarize,
            digest: Digest([digest; 32]),
        };
        let safety = Safety::restore(View(5), [vote(5, 1)]);
        assert!(safety.may_sign(&vote(5, 1)));
        assert!(!safety.may_sign(&vote(5, 2)));
        assert!(!safety.may_sign(&Vote { kind: VoteKind::Nullify, digest: Digest::default(), ..vote(5, 1) }));
        assert!(!safety.may_sign(&vote(4, 1)));
        assert!(safety.may_sign(&vote(6, 1)));

        let mut safety = Safety::restore(View(0), [vote(5, 1), vote(6, 1)]);
        safety.close(View(5));
        assert!(!safety.may_sign(&vote(4, 1)) && !safety.may_sign(&vote(5, 1)));
        assert!(safety.views_above(View(0)).map(|(view, _)| view).eq([View(6)]));
    }
}
