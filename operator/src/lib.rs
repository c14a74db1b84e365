//! The BIZRA operator: one `Network` resource in, a running Byzantine-fault-tolerant validator network out.
//!
//! Every controller works in four steps: *observe* (the API server and what the nodes say of themselves), *plan* (pure:
//! spec and observation in, ordered actions out), *act* (one write at a time, each safe to repeat) and *report* (the
//! status, written last and only if it changed). The process can die between any two writes; whoever comes next observes
//! what is there and plans the rest.

pub mod api;
pub mod certificates;
pub mod controllers;
pub mod kubernetes;
pub mod ledger;
mod memo;
pub mod metrics;
pub mod operator;
pub mod planted;
pub mod probe;
pub mod resources;
pub mod server;
