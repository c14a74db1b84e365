#![allow(clippy::unwrap_used, clippy::panic)]
use bizra_proto::v1;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::*;
use crate::{
    api::{ValidatorStatus, condition},
    controllers::{
        conditions::find,
        fixtures::{deleting, network, now},
        validator::{act::Outcome, replacement::Nodes, report::status},
    },
    ledger::{Ledger, LedgerError, OwnerKey},
};

const KEY: [u8; 32] = [5; 32];

pub(in crate::controllers::validator) fn owner(seed: u8) -> OwnerKey {
    let data = k8s_openapi::ByteString(hex::encode([seed; 32]).into_bytes());
    let secret: Secret = serde_json::from_value(json!({"data": {"owner.key": data}})).unwrap();
    OwnerKey::read(&secret, "owner.key").unwrap()
}

pub(in crate::controllers::validator) fn validator(spec: &serde_json::Value) -> Validator {
    let mut whole = json!({
        "networkRef": {"name": "demo"}, "nodeRef": {"name": "reader-0"}, "owner": {"secretName": "owner"}, "stake": "600",
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Validator",
        "metadata": {"name": "fifth", "namespace": "default", "uid": "v-1", "resourceVersion": "1", "generation": 1},
        "spec": whole,
    }))
    .unwrap()
}

pub(in crate::controllers::validator) fn held(mut validator: Validator) -> Validator {
    validator.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    validator
}

pub(in crate::controllers::validator) fn observed(balance: u64) -> Observed {
    let said = v1::NodeStatus { public_key: hex::encode(KEY), ..Default::default() };
    let set = v1::GetValidatorSetResponse { epoch: 1, ..Default::default() };
    Observed {
        now: now(),
        network: Some(network("demo-1")),
        word: Word::Status(Box::new(said)),
        channel: None,
        owner: Some(Ok(owner(7))),
        elder: None,
        view: Some(Ok(OwnerView { height: 100, balance, nonce: 3, set, ..OwnerView::default() })),
        ledger: Ledger::new(Vec::new()),
        around: Nodes::default(),
        is_early: false,
    }
}

pub(in crate::controllers::validator) fn view(observed: &mut Observed) -> &mut OwnerView {
    observed.view.as_mut().unwrap().as_mut().unwrap()
}

fn word(reason: Option<&Reason>) -> &str {
    reason.map_or("", |reason| reason.word.as_str())
}

/// The validator with a transaction under way.
fn with_pending(mut validator: Validator, step: SagaStep) -> (Validator, PendingTransaction) {
    let pending = PendingTransaction {
        step,
        id: hex::encode([1; 32]),
        nonce: 3,
        expiry_height: 200,
        bytes: "00".to_owned(),
        generation: 1,
    };
    let address = Some(owner(7).address().to_string());
    let transaction = Some(pending.clone());
    validator.status = Some(ValidatorStatus { address, transaction, ..ValidatorStatus::default() });
    (validator, pending)
}

#[test]
fn the_finalizer_comes_before_the_first_transaction_and_not_before_there_is_one() {
    let fresh = validator(&json!({}));
    assert_eq!(plan(&fresh, &observed(1_000)).step, Some(Step::Hold));
    let poor = plan(&fresh, &observed(599));
    assert_eq!((poor.step, word(poor.waiting.as_ref())), (None, "InsufficientBalance"));
    let held = held(fresh);
    assert_eq!(plan(&held, &observed(1_000)).step, Some(Step::Prepare(Operation::Reserve(600))));
}

#[test]
fn a_transaction_under_way_is_submitted_again_until_the_chain_says_what_became_of_it() {
    let (validator, pending) = with_pending(held(validator(&json!({}))), SagaStep::ReserveStake);
    let mut world = observed(1_000);
    let under_way = plan(&validator, &world);
    assert_eq!((under_way.step, under_way.settled), (Some(Step::Submit(pending)), None));

    view(&mut world).receipt = Some(v1::Receipt { height: 90, ..Default::default() });
    view(&mut world).validator.reserved_stake = 600;
    let done = plan(&validator, &world);
    assert_eq!(done.settled.as_ref().map(|settled| (settled.height, settled.failure.clone())), Some((Some(90), None)));
    assert_eq!(done.step, Some(Step::Prepare(Operation::Register("reader-0".to_owned()))));

    view(&mut world).receipt = None;
    view(&mut world).height = 200;
    let expired = plan(&validator, &world).settled.unwrap();
    assert_eq!((expired.height, expired.failure.as_deref()), (None, Some("Expired")));
    view(&mut world).height = 100;
    view(&mut world).nonce = 4;
    assert_eq!(plan(&validator, &world).settled.unwrap().failure.as_deref(), Some("BadNonce"));
}

#[test]
fn whoever_is_refused_gets_its_stake_back_and_is_told_why_until_the_spec_changes() {
    let (validator, _) = with_pending(held(validator(&json!({}))), SagaStep::ActivateValidator);
    let mut world = observed(400);
    view(&mut world).receipt = Some(v1::Receipt { height: 90, failure: "KeyInUse".to_owned(), ..Default::default() });
    let chain = &mut view(&mut world).validator;
    (chain.registered, chain.reserved_stake) = (true, 600);
    (chain.node_name, chain.status) = ("reader-0".to_owned(), "Inactive".to_owned());
    let refused = plan(&validator, &world);
    assert_eq!(refused.step, Some(Step::Prepare(Operation::Deregister)));
    assert_eq!((word(refused.stalled.as_ref()), refused.is_done), ("KeyInUse", false));

    // The next look knows it from the status.
    let mut later = validator.clone();
    later.status = Some(status(&validator, &world, &refused, Ok(&Outcome::Done)));
    let kept = later.status.as_ref().unwrap();
    assert_eq!((kept.history.len(), kept.transaction.as_ref()), (1, None));
    assert_eq!(find(&kept.conditions, condition::STALLED).unwrap().status, "True");
    view(&mut world).receipt = None;
    view(&mut world).validator.registered = false;
    assert_eq!(plan(&later, &world).step, Some(Step::Prepare(Operation::Release(600))));
    view(&mut world).validator.reserved_stake = 0;
    let undone = plan(&later, &world);
    assert_eq!((undone.step, undone.is_done), (None, false));
    assert!(undone.stalled.unwrap().message.contains("everything before it is undone"));

    later.metadata.generation = Some(2);
    view(&mut world).balance = 1_000;
    assert_eq!(plan(&later, &world).step, Some(Step::Prepare(Operation::Reserve(600))), "another try");
}

#[test]
fn a_release_that_is_refused_leaves_the_validator_what_it_was() {
    let (validator, _) = with_pending(held(validator(&json!({}))), SagaStep::ReleaseStake);
    let mut world = observed(0);
    view(&mut world).receipt = Some(v1::Receipt { height: 90, failure: "StakeInUse".to_owned(), ..Default::default() });
    let chain = &mut view(&mut world).validator;
    (chain.registered, chain.reserved_stake, chain.consensus_key) = (true, 600, KEY.to_vec());
    (chain.node_name, chain.status) = ("reader-0".to_owned(), "Active".to_owned());
    let plan = plan(&validator, &world);
    assert_eq!((plan.step, word(plan.stalled.as_ref())), (None, "StakeInUse"));
}

#[test]
fn a_deleted_one_goes_when_its_stake_is_back_or_when_there_is_nothing_to_wait_for() {
    let leaving = deleting(held(validator(&json!({}))));
    let mut world = observed(400);
    view(&mut world).validator.reserved_stake = 600;
    assert_eq!(plan(&leaving, &world).step, Some(Step::Prepare(Operation::Release(600))));
    assert_eq!(plan(&leaving, &observed(1_000)).step, Some(Step::LetGo));

    let abandoned = deleting(held(validator(&json!({"deletionPolicy": "Abandon"}))));
    assert_eq!(plan(&abandoned, &world).step, Some(Step::LetGo));
    let without_network = Observed { network: None, ..observed(0) };
    assert_eq!(plan(&leaving, &without_network).step, Some(Step::LetGo));
    let ending = Observed { network: Some(deleting(network("demo-1"))), ..observed(0) };
    assert_eq!(plan(&leaving, &ending).step, Some(Step::LetGo));
    let younger = Observed { elder: Some("fourth".to_owned()), ..observed(0) };
    assert_eq!(plan(&leaving, &younger).step, Some(Step::LetGo));
    assert_eq!(plan(&deleting(validator(&json!({}))), &world), Plan::default(), "it was never held");
}

#[test]
fn without_the_owners_key_or_the_chains_word_nothing_is_signed() {
    let held = held(validator(&json!({})));
    let (known, _) = with_pending(held.clone(), SagaStep::ReserveStake);
    let mut known = known;
    known.status.as_mut().unwrap().transaction = None;
    known.status.as_mut().unwrap().history = vec![record(90)];
    let stalled = |validator: &Validator, observed: Observed| {
        let plan = plan(validator, &observed);
        assert_eq!(plan.step, None);
        word(plan.stalled.as_ref().or(plan.waiting.as_ref())).to_owned()
    };
    let missing = || Err(Reason::new("SecretMissing", ""));
    assert_eq!(stalled(&held, Observed { owner: Some(missing()), view: None, ..observed(0) }), "SecretMissing");
    assert_eq!(stalled(&known, Observed { owner: Some(missing()), ..observed(1_000) }), "SecretMissing");
    assert_eq!(stalled(&known, Observed { owner: Some(Ok(owner(8))), ..observed(1_000) }), "OwnerChanged");
    known.status.as_mut().unwrap().history.clear();
    let replaced = plan(&known, &Observed { owner: Some(Ok(owner(8))), ..observed(1_000) });
    assert_eq!(
        replaced.step,
        Some(Step::Prepare(Operation::Reserve(600))),
        "it has done nothing yet with the first one"
    );
    assert_eq!(stalled(&held, Observed { view: Some(Err(LedgerError::TooFew)), ..observed(0) }), "ChainSilent");
    assert_eq!(stalled(&held, Observed { elder: Some("fourth".to_owned()), ..observed(1_000) }), "OwnerInUse");
    assert_eq!(stalled(&held, Observed { network: None, ..observed(1_000) }), "NetworkMissing");
}

#[test]
fn the_status_tells_the_whole_story_and_a_silent_chain_takes_nothing_from_it() {
    let mut validator = held(validator(&json!({})));
    let mut world = observed(400);
    let address = owner(7).address();
    let chain = &mut view(&mut world).validator;
    (chain.registered, chain.reserved_stake, chain.consensus_key) = (true, 600, KEY.to_vec());
    (chain.node_name, chain.status) = ("reader-0".to_owned(), "Active".to_owned());
    let member = v1::ValidatorSetMember {
        owner: address.0.to_vec(),
        consensus_key: KEY.to_vec(),
        power: 1,
        ..Default::default()
    };
    view(&mut world).set.members = vec![member];
    let done = plan(&validator, &world);
    assert!(done.is_done);
    let told = status(&validator, &world, &done, Ok(&Outcome::Done));
    let truth = |status: &ValidatorStatus, type_: &str| {
        let found = find(&status.conditions, type_).unwrap();
        format!("{}/{}", found.status, found.reason)
    };
    for (type_, expected) in [
        (condition::READY, "True/Active"),
        (condition::STAKE_RESERVED, "True/Reserved"),
        (condition::REGISTERED, "True/Registered"),
        (condition::ACTIVE, "True/InSet"),
        (condition::KEY_HEALTHY, "True/KeyOfNode"),
        (condition::JAILED, "False/NotJailed"),
        (condition::STALLED, "False/NotStalled"),
    ] {
        assert_eq!(truth(&told, type_), expected);
    }
    assert_eq!((told.power.as_deref(), told.balance.as_deref()), (Some("1"), Some("400")));

    validator.status = Some(told.clone());
    world.view = Some(Err(LedgerError::NoAgreement));
    let silent = plan(&validator, &world);
    let kept = status(&validator, &world, &silent, Ok(&Outcome::Done));
    assert_eq!(truth(&kept, condition::ACTIVE), "Unknown/ChainSilent");
    let facts = |status: ValidatorStatus| (status.power, status.stake, status.public_key, status.address);
    assert_eq!(facts(kept), facts(told));
}

fn record(height: i64) -> SagaRecord {
    SagaRecord {
        step: SagaStep::CollectStake,
        transaction_id: String::new(),
        height: Some(height),
        time: Time(now()),
        failure: None,
    }
}

#[test]
fn an_answer_older_than_what_was_done_is_none() {
    let (mut leaving, _) = with_pending(deleting(held(validator(&json!({})))), SagaStep::ReserveStake);
    let status = leaving.status.as_mut().unwrap();
    (status.transaction, status.history) = (None, vec![record(101)]);
    let plan = plan(&leaving, &observed(1_000));
    assert_eq!((plan.step, word(plan.waiting.as_ref())), (None, "ChainSilent"), "the stake is not known of yet");
}

#[test]
fn after_a_jailing_only_the_jailed_one_goes_on_until_somebody_has_acknowledged_it() {
    let key = "06".repeat(32);
    let jailing = json!({"id": format!("{key}@7"), "validator": "v", "node": "n", "publicKey": key, "height": 7});
    let mut world = observed(1_000);
    let network = world.network.as_mut().unwrap();
    network.status.get_or_insert_default().jailings = vec![serde_json::from_value(jailing).unwrap()];
    let fresh = held(validator(&json!({})));
    let waits = plan(&fresh, &world);
    assert_eq!((waits.step, word(waits.waiting.as_ref())), (None, "JailedValidator"));
    let (under_way, pending) = with_pending(fresh.clone(), SagaStep::ReserveStake);
    assert_eq!(plan(&under_way, &world).step, Some(Step::Submit(pending)), "it is signed and may be known already");

    let mut jailed = deleting(fresh.clone());
    let chain = &mut view(&mut world).validator;
    (chain.registered, chain.reserved_stake, chain.queued_at) = (true, 570, 77);
    (chain.status, chain.consensus_key) = ("Jailed".to_owned(), KEY.to_vec());
    let leaves = plan(&jailed, &world);
    assert_eq!(leaves.step, Some(Step::Prepare(Operation::Deregister)));
    let told = status(&jailed, &world, &leaves, Ok(&Outcome::Done));
    assert_eq!(told.jailed_at, Some(77));
    assert_eq!(find(&told.conditions, condition::JAILED).unwrap().status, "True");
    jailed.status = Some(told);
    view(&mut world).validator = v1::GetValidatorResponse { reserved_stake: 570, ..Default::default() };
    assert_eq!(plan(&jailed, &world).step, Some(Step::Prepare(Operation::Release(570))), "the registry forgot it");

    world.network.as_mut().unwrap().spec.acknowledged_jailings.push(format!("{key}@7"));
    view(&mut world).validator.reserved_stake = 0;
    assert_eq!(plan(&fresh, &world).step, Some(Step::Prepare(Operation::Reserve(600))));
}

#[test]
fn a_history_is_bounded() {
    let history = (0..20).fold(Vec::new(), |history, height| remember(history, Some(record(height))));
    assert_eq!((history.len(), history[0].height), (HISTORY_MAX, Some(20 - 16)));
}
