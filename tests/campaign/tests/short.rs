//! A short campaign: a plan of every mode on a network, a pool that shrinks and a node.

#![allow(missing_docs)]

use bizra_campaign::{Mode, Settings, conduct};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_the_operator_the_end_is_the_same() {
    let workloads = ["network-creation", "pool-scale-down"].map(str::to_owned).to_vec();
    let summary = conduct(&Settings { limit: Some(20), only: None, workloads, jobs: 6, folder: None }).await;
    assert!(summary.is_clean(), "{summary}");
    assert_eq!(summary.modes.len(), Mode::ALL.len(), "{summary}");
    assert!(summary.count(0) >= 16, "{summary}");
}
