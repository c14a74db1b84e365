//! The operator against a real etcd and kube-apiserver (and the controller manager's garbage collector). The nodes are
//! played by a small kubelet of the test: real keys, real reports, a real admin port over mutual TLS.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// Shared with tests/bench-operator, which uses more of it.
#[allow(dead_code)]
mod cluster;
mod crash;
mod kubelet;
mod scenario;

mod ceremony;
mod crashes;
mod dropout;
mod healing;
mod lease;
mod modes;
mod placement;
mod policy;
mod pool;
mod retention;
mod roll;
mod rotation;
mod scoped;
mod validation;
