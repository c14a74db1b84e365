//! How many writes a second the API server takes at most.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

/// Clients that write at the same time, each over a connection of its own.
const CLIENTS: usize = 8;

/// Creates `ConfigMap`s of 256 bytes as fast as it goes; returns how many a second.
pub(crate) async fn measure(client: impl Fn() -> Client, round: &'static str, time: Duration) -> f64 {
    let written = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks = (0..CLIENTS).map(|writer| {
        let (written, maps) = (Arc::clone(&written), Api::<ConfigMap>::namespaced(client(), "default"));
        async move {
            let mut number = 0_u64;
            while started.elapsed() < time {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(format!("ceiling-{round}-{writer}-{number}")),
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([("data".to_owned(), "x".repeat(256))])),
                    ..ConfigMap::default()
                };
                maps.create(&PostParams::default(), &map).await.expect("the API server takes a ConfigMap");
                written.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        }
    });
    futures::future::join_all(tasks).await;
    written.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
