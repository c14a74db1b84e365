//! A model check of the saga: an operator may die, and another one lead as well, between any two of its effects.
//!
//! What decides is the shipped code: [`plan`](super::plan::plan), [`saga::next`](super::saga::next) under it,
//! [`status`](super::report::status), and [`sign`](super::act::sign), whose bytes the ledger decodes. Modelled are:
//!
//! * The ledger ([`SmallLedger`]): blocks that hold what was submitted, or nothing, or end an epoch; transactions that expire.
//! * The API server: patches and statuses that are written over the version they were made from, or not at all.
//! * Two operators. Each reads, acts, and reports, and may stop for ever after each of these. What it reads of the Validator and
//!   of the ledger may be one version old each. A submission that is lost is one that it did not live to make.
//! * The owner, who deletes the Validator, edits its spec, or takes the Secret away and brings it back, at any time.
//!
//! Promised in every state: no two transactions of one nonce are on their way to the ledger, no more is staked than was ever
//! asked for, and an object that is gone has left nothing behind. And from every state operators that are let work come to what
//! the owner asked for last, or to what the chain's refusal leaves of it. Everything within the bounds is visited; where owners change
//! their mind on the way, there is one operator at a time.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use bizra_proto::v1;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::json;

use super::{
    act::{self, EXPIRY_BLOCKS, Outcome},
    observe::Observed,
    plan::{FINALIZER, Step, plan},
    replacement::Nodes,
    report::status,
    saga,
    small_ledger::{KEY, OWNER_SEED, SmallLedger, operation},
};
use crate::{
    api::{PendingTransaction, Validator, condition},
    controllers::{
        conditions::{Reason, find, is_true},
        fixtures::{network, now},
    },
    ledger::{Ledger, OwnerKey, OwnerView},
    probe::Word,
};

const BALANCE: u64 = 1_000;
const FEE: u64 = 1;

/// How many epochs end at any time, besides those that are waited for. `EPOCHS=1` visits many times as many states.
fn epochs() -> u8 {
    std::env::var("EPOCHS").ok().and_then(|epochs| epochs.parse().ok()).unwrap_or(0)
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Something with its hash: states are compared by these.
#[derive(Debug)]
struct Kept<T> {
    value: T,
    hash: u64,
}

fn kept_validator(value: Validator) -> Arc<Kept<Validator>> {
    let hash = hash_of(&serde_json::to_string(&value).unwrap());
    Arc::new(Kept { value, hash })
}

/// The ledger with what it remembers of transactions.
#[derive(Clone, Debug)]
struct Chain {
    ledger: SmallLedger,
    receipts: BTreeMap<String, v1::Receipt>,
}

fn kept_chain(value: Chain) -> Arc<Kept<Chain>> {
    let hash = hash_of(&format!("{value:?}"));
    Arc::new(Kept { value, hash })
}

/// What protects the money, and can be left out to see that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// A status is only written over the one it was made from.
    CompareAndSwap,
    /// A transaction is written down before it is submitted.
    NotedFirst,
    /// The finalizer is set before the first transaction.
    Hold,
    /// An answer that is older than what was done is none.
    NewerAnswers,
    /// What is under way is waited for.
    Pending,
}

/// What the owner may do, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whim {
    Delete,
    Edit(&'static str),
    /// The Secret goes, or holds another account's key, and is put right at any time after that.
    Take(OwnerSecret),
}

/// How the owner's Secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OwnerSecret {
    Good,
    Missing,
    Another,
}

/// An operator in the middle of a reconciliation.
#[derive(Clone, Debug)]
struct Doing {
    seen: Arc<Kept<Validator>>,
    look: Arc<Look>,
    has_acted: bool,
}

/// What a reconciliation comes to.
#[derive(Debug)]
struct Look {
    step: Option<Step>,
    prepared: Option<PendingTransaction>,
    written: Option<Arc<Kept<Validator>>>,
    id: u64,
}

#[derive(Clone, Debug)]
struct State {
    chain: Arc<Kept<Chain>>,
    earlier: Arc<Kept<Chain>>,
    /// Transactions on their way, by id.
    pool: BTreeMap<String, PendingTransaction>,
    object: Option<Arc<Kept<Validator>>>,
    former: Option<Arc<Kept<Validator>>>,
    operators: [Option<Doing>; 2],
    secret: OwnerSecret,
    whims: Vec<Whim>,
    expiries: u8,
    epochs: u8,
    /// How many operators there may be at a time: two, but for owners who change their mind while the way is long. Those visit too many
    /// states, and rivals are met on every way by itself.
    leaders: usize,
    /// The most that was ever asked for.
    most: u64,
}

impl State {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.chain.hash, self.earlier.hash).hash(&mut hasher);
        self.pool.keys().for_each(|id| id.hash(&mut hasher));
        let version = |object: &Option<Arc<Kept<Validator>>>| object.as_ref().map(|object| object.hash);
        (version(&self.object), version(&self.former)).hash(&mut hasher);
        for doing in &self.operators {
            doing.as_ref().map(|doing| (doing.seen.hash, doing.look.id, doing.has_acted)).hash(&mut hasher);
        }
        (self.secret, self.whims.len(), self.expiries, self.epochs, self.most).hash(&mut hasher);
        hasher.finish()
    }

    fn ledger(&self) -> &SmallLedger {
        &self.chain.value.ledger
    }

    fn write(&mut self, object: Option<Arc<Kept<Validator>>>) {
        self.former = std::mem::replace(&mut self.object, object);
    }

    fn block(&mut self, change: impl FnOnce(&mut Chain)) {
        let mut chain = self.chain.value.clone();
        change(&mut chain);
        // What can never be applied any more is dropped.
        let (height, nonce) = (chain.ledger.view.height, chain.ledger.view.nonce);
        let may_still = |pending: &PendingTransaction| {
            pending.expiry_height > height.cast_signed()
                && pending.nonce >= nonce.cast_signed()
                && !chain.receipts.contains_key(&pending.id)
        };
        self.pool.retain(|_, pending| may_still(pending));
        self.earlier = std::mem::replace(&mut self.chain, kept_chain(chain));
    }

    /// The next thing that the owner wants, of these.
    fn give_in(&mut self, whim: Whim) {
        match (whim, &self.object) {
            (Whim::Delete, Some(object)) => {
                let mut deleted = object.value.clone();
                deleted.metadata.deletion_timestamp = Some(Time(now()));
                let is_held = deleted.metadata.finalizers.is_some();
                self.write(is_held.then(|| kept_validator(deleted)));
            }
            (Whim::Edit(what), Some(object)) => {
                let edited = edit(&object.value, what);
                self.most = self.most.max(stake_of(&edited));
                self.write(Some(kept_validator(edited)));
            }
            (Whim::Take(secret), _) => self.secret = secret,
            (Whim::Delete | Whim::Edit(_), None) => {}
        }
    }

    fn include(&mut self, id: &str) {
        let Some(pending) = self.pool.get(id).cloned() else { return };
        self.block(|chain| {
            let failure = chain.ledger.include(&hex::decode(&pending.bytes).unwrap()).to_owned();
            let receipt = v1::Receipt { height: chain.ledger.view.height, failure, ..Default::default() };
            chain.receipts.insert(pending.id, receipt);
        });
    }
}

/// A check of one story.
struct Check {
    without: Vec<Guard>,
    looks: HashMap<(u64, u64, OwnerSecret), Arc<Look>>,
    known_good: HashSet<u64>,
    goal: fn(&State) -> Result<(), String>,
}

fn owner(seed: u8) -> OwnerKey {
    let data = k8s_openapi::ByteString(hex::encode([seed; 32]).into_bytes());
    let secret: Secret = serde_json::from_value(json!({"data": {"owner.key": data}})).unwrap();
    OwnerKey::read(&secret, "owner.key").unwrap()
}

fn key_of(node: &str) -> [u8; 32] {
    if node == "reader-0" { KEY } else { [6; 32] }
}

fn fresh() -> Validator {
    serde_json::from_value(json!({
        "apiVersion": "bizra.io/v1alpha1", "kind": "Validator",
        "metadata": {"name": "fifth", "namespace": "default", "uid": "v-1", "generation": 1},
        "spec": {
            "networkRef": {"name": "demo"}, "nodeRef": {"name": "reader-0"}, "owner": {"secretName": "owner"},
            "stake": "600", "fee": FEE.to_string(),
        },
    }))
    .unwrap()
}

fn edit(validator: &Validator, what: &str) -> Validator {
    let mut edited = validator.clone();
    edited.metadata.generation = edited.metadata.generation.map(|generation| generation + 1);
    match what.parse::<u64>() {
        Ok(_) => what.clone_into(&mut edited.spec.stake),
        Err(_) => what.clone_into(&mut edited.spec.node_ref.name),
    }
    edited
}

fn stake_of(validator: &Validator) -> u64 {
    validator.spec.stake.parse().unwrap()
}

impl Check {
    fn has(&self, guard: Guard) -> bool {
        !self.without.contains(&guard)
    }

    /// The shipped reconciliation up to its first effect, and the status that it would end with.
    fn look(&mut self, seen: &Arc<Kept<Validator>>, chain: &Arc<Kept<Chain>>, secret: OwnerSecret) -> Arc<Look> {
        let question = (seen.hash, chain.hash, secret);
        if let Some(known) = self.looks.get(&question) {
            return Arc::clone(known);
        }
        let mut validator = seen.value.clone();
        if !self.has(Guard::Hold) {
            validator.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        }
        if let Some(status) = &mut validator.status {
            if !self.has(Guard::NewerAnswers) {
                status.history.iter_mut().for_each(|record| record.height = None);
            }
            if !self.has(Guard::Pending) {
                status.transaction = None;
            }
        }
        let node = &validator.spec.node_ref.name;
        let said = v1::NodeStatus { public_key: hex::encode(key_of(node)), ..Default::default() };
        let mut view = chain.value.ledger.view.clone();
        let pending = validator.status.as_ref().and_then(|status| status.transaction.as_ref());
        view.receipt = pending.and_then(|pending| chain.value.receipts.get(&pending.id)).cloned();
        let key = match secret {
            OwnerSecret::Good => Ok(owner(OWNER_SEED)),
            OwnerSecret::Another => Ok(owner(OWNER_SEED + 1)),
            OwnerSecret::Missing => Err(Reason::new("SecretMissing", "gone")),
        };
        let mut observed = Observed {
            now: now(),
            network: Some(network("demo-1")),
            word: Word::Status(Box::new(said)),
            channel: None,
            owner: Some(key),
            elder: None,
            view: None,
            ledger: Ledger::new(Vec::new()),
            around: Nodes::default(),
            is_early: false,
        };
        observed.view = observed.address(&validator).map(|address| {
            let is_owner = address.0 == chain.value.ledger.owner;
            Ok(if is_owner {
                view
            } else {
                OwnerView {
                    balance: 0,
                    nonce: 0,
                    validator: v1::GetValidatorResponse::default(),
                    receipt: None,
                    ..view
                }
            })
        });
        let plan = plan(&validator, &observed);
        let prepared = match (&plan.step, &observed.owner, &observed.view) {
            (Some(Step::Prepare(wanted)), Some(Ok(owner)), Some(Ok(view))) => {
                let signed = (wanted.step(), &operation(wanted, key_of(node)));
                Some(act::sign(&validator, "demo-1", view, owner, signed).unwrap())
            }
            _ => None,
        };
        let outcome = prepared.clone().map_or(Outcome::Done, |prepared| Outcome::Prepared(Box::new(prepared)));
        let mut written = seen.value.clone();
        written.status = Some(status(&seen.value, &observed, &plan, Ok(&outcome)));
        let written = (written.status != seen.value.status).then(|| kept_validator(written));
        let version = written.as_ref().map(|written| written.hash);
        let id = hash_of(&format!("{:?} {:?} {version:?}", plan.step, prepared));
        let look = Arc::new(Look { step: plan.step, prepared, written, id });
        self.looks.insert(question, Arc::clone(&look));
        look
    }

    fn submit(state: &mut State, pending: &PendingTransaction) -> Result<(), String> {
        let ledger = state.ledger();
        let is_over = state.chain.value.receipts.contains_key(&pending.id)
            || pending.nonce < ledger.view.nonce.cast_signed()
            || pending.expiry_height <= ledger.view.height.cast_signed();
        if is_over {
            return Ok(());
        }
        let rival = state.pool.values().find(|other| other.nonce == pending.nonce && other.id != pending.id);
        if let Some(rival) = rival {
            return Err(format!(
                "two transactions of nonce {}: {:?} and {:?}",
                pending.nonce, rival.step, pending.step
            ));
        }
        state.pool.insert(pending.id.clone(), pending.clone());
        Ok(())
    }

    /// The effect of a reconciliation's step, before its report.
    fn act(&self, state: &mut State, operator: usize) -> Result<(), String> {
        let Some(doing) = &mut state.operators[operator] else { return Ok(()) };
        if doing.has_acted {
            return Ok(());
        }
        doing.has_acted = true;
        let (seen, look) = (Arc::clone(&doing.seen), Arc::clone(&doing.look));
        let is_unchanged = state.object.as_ref().is_some_and(|object| object.hash == seen.hash);
        match &look.step {
            Some(Step::Hold) if is_unchanged => {
                let mut held = seen.value.clone();
                held.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
                state.write(Some(kept_validator(held)));
            }
            Some(Step::LetGo) if is_unchanged => {
                let mut free = seen.value.clone();
                free.metadata.finalizers = None;
                let is_gone = free.metadata.deletion_timestamp.is_some();
                state.write((!is_gone).then(|| kept_validator(free)));
            }
            Some(Step::Hold | Step::LetGo) => state.operators[operator] = None,
            Some(Step::Submit(pending)) => Self::submit(state, pending)?,
            Some(Step::Prepare(_)) if !self.has(Guard::NotedFirst) => {
                if let Some(prepared) = &look.prepared {
                    Self::submit(state, prepared)?;
                }
            }
            // There is no node to be replaced here.
            Some(Step::Prepare(_) | Step::Write(..)) | None => {}
        }
        if look.step == Some(Step::LetGo) || look.written.is_none() {
            state.operators[operator] = None;
        }
        Ok(())
    }

    fn report(&self, state: &mut State, operator: usize) {
        let Some(doing) = state.operators[operator].take() else { return };
        let Some(written) = &doing.look.written else { return };
        let version = state.object.as_ref().map(|object| object.hash);
        if version == Some(doing.seen.hash) || (version.is_some() && !self.has(Guard::CompareAndSwap)) {
            state.write(Some(Arc::clone(written)));
        }
    }

    fn begin(
        &mut self,
        state: &State,
        operator: usize,
        seen: &Arc<Kept<Validator>>,
        chain: &Arc<Kept<Chain>>,
    ) -> State {
        let look = self.look(seen, chain, state.secret);
        let mut next = state.clone();
        let has_acted = match &look.step {
            Some(Step::Hold | Step::LetGo | Step::Submit(_)) => false,
            Some(Step::Prepare(_)) => self.has(Guard::NotedFirst),
            Some(Step::Write(..)) | None => true,
        };
        let is_idle = has_acted && look.written.is_none();
        next.operators[operator] = (!is_idle).then(|| Doing { seen: Arc::clone(seen), look, has_acted });
        next
    }

    /// True if nobody has anything to do before an epoch ends.
    fn waits(&mut self, state: &State) -> bool {
        let is_quiet = state.operators.iter().all(Option::is_none) && state.pool.is_empty();
        // As long as the owner may change its mind, who validates waits for nothing.
        let goal = if state.whims.is_empty() { self.goal } else { validates };
        let Some(object) = state.object.as_ref().filter(|_| is_quiet && goal(state).is_err()) else {
            return false;
        };
        let look = self.look(object, &state.chain, state.secret);
        look.step.is_none() && look.written.is_none() && state.secret == OwnerSecret::Good
    }

    /// Every state that may come next.
    fn successors(&mut self, state: &State) -> Result<Vec<(String, State)>, String> {
        let mut next = Vec::new();
        let mut add = |what: String, state: State| next.push((what, state));
        for operator in 0..state.leaders {
            let Some(doing) = &state.operators[operator] else {
                // What one operator can read the other one can, so a state of one beside an idle one is enough.
                if operator == 1 && state.operators[0].is_none() {
                    continue;
                }
                for (age, seen) in [("", &state.object), ("former ", &state.former)] {
                    let Some(seen) = seen else { continue };
                    for (old, chain) in [("", &state.chain), ("earlier ", &state.earlier)] {
                        if !old.is_empty() && state.earlier.hash == state.chain.hash {
                            continue;
                        }
                        let what = format!("{operator} reads the {age}object and the {old}chain");
                        let begun = self.begin(state, operator, seen, chain);
                        add(what, begun);
                    }
                }
                continue;
            };
            if doing.has_acted {
                // Before it has done anything nobody knows that it ever lived.
                let mut crashed = state.clone();
                crashed.operators[operator] = None;
                add(format!("{operator} dies"), crashed);
                let mut reported = state.clone();
                self.report(&mut reported, operator);
                add(format!("{operator} reports"), reported);
            } else {
                let mut acted = state.clone();
                self.act(&mut acted, operator)?;
                add(format!("{operator} does {:?}", doing.look.step), acted);
            }
        }
        for id in state.pool.keys() {
            let mut included = state.clone();
            included.include(id);
            add("a transaction is included".to_owned(), included);
        }
        if self.waits(state) {
            let mut later = state.clone();
            later.block(|chain| chain.ledger.cut_off());
            add("the epoch that is waited for ends".to_owned(), later);
        }
        if state.epochs > 0 {
            let mut later = state.clone();
            later.epochs -= 1;
            later.block(|chain| chain.ledger.cut_off());
            add("an epoch ends".to_owned(), later);
        }
        if state.expiries > 0 && !state.pool.is_empty() {
            let mut later = state.clone();
            later.expiries -= 1;
            later.block(|chain| chain.ledger.view.height += EXPIRY_BLOCKS);
            add("what is on its way expires".to_owned(), later);
        }
        if state.secret != OwnerSecret::Good {
            let mut back = state.clone();
            back.secret = OwnerSecret::Good;
            add("the Secret is back".to_owned(), back);
        }
        if let [whim, rest @ ..] = &state.whims[..] {
            let mut after = State { whims: rest.to_vec(), ..state.clone() };
            after.give_in(*whim);
            add(format!("the owner: {whim:?}"), after);
        }
        Ok(next)
    }

    /// What holds in every state.
    fn promise(state: &State) -> Result<(), String> {
        let ledger = state.ledger();
        if ledger.money() != BALANCE {
            return Err(format!("{} of {BALANCE} are left", ledger.money()));
        }
        let validator = &ledger.view.validator;
        if validator.reserved_stake > state.most {
            return Err(format!("{} are staked, {} were asked for", validator.reserved_stake, state.most));
        }
        let is_left = validator.reserved_stake > 0 || !validator.unbonding.is_empty() || validator.registered;
        if state.object.is_none() && (is_left || !state.pool.is_empty()) {
            return Err(format!("the object is gone and left {validator:?}"));
        }
        Ok(())
    }

    /// Lets the owner have had every whim and put the Secret right, one operator work in peace, and the chain go on, until nothing
    /// happens any more.
    fn settle(&mut self, state: &State) -> Result<State, String> {
        let mut state = state.clone();
        let mut passed = Vec::new();
        for whim in std::mem::take(&mut state.whims) {
            state.give_in(whim);
        }
        state.secret = OwnerSecret::Good;
        state.operators = [None, None];
        (state.expiries, state.epochs) = (0, 0);
        for _ in 0..96 {
            if self.known_good.contains(&state.key()) {
                break;
            }
            passed.push(state.key());
            let before = state.key();
            if let Some(object) = state.object.clone() {
                let chain = Arc::clone(&state.chain);
                state = self.begin(&state, 0, &object, &chain);
                self.act(&mut state, 0)?;
                self.report(&mut state, 0);
            }
            let waiting: Vec<String> = state.pool.keys().cloned().collect();
            for id in &waiting {
                state.include(id);
            }
            // An idle chain goes on, and is no state of its own here.
            state.earlier = Arc::clone(&state.chain);
            state.former.clone_from(&state.object);
            if state.key() == before {
                if (self.goal)(&state).is_ok() {
                    break;
                }
                state.block(|chain| chain.ledger.cut_off());
                state.earlier = Arc::clone(&state.chain);
            }
        }
        if !self.known_good.contains(&state.key()) {
            (self.goal)(&state)?;
        }
        self.known_good.extend(passed);
        Ok(state)
    }

    /// Visits everything; the first broken promise with the way to it.
    fn run(&mut self, start: State) -> Result<usize, String> {
        let mut came_from: HashMap<u64, (u64, String)> = HashMap::new();
        came_from.insert(start.key(), (0, "begin".to_owned()));
        let mut waiting = VecDeque::from([start]);
        let way_to = |came_from: &HashMap<u64, (u64, String)>, mut key: u64| {
            let mut way = Vec::new();
            while let Some((from, what)) = came_from.get(&key) {
                way.push(what.clone());
                key = *from;
            }
            way.reverse();
            way.join("\n  ")
        };
        while let Some(state) = waiting.pop_front() {
            let key = state.key();
            let checked = Self::promise(&state).and_then(|()| self.settle(&state).map(|_| ()));
            let successors = checked.and_then(|()| self.successors(&state));
            let successors = successors.map_err(|broken| format!("{broken}\n  {}", way_to(&came_from, key)))?;
            for (what, next) in successors {
                let next_key = next.key();
                if let Entry::Vacant(entry) = came_from.entry(next_key) {
                    entry.insert((key, what));
                    waiting.push_back(next);
                }
            }
            assert!(came_from.len() < 2_000_000, "the bounds are too wide");
        }
        Ok(came_from.len())
    }
}

fn check(without: &[Guard], goal: fn(&State) -> Result<(), String>) -> Check {
    Check { without: without.to_vec(), looks: HashMap::new(), known_good: HashSet::new(), goal }
}

fn start(whims: &[Whim]) -> State {
    let ledger = SmallLedger::new(owner(OWNER_SEED).address().0, BALANCE);
    let chain = kept_chain(Chain { ledger, receipts: BTreeMap::new() });
    State {
        earlier: Arc::clone(&chain),
        chain,
        pool: BTreeMap::new(),
        object: Some(kept_validator(fresh())),
        former: None,
        operators: [None, None],
        secret: OwnerSecret::Good,
        whims: whims.to_vec(),
        expiries: 1,
        epochs: epochs(),
        leaders: if whims.is_empty() { 2 } else { 1 },
        most: 600,
    }
}

/// A state in which it validates, with what the owner asks for next.
fn joined(asks: &[&'static str], whims: &[Whim]) -> State {
    let mut state = check(&[], validates).settle(&start(&[])).unwrap();
    // How it came there is another test's.
    let mut object = state.object.clone().unwrap().value.clone();
    object.status.as_mut().unwrap().history.drain(..2);
    for what in asks {
        object = edit(&object, what);
        state.most = state.most.max(stake_of(&object));
    }
    state.object = Some(kept_validator(object));
    state.former = None;
    state.whims = whims.to_vec();
    state.leaders = if whims.is_empty() { 2 } else { 1 };
    (state.expiries, state.epochs) = (1, epochs());
    state
}

fn expect(holds: bool, state: &State) -> Result<(), String> {
    let status = state.object.as_ref().map(|object| &object.value.status);
    if holds { Ok(()) } else { Err(format!("it ends with {:?} and {status:?}", state.ledger().view)) }
}

/// It validates with node and stake of the spec, and the status says so.
fn validates(state: &State) -> Result<(), String> {
    let Some(object) = &state.object else { return expect(false, state) };
    let view = &state.ledger().view;
    let key = key_of(&object.value.spec.node_ref.name);
    let is_member = view.member(&state.ledger().owner).is_some_and(|member| member.consensus_key == key);
    let status = object.value.status.clone().unwrap_or_default();
    let is_staked = view.validator.reserved_stake == stake_of(&object.value) && view.validator.unbonding.is_empty();
    expect(is_member && is_staked && is_true(&status.conditions, condition::READY), state)
}

/// It is gone, and all money but the fees is on the balance.
fn is_gone(state: &State) -> Result<(), String> {
    let ledger = state.ledger();
    let is_out = !ledger.view.may_vote(&ledger.owner);
    expect(state.object.is_none() && is_out && ledger.view.balance + ledger.fees == BALANCE, state)
}

/// The chain has refused it, everything is undone, and the status says so.
fn is_undone(state: &State) -> Result<(), String> {
    let ledger = state.ledger();
    let Some(status) = state.object.as_ref().and_then(|object| object.value.status.as_ref()) else {
        return expect(false, state);
    };
    let stalled = find(&status.conditions, condition::STALLED);
    let is_told = stalled.is_some_and(|told| told.reason == "KeyInUse" || told.reason == "NameTaken");
    let is_back = ledger.view.balance + ledger.fees == BALANCE && !ledger.view.validator.registered;
    expect(is_told && is_back && status.transaction.is_none(), state)
}

fn assert_kept(what: &str, start: State, goal: fn(&State) -> Result<(), String>) {
    let mut check = check(&[], goal);
    match check.run(start) {
        Ok(states) => {
            println!("{what}: {states} states, {} reconciliations of the shipped code", check.looks.len());
            assert!(states > 100, "{what}: {states}");
        }
        Err(broken) => panic!("{what}: {broken}"),
    }
}

/// What is left out is missed.
fn assert_missed(guard: Guard, start: State, goal: fn(&State) -> Result<(), String>, broken: &str) {
    let found = check(&[guard], goal).run(State { epochs: 1, leaders: 2, ..start });
    assert!(found.as_ref().is_err_and(|found| found.contains(broken)), "{found:?}");
}

#[test]
fn wherever_operators_die_it_joins_once() {
    assert_kept("join", start(&[]), validates);
}

#[test]
fn wherever_operators_die_a_change_of_stake_comes_true() {
    assert_kept("more", joined(&["700"], &[]), validates);
    assert_kept("less", joined(&["200"], &[]), validates);
}

#[test]
fn wherever_operators_die_it_moves_with_its_stake() {
    assert_kept("move", joined(&["reader-1"], &[]), validates);
}

#[test]
fn whenever_it_is_deleted_it_leaves_with_its_money() {
    assert_kept("leave", joined(&[], &[Whim::Delete]), is_gone);
    assert_kept("deleted on its way", start(&[Whim::Delete]), is_gone);
}

#[test]
fn wherever_operators_die_a_refusal_is_undone() {
    let register = saga::Operation::Register(String::new());
    for (wanted, refusal) in [(register, "NameTaken"), (saga::Operation::Activate, "KeyInUse")] {
        let mut refused = start(&[]);
        let mut chain = refused.chain.value.clone();
        chain.ledger.refuses = Some((operation(&wanted, KEY).kind(), refusal));
        refused.chain = kept_chain(chain);
        refused.earlier = Arc::clone(&refused.chain);
        assert_kept(refusal, refused, is_undone);
    }
}

#[test]
fn whenever_the_spec_changes_or_the_secret_goes_it_goes_on_from_there() {
    assert_kept("another stake", start(&[Whim::Edit("300")]), validates);
    assert_kept("another node", start(&[Whim::Edit("reader-1")]), validates);
    for secret in [OwnerSecret::Missing, OwnerSecret::Another] {
        assert_kept("no Secret", start(&[Whim::Take(secret)]), validates);
    }
    let both = [Whim::Take(OwnerSecret::Missing), Whim::Delete];
    assert_kept("no Secret, and deleted", start(&both), is_gone);
}

#[test]
fn what_protects_the_money_is_missed_when_it_is_left_out() {
    let rivals = "two transactions of nonce";
    assert_missed(Guard::CompareAndSwap, start(&[]), validates, rivals);
    assert_missed(Guard::NotedFirst, start(&[]), validates, rivals);
    assert_missed(Guard::Pending, start(&[]), validates, "it ends with");
    assert_missed(Guard::Hold, start(&[Whim::Delete]), is_gone, "it ends with");
    let stalled = [Whim::Take(OwnerSecret::Missing), Whim::Delete];
    assert_missed(Guard::NewerAnswers, start(&stalled), is_gone, "the object is gone and left");
}
