//! A fifth validator joins the chain, changes its stake, moves to another node and leaves with its money, while clients are served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bizra_e2e::{
    operator,
    process::Process,
    scene::{Scene, SceneError, from_root, small_network},
    stage::{NETWORK, Stage, VALIDATORS},
};
use bizra_node::{
    identity::SignerFolder,
    transaction::{ChainId, Equivocation, Operation, Terms},
};
use bizra_operator::{
    api::{BizraNode, HostSpread, Network, SagaStep, Validator, ValidatorStatus, condition},
    controllers::conditions::{find, is_true},
};
use bizra_proto::v1::{SubmitRequest, ledger_client::LedgerClient};
use bizra_simplex::{
    Vote, VoteKind,
    types::{Digest, Epoch, Signature, View},
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Secret},
    rbac::v1::RoleBinding,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

type Outcome = Result<(), SceneError>;

/// What the owner has at the beginning.
const BALANCE: u64 = 5_000;
const OWNER: [u8; 32] = [77; 32];
/// Somebody else, with as much.
const OTHER: [u8; 32] = [78; 32];
/// Time for a step that waits for an epoch or two.
const PATIENCE_SECONDS: u64 = 90;

fn account(key: [u8; 32]) -> String {
    hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&SigningKey::from(key))))
}

fn owner() -> String {
    account(OWNER)
}

/// Makes a Secret hold this as an owner's key.
async fn keep(scene: &Scene, secret: &str, key: &str) -> Outcome {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": {"owner.key": key},
    });
    scene.api::<Secret>().patch(secret, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Makes the owner's Secret.
async fn keep_key(scene: &Scene) -> Outcome {
    keep(scene, "owner", &hex::encode(OWNER)).await
}

/// Lets the operator read Secrets in this namespace.
async fn allow_secrets(scene: &Scene) -> Outcome {
    let binding = json!({
        "metadata": {"name": "owners"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bizra-owners"},
        "subjects": [{"kind": "ServiceAccount", "name": "bizra", "namespace": "bizra-system"}],
    });
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    scene.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// Makes the owner's Validator with this node and stake.
async fn apply(scene: &Scene, node: &str, stake: &str) -> Outcome {
    apply_as(scene, "fifth", "owner", node, stake).await
}

async fn apply_as(scene: &Scene, name: &str, secret: &str, node: &str, stake: &str) -> Outcome {
    let validator = json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Validator", "metadata": {"name": name},
        "spec": {"networkRef": {"name": NETWORK}, "nodeRef": {"name": node}, "owner": {"secretName": secret}, "stake": stake},
    });
    let parameters = PatchParams::apply("e2e").validation_strict();
    scene.api::<Validator>().patch(name, &parameters, &Patch::Apply(&validator)).await?;
    Ok(())
}

/// Deletes the owner's Validator and waits until it is gone.
async fn remove(scene: &Scene) -> Outcome {
    remove_as(scene, "fifth").await
}

async fn remove_as(scene: &Scene, name: &str) -> Outcome {
    let validators = scene.api::<Validator>();
    validators.delete(name, &DeleteParams::default()).await?;
    scene
        .wait("the validator has left with its stake", PATIENCE_SECONDS, || async {
            Ok(match validators.get_opt(name).await? {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.status)),
            })
        })
        .await
}

async fn status(scene: &Scene) -> Result<ValidatorStatus, SceneError> {
    Ok(scene.api::<Validator>().get("fifth").await?.status.unwrap_or_default())
}

fn has(status: &ValidatorStatus, type_: &str, reason: &str) -> bool {
    find(&status.conditions, type_).is_some_and(|told| told.reason == reason)
}

/// Waits until the status of the present spec is as it should be.
async fn wait_until(scene: &Scene, what: &str, is_so: impl Fn(&ValidatorStatus) -> bool) -> Outcome {
    wait_until_as(scene, "fifth", what, is_so).await
}

async fn wait_until_as(scene: &Scene, name: &str, what: &str, is_so: impl Fn(&ValidatorStatus) -> bool) -> Outcome {
    scene
        .wait(what, PATIENCE_SECONDS, || async {
            let validator = scene.api::<Validator>().get(name).await?;
            let status = validator.status.unwrap_or_default();
            let is_current = Some(status.observed_generation) == validator.metadata.generation;
            Ok(if is_current && is_so(&status) { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await
}

fn is_ready(status: &ValidatorStatus) -> bool {
    is_true(&status.conditions, condition::READY)
}

async fn change(scene: &Scene, spec: Value) -> Outcome {
    let patch = Patch::Merge(json!({ "spec": spec }));
    scene.api::<Validator>().patch("fifth", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// What the chain says of the owner's validator, by a node's word.
async fn on_chain(scene: &Scene) -> Result<Value, SceneError> {
    scene.ask("demo-v0", &format!("/v1/validators/{}", owner())).await
}

async fn balance(scene: &Scene) -> Result<u64, SceneError> {
    balance_of(scene, &owner()).await
}

async fn balance_of(scene: &Scene, address: &str) -> Result<u64, SceneError> {
    let account = scene.ask("demo-v0", &format!("/v1/accounts/{address}")).await?;
    let balance = account["balance"].as_str().and_then(|text| text.parse().ok());
    balance.ok_or_else(|| SceneError::Unexpected(format!("{account}")))
}

/// Gives both owners their money.
fn endow(network: &mut Value) {
    let accounts = network["spec"]["genesis"]["accounts"].as_array_mut().unwrap();
    for key in [OWNER, OTHER] {
        accounts.push(json!({"address": account(key), "balance": BALANCE.to_string()}));
    }
}

async fn full_node(stage: &Stage, name: &str) -> Outcome {
    let mut node = BizraNode::new(name, stage.scene.api::<BizraNode>().get("demo-v0").await?.spec);
    node.spec.template.host_spread = HostSpread::Preferred;
    stage.scene.api::<BizraNode>().create(&PostParams::default(), &node).await?;
    stage.scene.wait_node_ready(name, 120).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_fifth_validator_joins_changes_its_stake_moves_and_leaves_with_its_money() -> Outcome {
    let mut stage = Stage::start("validators", |network| {
        // Evidence counts as long as a stake unbonds, and meanwhile a key that voted is taken.
        network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 64, "unbondingEpochs": 8});
        endow(network);
    })
    .await?;
    full_node(&stage, "fifth").await?;
    full_node(&stage, "sixth").await?;

    keep_key(&stage.scene).await?;
    stage.begin();
    apply(&stage.scene, "fifth", "1000").await?;
    // The operator has no right to read Secrets here, and says how to give it.
    let asks = |status: &ValidatorStatus| has(status, condition::READY, "SecretsForbidden");
    wait_until(&stage.scene, "the operator asks for the right", asks).await?;
    let told = status(&stage.scene).await?;
    let message = find(&told.conditions, condition::STALLED).unwrap().message.clone();
    let command = message.split_once("allow it: ").unwrap().1.to_owned();
    let namespace = stage.scene.namespace.clone();
    assert!(
        command.starts_with("kubectl create rolebinding") && command.ends_with(&format!("--namespace {namespace}"))
    );
    let done = tokio::process::Command::new("bash").args(["-c", &command]).output().await.unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(stage.scene.names::<RoleBinding>().await?.len(), 1);

    wait_until(&stage.scene, "it validates", is_ready).await?;
    let joined = status(&stage.scene).await?;
    let steps: Vec<SagaStep> =
        joined.history.iter().filter(|done| done.failure.is_none()).map(|done| done.step).collect();
    assert_eq!(steps, [SagaStep::ReserveStake, SagaStep::RegisterValidator, SagaStep::ActivateValidator]);
    assert_eq!((joined.power.as_deref(), joined.stake.as_deref()), (Some("1"), Some("1000")), "{joined:?}");
    assert_eq!(balance(&stage.scene).await?, BALANCE - 1_000);
    stage
        .scene
        .wait("it has proposed a block", 60, || async {
            let said = on_chain(&stage.scene).await?;
            Ok(if said["turnsLed"].as_u64() > Some(0) { Ok(()) } else { Err(said.to_string()) })
        })
        .await?;
    stage.scene.wait_node_ready("fifth", 30).await?;
    stage.end("a fifth validator joins and proposes").await?;

    stage.begin();
    change(&stage.scene, json!({"stake": "1700"})).await?;
    wait_until(&stage.scene, "the stake is topped up", |status| {
        is_ready(status) && status.stake.as_deref() == Some("1700")
    })
    .await?;
    change(&stage.scene, json!({"stake": "1200"})).await?;
    wait_until(&stage.scene, "the rest has unbonded", |status| {
        is_ready(status) && status.stake.as_deref() == Some("1200") && status.unbonding.is_empty()
    })
    .await?;
    assert_eq!(balance(&stage.scene).await?, BALANCE - 1_200);
    stage.end("stake topped up and unbonded").await?;

    stage.begin();
    change(&stage.scene, json!({"nodeRef": {"name": "sixth"}})).await?;
    let key = stage.scene.api::<BizraNode>().get("sixth").await?.status.and_then(|status| status.public_key);
    wait_until(&stage.scene, "it validates with the other node", |status| is_ready(status) && status.public_key == key)
        .await?;
    assert_eq!(on_chain(&stage.scene).await?["nodeName"], "sixth");
    stage.end("moved to another node").await?;

    // The key that it voted with until now is nobody else's for as long as evidence counts.
    stage.begin();
    keep(&stage.scene, "other", &hex::encode(OTHER)).await?;
    apply_as(&stage.scene, "other", "other", "fifth", "1000").await?;
    let refused = |status: &ValidatorStatus| {
        let is_back = status.stake.as_deref() == Some("0") && status.unbonding.is_empty();
        has(status, condition::STALLED, "KeyInUse") && is_back && status.transaction.is_none()
    };
    wait_until_as(&stage.scene, "other", "the key is refused, and the stake is back", refused).await?;
    assert_eq!(balance_of(&stage.scene, &account(OTHER)).await?, BALANCE);
    remove_as(&stage.scene, "other").await?;
    stage.end("refused for its key, and undone").await?;

    stage.begin();
    remove(&stage.scene).await?;
    assert_eq!(balance(&stage.scene).await?, BALANCE, "to the last unit");
    assert_eq!(on_chain(&stage.scene).await?["registered"], false);
    stage.end("the fifth validator leaves").await?;

    // More than there is, and a node whose name somebody else has on the chain.
    stage.begin();
    apply(&stage.scene, "sixth", "5001").await?;
    let lacks = |status: &ValidatorStatus| has(status, condition::READY, "InsufficientBalance");
    wait_until(&stage.scene, "the operator says what is missing", lacks).await?;
    assert_eq!(status(&stage.scene).await?.history, Vec::new(), "nothing was sent");
    apply(&stage.scene, "demo-v1", "1000").await?;
    let undone = |status: &ValidatorStatus| {
        let is_back = status.stake.as_deref() == Some("0") && status.unbonding.is_empty();
        has(status, condition::STALLED, "NameTaken") && is_back && status.transaction.is_none()
    };
    wait_until(&stage.scene, "the chain refuses, and the stake is back", undone).await?;
    assert_eq!(balance(&stage.scene).await?, BALANCE);
    remove(&stage.scene).await?;
    stage.end("refused, and undone").await?;
    stage.finish().await
}

async fn set_validators(scene: &Scene, count: i32) -> Outcome {
    let patch = Patch::Merge(json!({"spec": {"validators": count}}));
    scene.api::<Network>().patch(NETWORK, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until the network has so many validators, all in sync, and the chain's next set has exactly those.
async fn wait_for_validators(scene: &Scene, count: usize) -> Outcome {
    scene
        .wait(&format!("there are {count} validators"), 5 * PATIENCE_SECONDS, || async {
            let status = scene.api::<Network>().get(NETWORK).await?.status.unwrap_or_default();
            let set = scene.ask("demo-v0", "/v1/validator-sets/latest").await?;
            let powers: Vec<&str> =
                set["members"].as_array().into_iter().flatten().filter_map(|member| member["power"].as_str()).collect();
            let ready = usize::try_from(status.validators.ready).ok();
            let is_so =
                is_true(&status.conditions, condition::READY) && ready == Some(count) && powers == vec!["1"; count];
            Ok(if is_so { Ok(()) } else { Err(format!("{:?} {set}", find(&status.conditions, condition::READY))) })
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_network_grows_to_seven_validators_and_shrinks_to_four_again() -> Outcome {
    let mut stage = Stage::start("membership", |network| {
        network["spec"]["hostSpread"] = json!("Preferred");
        network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 64, "unbondingEpochs": 2});
    })
    .await?;
    let validators = stage.scene.api::<Validator>();
    wait_for_validators(&stage.scene, 4).await?;
    assert_eq!(validators.list(&ListParams::default()).await?.items.len(), 4, "the genesis validators");

    stage.begin();
    set_validators(&stage.scene, 7).await?;
    wait_for_validators(&stage.scene, 7).await?;
    stage.end("four validators become seven").await?;
    let owner_of = |ordinal: i32| {
        let validators = validators.clone();
        async move {
            let status = validators.get(&format!("demo-v{ordinal}")).await?.status.unwrap_or_default();
            Ok::<_, SceneError>(status.address.unwrap_or_default())
        }
    };
    let mut owners = Vec::new();
    for ordinal in 4..7 {
        owners.push(owner_of(ordinal).await?);
    }

    stage.begin();
    set_validators(&stage.scene, 4).await?;
    wait_for_validators(&stage.scene, 4).await?;
    stage.end("seven validators become four").await?;
    stage
        .scene
        .wait("their nodes are gone", 60, || async {
            let nodes = stage.scene.names::<BizraNode>().await?;
            Ok(if nodes == VALIDATORS { Ok(()) } else { Err(format!("{nodes:?}")) })
        })
        .await?;
    for owner in owners {
        let account = stage.scene.ask("demo-v0", &format!("/v1/accounts/{owner}")).await?;
        assert_eq!(account["balance"], "1000", "the stake is back to the last unit: {account}");
    }
    // A Network that goes takes no validator off the chain.
    stage.finish().await
}

#[tokio::test]
#[ignore = "some minutes; `make e2e` has it"]
async fn an_operator_killed_over_and_over_in_a_saga_pays_for_nothing_twice() -> Outcome {
    let scene = Scene::start("saga").await?;
    let mut network = small_network("saga-1")?;
    let accounts = json!([{"address": owner(), "balance": BALANCE.to_string()}]);
    network["spec"]["genesis"] = json!({"accounts": accounts, "parameters": {"epochBlocks": 32, "unbondingEpochs": 1}});
    scene.apply(&network).await?;
    scene.wait_ready(NETWORK, 120).await?;
    let mut node = BizraNode::new("reader", scene.api::<BizraNode>().get("demo-v0").await?.spec);
    node.spec.template.host_spread = HostSpread::Preferred;
    scene.api::<BizraNode>().create(&PostParams::default(), &node).await?;
    scene.wait_node_ready("reader", 120).await?;
    keep_key(&scene).await?;
    allow_secrets(&scene).await?;
    apply(&scene, "reader", "1000").await?;
    let mut leader = operator::leader(&scene.client).await?;
    for pause in [400, 800, 1_200, 1_600] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        operator::kill(&scene.client).await?;
        // The next one gets a little further.
        leader = operator::wait_leader(&scene, |name| !name.is_empty() && *name != *leader, 60).await?;
    }
    wait_until(&scene, "it validates", is_ready).await?;
    let applied = status(&scene).await?.history.into_iter().filter(|done| done.failure.is_none());
    let steps: Vec<SagaStep> = applied.map(|done| done.step).collect();
    assert_eq!(steps, [SagaStep::ReserveStake, SagaStep::RegisterValidator, SagaStep::ActivateValidator]);
    assert_eq!(balance(&scene).await?, BALANCE - 1_000);
    let account = scene.ask("demo-v0", &format!("/v1/accounts/{}", owner())).await?;
    assert_eq!(account["nonce"], 3, "each step is one transaction: {account}");
    scene.remove().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn an_owners_secret_can_be_put_right_and_too_large_a_share_is_told() -> Outcome {
    let stage = Stage::start("owners", |network| {
        network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 64, "unbondingEpochs": 1});
        endow(network);
    })
    .await?;
    full_node(&stage, "fifth").await?;
    allow_secrets(&stage.scene).await?;
    let scene = &stage.scene;
    let told = |type_: &'static str, reason: &'static str| move |status: &ValidatorStatus| has(status, type_, reason);

    // Half of the power that there is: two of six.
    apply(scene, "fifth", "2000").await?;
    wait_until(scene, "there is no Secret", told(condition::STALLED, "SecretMissing")).await?;
    keep(scene, "owner", "not a key").await?;
    wait_until(scene, "the Secret holds no key", told(condition::STALLED, "SecretMalformed")).await?;
    keep(scene, "owner", &hex::encode([79; 32])).await?;
    wait_until(scene, "the Secret is another's", told(condition::READY, "InsufficientBalance")).await?;
    keep_key(scene).await?;
    wait_until(scene, "its share is too large", told(condition::READY, "ShareTooLarge")).await?;
    let waits = status(scene).await?;
    assert_eq!((waits.stake.as_deref(), waits.power.as_deref()), (Some("2000"), Some("0")), "{waits:?}");

    // It is bound to its owner by now.
    keep(scene, "owner", &hex::encode(OTHER)).await?;
    change(scene, json!({"stake": "1000"})).await?;
    wait_until(scene, "the Secret was replaced", told(condition::STALLED, "OwnerChanged")).await?;
    keep_key(scene).await?;
    let is_smaller = |status: &ValidatorStatus| {
        is_ready(status) && status.power.as_deref() == Some("1") && status.unbonding.is_empty()
    };
    wait_until(scene, "it validates with less", is_smaller).await?;
    assert_eq!(balance(scene).await?, BALANCE - 1_000);
    assert_eq!(balance_of(scene, &account(OTHER)).await?, BALANCE);

    // Two of four stand still, and a stake is changed meanwhile.
    let process = async |validator: &str| Process::of_pod(&stage.scene.pod_uid(validator).await?, "bizra-node");
    let mut stopped = [process("demo-v2").await?, process("demo-v3").await?];
    stopped.iter_mut().try_for_each(Process::pause)?;
    change(scene, json!({"stake": "1500"})).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(status(scene).await?.stake.as_deref(), Some("1000"), "nothing is final without a quorum");
    stopped.into_iter().try_for_each(Process::resume)?;
    wait_until(scene, "the stake is topped up", |status| is_ready(status) && status.stake.as_deref() == Some("1500"))
        .await?;
    assert_eq!(balance(scene).await?, BALANCE - 1_500, "once");
    remove(scene).await?;
    assert_eq!(balance(scene).await?, BALANCE);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn a_validator_deleted_anywhere_in_its_saga_leaves_with_its_money() -> Outcome {
    let stage = Stage::start("deleted", |network| {
        network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 32, "unbondingEpochs": 1});
        endow(network);
    })
    .await?;
    full_node(&stage, "fifth").await?;
    keep_key(&stage.scene).await?;
    allow_secrets(&stage.scene).await?;
    let steps = [SagaStep::ReserveStake, SagaStep::RegisterValidator, SagaStep::ActivateValidator];
    for step in steps {
        apply(&stage.scene, "fifth", "1000").await?;
        // Under way or done, whichever is seen first.
        wait_until(&stage.scene, &format!("{step:?}"), |status| {
            status.step == Some(step) || status.history.iter().any(|done| done.step == step)
        })
        .await?;
        remove(&stage.scene).await?;
        assert_eq!(balance(&stage.scene).await?, BALANCE, "deleted at {step:?}");
        assert_eq!(on_chain(&stage.scene).await?["registered"], false);
    }
    stage.finish().await
}

/// Makes two conflicting votes with the key of this node, and has somebody else report them.
async fn equivocate(scene: &Scene, node: &str) -> Outcome {
    let unexpected = |error: &dyn std::fmt::Display| SceneError::Unexpected(error.to_string());
    let process = Process::of_pod(&scene.pod_uid(node).await?, "bizra-node")?;
    let claim = scene.api::<BizraNode>().get(node).await?.status.and_then(|status| status.volume_id);
    let folder = process.root().join("var/lib/bizra");
    let key = SignerFolder::open(&folder, &claim.unwrap_or_default()).and_then(|signer| signer.consensus_key());
    let key = key.map_err(|error| unexpected(&error))?;
    let genesis = scene.api::<Network>().get(NETWORK).await?.status.and_then(|status| status.genesis_hash);
    let mut domain = [0; 32];
    hex::decode_to_slice(genesis.unwrap_or_default(), &mut domain).map_err(|error| unexpected(&error))?;
    let epoch = scene.ask("demo-v0", "/v1/validator-sets/latest").await?["epoch"].as_u64().unwrap();
    let [first, second] = [1, 2].map(|digest| {
        let digest = Digest([digest; 32]);
        let vote = Vote { epoch: Epoch(epoch), view: View(1_000_000), kind: VoteKind::Notarize, digest };
        (vote, Signature(key.sign(&vote.signed_bytes(Digest(domain))).into()))
    });
    let report = Operation::ReportEquivocation(Equivocation { public_key: key.public_key(), first, second });
    let chain = scene.api::<Network>().get(NETWORK).await?.spec.chain_id;
    let chain = ChainId::new(&chain).unwrap();
    let other = scene.ask("demo-v0", &format!("/v1/accounts/{}", account(OTHER))).await?;
    let (nonce, height) = (other["nonce"].as_u64().unwrap(), other["height"].as_u64().unwrap());
    let terms = Terms { chain, nonce, fee: 0, expiry_height: height + 1_000 };
    let bytes = terms.sign(&report, &SigningKey::from(OTHER)).map_err(|error| unexpected(&error))?;
    for target in scene.service_urls(NETWORK, "grpc").await? {
        let Ok(mut ledger) = LedgerClient::connect(target).await else { continue };
        if ledger.submit(SubmitRequest { transactions: vec![bytes.clone()] }).await.is_ok() {
            return Ok(());
        }
    }
    Err(SceneError::Unexpected("nobody takes the report".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes; `make e2e` has it"]
async fn after_a_jailing_nobody_else_is_changed_until_somebody_acknowledges_it() -> Outcome {
    let mut stage = Stage::start("jailed", |network| {
        network["spec"]["genesis"]["parameters"] = json!({"epochBlocks": 64, "unbondingEpochs": 1});
        endow(network);
    })
    .await?;
    full_node(&stage, "fifth").await?;
    keep_key(&stage.scene).await?;
    allow_secrets(&stage.scene).await?;
    apply(&stage.scene, "fifth", "1000").await?;
    wait_until(&stage.scene, "it validates", is_ready).await?;

    stage.begin();
    equivocate(&stage.scene, "fifth").await?;
    wait_until(&stage.scene, "it is jailed", |status| is_true(&status.conditions, condition::JAILED)).await?;
    let message = stage.scene.wait_condition(NETWORK, condition::JAILED_VALIDATOR, "JailedValidator", 30).await?;
    stage
        .scene
        .wait("its node is fenced", 30, || async {
            let status = stage.scene.api::<BizraNode>().get("fifth").await?.status.unwrap_or_default();
            let is_fenced = find(&status.conditions, condition::FENCED).is_some_and(|told| told.reason == "Jailed");
            let is_so = is_fenced && is_true(&status.conditions, condition::FENCED);
            Ok(if is_so { Ok(()) } else { Err(format!("{:?}", status.conditions)) })
        })
        .await?;
    let uids = async |scene: &Scene| -> Result<Vec<String>, SceneError> {
        let mut uids = Vec::new();
        for validator in VALIDATORS {
            uids.push(scene.pod_uid(validator).await?);
        }
        Ok(uids)
    };
    let before = uids(&stage.scene).await?;
    stage.change(json!({"pod": {"annotations": {"round": "second"}}})).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(uids(&stage.scene).await?, before, "nobody is changed");
    let network = stage.scene.api::<Network>().get(NETWORK).await?;
    let waiting = network.status.clone().unwrap_or_default();
    assert_eq!(waiting.permit, None);
    assert_eq!(find(&waiting.conditions, condition::UP_TO_DATE).unwrap().reason, "JailedValidator", "{waiting:?}");
    stage.end("nobody is changed after a jailing").await?;

    let [jailing] = &waiting.jailings[..] else { panic!("{:?}", waiting.jailings) };
    assert!(message.contains(&jailing.id), "{message}");
    let guess = format!("{}@1", jailing.public_key);
    let refused = stage.change(json!({"acknowledgedJailings": [guess]})).await.unwrap_err();
    assert!(refused.to_string().contains("add only what status.jailings shows"), "{refused}");
    stage.change(json!({"acknowledgedJailings": [jailing.id]})).await?;
    stage.scene.wait_condition(NETWORK, condition::UP_TO_DATE, "RevisionCurrent", 240).await?;
    assert!(uids(&stage.scene).await?.iter().zip(&before).all(|(now, before)| now != before));

    remove(&stage.scene).await?;
    assert_eq!(balance(&stage.scene).await?, BALANCE - 50, "a twentieth is taken, the rest comes back");
    stage.scene.api::<BizraNode>().delete("fifth", &DeleteParams::default()).await?;
    let claims = stage.scene.api::<PersistentVolumeClaim>();
    claims.delete("fifth-data", &DeleteParams::default()).await?;
    stage.finish().await
}

/// The commands of a document: its blocks marked `sh`, in order, as one script.
fn commands_of(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
#[ignore = "some minutes on an idle chain; `make e2e` has it"]
async fn the_tutorial_runs_as_it_is_written() -> Outcome {
    let scene = Scene::start("tutorial").await?;
    let folder = tempfile::tempdir().unwrap();
    // The namespace is the reader's own.
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::copy(std::env::var("KUBECONFIG").unwrap(), &kubeconfig).unwrap();
    let node = std::path::PathBuf::from(std::env::var("BIZRA_NODE_BINARY").unwrap());
    let path = format!("{}:{}", node.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let tutorial = std::fs::read_to_string(from_root("docs/add-a-validator.md")).unwrap();
    let namespace = &scene.namespace;
    let script = format!(
        "set -euxo pipefail\nkubectl config set-context --current --namespace {namespace}\n{}",
        commands_of(&tutorial)
    );
    let output = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("KUBECONFIG", &kubeconfig)
        .env("PATH", path)
        .output()
        .await
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{error}");
    for told in ["ReserveStake", "RegisterValidator", "ActivateValidator", "KeyOfNode"] {
        assert!(out.contains(told), "`kubectl describe` does not say {told}");
    }
    scene.remove().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute; `make e2e` has it"]
async fn a_namespace_with_a_validator_in_mid_saga_goes() -> Outcome {
    let scene = Scene::start("wedged").await?;
    let mut network = small_network("wedged-1")?;
    network["spec"]["genesis"] = json!({"accounts": [{"address": owner(), "balance": "5000"}]});
    scene.apply(&network).await?;
    scene.wait_ready(NETWORK, 120).await?;
    keep_key(&scene).await?;
    allow_secrets(&scene).await?;
    // Its node is not there, so the saga stops in the middle, with the stake reserved.
    apply(&scene, "missing", "1000").await?;
    wait_until(&scene, "it waits for its node", |status| has(status, condition::READY, "NodeNotReady")).await?;
    assert_eq!(status(&scene).await?.stake.as_deref(), Some("1000"));
    assert!(scene.api::<Validator>().get("fifth").await?.metadata.finalizers.is_some());
    scene.remove().await
}
