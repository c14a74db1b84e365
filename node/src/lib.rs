//! A BIZRA node: one folder a bounded context, wired together in [`node`].

pub mod block;
pub mod blockchain;
#[cfg(test)]
mod chain_testing;
pub mod cli;
pub mod configuration;
pub mod consensus;
pub mod event_store;
pub mod gateway;
mod generations;
#[cfg(test)]
mod golden;
pub mod identity;
pub mod light;
pub mod monitoring;
pub mod network;
pub mod node;
pub mod recovery;
pub mod replay;
pub mod retention;
pub mod snapshot;
pub mod storage;
pub mod transaction;
pub mod validator;

// What ships cannot plant bugs, whatever features a workspace build unites: that takes this crate's own feature.
const _: () = assert!(
    !bizra_simplex::planted::PLANTABLE || cfg!(feature = "planted"),
    "the feature `planted` is for the simulator and for the test of a copied key"
);
