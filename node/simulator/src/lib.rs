//! Deterministic simulation of the shipped core and driver: many nodes, one thread, one seed.
//!
//! A [`Scenario`] is drawn from the seed; a [`World`] plays it: a virtual clock in milliseconds, one queue of events
//! ordered by (time, sequence), disks that lose what was not synced, a network that loses, repeats, delays and parts,
//! and Byzantine validators below a third of the power. Faults last until `heal_at`; then all nodes are up, the network
//! is calm, and everything owed must be finalised and executed within [`LIVENESS_BOUND`]. The [`oracle`] judges safety
//! at every commit and send, and liveness at the end. The same seed gives the same run on every machine.
//!
//! # Faults
//!
//! Each kind is counted ([`Fault`]), and a campaign of [`campaign::COVERING_SEEDS`] seeds or more in which one never
//! happened fails: what is not injected is not tested.
//!
//! * *Power* goes between two turns, inside a commit with any part of it on the disk and blocks of the signing record
//!   torn, after it, and in the middle of a sending; for one node or for all. A killed process leaves what it wrote, which
//!   a power cut soon after may still take.
//! * *Disks* are slow, fail to write, sync or read (the process stops), rot one copy of a slot, lose the database, or are
//!   old copies, as soon as every quorum has an honest witness of a later vote (S5).
//! * *Clocks* are wrong by minutes, are set by minutes, and run up to five percent too fast or too slow.
//! * *Processes* stand still.
//! * *Links* lose, repeat, delay and reorder; they part in two, or in one direction only.
//! * *Byzantine validators* below a third of the power: see [`Behaviour`].
//!
//! # Validators
//!
//! In half of the networks epochs are short, and owners order changes all the time: the shipped rules of `bizra-ledger`
//! decide what becomes of them, at every node. Each way of changing is counted ([`Turn`]) and must happen like a fault. The
//! oracle adds up all money after every block and judges every set by itself (E3, E4).
//!
//! # Length
//!
//! Half of the seeds are short and full of faults; the others run for up to twenty minutes with few.

pub mod absence;
mod accounts;
mod adversary;
mod audit;
pub mod campaign;
mod disk;
mod faults;
mod keys;
mod leaders;
mod ledger;
mod lies;
pub mod model;
mod network;
mod node;
pub mod oracle;
mod owners;
mod proposals;
mod queue;
mod random;
mod rig;
pub mod scale;
mod scenario;
mod schedule;
mod starving;
mod store;
mod troubles;
pub mod twins;
mod witness;
mod world;

pub use adversary::Behaviour;
pub use audit::{Turn, Turnover};
pub use faults::{Fault, Faults};
pub use keys::KeyBook;
pub use network::{Order, Weather};
pub use oracle::Violation;
pub use random::Random;
pub use scenario::{Scenario, Trouble};
pub use schedule::{Schedule, Seats, key_of};
pub use world::{LIVENESS_BLOCKS, LIVENESS_BOUND, Report, Trace, World};
