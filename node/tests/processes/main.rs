//! Devnets of real processes with real disks. One program, so that the tests, which mostly wait, run beside each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod copied;
mod fence;
mod join;
mod kill;
mod light;
mod peers;
mod protocol;
mod recover;
mod stops;
