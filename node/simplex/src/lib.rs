//! The consensus core: Simplex, stake-weighted, with data ordered by digest and executed after order.
//!
//! This documentation is the specification. Every rule has a name, a letter and a number; comments in the code name the rule
//! that they implement, and tests the rule that they show. Rules of data (D), headers (H), keys (S) and versions (P) that
//! need bodies, state or disks are implemented by the driver, whose documentation tells how; those of money and stakes by
//! the ledger. A rule found wrong is changed here, with its reason, and never worked around.
//!
//! The core is a pure state machine: [`State::step`] takes an [`Event`] and returns [`Effect`]s. It does no I/O, reads no
//! clock, draws no random numbers, and never panics on what an event contains.
//!
//! # Protocol
//!
//! `N` validators hold power; a *quorum* is strictly more than 2/3 of the epoch's total; less than 1/3 is Byzantine. Time is
//! divided into *views*, each with one leader. A vote signs (domain, genesis hash, epoch, view, kind, digest). In a view, a
//! validator
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
//! * **V6** Two conflicting signed votes are [`Effect::Evidence`]: kept, and told once to everybody.
//! * **V7** A leader puts the contradictions it holds into its block ([`Block::contradictions`]) until the chain has them:
//!   at most [`CONTRADICTIONS_MAX`], of validators of the block's epoch and the [`block::CONTRADICTION_EPOCHS`] before, one
//!   of a validator and epoch, ascending. A block that tells what is false (a signature, no conflict), or again what an
//!   ancestor of its epoch has told or the ledger has punished, is invalid. Whoever checks a report keeps it. The ledger
//!   judges each as it judges an owner's transaction, before the block's own transactions; nobody pays. From version 2 on.
//!
//! ## Views, timers, pacing
//! * **T1** A notarization or nullification of v enters v+1. A quorum of finalize(b) finalises b and everything below.
//! * **T2** Leaders: rotation ([`ValidatorSet::leader`]) weighted with power × [`Reputation`], fixed for the epoch by what
//!   the state at its boundary names. A block names the view it is first proposed in ([`Block::view`]), which is its
//!   proposal's; so the chain tells whose turns between a block and its parent came to nothing. At each cut-off the
//!   reputation of the next epoch follows from the turns since the one before ([`Reputation::after`]): never below an
//!   eighth, whole again within a few epochs. Quorums count power alone.
//! * **T3** Timeout = base × 2^k, capped ([`Timing::cap_milliseconds`], above the assumed maximum delay); k counts
//!   consecutive views that were nullified, or that this node gave up before they were notarized, and is reset by
//!   finality. Only at k = 0 a leader whose last view was nullified gets a quarter of it, and the whole at every eighth
//!   turn; success restores it. Local knowledge touches liveness only.
//! * **T4** With batches to order a leader proposes [`Timing::min_view_milliseconds`] after the last proposal; idle, after
//!   [`Timing::heartbeat_milliseconds`]. Followers count from the later of entering the view and first holding an
//!   unordered batch, but from entry + heartbeat at the latest. A proposal for a view to come does not hold up the present
//!   leader.
//!
//! ## Certificates, gaps, restart
//! * **R1** A certificate formed or first received is persisted before anything that follows from it is sent, and
//!   forwarded once to all. A proposal carries its parent's; missing ones are fetched by view, the leader first.
//! * **R2** Everything above the last finalised block is kept and served ([`State::block`], [`State::certificates`]). Below
//!   it, finalised blocks with certificates are, by the driver.
//! * **R3** At start, and then every resend interval, a node re-sends its own unfinalised votes, its highest certificate
//!   and the last finalization. After a start a recorded vote for a block is sent again only once the block's bodies are
//!   held: the signing record may be ahead of the database. [`Safety`], restored from the signing record, decides what may
//!   be signed, not the fact of a restart: a network of which every node restarted in the same view goes on.
//! * **R4** Whatever anybody may send is kept within a bound:
//!
//! | bound | stops |
//! | --- | --- |
//! | [`FUTURE_VIEWS_MAX`] views above the present one | votes of one validator for views that are years away |
//! | one vote of a kind, validator and view; one accusation | a validator that signs another digest with every message |
//! | [`PENDING_MAX`] messages under verification | a flood that queues signature checks faster than they are made |
//! | [`TREE_BLOCKS_MAX`] blocks above the last finalised one | Byzantine leaders in a row, each with a new block, without finality |
//! | [`WALK_BLOCKS_MAX`] blocks fetched one by one | a distant finalization that has a node ask for a chain link by link |
//! | `RESEND_VIEWS_MAX` views of own votes sent again | a resend that grows with the time since the last finality |
//! | [`block::BATCHES_PER_BLOCK_MAX`], [`CONTRADICTIONS_MAX`] | a leader whose block takes everybody long to read or check |
//! | [`VALIDATORS_MAX`] signers of a certificate | a certificate that takes long to read |
//!
//! The driver adds those of bodies, of other epochs and of questions.
//!
//! ## Data
//! * **D1** A batch (origin, sequence, bytes, origin's signature) is valid or not by itself. Nonce, fee, balance and expiry
//!   are judged at execution.
//! * **D2** A vote for a block means: every body is held, verified, and covered by a sync that finished before the vote
//!   ([`Verdict::Held`]).
//! * **D3** A block that names a digest already in an ancestor, or a batch of an epoch before the last one, is invalid. The
//!   core compares with unfinalised ancestors when it asks for the check, the driver with finalised ones.
//! * **D4**, **D5** See the driver.
//!
//! ## Headers
//! * **H1** A header names a [`Checkpoint`]: an executed height below the block's, the one its parent names or the next
//!   one, with a commitment to the state after it. Validators vote only once they executed it themselves and found the same
//!   ([`Effect::Check`]). Heights divisible by [`block::CHECKPOINT_INTERVAL`] are checkpoints; a block more than
//!   [`block::CHECKPOINT_LAG_MAX`] above the one it names orders nothing.
//! * **H2**, **H3** Commitments, receipts and events are the ledger's.
//! * **H4** Header time never falls and is informational.
//!
//! ## Epochs
//! * **E1** The last block of an epoch, its *boundary*, is the first whose checkpoint reaches the epoch's cut-off height
//!   ([`Config::cutoff`]). It carries the hash of the next epoch's validators, which the state at the cut-off names, the
//!   version of its rules, and the Merkle root over the canonical snapshot at the cut-off before.
//! * **E2** The only valid child of a notarized boundary is that same block again, proposed anew until a view finalises
//!   it ([`Proposal::is_repeated`]): the same digest, so the same maker, view and signal. The next epoch is a [`State`] of its
//!   own: views from 1, and the boundary as the block below the first ([`Anchor::first`]).
//! * **E3**, **E4** What may change at a boundary is the ledger's to limit; **E5** light clients walk boundaries.
//! * **E6** After the loss of a third of the power owners may end an epoch at a notarized block that they name
//!   ([`Config::restarted_at`]): it is final by their word and its notarization, nothing above it ever is, and the epoch that
//!   they name begins on it as on a boundary. Who may say so, and that no finalised block is above it, is the node's to
//!   check; the driver signs the votes of that epoch in a domain of its own.
//!
//! ## Versions
//! * **P1** Every block names its maker ([`Block::proposer`], the leader of the view in which it is first proposed) and the
//!   highest version of the rules that this one goes by ([`Block::signals`], at least that of the epoch). The state keeps
//!   the last signal of each consensus key.
//! * **P2** At the cut-off the next epoch takes the highest version that more than two thirds of the power signal, of the
//!   ending set and of the beginning one. A version never falls. It is part of the state at the cut-off, and the boundary
//!   names it (E1): nobody needs to have followed the signals to know it.
//! * **P3** A node enters an epoch only if it knows its version ([`Protocol::known`]); else it stops before it signs or
//!   executes anything there (`UpgradeRequired`), and goes on from its disk once it is upgraded.
//! * **P4** Versions differ in what [`Protocol::rules`] returns and in nothing else. The form of messages and blocks has
//!   a version of its own, in each frame and at the door ([`Protocol`] is not negotiated between peers: the chain decides).
//!
//! ## Keys
//! * **S1**–**S6** The signing record and what precedes a signature are the driver's and the node's. The core signs nothing
//!   before [`Event::SigningAllowed`] (S5), and takes a vote as said only with [`Event::Signed`], after the record's sync (S2).
//!
//! # Why it is safe
//!
//! *Lemma 1: at most one block is notarized in a view, and none is finalised in a nullified one.* Two quorums of one epoch
//! share more than 1/3 of the power, so an honest validator is in both. By V1 it notarizes one block a view; by V3 it does
//! not sign both finalize and nullify of a view, also not over a restart (S2, S3: the record is durable before a signature
//! exists).
//!
//! *Lemma 2: if b is finalised in view v, every certified block of a later view of the epoch descends from b, or is b again
//! (E2).* A quorum signed finalize(v, b), so by lemma 1 there is no nullification of v; and by V2 b is what was notarized in v,
//! alone. Take the lowest later view w whose certified block c does not descend from b. Some honest validator notarized c, so
//! by V4 its parent is certified in a view u < w, with every view between nullified: v cannot be among those, so u ≥ v. If
//! u = v the parent is b; if u > v the parent descends from b, as w was the lowest. Either way c does. If c is proposed again,
//! V4 holds for its own notarization in place of its parent's, and the same reasoning applies.
//!
//! So no two finalised blocks of an epoch conflict: the one finalised in the later view descends from the other.
//!
//! *Across epochs.* Nothing descends from a boundary within its epoch (E2), so whatever is final in an epoch is the boundary
//! or below it, and the next epoch begins on exactly one block. Its validators and its version are those that this block
//! names, and a quorum of the old ones has compared them with what it executed itself (H1). A vote names its epoch, so votes
//! of one epoch never count in another.
//!
//! *Across versions.* Which rules hold is a function of the epoch alone, and the epoch's first block and version are agreed
//! upon by the rules of the epoch before. All who vote in an epoch therefore go by the same rules: who does not know them
//! is not there (P3). The argument above uses no rule that differs between versions; a version whose rules touched V, R or E
//! would need one of its own. Signals of liars move nothing alone: they hold less than 1/3.
//!
//! *Contradictions.* An honest key never signs two conflicting votes (lemma 1's S2, S3), so no report with valid signatures
//! names an honest validator, and a block with an invalid one gets no quorum (V7).
//!
//! # Why it is live
//!
//! Let messages arrive within Δ from some moment on, and let the timer's cap exceed what a view takes then.
//!
//! 1. *Views are entered together.* Who enters a view has its certificate, persists it and forwards it once (R1), and again
//!    until a newer one is there (R3). So all honest validators are in a view within Δ of the first.
//! 2. *Every view ends.* Either some honest validator holds its notarization, which takes everybody on (T1); or none does, then
//!    none has finalized in it (V2), so every one may nullify it when its timer expires (V3), and they are a quorum.
//! 3. *A view with an honest leader ends well.* It can build: the view below is certified, and what lies further down is
//!    fetched (R1). Its block waits for nobody: the leader holds its bodies and hands them out, and an origin that hands out too
//!    slowly is named only once a quorum holds what it made (D4); the state it names is that of finalised blocks, whose finalization is sent again (R3), so followers can
//!    execute them. Timers grow to 2^k × base while views fail (T3), so at last nobody nullifies before the notarization is
//!    there, 2Δ after the proposal, and the finalization one Δ later.
//! 4. *Honest leaders come.* The rotation gives each its share, and never less than an eighth of what its power would (T2). A quarter of the timer (T3) is given only while views
//!    succeed, and every eighth turn of a suspected leader is whole, so a slow network does not shut anybody out for ever.
//! 5. *Epochs end.* The cut-off is reached by blocks, also by empty ones; execution reaches it, and the boundary is
//!    proposed until it is final (E2). While execution lags, blocks order nothing (H1) and it catches up.
//! 6. *Restarts.* What was signed is said again (R3), and S5 asks nobody for more than peers answer while they start.
//!
//! A version that is activated takes its laggards' power out of 3 and 4 until they are upgraded. More than 2/3 have
//! signalled it, so that many run it unless some lied; with f liars and f laggards the epoch waits for a laggard. It is never
//! unsafe to wait.
//!
//! # Deviations from the Simplex paper (Chan and Pass, 2023)
//!
//! * Powers instead of counts; leaders by weighted rotation instead of a hash, so that shares are exact and turns spread;
//!   whose turns come to nothing gets fewer (T2).
//! * Votes name digests; bodies travel apart as batches and must be held before any vote (data availability).
//! * The paper's dummy blocks are nullify votes: a view without a block leaves a certificate and no link in the chain, and a
//!   finalize names its block.
//! * A lagging node jumps to the view after the highest certificate it sees, and fetches what lies between.
//! * Timers back off exponentially and adapt to bad leaders; the paper's are fixed at 3Δ.
//! * Vote equivocation is detected, told and reported on chain (V6, V7).
//! * Epochs: the validator set and the version change at a boundary block that is proposed until it is final.
//! * Headers commit to executed state, some blocks late, so that ordering does not wait for execution.

pub mod block;
mod certificate;
mod event;
mod pacing;
pub mod planted;
mod proposal;
mod reputation;
mod round;
mod rules;
mod safety;
mod state;
mod tree;
pub mod types;
mod validators;
mod version;
mod vote;

pub use block::{Block, Boundary, Checkpoint};
pub use certificate::Certificate;
pub use event::{Effect, Event, Message, Record, Token, Verdict, Want};
pub use pacing::Timing;
pub use proposal::Proposal;
pub use reputation::{Reputation, Turns};
pub use safety::{Safety, ViewVotes};
pub use state::{BestTip, Config, FUTURE_VIEWS_MAX, PENDING_MAX, State, TREE_BLOCKS_MAX, WALK_BLOCKS_MAX};
pub use tree::Anchor;
pub use validators::{VALIDATORS_MAX, ValidatorSet, ValidatorSetError};
pub use version::{CONTRADICTIONS_MAX, Protocol, Rules, Version};
pub use vote::{Contradiction, SignedVote, Vote, VoteKind};
