//! Talking to the API server: caches that know what they lack, writes with preconditions, no write at rest, leadership, events.

mod cache;
mod calls;
mod compare;
mod events;
mod fence;
mod follow;
mod lease;
mod read;
mod write;

pub use cache::{Answer, Before, Cache, Cached, Change, Debt, ObjectKey, key_of, named};
pub use calls::counted;
pub use compare::covers;
pub use events::{Announcement, Announcer, Severity, shorten};
pub use fence::Tenure;
pub use follow::follow;
pub use lease::{Elector, Leadership, LeaseError, LeaseSettings};
pub use read::find;
pub use write::{Done, Manifest, Target, Write, WriteError, WriteOutcome, execute, is_not_found, needs_apply};
