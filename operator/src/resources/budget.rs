//! The disruption budget of a network's validators.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{controlled_by, labels, names};
use crate::{
    api::Network,
    planted::{self, Bug},
};

/// How many validators must stay: all but as many of the most powerful as together hold less than a third.
pub fn least_available(powers: &[u64]) -> i32 {
    let total: u128 = powers.iter().copied().map(u128::from).sum();
    let mut largest_first = powers.to_vec();
    largest_first.sort_unstable_by(|left, right| right.cmp(left));
    let mut gone: u128 = 0;
    let expendable = largest_first
        .iter()
        .take_while(|&&power| {
            gone += u128::from(power);
            gone * 3 < total
        })
        .count();
    i32::try_from(powers.len() - expendable).unwrap_or(i32::MAX)
}

/// The budget. An integer, because percentages and `maxUnavailable` need a scale subresource the pods' owner has not.
pub fn disruption_budget(network: &Network, name: &str, namespace: &str, powers: &[u64]) -> PodDisruptionBudget {
    let mut selector = labels::selector(name);
    selector.insert(labels::COMPONENT.to_owned(), labels::Component::Validator.label().to_owned());
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(names::disruption_budget(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(name)),
            owner_references: (!planted::is(Bug::BudgetUnowned)).then(|| vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(least_available(powers))),
            selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::least_available;

    #[test]
    fn what_may_go_holds_less_than_a_third() {
        assert_eq!(least_available(&[1; 4]), 3);
        assert_eq!(least_available(&[1; 6]), 5);
        assert_eq!(least_available(&[1; 7]), 5);
        assert_eq!(least_available(&[1; 31]), 21);
        // One holder of a third blocks drains.
        assert_eq!(least_available(&[2, 1, 1, 1]), 4);
        assert_eq!(least_available(&[1; 3]), 3);
        assert_eq!(least_available(&[]), 0);
    }
}
