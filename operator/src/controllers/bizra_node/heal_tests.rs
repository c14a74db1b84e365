#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1::SigningState;
use serde_json::{Value, json};

use super::*;
use crate::controllers::fixtures::{claim_of, container, node, node_observed, now, pod_of};

const CORRUPT: &str = r#"{"reason":"DatabaseCorrupt","message":"block 7 is damaged"}"#;

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

fn crashed(message: &str, count: i32) -> Value {
    let mut crashed = container("node", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    crashed["lastState"] = json!({"terminated": {"exitCode": 13, "message": message}});
    crashed["restartCount"] = json!(count);
    crashed
}

fn observed_with(container: &Value, ready_since: Option<Timestamp>) -> Observed {
    let mut observed = node_observed();
    observed.claim = Some(claim_of(0));
    let mut pod = pod_of(0, None);
    let mut status = json!({"phase": "Running", "containerStatuses": [container]});
    if let Some(since) = ready_since {
        status["conditions"] = json!([{"type": "Ready", "status": "False", "lastTransitionTime": since.to_string()}]);
    }
    pod.status = Some(serde_json::from_value(status).unwrap());
    observed.pod = Some(pod);
    observed
}

/// Decides, and keeps the decision in the status.
fn decide_and_keep(node: &mut BizraNode, observed: &Observed) -> Healing {
    let healing = decide(node, observed);
    node.status.get_or_insert_default().repair.clone_from(&healing.repair);
    healing
}

/// The node's pod is made anew, to repair what was decided.
fn replace(observed: &mut Observed, node: &BizraNode, uid: &str) {
    let replaced = &node.status.as_ref().unwrap().repair.as_ref().unwrap().pod_uid;
    let pod = observed.pod.as_mut().unwrap();
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.annotations.get_or_insert_default().insert(labels::REPAIR.to_owned(), replaced.clone());
}

fn word(healing: &Healing) -> &str {
    healing.trouble.as_ref().map_or("", |trouble| &trouble.word)
}

#[test]
fn a_damaged_database_is_repaired_only_in_the_reconciliation_after_the_decision() {
    let (mut node, observed) = (node(0), observed_with(&crashed(CORRUPT, 1), None));
    let first = decide_and_keep(&mut node, &observed);
    assert_eq!((word(&first), first.next), ("DatabaseCorrupt", Next::Wait));
    assert!(first.trouble.unwrap().message.contains("block 7 is damaged"));
    let repair = first.repair.unwrap();
    assert_eq!((repair.action, repair.pod_uid.as_str(), repair.attempt), (RepairAction::Resync, "pod-0", 1));
    let second = decide_and_keep(&mut node, &observed);
    assert_eq!((word(&second), second.next, &second.repair), ("DatabaseCorrupt", Next::Act, &Some(repair.clone())));
    // The kubelet tries again in between: a node that runs is not taken down for it, and one that is well is forgotten.
    let mut running = observed_with(&container("node", &json!({"running": {}})), None);
    let between = decide(&node, &running);
    assert_eq!((word(&between), between.next, &between.repair), ("DatabaseCorrupt", Next::Wait, &Some(repair)));
    let said = NodeStatus { sync_state: SyncState::InSync.into(), ..NodeStatus::default() };
    running.word = Word::Status(Box::new(said));
    assert_eq!(decide(&node, &running), Healing::default());
}

#[test]
fn repairs_that_do_not_help_come_later_and_end() {
    let (mut node, mut observed) = (node(0), observed_with(&crashed(CORRUPT, 1), None));
    for attempt in 1..=REPAIRS_MAX {
        let decided = decide_and_keep(&mut node, &observed);
        assert_eq!(decided.repair.unwrap().attempt, attempt);
        assert_eq!(decide_and_keep(&mut node, &observed).next, Next::Act);
        replace(&mut observed, &node, &format!("pod-{attempt}"));
        if attempt < REPAIRS_MAX {
            let soon = decide_and_keep(&mut node, &observed);
            assert_eq!((soon.next, soon.repair.unwrap().attempt), (Next::Wait, attempt));
            observed.now = observed.now.checked_add(observed.limits.cool_down).unwrap();
        }
    }
    observed.now = later(1_000_000);
    let last = decide_and_keep(&mut node, &observed);
    assert_eq!((word(&last), last.next), ("RepairExhausted", Next::GiveUp));
    // Whoever has looked has repairs counted anew.
    node.status.as_mut().unwrap().repair = None;
    assert_eq!(decide(&node, &observed).repair.unwrap().attempt, 1);
}

#[test]
fn a_pod_that_was_replaced_for_another_reason_was_no_repair() {
    let (mut node, mut observed) = (node(0), observed_with(&crashed(CORRUPT, 1), None));
    decide_and_keep(&mut node, &observed);
    observed.pod.as_mut().unwrap().metadata.uid = Some("pod-9".to_owned());
    let repair = decide(&node, &observed).repair.unwrap();
    assert_eq!((repair.attempt, repair.pod_uid.as_str()), (1, "pod-9"));
}

/// A node that runs and has come to nothing for `idle`, by its own word and its kubelet's.
fn standing_still(idle: SignedDuration, unready_for: i64) -> Observed {
    let mut observed = observed_with(&container("node", &json!({"running": {}})), Some(later(-unready_for)));
    observed.idle = idle;
    let said = NodeStatus {
        sync_state: SyncState::CatchingUp.into(),
        signing_state: SigningState::Allowed.into(),
        ..NodeStatus::default()
    };
    observed.word = Word::Status(Box::new(said));
    let safe = json!({"observedGeneration": 1, "conditions": [{
        "type": "QuorumSafe", "status": "True", "reason": "QuorumInSync", "message": "", "lastTransitionTime": now().to_string(),
    }]});
    observed.network.as_mut().unwrap().status = Some(serde_json::from_value(safe).unwrap());
    observed
}

#[test]
fn a_node_is_stuck_only_by_its_kubelets_word_too_and_while_the_network_goes_on() {
    let patience = HealingLimits::default().stuck_after;
    let long = patience.as_secs() + 1;
    let stuck = standing_still(patience, long);
    assert_eq!(word(&decide(&node(0), &stuck)), "Stuck");
    let mut silent = stuck.clone();
    silent.word = Word::Unknown("no answer".to_owned());
    assert_eq!(word(&decide(&node(0), &silent)), "Stuck");
    let well = |observed: &Observed| assert_eq!(decide(&node(0), observed), Healing::default());
    // The operator cannot reach it, but its kubelet finds it ready.
    let mut reachable = silent.clone();
    let conditions = reachable.pod.as_mut().unwrap().status.as_mut().unwrap().conditions.as_mut().unwrap();
    "True".clone_into(&mut conditions[0].status);
    well(&reachable);
    well(&standing_still(patience, 1));
    well(&standing_still(SignedDuration::from_secs(1), long));
    let mut all_stand = stuck.clone();
    all_stand.network.as_mut().unwrap().status.as_mut().unwrap().conditions[0].status = "False".to_owned();
    well(&all_stand);
    let mut locked = stuck;
    if let Word::Status(said) = &mut locked.word {
        said.set_sync_state(SyncState::InSync);
    }
    well(&locked);
}

#[test]
fn a_host_out_of_reach_is_told_and_nothing_on_it_is_repaired() {
    let patience = HealingLimits::default().stuck_after;
    let mut lost = standing_still(patience, patience.as_secs() + 1);
    lost.word = Word::Unknown("no answer".to_owned());
    let conditions = lost.pod.as_mut().unwrap().status.as_mut().unwrap().conditions.as_mut().unwrap();
    let containers_ready = json!({"type": "ContainersReady", "status": "True"});
    conditions.push(serde_json::from_value(containers_ready).unwrap());
    let told = decide(&node(0), &lost);
    assert_eq!((word(&told), told.next, &told.repair), ("HostUnreachable", Next::Wait, &None));
    // Only its kubelet is out of reach.
    lost.word = Word::Status(Box::default());
    assert_eq!(decide(&node(0), &lost), Healing::default());
}

#[test]
fn a_stuck_node_is_restarted_before_its_database_is_given_up() {
    let patience = HealingLimits::default().stuck_after;
    let (mut node, mut observed) = (node(0), standing_still(patience, patience.as_secs() + 1));
    let mut actions = Vec::new();
    for attempt in 1..=REPAIRS_MAX {
        actions.push(decide_and_keep(&mut node, &observed).repair.unwrap().action);
        replace(&mut observed, &node, &format!("pod-{attempt}"));
        observed.now = observed.now.checked_add(observed.limits.cool_down).unwrap();
    }
    assert_eq!(actions, [RepairAction::Restart, RepairAction::Restart, RepairAction::Resync]);
}

#[test]
fn a_crash_loop_is_told_with_the_last_words_and_left_to_the_kubelet() {
    let message = r#"{"reason":"StorageFailed","message":"no space left on device"}"#;
    let told = decide(&node(0), &observed_with(&crashed(message, CRASHES_MIN), None));
    assert_eq!((word(&told), told.next, &told.repair), ("CrashLoop", Next::Wait, &None));
    assert!(told.trouble.unwrap().message.contains("no space left on device"));
    assert_eq!(decide(&node(0), &observed_with(&crashed(message, CRASHES_MIN - 1), None)), Healing::default());
}

#[test]
fn keys_that_refuse_are_replaced_whatever_was_repaired_before_and_whether_the_node_began_or_not() {
    let refused = r#"{"reason":"SigningRecordRefused","message":"there is no record"}"#;
    let mut end = crashed(refused, 1);
    end["lastState"]["terminated"]["exitCode"] = json!(14);
    let (mut node, mut observed) = (node(0), observed_with(&end, None));
    assert_ne!(word(&decide(&node, &observed)), "KeyRefused", "nobody could rotate the key");
    observed.keeper = Some("demo-v0".to_owned());
    // A repair of something else, not long ago, is in nobody's way.
    let seconds = Time(now());
    let former = Repair {
        cause: RepairCause::DatabaseCorrupt,
        action: RepairAction::Resync,
        pod_uid: "pod-9".to_owned(),
        ordered_at: seconds,
        attempt: REPAIRS_MAX,
    };
    node.status.get_or_insert_default().repair = Some(former);
    let repair = decide_and_keep(&mut node, &observed).repair.unwrap();
    assert_eq!((repair.cause, repair.action, repair.attempt), (RepairCause::KeyRefused, RepairAction::NewKeys, 1));
    assert_eq!(decide_and_keep(&mut node, &observed).next, Next::Act);
    // Those that do not help are bounded as others are.
    replace(&mut observed, &node, "pod-1");
    assert_eq!(decide_and_keep(&mut node, &observed).next, Next::Wait);

    let mut init = container("key", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    init["lastState"] = json!({"terminated": {"exitCode": 14, "message": refused}});
    let status = json!({"phase": "Pending", "initContainerStatuses": [init]});
    observed.pod.as_mut().unwrap().status = Some(serde_json::from_value(status).unwrap());
    node.status = None;
    assert_eq!(word(&decide(&node, &observed)), "KeyRefused");
    // A full node has nobody to ask.
    observed.keeper = None;
    node.status.get_or_insert_default().power = Some("0".to_owned());
    assert_eq!(word(&decide(&node, &observed)), "KeyRefused");
}
