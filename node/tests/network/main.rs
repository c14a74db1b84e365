//! Networks on loopback with real sockets: frames over mutual TLS, everything that must be refused at the door, and what a
//! peer can cost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod budgets;
mod changes;
mod frames;
mod raw;
mod refusals;
mod world;
