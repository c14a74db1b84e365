//! What the end-to-end tests share: a namespace of their own on a real cluster, patience, and the nodes' own word.
//!
//! The cluster is the one of `KUBECONFIG`, with the operator installed; `tests/e2e/test.sh` sees to both.

pub mod audit;
pub mod hosts;
pub mod load;
pub mod node;
pub mod operator;
pub mod owned;
pub mod process;
pub mod reach;
pub mod scene;
pub mod stage;
pub mod traffic;
pub mod volume;
pub mod witness;
