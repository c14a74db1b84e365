//! Talking to the API server: writes with preconditions, no write at rest, leadership, events.

mod compare;
mod events;
mod fence;
mod lease;
mod write;

pub use compare::covers;
pub use events::{Announcement, Announcer, Severity, shorten};
pub use fence::Tenure;
pub use lease::{Elector, LeaseError, LeaseSettings};
pub use write::{Manifest, Target, Write, WriteError, WriteOutcome, execute, is_not_found, needs_apply};
