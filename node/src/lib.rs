//! A BIZRA node: one folder a bounded context, wired together in [`node`].

pub mod block;
pub mod blockchain;
pub mod cli;
pub mod configuration;
pub mod consensus;
pub mod gateway;
pub mod identity;
pub mod monitoring;
pub mod network;
pub mod node;
pub mod storage;
pub mod transaction;
