//! Snapshots: a node that has nothing joins a long chain without replaying it, also when its peers have forgotten the
//! beginning (PROTOCOL E1, E5, G4).
//!
//! Every node makes the canonical snapshot of the ledger at each cut-off height, on a thread of its own, and keeps the
//! last [`store::SNAPSHOTS_KEPT`]. The last block of the *next* epoch carries the Merkle root over its chunks; validators
//! vote for that block only with the same root in hand. A node whose database is empty, or is far behind, walks the
//! boundaries from the genesis, fetches the newest snapshot that they prove, checks the commitment of the state it leads
//! to, and goes on from there with finalised blocks, as after any pause.
//!
//! What enters: peers' requests and answers, executed cut-offs. What leaves: the roots, answers and requests, and a whole
//! database in its own folder, which the next start puts in place. `signer/` is never touched: what this key may sign is
//! decided by its record and by the peers (S5), whatever happens to the database.

pub mod chunk;
mod folders;
mod join;
mod maker;
mod service;
pub mod store;

pub use folders::{DatabaseFolders, Obeyed, ResetWhen};
pub use join::Progress;
pub use maker::{Made, SnapshotMaker};
pub use service::{SnapshotService, SnapshotSetup};
pub use store::{SnapshotError, SnapshotStore};
