//! Leadership on a real Lease: one leads, the other takes over, and the loser knows.

use std::time::Duration;

use bizra_operator::kubernetes::{Elector, Leadership, LeaseError, LeaseSettings};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{
    cluster::{OPERATOR_NAMESPACE, cluster},
    scenario::Scenario,
};

const SETTINGS: LeaseSettings = LeaseSettings {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(200),
};

fn elector(lease: &str, identity: &str) -> Elector {
    Elector::new(cluster().operator(), OPERATOR_NAMESPACE, lease, identity, SETTINGS)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_leads_and_another_takes_over_when_it_is_gone() {
    let _scenario = Scenario::new("lease").await;
    let (mut first, mut second) = (elector("lease-a", "first"), elector("lease-a", "second"));
    first.acquire().await;
    let waited = tokio::time::timeout(Duration::from_secs(2), async {
        tokio::select! {
            () = second.acquire() => "took a lease that is held",
            lost = first.keep() => panic!("lost: {lost}"),
        }
    });
    assert!(waited.await.is_err(), "two leaders");
    // Released, it is taken at once; abandoned, after its duration.
    first.release().await;
    tokio::time::timeout(Duration::from_secs(2), second.acquire()).await.unwrap();
    let mut third = elector("lease-a", "third");
    let begun = tokio::time::Instant::now();
    third.acquire().await;
    assert!(begun.elapsed() >= SETTINGS.duration, "taken from a holder that may still work");
    assert!(matches!(second.keep().await, LeaseError::Taken { holder, .. } if holder == "third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_overwritten_ends() {
    let scenario = Scenario::new("lease-overwritten").await;
    let mut leader = elector("lease-b", "leader");
    leader.acquire().await;
    let leases: kube::Api<Lease> = kube::Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": "other"}}));
    leases.patch("lease-b", &PatchParams::default(), &patch).await.unwrap();
    assert!(matches!(leader.keep().await, LeaseError::Taken { holder, .. } if holder == "other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_back_although_its_version_is_another_than_the_one_known() {
    let scenario = Scenario::new("lease-given-back").await;
    let mut leader = elector("lease-d", "leader");
    leader.acquire().await;
    let leases: kube::Api<Lease> = kube::Api::namespaced(scenario.admin.clone(), OPERATOR_NAMESPACE);
    // As after a renewal whose answer was not waited for.
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/renewed": "once more"}}}));
    leases.patch("lease-d", &PatchParams::default(), &patch).await.unwrap();
    leader.release().await;
    let holder = leases.get("lease-d").await.unwrap().spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder, None);
}

#[tokio::test]
async fn a_lease_is_kept_while_the_leader_has_no_time_for_it_and_given_back_when_it_goes() {
    let _scenario = Scenario::new("lease-busy").await;
    let settings = LeaseSettings { duration: Duration::from_secs(20), ..SETTINGS };
    let config = cluster().operator_config();
    let mut leader = Leadership::seek(config, OPERATOR_NAMESPACE, "lease-c", "leader", settings).unwrap();
    let tenure = leader.taken().await.unwrap();
    // Nothing else of this runtime runs meanwhile.
    std::thread::sleep(settings.renew_deadline * 3);
    assert!(tenure.lasts(), "lost by being busy");
    let mut next = Elector::new(cluster().operator(), OPERATOR_NAMESPACE, "lease-c", "next", settings);
    let begun = tokio::time::Instant::now();
    tokio::join!(leader.release(), next.acquire());
    assert!(begun.elapsed() < settings.duration, "not given back");
}
