//! Before its first new signature after a start, a node learns from a quorum which view its key signed last (S5).
//!
//! What this cannot see: a signature that no answering peer ever received. It counts as Byzantine behaviour of this
//! key, and a conflict with it is evidence.

use std::collections::BTreeSet;

use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Millis, ValidatorIndex};
use bizra_simplex::{SignedVote, ValidatorSet};

use crate::driver::Fence;
use crate::signing_record::SigningRecord;

/// Time between two rounds of questions, in milliseconds.
const ASK_INTERVAL: u64 = 500;

/// Whether this node may sign.
#[derive(Debug)]
pub(crate) enum Lock {
    /// A full node: never.
    NotAValidator,
    /// Told not to: never, and nobody is asked.
    Fenced,
    /// Still asking.
    Asking { answered: BTreeSet<ValidatorIndex>, ask_again: Millis },
    /// A quorum has answered and knows nothing beyond the record.
    Open,
}

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not enough yet, or not asked.
    Wait,
    /// Signing is allowed from now on.
    Open,
    /// This vote of the own key is beyond the record: another copy of the key has signed.
    Elsewhere(SignedVote),
}

impl Lock {
    pub(crate) fn new(fence: Fence, me: Option<ValidatorIndex>, validators: &ValidatorSet) -> Self {
        match me {
            _ if fence == Fence::Closed => Self::Fenced,
            None => Self::NotAValidator,
            Some(me) if validators.is_quorum([me]) || planted(Bug::ClaimNotAwaited) => Self::Open,
            Some(_) => Self::Asking { answered: BTreeSet::new(), ask_again: Millis(0) },
        }
    }

    /// True if it is time to ask all peers (again).
    pub(crate) fn ask_now(&mut self, now: Millis) -> bool {
        match self {
            Self::Asking { ask_again, .. } if *ask_again <= now => {
                *ask_again = now.plus(ASK_INTERVAL);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn next_question(&self) -> Option<Millis> {
        match self {
            Self::Asking { ask_again, .. } => Some(*ask_again),
            Self::NotAValidator | Self::Fenced | Self::Open => None,
        }
    }

    /// A validator's answer: the highest vote of our key it has seen; the vote's signature is verified already.
    pub(crate) fn answer(
        &mut self,
        from: ValidatorIndex,
        highest: Option<SignedVote>,
        me: ValidatorIndex,
        validators: &ValidatorSet,
        record: &SigningRecord,
    ) -> Answer {
        let Self::Asking { answered, .. } = self else {
            return Answer::Wait;
        };
        if let Some(vote) = highest {
            let beyond = (vote.vote.epoch, vote.vote.view) > record.floor() && !record.contains(&vote.vote);
            if beyond && !planted(Bug::ClaimUnchecked) {
                return Answer::Elsewhere(vote);
            }
        }
        answered.insert(from);
        if validators.is_quorum(answered.iter().copied().chain([me])) {
            *self = Self::Open;
            return Answer::Open;
        }
        Answer::Wait
    }
}
