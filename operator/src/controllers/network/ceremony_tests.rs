#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::controllers::fixtures::{claim_of, deleting, endowed, genesis_map, network, pod_of, report, seed};

const NOW: u64 = 1;

fn reports() -> Vec<KeyReport> {
    (1..=4).map(|seed| report(seed, "demo-1", None)).collect()
}

fn pods(reports: &[KeyReport]) -> Vec<Pod> {
    (0..).zip(reports).map(|(ordinal, report)| pod_of(ordinal, Some(report))).collect()
}

fn claims() -> Vec<PersistentVolumeClaim> {
    (0..4).map(claim_of).collect()
}

fn stall_word(ceremony: Ceremony) -> String {
    match ceremony {
        Ceremony::Stalled(reason) => reason.word,
        other => format!("not stalled: {other:?}"),
    }
}

#[test]
fn a_genesis_is_composed_when_every_validator_has_proven_its_key() {
    let reports = reports();
    let Ceremony::Compose(genesis) = assess(&network("demo-1"), None, &pods(&reports), &claims(), Some(&seed()), NOW)
    else {
        panic!("not composed")
    };
    let keys: Vec<&String> = genesis.validators.iter().map(|validator| &validator.public_key).collect();
    assert!(keys.iter().copied().eq(reports.iter().map(|report| &report.public_key)));
    // Each is owned by an account of its own with the stake of its power; those that may come later have theirs on the balance.
    let owner = |ordinal| seed().owner(&names::validator("demo", ordinal)).address().to_string();
    for (ordinal, validator) in (0..).zip(&genesis.validators) {
        assert_eq!((validator.owner.clone(), validator.stake.as_deref()), (Some(owner(ordinal)), Some("1000")));
        assert_eq!(validator.granted_power(&genesis.parameters), Some(0));
    }
    let spare: Vec<String> = genesis.accounts.iter().map(|account| account.address.clone()).collect();
    assert_eq!(spare, (4..20).map(owner).collect::<Vec<_>>());
    assert!(genesis.accounts.iter().all(|account| account.balance == "1000"));
}

#[test]
fn no_genesis_without_the_seed_of_the_owners() {
    let judged = assess(&network("demo-1"), None, &pods(&reports()), &claims(), None, NOW);
    assert_eq!(judged, Ceremony::Waiting(Vec::new()));
}

#[test]
fn it_waits_for_the_last_one() {
    let mut pods = pods(&reports());
    pods[2] = pod_of(2, None);
    let waiting = assess(&network("demo-1"), None, &pods, &claims(), Some(&seed()), NOW);
    assert_eq!(waiting, Ceremony::Waiting(vec!["demo-v2".to_owned()]));
    pods[2] = deleting(pod_of(2, Some(&reports()[2])));
    let waiting = assess(&network("demo-1"), None, &pods, &claims(), Some(&seed()), NOW);
    assert_eq!(waiting, Ceremony::Waiting(vec!["demo-v2".to_owned()]));
}

#[test]
fn a_report_of_another_volume_does_not_count() {
    let mut claims = claims();
    claims[1].metadata.uid = Some("volume-new".to_owned());
    let waiting = assess(&network("demo-1"), None, &pods(&reports()), &claims, Some(&seed()), NOW);
    assert_eq!(waiting, Ceremony::Waiting(vec!["demo-v1".to_owned()]));
}

#[test]
fn a_key_that_is_not_proven_or_not_distinct_stalls() {
    let mut forged = reports();
    forged[0].proof_of_possession = forged[1].proof_of_possession.clone();
    let judged = assess(&network("demo-1"), None, &pods(&forged), &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "InvalidKeyReport");
    let mut double = reports();
    double[0] = double[1].clone();
    let judged = assess(&network("demo-1"), None, &pods(&double), &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "InvalidGenesis");
}

#[test]
fn an_existing_genesis_is_the_genesis() {
    let map = genesis_map(&reports());
    let Ceremony::Done { hash, .. } = assess(&network("demo-1"), Some(&map), &[], &claims(), Some(&seed()), NOW) else {
        panic!("not done")
    };
    let pinned: Vec<KeyReport> = (1..=4).map(|seed| report(seed, "demo-1", Some(&hash))).collect();
    let judged = assess(&network("demo-1"), Some(&map), &pods(&pinned), &claims(), Some(&seed()), NOW);
    assert!(matches!(judged, Ceremony::Done { .. }));
}

#[test]
fn a_pinned_genesis_is_never_replaced() {
    let hash = "a".repeat(64);
    let mut pinned = reports();
    pinned[3].genesis_hash = Some(hash.clone());
    let judged = assess(&network("demo-1"), None, &pods(&pinned), &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "GenesisLost");
    pinned[0].genesis_hash = Some("b".repeat(64));
    let judged = assess(&network("demo-1"), None, &pods(&pinned), &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "DataFromAnotherChain");
    let map = genesis_map(&reports());
    let judged = assess(&network("demo-1"), Some(&map), &pods(&pinned), &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "DataFromAnotherChain");
    // A retained claim says so even before its pod runs.
    let mut labelled = claims();
    labelled[0].metadata.annotations.get_or_insert_default().insert(labels::GENESIS_HASH.to_owned(), hash);
    let judged = assess(&network("demo-1"), None, &[], &labelled, Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "GenesisLost");
}

#[test]
fn data_of_another_chain_is_refused() {
    let judged = assess(&network("demo-2"), None, &[], &claims(), Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "DataFromAnotherChain");
    let map = genesis_map(&reports());
    let judged = assess(&network("demo-2"), Some(&map), &[], &[], Some(&seed()), NOW);
    assert_eq!(stall_word(judged), "DataFromAnotherChain");
    let mut more = network("demo-1");
    more.spec.genesis.spare_validators = 3;
    let judged = assess(&more, Some(&endowed(&reports())), &[], &[], None, NOW);
    assert_eq!(stall_word(judged), "DataFromAnotherChain");
}

#[test]
fn the_number_of_validators_is_fixed_only_if_nobody_owns_them() {
    let mut more = network("demo-1");
    more.spec.validators = 5;
    let judged = assess(&more, Some(&genesis_map(&reports())), &[], &[], None, NOW);
    assert_eq!(stall_word(judged), "ValidatorsFixed");
    let judged = assess(&more, Some(&endowed(&reports())), &[], &[], None, NOW);
    assert!(matches!(judged, Ceremony::Done { .. }), "{judged:?}");
}
