#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::json;

use super::*;
use crate::controllers::{
    fixtures::{default_image, now, pool, pool_observed},
    node_pool::plan::plan,
};

/// The host of the node's pod falls silent, and so does the node.
fn lose_host(observed: &mut Observed, name: &str) {
    let pod = observed.pods.iter_mut().find(|pod| pod.name_any() == name).unwrap();
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "lastTransitionTime": now()});
    let status = pod.status.as_mut().unwrap();
    let conditions = json!([condition("ContainersReady", "True"), condition("Ready", "False")]);
    status.conditions = Some(serde_json::from_value(conditions).unwrap());
    observed.words.insert(name.to_owned(), Word::Unknown("timed out".to_owned()));
}

fn after(observed: &Observed, seconds: i64) -> Observed {
    Observed { now: now() + SignedDuration::from_secs(seconds), ..observed.clone() }
}

fn steps(pool: &NodePool, observed: &Observed) -> Vec<String> {
    let plan = plan(pool, observed, &default_image()).unwrap();
    plan.steps.iter().map(|step| step.write.describe().replace(" BizraNode default/", " ")).collect()
}

#[test]
fn a_node_on_a_lost_host_is_made_anew_under_another_name_when_two_have_missed_it_for_the_grace() {
    let pool = pool(&json!({"replicas": 2}));
    let mut observed = pool_observed(&pool, 0..2);
    lose_host(&mut observed, "readers-0");
    assert_eq!(steps(&pool, &after(&observed, 299)), Vec::<String>::new());
    assert_eq!(steps(&pool, &after(&observed, 300)), ["apply readers-2", "delete readers-0"]);

    let with_word = |word: Word| {
        let mut observed = after(&observed, 300);
        observed.words.insert("readers-0".to_owned(), word);
        steps(&pool, &observed)
    };
    let said = |power| bizra_proto::v1::NodeStatus { power, total_power: 4, ..bizra_proto::v1::NodeStatus::default() };
    assert_eq!(
        with_word(Word::Status(Box::new(said(0)))),
        Vec::<String>::new(),
        "it answers: only its kubelet is away"
    );
    assert_eq!(with_word(Word::Unasked), Vec::<String>::new(), "the operator has not asked yet");
    let mut unready = after(&observed, 300);
    unready.pods[0].status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".to_owned();
    assert_eq!(steps(&pool, &unready), Vec::<String>::new(), "not ready by its kubelet's word");
    let mut validator = after(&observed, 300);
    validator.nodes[0].status.as_mut().unwrap().power = Some("1".to_owned());
    assert_eq!(steps(&pool, &validator), Vec::<String>::new(), "no other node takes over a vote");
}

#[test]
fn a_replacement_stays_and_the_name_is_free_when_the_pod_is_gone_from_its_host() {
    let two = pool(&json!({"replicas": 2}));
    let mut observed = pool_observed(&two, 0..3);
    lose_host(&mut observed, "readers-0");
    let observed = after(&observed, 300);
    // Whichever of the two writes came last.
    assert_eq!(steps(&two, &observed), ["delete readers-0"]);
    let mut replaced = observed.clone();
    replaced.nodes.retain(|node| node.name_any() != "readers-0");
    replaced.words.remove("readers-0");
    let three = pool(&json!({"replicas": 3}));
    assert_eq!(names(&two, &replaced), ["readers-1", "readers-2"]);
    assert_eq!(names(&three, &replaced), ["readers-1", "readers-2", "readers-3"], "the process may still run");

    // The host is back, and the pod has ended.
    replaced.pods.retain(|pod| pod.name_any() != "readers-0");
    assert_eq!(steps(&two, &replaced), Vec::<String>::new());
    assert_eq!(names(&three, &replaced), ["readers-0", "readers-1", "readers-2"]);
    // A smaller pool loses its highest ordinal, as ever.
    assert_eq!(steps(&pool(&json!({"replicas": 1})), &replaced), ["delete readers-2"]);

    // The host was back before the other node was deleted.
    let mut back = observed;
    back.pods[0].status.as_mut().unwrap().conditions = None;
    assert_eq!(steps(&two, &back), ["delete readers-2"]);
}

#[test]
fn when_hosts_go_one_after_the_other_no_more_nodes_are_made_than_come_up() {
    for (bound, expected) in
        [(1, ["readers-1", "readers-2", "readers-3"]), (2, ["readers-2", "readers-3", "readers-4"])]
    {
        let pool = pool(&json!({"replicas": 3, "maxUnavailable": bound}));
        let mut observed = pool_observed(&pool, 0..3);
        for name in ["readers-0", "readers-1", "readers-2"] {
            lose_host(&mut observed, name);
        }
        let lost = after(&observed, 300);
        assert_eq!(names(&pool, &lost), expected, "at most {bound}");
    }

    let pool = pool(&json!({"replicas": 2}));
    let mut observed = pool_observed(&pool, 0..2);
    lose_host(&mut observed, "readers-0");
    observed.nodes[1].status = None;
    assert_eq!(names(&pool, &after(&observed, 300)), ["readers-0", "readers-1"], "readers-1 has not come up");
}
