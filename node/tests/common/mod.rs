//! What the tests of real processes share. Every test has its own devnet in a temporary folder and on its own ports.
#![allow(dead_code, reason = "no test uses everything")]

pub(crate) mod devnet;
pub(crate) mod http;
pub(crate) mod patience;
pub(crate) mod process;
