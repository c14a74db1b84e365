//! Looks on as the API server tells of pods, whatever the operator knows: two pods of one claim at a time, or more validators
//! down than the network survives, are told at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bizra_operator::controllers::quorum::container_runs;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};

use crate::{kubelet::Stopper, run::Run};

/// The validators of every workload, and how many of them may be away.
const VALIDATORS: [&str; 4] = ["demo-v0", "demo-v1", "demo-v2", "demo-v3"];
const AWAY_MAX: usize = 1;

/// Watches until it is dropped; validators are counted once `counts_voters` is set.
pub(crate) fn watch(run: &Arc<Run>, counts_voters: &Arc<AtomicBool>) -> Stopper {
    let (run, counts_voters) = (Arc::clone(run), Arc::clone(counts_voters));
    Stopper(tokio::spawn(async move {
        let pods: Api<Pod> = Api::namespaced(run.admin.clone(), &run.namespace);
        let mut events = watcher(pods, watcher::Config::default()).default_backoff().boxed();
        let mut alive: BTreeMap<String, Pod> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    alive.insert(pod.uid().unwrap_or_default(), pod);
                }
                Ok(watcher::Event::Delete(pod)) => drop(alive.remove(&pod.uid().unwrap_or_default())),
                Ok(watcher::Event::Init) => alive.clear(),
                Ok(watcher::Event::InitDone) | Err(_) => {}
            }
            check_claims(&run, &alive);
            if counts_voters.load(Ordering::SeqCst) {
                check_voters(&run, &alive);
            }
        }
    }))
}

fn check_claims(run: &Run, alive: &BTreeMap<String, Pod>) {
    let mut users: BTreeMap<String, String> = BTreeMap::new();
    for pod in alive.values() {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for claim in volumes.into_iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
            if let Some(other) = users.insert(claim.claim_name.clone(), pod.name_any()) {
                run.violated(format!("{} and {other} use {} at the same time", pod.name_any(), claim.claim_name));
            }
        }
    }
}

fn check_voters(run: &Run, alive: &BTreeMap<String, Pod>) {
    let is_up = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
        is_ready && container_runs(pod) && pod.metadata.deletion_timestamp.is_none()
    };
    let is_away = |name: &&str| !alive.values().any(|pod| pod.name_any() == *name && is_up(pod));
    let away: Vec<&str> = VALIDATORS.into_iter().filter(is_away).collect();
    if away.len() > AWAY_MAX {
        run.violated(format!("validators are down at once: {away:?}"));
    }
}
