//! What enters and leaves the core.

use crate::block::{Block, Boundary, Checkpoint};
use crate::certificate::Certificate;
use crate::proposal::Proposal;
use crate::types::{Digest, Height, Millis, ValidatorIndex, View};
use crate::vote::{Contradiction, SignedVote, Vote};

/// What validators say to each other. Everything in it is untrusted until [`Event::Verified`] says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A leader's block.
    Proposal(Proposal),
    /// One vote; never of kind propose, which travels as a proposal.
    Vote(SignedVote),
    /// A quorum's votes.
    Certificate(Certificate),
}

/// Something a node lacks and any peer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// A block above the last finalised one.
    Block(Digest),
    /// Whatever certificate a peer has for a view.
    View(View),
}

/// Is what a block orders in hand?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every body is held, verified, and durable before anything this turn signs is sent (D2); the header's checkpoint
    /// and boundary are what this node computed itself (H1, E1).
    Held,
    /// The block can never be valid: it orders a batch that is invalid, out of date or final already, or names a state
    /// or a validator set that is not the one computed here.
    Invalid,
}

/// Identifies a pending verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// An input of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// First event after construction or recovery.
    Started,
    /// Time has passed.
    Tick,
    /// This node may sign from now on (S5). Never sent to a full node.
    SigningAllowed,
    /// A message of a peer. A validator outside the set may send too: a full node relays certificates.
    Received(Message),
    /// Answer to [`Effect::Verify`]: whether all its signatures are valid.
    Verified(Token, bool),
    /// Answer to [`Effect::Sign`], after the signing record was synced.
    Signed(SignedVote),
    /// Whether there are verified batches that the best chain does not order yet.
    Work(bool),
    /// Answer to [`Effect::Build`].
    Built {
        /// The view to propose in.
        view: View,
        /// The parent it was built for.
        parent: Digest,
        /// Batches to order.
        batches: Vec<Digest>,
        /// Wall clock of the proposer, milliseconds since 1970.
        time_milliseconds: u64,
        /// The checkpoint after the one the parent names, if this node has executed it; else any that is not above.
        checkpoint: Checkpoint,
        /// What to say of the next epoch if the block turns out to be the last of this one; `None` while the cut-off
        /// height is not executed.
        boundary: Option<Boundary>,
        /// Contradictions that the chain below the block does not report (V7), ascending; none that [`Effect::Build`]'s
        /// ancestors do.
        contradictions: Vec<Contradiction>,
    },
    /// Answer to [`Effect::Check`]; may come long after.
    Checked(Digest, Verdict),
    /// A block that was wanted.
    Fetched(Block),
    /// Finalised blocks in ascending order and a finalization of the last, from a peer; nothing verified yet.
    Range(Vec<Block>, Certificate),
}

/// Something to be durable before anything of the same turn is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A block above the last finalised one, needed to serve peers and to go on after a restart.
    Block(Block),
    /// A certificate above the last finalised block (R1).
    Certificate(Certificate),
}

/// An order of the core to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check these signatures and answer with [`Event::Verified`].
    Verify(Token, Vec<SignedVote>),
    /// Write to the signing record, sync, sign, answer with [`Event::Signed`]. A vote that is recorded already is
    /// signed again without a new entry (V5).
    Sign(Vote),
    /// Make durable before this turn sends anything.
    Persist(Record),
    /// Send to every other validator.
    Broadcast(Message),
    /// Choose batches for a block on this parent; answer with [`Event::Built`].
    Build {
        /// The view to propose in.
        view: View,
        /// The parent, which is held with all its ancestors down to the last finalised block.
        parent: Digest,
        /// Unfinalised ancestors of the new block, whose batches must not be named again (D3).
        ancestors: Vec<Block>,
    },
    /// Obtain and verify what this block orders, compare what its header claims with what was executed here; answer with
    /// [`Event::Checked`] when it is decided.
    Check {
        /// The block.
        block: Block,
        /// A peer that should hold the bodies: the leader that proposed it.
        leader: ValidatorIndex,
    },
    /// Ask peers for this, one after the other; asked again every resend interval while it lacks.
    Fetch(Want, Option<ValidatorIndex>),
    /// More than a few finalised blocks are missing: fetch ranges up to this height.
    CatchUp(Height),
    /// These blocks are final, in ascending order without gaps; the certificate finalises the last. If that carries a
    /// boundary, the epoch is over ([`crate::State::is_over`]) and nothing else is signed in it.
    Commit(Vec<Block>, Certificate),
    /// Wake the core with [`Event::Tick`] at this time; replaces the timer before.
    SetTimer(Millis),
    /// Two votes of one validator that contradict each other (V6).
    Evidence(SignedVote, SignedVote),
}
