//! The consensus core: Simplex, stake-weighted, with data ordered by digest and executed after order.
//!
//! This documentation is the specification; comments in the code name the rule they implement. The core is a pure
//! state machine: [`State::step`] takes an [`Event`] and returns [`Effect`]s. It does no I/O, reads no clock, draws no
//! random numbers, and never panics on what an event contains.
//!
//! # Protocol
//!
//! `N` validators hold power; a *quorum* is strictly more than 2/3 of it; less than 1/3 is Byzantine. Time is divided
//! into *views*, each with one leader. In a view, a validator
//!
//! 1. as leader, proposes one block on the best parent it knows: the highest certified view below, with a nullification
//!    for every view between ([`Proposal`] carries the parent's certificate);
//! 2. notarizes the leader's block if its parent is certified, every view between parent and block is nullified, and
//!    every batch it orders is held, verified and durable;
//! 3. nullifies the view if its timer expires or the leader's block can never be valid;
//! 4. on a notarization (a quorum of notarize votes), enters the next view and, unless it nullified this one, finalizes
//!    the block;
//! 5. on a nullification (a quorum of nullify votes), enters the next view;
//! 6. on a finalization (a quorum of finalize votes), commits the block and all its ancestors.
//!
//! ## Votes
//! * **V1** Per (epoch, view) a validator proposes at most once and notarizes at most once; it never notarizes after its
//!   own nullify of that view.
//! * **V2** It finalizes block b of view v only while holding notarization(b), and never after its own nullify of v.
//! * **V3** It may nullify any view that it has not finalized, also after notarizing in it. Finalize and nullify of one
//!   view are mutually exclusive, for ever.
//! * **V4** It notarizes only a well-formed block of the view's leader whose parent is notarized or finalised, with a
//!   nullification held for every view between parent and block.
//! * **V5** Re-sending a recorded vote is always allowed. Everything else passes [`Safety`], which asserts V1 and V3 on
//!   every signature.
//! * **V6** Two conflicting signed votes are [`Effect::Evidence`].
//!
//! ## Views, timers, pacing
//! * **T1** A notarization or nullification of v enters v+1. A quorum of finalize(b) finalises b and everything below.
//! * **T2** Leaders: stake-weighted rotation ([`ValidatorSet::leader`]), fixed for the epoch.
//! * **T3** Timeout = base × 2^k, capped; k counts consecutive nullified views and is reset by finality. Only at k = 0 a
//!   leader whose last view was nullified gets a quarter of it, and the whole at every eighth turn.
//! * **T4** With batches to order a leader proposes [`Timing::min_view_milliseconds`] after the last proposal; idle, after
//!   [`Timing::heartbeat_milliseconds`]. Followers count from the later of entering the view and first holding an
//!   unordered batch, but from entry + heartbeat at the latest.
//!
//! ## Certificates, gaps, restart
//! * **R1** A certificate formed or first received is persisted before anything that follows from it is sent, and
//!   forwarded once to all. Missing certificates are fetched by view, the leader first.
//! * **R2** Everything above the last finalised block is kept and served ([`State::block`], [`State::certificates`]).
//! * **R3** At start, and then every resend interval, a node re-sends its own unfinalised votes, its highest certificate
//!   and the last finalization. After a start a recorded vote for a block is sent again only once the block's bodies are
//!   held: the signing record may be ahead of the database. [`Safety`], restored from the signing record, decides what may be signed, not the fact of a restart:
//!   a network of which every node restarted in the same view goes on.
//! * **R4** Messages of future views are kept within [`FUTURE_VIEWS_MAX`]; see also [`PENDING_MAX`], [`TREE_BLOCKS_MAX`].
//!
//! ## Headers and epochs
//! * **H1** A header names a [`Checkpoint`]: an executed height below the block's with a commitment to the state after it;
//!   the one its parent names, or the next one, so that none is skipped. Validators vote only once they executed that height themselves and found the same
//!   ([`Effect::Check`]). Heights divisible by [`block::CHECKPOINT_INTERVAL`] are checkpoints; a block more than
//!   [`block::CHECKPOINT_LAG_MAX`] above the one it names orders nothing.
//! * **E1** The last block of an epoch, its *boundary*, is the first whose checkpoint reaches the epoch's cut-off height
//!   ([`Config::cutoff`]). It carries the hash of the next epoch's validators, which the state at the cut-off names.
//! * **E2** The only valid child of a notarized boundary is that same block again, proposed anew until a view finalises
//!   it ([`Proposal::is_repeated`]). The next epoch is a [`State`] of its own: views from 1, and the boundary as the block
//!   below the first ([`Anchor::first`]).
//!
//! # Why it is safe
//!
//! Let b be finalised in view v. A quorum signed finalize(v, b), so more than 1/3 of the power is honest and signed it;
//! by V3 none of that power ever nullifies v, so no nullification of v exists. By V1 and quorum intersection no other
//! block is notarized in v. Any block notarized in a view above v has a chain of certified parents in which every
//! skipped view is nullified (V4); v cannot be skipped, and the only certified block of v is b: every later block
//! descends from b, or is b proposed again (E2). Hence no two finalised blocks conflict.
//!
//! Across epochs: nothing descends from a boundary within its epoch, so whatever is final in an epoch is the boundary or
//! below it, and the next epoch begins on exactly one block, with exactly the validators that a quorum of the old ones
//! signed for. A vote names its epoch, so votes of one epoch never count in another.
//!
//! # Deviations from the Simplex paper (Chan and Pass, 2023)
//!
//! * Powers instead of counts.
//! * Votes name digests; bodies travel apart as batches and must be held before any vote (data availability).
//! * A node finalizes on a notarization even if it did not notarize itself.
//! * A lagging node jumps to the view after the highest certificate it sees, and fetches what lies between.
//! * Timers back off exponentially and adapt to bad leaders; the paper's are fixed at 3Δ.
//! * Vote equivocation is detected and reported.
//! * Epochs: the validator set changes at a boundary block that is proposed until it is final.
//! * Headers commit to executed state, some blocks late, so that ordering does not wait for execution.

pub mod block;
mod certificate;
mod event;
mod pacing;
pub mod planted;
mod proposal;
mod round;
mod rules;
mod safety;
mod state;
mod tree;
pub mod types;
mod validators;
mod vote;

pub use block::{Block, Boundary, Checkpoint};
pub use certificate::Certificate;
pub use event::{Effect, Event, Message, Record, Token, Verdict, Want};
pub use pacing::Timing;
pub use proposal::Proposal;
pub use safety::{Safety, ViewVotes};
pub use state::{BestTip, Config, FUTURE_VIEWS_MAX, PENDING_MAX, State, TREE_BLOCKS_MAX, WALK_BLOCKS_MAX};
pub use tree::Anchor;
pub use validators::{VALIDATORS_MAX, ValidatorSet, ValidatorSetError};
pub use vote::{SignedVote, Vote, VoteKind};
