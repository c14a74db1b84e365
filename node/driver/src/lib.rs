//! Runs the consensus core. A *turn* takes what has happened, lets the core decide, makes everything durable that was
//! decided, and only then hands out what may leave the node. The driver owns no thread, socket, file or clock: the node
//! runs it on real ones, the simulator on models, and both run this very code.

pub mod batch;
pub mod codec;
mod data;
mod driver;
mod epochs;
mod evidence;
mod holding;
pub mod light;
mod peers;
mod ports;
mod roster;
pub mod signing_record;
mod startup;
pub mod wire;

pub use batch::Batch;
pub use data::{BLOCK_BYTES_MAX, UNORDERED_BYTES_PER_ORIGIN_MAX};
pub use driver::{Destination, Driver, Halt, Input, NodeIndex, Output, Settings, Signing};
pub use ports::{Change, Disk, DiskError, Keys, Member, PublicKey, Recovered};
pub use roster::validators_hash;
