//! Runs the consensus core. A *turn* takes what has happened, lets the core decide, makes everything durable that was
//! decided, and only then hands out what may leave the node. The driver owns no thread, socket, file or clock: the node
//! runs it on real ones, the simulator on models, and both run this very code.
//!
//! The specification is the documentation of [`bizra_simplex`]; these are the rules that are implemented here.
//!
//! ## Votes
//! * **V6**, **V7** (`evidence`) Contradictions are kept on the disk, once for a key and epoch, told once to everybody, and
//!   given to the core for every block that this node makes, until the chain has them. One reported in a block is checked
//!   before the vote: the key is that of the signer in its epoch, both signatures are valid, no finalised block of the
//!   epoch has reported it and the ledger has not punished it. A leader that cannot know yet whether a report of the epoch
//!   before led to a punishment waits for the execution.
//!
//! ## Data
//! * **D1** (`peers`, `data`) A batch's digest does not cover its origin's signature, so a wrong signature says nothing about
//!   the batch and is dropped. What its origin did sign is valid or not by itself: form, chain id, every transaction's
//!   signature (ZIP-215). An invalid one is its origin's to answer for: its node is named in [`Output::blamed`].
//! * **D2** (`driver`) Bodies are written in the turn that holds them and synced before a vote leaves. They stay until
//!   executed and past retention; unordered ones until no block may order them.
//! * **D3** A block that orders a batch of a finalised block, or one whose epoch is neither its own nor the one before, is
//!   invalid. The core compares with unfinalised ancestors.
//! * **D4** (`holding`, `data`) After a nullified view the origins of its batches are named only with hints from a quorum that
//!   it holds them, for the rest of the epoch. A question takes one batch of each such origin in turn, so that none waits
//!   behind another; within one, batches that nobody else takes hold up those after them. Bytes unordered
//!   or under check are capped for each origin.
//! * **D5** Signatures of transactions are checked by whoever answers [`Output::verify`], once for each batch.
//!
//! ## Headers, epochs, versions
//! * **H1**, **E1** (`epochs`) What a header says of state, next validators, next version and snapshot is compared with what is executed
//!   and committed here, before the vote; a final header that says something else stops the node ([`Halt::Diverged`]).
//! * **E2** The next epoch begins once the boundary is final and its validators are known.
//! * **E6** (`restart`) The epoch that a restart ends is over with the block that the owners name, once that is executed and
//!   the node has found the restart right by its own state ([`Disk::validators`]); votes from then on have another domain.
//! * **E5** ([`light`]) Headers are followed from boundary to boundary by whoever does not execute.
//! * **P3** An epoch whose version is above [`Settings::supported`] is not entered ([`Halt::UpgradeRequired`]): at the boundary
//!   and at every start. Everything until then is durable.
//!
//! ## Keys and the signing record
//! * **S2**, **S4** (`driver`) Reserve, sync, sign, send. A turn makes one database sync and one of the record, in parallel,
//!   but for finalize votes: the notarization they rest on is durable first. A failed sync ends the driver, nothing is
//!   tried again, and nothing of the failed turn leaves.
//! * **S3** (`signing_record`) Slots, copies, checksums and floor, as told there.
//! * **S5** (`startup`) After a start nothing new is signed before a quorum, this node included, has told the highest vote of
//!   its key. One that the record does not know stops the node ([`Halt::SignedElsewhere`]). A fenced node ([`Fence`]) asks
//!   nobody and signs nothing; lifting the fence is a start, and asks.
//! * **S1**, **S6** are the node's and the ledger's.
//!
//! ## Bounds (R4)
//!
//! | bound | stops |
//! | --- | --- |
//! | `EARLY_MESSAGES_MAX` messages of the next epoch for a peer | a peer that fills memory with an epoch that may never come |
//! | [`UNORDERED_BYTES_PER_ORIGIN_MAX`] | a validator that floods with batches fills its own share only, of memory and of checks |
//! | [`BLOCK_BYTES_MAX`] | a leader that makes everybody fetch and execute more than a view has time for |
//! | `INVALID_MAX` digests of invalid batches remembered | a check of the same invalid batch with every message |
//! | `FETCHES_MAX` requests for bodies at a time, `FETCH_INTERVAL` apart | a block of many unknown batches that makes followers flood a peer |
//! | `HELD_MAX`, `COUNTED_MAX`, `DOUBTED_MAX` of D4's hints | answers to no question, and questions without an end |
//! | `WAITING_BLOCKS_MAX` finalised blocks without bodies | a peer that serves blocks and withholds bodies |
//! | `RANGE_BLOCKS_MAX` and `RANGE_INTERVAL` | questions that cost little and answers that cost much |
//! | one highest vote and one contradiction for a key (and epoch) | anything that validators may sign without an end |

pub mod batch;
mod bodies;
pub mod codec;
mod data;
mod driver;
mod epochs;
mod evidence;
#[cfg(test)]
mod golden;
mod holding;
pub mod light;
mod peers;
mod ports;
pub mod restart;
mod roster;
pub mod signing_record;
mod startup;
pub mod wire;

pub use batch::Batch;
pub use data::{BLOCK_BYTES_MAX, UNORDERED_BYTES_PER_ORIGIN_MAX};
pub use driver::{Destination, Driver, Fence, Halt, Input, NodeIndex, Output, Settings, Signing};
pub use ports::{Change, Disk, DiskError, Keys, Member, PublicKey, Recovered};
pub use restart::{RESTART_EPOCHS, Restart, Restarts};
pub use roster::validators_hash;
