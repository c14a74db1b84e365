//! The append-only event log (PROTOCOL H3): what finalised blocks brought about, in one order, on every node the same,
//! so that a height and an index name the same event for ever.
//!
//! Events are a pure function of the finalised chain. Nearly all of an event is in the block, its bodies and its
//! receipts already, so what is stored with a block is only what those do not say, a few dozen bytes whatever the
//! block's size ([`BlockRecord`]); the events are made from it when somebody reads. Writing costs a
//! transaction a few nanoseconds, and a correlation id is the trace id that travels in the batch.
//!
//! The events of a block, in this order:
//! 1. `TransactionSubmitted` for each transaction the block executes, in its order; a duplicate has none.
//! 2. `BlockCreated`, `BlockValidated`, `ConsensusReached`; `ValidatorJailed` or `ReportRefused` for each contradiction
//!    that the block itself reports.
//! 3. For each transaction `TransactionApplied` or `TransactionFailed`, and behind the former what it changed.
//! 4. At the cut-off of an epoch `ParametersUpdated`, if they changed, and `ValidatorSetChosen`; on the last block of an
//!    epoch `EpochEnded`.
//! 5. `BlockFinalized`.
//!
//! Owns the family `Events`. What enters: outcomes of executed blocks ([`append`], into the turn's atomic write) and the
//! news that they are applied ([`EventWriter::applied`]). What leaves: [`Subscription`]s from any position
//! ([`EventLog`]). Blocks and bodies are read through the gateway's `BlockReader`.

mod event;
mod record;
mod store;
mod subscription;
mod synthesis;
#[cfg(test)]
mod tests;

pub use event::{Event, EventData, EventFilter, EventKind, Position, PositionError};
pub use record::{BlockRecord, Verdict};
pub use store::{EventError, EventLog, EventWriter, append, open, prune_events, stored_record};
pub use subscription::{Subscription, SubscriptionRequest};
