//! Finalised blocks, their certificates and bodies, and the records above them.
//!
//! Owns the families `Blocks`, `Batches` and `Consensus`. What enters: the changes of a driver's turn
//! ([`BlockStore::apply`]), on the driver thread. What leaves: blocks, certificates and bodies for the driver, for peers
//! and for the edge.

#[cfg(test)]
mod golden_tests;
mod indexes;
mod keys;
mod light;
mod store;
mod verify;

pub use indexes::{IndexReport, verify_indexes};
pub use store::{BlockStore, StoredBlock};
pub use verify::{ChainCheck, ChainReport, Sets, VerifyError};
