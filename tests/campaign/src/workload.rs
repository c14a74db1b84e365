//! What users do to networks, nodes and pools: each workload is brought to rest, then changed once.

use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    kubelet::Kubelet,
    world::{World, api, condition, is_settled, of, text},
};

/// What a user does.
pub(crate) enum Change {
    /// Makes this.
    Create(Value),
    /// Changes the object of this plural and name.
    Patch(&'static str, &'static str, Value),
    /// Deletes it.
    Delete(&'static str, &'static str),
    /// Deletes it, and makes this at once.
    Replace(&'static str, &'static str, Value),
    /// Writes to the nodes until this much of their volumes, in percent, is in use.
    Fill(u64, &'static [&'static str]),
}

/// A change and what comes of it.
pub(crate) struct Workload {
    pub name: &'static str,
    /// How the beginning is reached, each step until it is settled.
    pub initial: Vec<Change>,
    /// The change.
    pub change: Change,
    /// Whether the end is reached; the world before the change comes first.
    pub is_end: fn(&World, &World) -> bool,
    /// All validators but one are in sync all the time.
    pub voters_stay: bool,
    /// Somebody has asked for volumes to be deleted.
    pub may_delete_volumes: bool,
    /// What a deletion leaves in the operator's own namespace goes when an operator starts: one does at the end.
    pub ends_with_start: bool,
}

impl Change {
    /// Does it.
    pub(crate) async fn carry_out(
        &self,
        admin: &Client,
        namespace: &str,
        kubelet: &Kubelet,
    ) -> Result<(), kube::Error> {
        match self {
            Self::Create(object) => create(admin, namespace, object).await,
            Self::Patch(plural, name, patch) => {
                let merge = Patch::Merge(patch);
                api(admin, namespace, plural).patch(name, &PatchParams::default(), &merge).await.map(drop)
            }
            Self::Delete(plural, name) => {
                api(admin, namespace, plural).delete(name, &DeleteParams::background()).await.map(drop)
            }
            Self::Replace(plural, name, object) => {
                api(admin, namespace, plural).delete(name, &DeleteParams::background()).await?;
                create(admin, namespace, object).await
            }
            Self::Fill(percent, nodes) => {
                let full = nodes.iter().map(|node| ((*node).to_owned(), *percent));
                kubelet.usage.lock().unwrap().extend(full);
                Ok(())
            }
        }
    }
}

async fn create(admin: &Client, namespace: &str, object: &Value) -> Result<(), kube::Error> {
    let plural = format!("{}s", text(object, "/kind").to_lowercase());
    let object = serde_json::from_value(object.clone()).unwrap();
    api(admin, namespace, &plural).create(&PostParams::default(), &object).await.map(drop)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "bizra.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn with(mut spec: Value, more: &Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn network(more: &Value) -> Change {
    Change::Create(object("Network", "demo", &with(json!({"chainId": "demo-1"}), more)))
}

fn node() -> Change {
    Change::Create(object("BizraNode", "extra", &json!({"networkRef": {"name": "demo"}})))
}

fn pool(replicas: i32) -> Change {
    Change::Create(object("NodePool", "readers", &json!({"networkRef": {"name": "demo"}, "replicas": replicas})))
}

fn patch(plural: &'static str, name: &'static str, spec: &Value) -> Change {
    Change::Patch(plural, name, json!({"spec": spec}))
}

fn next_image() -> Value {
    json!({"image": {"repository": "localhost/bizra", "tag": "next"}})
}

/// Pods whose names begin so run the next image, and there are so many.
fn run_next(world: &World, prefix: &str, count: usize) -> bool {
    let pods = of(world, "pods").filter(|pod| text(pod, "/metadata/name").starts_with(prefix));
    pods.filter(|pod| text(pod, "/spec/containers/0/image") == "localhost/bizra:next").count() == count
}

/// Names of a plural that begin so.
fn count(world: &World, plural: &str, prefix: &str) -> usize {
    of(world, plural).filter(|object| text(object, "/metadata/name").starts_with(prefix)).count()
}

/// Claims whose names begin so and that ask for this size, which they have got.
fn have_size(world: &World, prefix: &str, size: &str) -> usize {
    let claims = of(world, "persistentvolumeclaims");
    let fits = |claim: &&Value| {
        text(claim, "/metadata/name").starts_with(prefix)
            && text(claim, "/spec/resources/requests/storage") == size
            && text(claim, "/status/capacity/storage") == size
    };
    claims.filter(fits).count()
}

/// Nothing is left but what outlives a network.
fn is_gone(world: &World) -> bool {
    let outlives = ["persistentvolumeclaims/", "configmaps/demo-genesis", "secrets/"];
    world.keys().all(|key| outlives.iter().any(|kept| key.starts_with(kept)))
}

/// Every pod is controlled by a node that is there, and every one of those by what is there.
fn is_all_owned(world: &World) -> bool {
    let uids: Vec<&str> = world.values().map(|object| text(object, "/metadata/uid")).collect();
    let kinds = ["pods", "bizranodes", "services", "poddisruptionbudgets", "networkpolicies"];
    kinds.iter().flat_map(|plural| of(world, plural)).all(|object| {
        let owner = text(object, "/metadata/ownerReferences/0/uid");
        !owner.is_empty() && uids.contains(&owner)
    })
}

fn base(name: &'static str, initial: Vec<Change>, change: Change, is_end: fn(&World, &World) -> bool) -> Workload {
    let (voters_stay, may_delete_volumes, ends_with_start) = (true, false, false);
    Workload { name, initial, change, is_end, voters_stay, may_delete_volumes, ends_with_start }
}

/// All workloads.
pub(crate) fn all() -> Vec<Workload> {
    let down = |workload| Workload { voters_stay: false, ..workload };
    let grown = || json!({"storage": {"size": "20Gi"}});
    let auto = json!({"storage": {"autoGrow": {"limit": "40Gi", "coolDownSeconds": 3600}}});
    vec![
        down(base("network-creation", vec![], network(&json!({})), |_, now| {
            count(now, "pods", "demo-v") == 4 && is_settled(now)
        })),
        base("network-upgrade", vec![network(&json!({}))], patch("networks", "demo", &next_image()), |_, now| {
            run_next(now, "demo-v", 4) && is_settled(now)
        }),
        base(
            "network-config",
            vec![network(&json!({}))],
            patch("networks", "demo", &json!({"pod": {"labels": {"team": "blue"}}})),
            |_, now| of(now, "pods").all(|pod| text(pod, "/metadata/labels/team") == "blue") && is_settled(now),
        ),
        base(
            "network-services",
            vec![network(&json!({}))],
            patch(
                "networks",
                "demo",
                &json!({
                    "service": {"annotations": {"example.test/zone": "a"}}, "networkPolicy": {"mode": "Disabled"},
                }),
            ),
            |_, now| {
                let marked =
                    of(now, "services").any(|one| text(one, "/metadata/annotations/example.test~1zone") == "a");
                marked && count(now, "networkpolicies", "") == 0 && is_settled(now)
            },
        ),
        base(
            "network-rotation",
            vec![network(&json!({}))],
            patch("networks", "demo", &json!({"certificates": {"rotation": 1}})),
            |_, now| {
                let generation = |one| text(one, "/metadata/annotations/bizra.io~1authority-generation");
                // The seed of the owners is a Secret, too, and has none.
                of(now, "secrets").map(generation).filter(|generation| !generation.is_empty()).eq(["2"])
                    && is_settled(now)
            },
        ),
        base("network-growth", vec![network(&json!({}))], patch("networks", "demo", &grown()), |_, now| {
            have_size(now, "demo-v", "20Gi") == 4 && is_settled(now)
        }),
        // How full a volume is wakes nobody; that it may grow does.
        base(
            "network-fill",
            vec![network(&json!({})), Change::Fill(85, &["demo-v0", "demo-v1"])],
            patch("networks", "demo", &auto),
            |_, now| have_size(now, "demo-v", "12Gi") == 2 && is_settled(now),
        ),
        base("network-pod-loss", vec![network(&json!({}))], Change::Delete("pods", "demo-v1"), |before, now| {
            let uid = |world: &World| world.get("pods/demo-v1").map(|pod| text(pod, "/metadata/uid").to_owned());
            uid(now).is_some() && uid(now) != uid(before) && is_settled(now)
        }),
        down(base(
            "network-hibernation",
            vec![network(&json!({}))],
            patch("networks", "demo", &json!({"activity": "Hibernated"})),
            |_, now| count(now, "pods", "") == 0 && condition(&now["networks/demo"], "Hibernated").0 == "True",
        )),
        Workload {
            ends_with_start: true,
            ..down(base("network-deletion", vec![network(&json!({}))], Change::Delete("networks", "demo"), |_, now| {
                is_gone(now) && count(now, "persistentvolumeclaims", "") == 4
            }))
        },
        Workload {
            ends_with_start: true,
            may_delete_volumes: true,
            ..down(base(
                "network-deletion-of-data",
                vec![network(&json!({"deletionPolicy": "Delete"}))],
                Change::Delete("networks", "demo"),
                |_, now| now.keys().all(|key| key.starts_with("secrets/")),
            ))
        },
        Workload {
            ends_with_start: true,
            ..down(base(
                "network-replacement",
                vec![network(&json!({}))],
                Change::Replace("networks", "demo", object("Network", "demo", &json!({"chainId": "demo-1"}))),
                |_, now| count(now, "pods", "demo-v") == 4 && is_all_owned(now) && is_settled(now),
            ))
        },
        base("node-creation", vec![network(&json!({}))], node(), |_, now| {
            count(now, "pods", "extra") == 1 && is_settled(now)
        }),
        base(
            "node-upgrade",
            vec![network(&json!({})), node()],
            patch("bizranodes", "extra", &next_image()),
            |_, now| run_next(now, "extra", 1) && is_settled(now),
        ),
        base(
            "node-fence",
            vec![network(&json!({}))],
            patch("bizranodes", "demo-v0", &json!({"signing": "Fenced"})),
            |_, now| {
                condition(&now["bizranodes/demo-v0"], "Ready").1 == "Fenced"
                    && condition(&now["networks/demo"], "Ready").0 == "False"
            },
        ),
        base("node-growth", vec![network(&json!({})), node()], patch("bizranodes", "extra", &grown()), |_, now| {
            have_size(now, "extra", "20Gi") == 1 && is_settled(now)
        }),
        base("node-deletion", vec![network(&json!({})), node()], Change::Delete("bizranodes", "extra"), |_, now| {
            count(now, "pods", "extra") + count(now, "configmaps", "extra") == 0
                && count(now, "persistentvolumeclaims", "extra") == 1
                && is_settled(now)
        }),
        base("pool-creation", vec![network(&json!({}))], pool(2), |_, now| {
            count(now, "pods", "readers-") == 2 && is_settled(now)
        }),
        base(
            "pool-scale-up",
            vec![network(&json!({})), pool(1)],
            patch("nodepools", "readers", &json!({"replicas": 3})),
            |_, now| count(now, "pods", "readers-") == 3 && is_settled(now),
        ),
        base(
            "pool-scale-down",
            vec![network(&json!({})), pool(3)],
            patch("nodepools", "readers", &json!({"replicas": 1})),
            |_, now| {
                count(now, "pods", "readers-") == 1
                    && count(now, "configmaps", "readers-") == 1
                    && count(now, "persistentvolumeclaims", "readers-") == 3
                    && is_settled(now)
            },
        ),
        base(
            "pool-upgrade",
            vec![network(&json!({})), pool(2)],
            patch("nodepools", "readers", &next_image()),
            |_, now| run_next(now, "readers-", 2) && is_settled(now),
        ),
        base("pool-growth", vec![network(&json!({})), pool(2)], patch("nodepools", "readers", &grown()), |_, now| {
            have_size(now, "readers-", "20Gi") == 2 && is_settled(now)
        }),
        base("pool-deletion", vec![network(&json!({})), pool(2)], Change::Delete("nodepools", "readers"), |_, now| {
            count(now, "bizranodes", "readers-") + count(now, "pods", "readers-") + count(now, "configmaps", "readers-")
                == 0
                && count(now, "persistentvolumeclaims", "readers-") == 2
                && is_settled(now)
        }),
    ]
}
