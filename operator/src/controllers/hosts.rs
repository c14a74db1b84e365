//! Hosts that Kubernetes has lost sight of, read from the pods on them: a right to read `Node` objects would be one in the
//! whole cluster.

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    jiff::Timestamp,
};

/// Since when Kubernetes has not heard of the pod's host; none while it does. The kubelet derives `Ready` from
/// `ContainersReady`, and our pods have no readiness gates; when it falls silent, the node lifecycle controller sets `Ready`
/// of its pods to false and touches nothing else (<https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller>).
/// Only then the two differ in this way.
pub fn unreachable_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let find = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let says = |condition: &PodCondition, truth: &str| condition.status == truth;
    find("ContainersReady").filter(|condition| says(condition, "True"))?;
    let ready = find("Ready").filter(|condition| says(condition, "False"))?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// The host a pod was put on.
pub fn host(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}
