//! A campaign against the operator: every write and every event of its work is, in a run of its own, the place of a fault.
//!
//! 1. *Reference.* Each workload is run twice without a fault: writes and told events are its trace, and what it ends
//!    in is what every plan has to end in.
//! 2. *Plans.* `plan` derives from the trace, for each write, crashes before and after it, lost answers, refused
//!    connections and watches that hang or show a former world, and for each event, that a watch does not tell it.
//! 3. *Oracles.* The masked end (`world`) and the numbers of objects made and ended per kind are those of the reference; and
//!    at all times what is deleted, evicted or overwritten is bound to what was observed, no volume goes that nobody asked for,
//!    no two pods share a volume, no pod comes before what it rests on, and one validator is down at most.
//!
//! What is real: etcd, kube-apiserver, garbage collector, disruption controller, and the operator with its own rights, all of it but
//! the election. Kubelet and nodes are the ones of the operator's tests. Each plan has a namespace with an operator of
//! its own, so many of them wait at the same time.

// A test that cannot go on stops and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bed;
mod campaign;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../operator/tests/api_server/cluster.rs"]
mod cluster;
#[cfg(feature = "planted")]
mod hunt;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../operator/tests/api_server/kubelet.rs"]
mod kubelet;
mod plan;
mod proxy;
mod reference;
mod run;
mod watchdog;
mod workload;
mod world;

pub use campaign::{Settings, Summary, conduct};
#[cfg(feature = "planted")]
pub use hunt::hunt;
pub use plan::Mode;
