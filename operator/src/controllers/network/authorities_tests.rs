#![allow(clippy::unwrap_used, clippy::panic)]
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use serde_json::json;

use super::{
    super::{
        act,
        plan::{Plan, Step, plan},
    },
    *,
};
use crate::{
    controllers::fixtures::{claim_of, container, default_image, network_observed, now, pod_of, report, written},
    kubernetes::Write,
    resources::names,
};

/// A network of four running nodes, and a plan carried out step by step.
struct World {
    network: Network,
    observed: Observed,
}

fn seconds(observed: &Observed) -> u64 {
    u64::try_from(observed.now.as_second()).unwrap()
}

#[test]
fn the_certificate_of_a_node_that_is_gone_goes_too_and_the_others_stay() {
    let mut world = World::settled();
    let before = world.data();
    let map = world.observed.certificates.as_mut().unwrap();
    map.data.as_mut().unwrap().insert("readers-1.crt".to_owned(), before["demo-v0.crt"].clone());
    assert_eq!(world.step(), ["certificates of 0, 4 stay"]);
    assert_eq!(world.data(), before);
    assert_eq!(world.step(), Vec::<String>::new());
}

impl World {
    /// With a genesis and certificates that every node has read.
    fn settled() -> Self {
        let mut world = Self { network: crate::controllers::fixtures::network("demo-1"), observed: network_observed() };
        world.observed.claims = (0..4).map(claim_of).collect();
        for ordinal in 0..4_u8 {
            let mut pod = pod_of(i32::from(ordinal), Some(&report(ordinal + 1, "demo-1", None)));
            let running = json!([container("node", &json!({"running": {}}))]);
            pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(running).unwrap();
            world.observed.pods.push(pod);
        }
        while !world.step().is_empty() {}
        world.all_read();
        assert_eq!(world.step(), Vec::<String>::new());
        world
    }

    fn plan(&self) -> Plan {
        plan(&self.network, &self.observed, &default_image()).unwrap()
    }

    fn stage(&self) -> Stage {
        self.plan().authorities.stage
    }

    /// Carries out a plan with the controller's own functions; tells what it was.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        assert_eq!(plan.stalled, None);
        let now = seconds(&self.observed);
        let mut told = Vec::new();
        for step in &plan.steps {
            match step {
                Step::CreateAuthority { generation } => {
                    told.push(format!("authority {generation}"));
                    let write = act::create_authority(&self.network, "bizra-system", *generation, now).unwrap();
                    let mut secret: Secret = written(&write);
                    secret.metadata.uid = Some(format!("authority-{generation}"));
                    self.observed.authorities.push(Kept::read(secret).unwrap().unwrap());
                }
                Step::CreateOwners => self.observed.owners = Some(crate::controllers::fixtures::owners()),
                Step::IssueCertificates { requests, keep } => {
                    told.push(format!("certificates of {}, {} stay", requests.len(), keep.len()));
                    let issued =
                        act::issue(&self.network, &self.observed, &plan, requests, keep, now).unwrap().unwrap();
                    self.observed.certificates = Some(written(&issued));
                }
                Step::Write(write, _) => {
                    told.push(write.describe());
                    self.write(write);
                }
            }
        }
        told
    }

    fn write(&mut self, write: &Write) {
        let observed = &mut self.observed;
        match write {
            Write::Apply(manifest) | Write::Create(manifest) => {
                match (manifest.target.kind(), manifest.target.name()) {
                    ("Service", "demo-nodes") => observed.nodes_service = Some(written(write)),
                    ("Service", _) => observed.api_service = Some(written(write)),
                    ("PodDisruptionBudget", _) => observed.budget = Some(written(write)),
                    ("NetworkPolicy", _) => observed.policy = Some(written(write)),
                    ("BizraNode", _) => observed.nodes.push(written(write)),
                    ("Validator", _) => observed.validators.push(written(write)),
                    ("ConfigMap", _) => observed.genesis = Some(written(write)),
                    other => panic!("{other:?}"),
                }
            }
            Write::Delete { target, .. } => {
                let before = observed.authorities.len();
                observed.authorities.retain(|kept| kept.secret.name_any() != target.name());
                assert_eq!(observed.authorities.len(), before - 1, "{target:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    fn data(&self) -> BTreeMap<String, String> {
        self.observed.certificates.clone().and_then(|map: ConfigMap| map.data).unwrap()
    }

    /// A node reads what is published, refuses it if it does not fit together, and says what it has.
    fn read(&mut self, ordinal: i32) {
        let name = names::validator("demo", ordinal);
        let data = self.data();
        let parts = |key: &str| -> Vec<CertificateFacts> {
            data[key].split_inclusive("-----END CERTIFICATE-----\n").map(|part| inspect(part).unwrap()).collect()
        };
        let leaf = inspect(&data[&config_map::certificate_key(&name)]).unwrap();
        let nodes = parts(config_map::AUTHORITY);
        let signer = nodes.iter().find(|one| one.key_identifier == leaf.authority_key_identifier);
        let signer = signer.unwrap_or_else(|| panic!("{name} was given a certificate that it cannot verify"));
        let said = NodeStatus {
            certificate_authority: signer.fingerprint.clone(),
            trusted_authorities: nodes
                .iter()
                .chain(&parts(config_map::OPERATOR_AUTHORITY))
                .map(|one| one.fingerprint.clone())
                .collect(),
            ..NodeStatus::default()
        };
        self.observed.words.insert(name, Word::Status(Box::new(said)));
        self.nodes_trust_each_other();
    }

    fn all_read(&mut self) {
        (0..4).for_each(|ordinal| self.read(ordinal));
    }

    /// Whatever each has read so far, everybody believes everybody.
    fn nodes_trust_each_other(&self) {
        let said: Vec<&NodeStatus> = self
            .observed
            .words
            .values()
            .filter_map(|word| match word {
                Word::Status(said) => Some(said.as_ref()),
                _ => None,
            })
            .collect();
        for one in &said {
            for other in &said {
                assert!(one.trusted_authorities.contains(&other.certificate_authority), "two nodes are parted");
            }
        }
        // And the operator.
        let trust = self.plan().authorities.trust().unwrap();
        let client = inspect(&trust.client.operator_certificate).unwrap().fingerprint;
        let roots: Vec<String> = trust.roots.iter().map(|root| inspect(root).unwrap().fingerprint).collect();
        for one in &said {
            assert!(one.trusted_authorities.contains(&client), "a node refuses the operator");
            assert!(roots.contains(&one.certificate_authority), "the operator refuses a node");
        }
    }

    fn later(&mut self, days: i64) {
        self.observed.now = Timestamp::from_second(self.observed.now.as_second() + days * 86_400).unwrap();
    }
}

fn names(ordinals: &[i32]) -> Vec<String> {
    ordinals.iter().map(|&ordinal| names::validator("demo", ordinal)).collect()
}

#[test]
fn an_authority_is_replaced_in_steps_and_at_no_moment_is_anybody_parted_from_anybody() {
    let mut world = World::settled();
    world.network.spec.certificates.rotation = 1;
    assert_eq!(world.step(), ["authority 2"]);
    // Both are trusted, and the old one's certificates stay.
    assert_eq!(world.step(), ["certificates of 0, 4 stay"]);
    for ordinal in 0..4 {
        assert_eq!(world.stage(), Stage::Introducing(names(&(ordinal..4).collect::<Vec<_>>())));
        assert_eq!(world.step(), Vec::<String>::new());
        world.read(ordinal);
    }
    assert_eq!(world.step(), ["certificates of 4, 0 stay"]);
    for ordinal in 0..4 {
        assert_eq!(world.stage(), Stage::HandingOver(names(&(ordinal..4).collect::<Vec<_>>())));
        assert_eq!(world.step(), Vec::<String>::new());
        world.read(ordinal);
    }
    let former = world.observed.authorities[0].secret.name_any();
    assert_eq!(world.step(), ["certificates of 0, 4 stay".to_owned(), format!("delete Secret bizra-system/{former}")]);
    world.all_read();
    assert_eq!((world.step(), world.stage()), (Vec::new(), Stage::Alone));
    assert_eq!(world.observed.authorities[0].generation, 2);
    assert_eq!(world.data()[config_map::AUTHORITY], world.observed.authorities[0].authority.certificate);

    // The same number asks for nothing more; the next one does.
    world.network.spec.certificates.rotation = 2;
    assert_eq!(world.step(), ["authority 3"]);
}

#[test]
fn an_authority_is_replaced_when_two_thirds_of_its_life_are_over() {
    let mut world = World::settled();
    world.later(365 * 10 * 2 / 3 - 90);
    assert_eq!(world.plan().authorities.create, None);
    world.later(91);
    assert_eq!(world.plan().authorities.create, Some(2));
    // Or when it is to live for a shorter time than it was made for.
    let mut world = World::settled();
    world.network.spec.certificates.authority_lifetime_seconds = 86_400 * 365;
    assert_eq!(world.plan().authorities.create, Some(2));
}

#[test]
fn a_node_that_says_nothing_is_waited_for_until_a_sixth_of_the_life_is_left() {
    let mut world = World::settled();
    world.network.spec.certificates.rotation = 1;
    world.step();
    world.step();
    world.all_read();
    // It may run where only the operator cannot reach it.
    for word in [Word::Unknown("no answer".to_owned()), Word::Unasked, Word::Status(Box::default())] {
        world.observed.words.insert("demo-v3".to_owned(), word);
        assert_eq!(world.stage(), Stage::Introducing(names(&[3])));
    }
    let mut late = World { network: world.network.clone(), observed: world.observed.clone() };
    late.later(365 * 10 * 5 / 6 + 1);
    assert_eq!(late.stage(), Stage::HandingOver(names(&[0, 1, 2, 3])));

    // One that does not run reads what there is when it starts.
    world.observed.pods[3].status.as_mut().unwrap().container_statuses = None;
    assert_eq!(world.step(), ["certificates of 4, 0 stay"]);
}

#[test]
fn renewals_and_newcomers_meanwhile_do_not_hand_over_too_early() {
    let mut world = World::settled();
    world.network.spec.certificates.rotation = 1;
    world.step();
    world.step();
    world.read(0);
    world.later(61);
    assert_eq!(world.step(), ["certificates of 4, 0 stay"]);
    world.read(1);
    assert_eq!(world.stage(), Stage::Introducing(names(&[2, 3])));
    // Once begun, a silent node does not turn it back.
    world.all_read();
    world.step();
    world.observed.words.insert("demo-v1".to_owned(), Word::Unasked);
    assert!(matches!(world.stage(), Stage::HandingOver(_)));
    assert_eq!(world.plan().authorities.issuer.unwrap().generation, 2);
}

#[test]
fn before_the_first_certificates_there_is_nothing_to_replace() {
    let mut network = crate::controllers::fixtures::network("demo-1");
    network.spec.certificates.rotation = 5;
    let mut observed = network_observed();
    assert_eq!(decide(&network, &observed).create, Some(1));
    observed.authorities = vec![crate::controllers::fixtures::kept(1)];
    assert_eq!(decide(&network, &observed).create, None);
}

#[test]
fn what_falls_due_next_is_the_first_of_all_renewals() {
    let mut world = World::settled();
    let due = world.plan().authorities.due_at.unwrap();
    let renewal = seconds(&world.observed) + 60 * 86_400;
    assert!(due.abs_diff(renewal) < 600, "{due} {renewal}");
    world.network.spec.certificates.node_lifetime_seconds = 90;
    assert_eq!(world.step(), ["certificates of 4, 0 stay"]);
    let due = world.plan().authorities.due_at.unwrap();
    assert_eq!(due, u64::try_from(now().as_second()).unwrap() - 9 + 66);
}

#[test]
fn a_secret_that_holds_no_authority_is_not_read_as_one() {
    let good = Authority::generate("default", "demo", 1, std::time::Duration::from_hours(1), 1_800_000_000).unwrap();
    let read = |change: fn(&mut BTreeMap<String, Vec<u8>>)| {
        let mut data = good.to_data();
        change(&mut data);
        let data = data.into_iter().map(|(key, value)| (key, k8s_openapi::ByteString(value))).collect();
        Kept::read(Secret { data: Some(data), ..Secret::default() })
    };
    assert!(read(|_| {}).unwrap().is_some());
    assert!(read(|data| drop(data.remove("ca.key"))).is_err());
    let told = read(|data| drop(data.insert("ca.crt".to_owned(), b"text".to_vec()))).unwrap_err().to_string();
    assert!(told.starts_with("ca.crt"), "{told}");
    let told = read(|data| drop(data.insert("operator-ca.crt".to_owned(), b"text".to_vec()))).unwrap_err().to_string();
    assert!(told.starts_with("operator-ca.crt"), "{told}");
}
