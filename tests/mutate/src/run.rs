//! Runs a chain: a namespace, an operator and a kubelet of its own; a fresh deployment, ten edits as a user would make them, and back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bizra_operator::api::{BizraNode, GROUP, Network, NodePool, VERSION, Validator};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::Status,
};
use serde_json::{Value, json};

use crate::{
    canary::Canary,
    chain::{Chain, Deck, Edit, First, Kind},
    kubelet::{Kubelet, Stopper},
    random::Random,
    scenario::Scenario,
    state::{State, capture, differences, forgive},
    values::{Sort, full, minimal, write},
    verdict::{Ending, Word, fault_of, word},
};

/// How long an object may take to say what has become of an edit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// One that says the same for so long, with a reason, will say nothing else.
const UNCHANGED: Duration = Duration::from_secs(6);
/// How long a first deployment may take, and the way back.
const LONG: Duration = Duration::from_mins(3);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    /// Number of the edit, from 1; 0 is the first deployment and 11 the way back.
    pub(crate) edit: usize,
    /// What was edited, and to what.
    pub(crate) change: String,
    pub(crate) what: String,
}

/// What came of a chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) seed: u64,
    pub(crate) kind: String,
    pub(crate) transitions: usize,
    /// How edits ended, with the reason.
    pub(crate) endings: BTreeMap<String, usize>,
    /// Leaves that were edited, and with what sort of value.
    pub(crate) touched: Vec<(usize, Sort)>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) took: Duration,
    /// From the edit that goes back until everything is as at first.
    pub(crate) back: Duration,
    /// Longest time in which the canary got back what was taken from it.
    pub(crate) canary: Duration,
}

/// Whether every edit is told, or only what must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    Edits,
    Failures,
}

/// Runs a chain to its end.
pub(crate) async fn run(deck: &Deck, chain: &Chain, talk: Talk) -> Record {
    let started = Instant::now();
    let mut record = Record { seed: chain.seed, kind: chain.kind.clone(), ..Record::default() };
    let scenario = Scenario::new(&format!("mutate-{}", chain.seed)).await;
    let (_kubelet, kubelet) = Kubelet::start(scenario.admin.clone(), &scenario.namespace);
    let operator = scenario.operator();
    let kind = &deck.kinds[&chain.kind];
    let mut runner = Runner { kind, chain, talk, scenario, operator, kubelet, record: &mut record };
    if let Err(what) = runner.run().await {
        runner.fail(0, "the first deployment", what);
    }
    let Runner { scenario, operator, kubelet, .. } = runner;
    drop((operator, kubelet));
    let namespaces: Api<Namespace> = Api::all(scenario.admin.clone());
    // What is left of it costs a little memory and nothing else.
    let _ = namespaces.delete(&scenario.namespace, &DeleteParams::default()).await;
    record.took = started.elapsed();
    record
}

struct Runner<'a> {
    kind: &'a Kind,
    chain: &'a Chain,
    talk: Talk,
    scenario: Scenario,
    operator: Stopper,
    kubelet: Stopper,
    record: &'a mut Record,
}

impl Runner<'_> {
    fn fail(&mut self, edit: usize, change: &str, what: String) {
        let (seed, change) = (self.chain.seed, change.to_owned());
        eprintln!("  chain {seed}, edit {edit}, {change}: {what}");
        self.record.failures.push(Failure { seed, edit, change, what });
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = match kind {
            "Network" => ApiResource::erase::<Network>(&()),
            "NodePool" => ApiResource::erase::<NodePool>(&()),
            "Validator" => ApiResource::erase::<Validator>(&()),
            _ => ApiResource::erase::<BizraNode>(&()),
        };
        Api::namespaced_with(self.scenario.admin.clone(), &self.scenario.namespace, &resource)
    }

    async fn create(&self, kind: &str, spec: Value) -> Result<(), String> {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name_of(kind)}, "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
        let created = self.api(kind).create(&PostParams::default(), &object).await;
        created.map(drop).map_err(|error| format!("{kind} was refused: {error}"))
    }

    async fn run(&mut self) -> Result<(), String> {
        let (kind, chain) = (self.kind, self.chain);
        let canary = Canary::create(&self.scenario).await?;
        if kind.name != "Network" {
            self.create("Network", json!({"chainId": "demo-1"})).await?;
            self.until_ready("Network").await?;
        }
        if kind.name == "Validator" {
            self.create("BizraNode", json!({"networkRef": {"name": name_of("Network")}})).await?;
            self.until_ready("BizraNode").await?;
        }
        let first = match chain.first {
            First::Bare => minimal(&[], &kind.spec),
            First::Full => full(&[], &kind.spec),
        };
        self.create(&kind.name, first).await?;
        let sound = if kind.name == "Validator" {
            // It becomes ready on a chain, which the nodes of these tests do not have: it waits for one, or for its Secret.
            self.settle(&kind.name).await?
        } else {
            self.until_ready(&kind.name).await?;
            Ending::Ready
        };
        let fresh = self.at_rest().await?;
        let first = self.live().await?["spec"].clone();

        let mut random = Random::new(chain.seed);
        let (mut good, mut current) = (first.clone(), first.clone());
        for (number, edit) in (1..).zip(&chain.edits) {
            let change = describe(kind, edit);
            self.record.transitions += 1;
            self.record.touched.push((edit.leaf, edit.candidate.sort));
            match self.edit(&canary, &current, edit).await {
                Ok((ending, spec)) => {
                    if self.talk == Talk::Edits {
                        eprintln!("  edit {number}, {change}: {ending:?}");
                    }
                    *self.record.endings.entry(format!("{} {}", ending.word(), ending.reason())).or_default() += 1;
                    match ending {
                        Ending::Refused => {}
                        ending if ending == sound => (good, current) = (spec.clone(), spec),
                        // Mostly the next edit takes this one back, else nothing could be seen any more.
                        _ if random.percent(75) => current.clone_from(&good),
                        _ => current = spec,
                    }
                }
                Err(what) => {
                    self.fail(number, &change, what);
                    current.clone_from(&good);
                }
            }
            self.check_processes()?;
        }
        self.record.transitions += 1;
        let started = Instant::now();
        if let Err(what) = self.go_back(first, fresh, &sound).await {
            self.fail(chain.edits.len() + 1, "back to the first spec", what);
        }
        self.record.back = started.elapsed();
        self.check_processes()
    }

    /// Nothing that is written into an object may end them.
    fn check_processes(&self) -> Result<(), String> {
        for (name, task) in [("operator", &self.operator), ("kubelet of the test", &self.kubelet)] {
            if task.0.is_finished() {
                return Err(format!("the {name} has ended; its panic is above"));
            }
        }
        Ok(())
    }

    /// Makes an edit; says how it ended, and what the spec has become.
    async fn edit(&mut self, canary: &Canary, current: &Value, edit: &Edit) -> Result<(Ending, Value), String> {
        let leaf = &self.kind.leaves[edit.leaf];
        let mut wanted = current.clone();
        write(&mut wanted, &self.kind.spec, leaf, edit.candidate.value.as_ref());
        match self.replace(wanted).await? {
            Err(refusal) => {
                if let Some(fault) = fault_of(&refusal, leaf) {
                    return Err(fault);
                }
                if edit.candidate.sort == Sort::Sound && leaf.rules.is_empty() {
                    return Err(format!("a sound value was refused: {}", refusal.message));
                }
                Ok((Ending::Refused, current.clone()))
            }
            Ok(spec) => {
                let (settled, disturbed) = tokio::join!(self.settle(&self.kind.name), canary.disturb());
                self.record.canary = self.record.canary.max(disturbed?);
                Ok((settled?, spec))
            }
        }
    }

    async fn live(&self) -> Result<Value, String> {
        self.look(&self.kind.name).await
    }

    async fn look(&self, kind: &str) -> Result<Value, String> {
        let object =
            self.api(kind).get(name_of(kind)).await.map_err(|error| format!("{kind} cannot be read: {error}"))?;
        serde_json::to_value(object).map_err(|error| error.to_string())
    }

    /// Replaces the spec, as `kubectl edit` does; the spec as it is stored, or the refusal.
    async fn replace(&self, spec: Value) -> Result<Result<Value, Status>, String> {
        let (api, name) = (self.api(&self.kind.name), name_of(&self.kind.name));
        loop {
            let mut object = api.get(name).await.map_err(|error| error.to_string())?;
            object.data["spec"] = spec.clone();
            match api.replace(name, &PostParams::default(), &object).await {
                Ok(stored) => return Ok(Ok(stored.data["spec"].clone())),
                // The operator has written its status meanwhile.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) => return Ok(Err(*status)),
                Err(error) => return Err(format!("the edit could not be sent: {error}")),
            }
        }
    }

    /// Waits until an object has said what has become of its spec.
    async fn settle(&self, kind: &str) -> Result<Ending, String> {
        let started = Instant::now();
        let (mut last, mut since) = (Word::Nothing("nothing yet".to_owned()), Instant::now());
        loop {
            let now = word(&self.look(kind).await?);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            match &last {
                Word::Last(ending) => return Ok(ending.clone()),
                Word::OnTheWay(ending) if since.elapsed() > UNCHANGED || started.elapsed() > PATIENCE => {
                    return Ok(ending.clone());
                }
                Word::Contradiction(what) => return Err(what.clone()),
                Word::Nothing(why) if started.elapsed() > PATIENCE => {
                    return Err(format!("no answer within {} s: {why}", PATIENCE.as_secs()));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn until_ready(&self, kind: &str) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let object = self.look(kind).await?;
            if word(&object) == Word::Last(Ending::Ready) {
                return Ok(());
            }
            if started.elapsed() > LONG {
                return Err(format!(
                    "{kind} was not ready within {} s: {:#}",
                    LONG.as_secs(),
                    object["status"]["conditions"]
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What there is once it does not change any more.
    async fn at_rest(&self) -> Result<State, String> {
        let started = Instant::now();
        let mut last = State::new();
        loop {
            let now =
                capture(&self.scenario.admin, &self.scenario.namespace).await.map_err(|error| error.to_string())?;
            if now == last {
                return Ok(now);
            }
            if started.elapsed() > LONG {
                return Err(format!("it does not come to rest: {:?}", differences(&last, &now)));
            }
            last = now;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// To the first spec; everything must be as after the first deployment.
    async fn go_back(&mut self, mut first: Value, fresh: State, sound: &Ending) -> Result<(), String> {
        // A volume never shrinks: what has grown stays so, and so does its limit.
        let size = self.live().await?["spec"]["storage"]["size"].clone();
        if size != first["storage"]["size"] {
            if !first["storage"]["autoGrow"].is_null() {
                first["storage"]["autoGrow"]["limit"] = size.clone();
            }
            first["storage"]["size"] = size;
        }
        self.replace(first).await?.map_err(|refusal| format!("the way back was refused: {}", refusal.message))?;
        let started = Instant::now();
        loop {
            let told = word(&self.live().await?);
            let ready = matches!(&told, Word::Last(ending) | Word::OnTheWay(ending) if ending == sound);
            let now =
                capture(&self.scenario.admin, &self.scenario.namespace).await.map_err(|error| error.to_string())?;
            let (mut fresh, mut now) = (fresh.clone(), now);
            forgive(&mut fresh, &mut now);
            let different = differences(&fresh, &now);
            if ready && different.is_empty() {
                return Ok(());
            }
            if started.elapsed() > LONG {
                let count = different.len();
                let shown: Vec<&str> = different.iter().take(8).map(String::as_str).collect();
                return Err(format!("{told:?} after {} s, {count} differences: {}", LONG.as_secs(), shown.join("; ")));
            }
            tokio::time::sleep(LOOK * 3).await;
        }
    }
}

fn name_of(kind: &str) -> &'static str {
    match kind {
        "Network" => "demo",
        "NodePool" => "readers",
        "Validator" => "fifth",
        _ => "reader",
    }
}

fn describe(kind: &Kind, edit: &Edit) -> String {
    let value = edit.candidate.value.as_ref().map_or_else(|| "(absent)".to_owned(), ToString::to_string);
    let shown: String = value.chars().take(160).collect();
    format!("{} = {shown}", kind.leaves[edit.leaf])
}
