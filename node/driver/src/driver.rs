//! The driver: feeds the core, makes what it orders durable, and only then lets anything out.

use std::collections::{BTreeMap, VecDeque};

use bizra_simplex::types::{Digest, Height, Millis, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Certificate, Config, Effect, Event, SignedVote, State, Verdict, Vote, VoteKind, Want};
use bytes::Bytes;

use crate::batch::Batch;
use crate::data::{Bodies, Data};
use crate::ports::{Change, Disk, DiskError, Keys};
use crate::signing_record::{RecordError, SigningRecord, VOTES_PER_SLOT_MAX};
use crate::startup::Lock;
use crate::wire::PeerMessage;

/// A node as the driver knows it: validators by their index, full nodes above.
pub type NodeIndex = u16;

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A frame of a peer, decoded.
    Message(NodeIndex, PeerMessage),
    /// Transactions admitted and verified here, packed for ordering.
    Payload(Bytes),
    /// Answer to [`Output::verify`].
    BatchVerified(Batch, bool),
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To every connected node.
    All,
    /// To one.
    One(NodeIndex),
}

/// What a turn lets out. Everything it rests on is durable.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages, in order.
    pub sends: Vec<(Destination, PeerMessage)>,
    /// Batches of other validators whose transactions are to be checked; the origin's signature is valid. Answer each
    /// with [`Input::BatchVerified`].
    pub verify: Vec<Batch>,
    /// When the next [`Input::Tick`] is due.
    pub wake: Option<Millis>,
    /// Contradicting votes of one validator.
    pub evidence: Vec<(SignedVote, SignedVote)>,
}

/// Why a driver cannot go on. The node stops; nothing of the failed turn was let out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// S2: no retry after a failed write or sync.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// S3: the record refuses.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// S5: another copy of the key has signed.
    #[error("a peer holds a vote of this key in view {0} that the signing record does not know: rotate the key")]
    SignedElsewhere(View),
}

/// Whether this node may sign, for its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// A full node.
    NotAValidator,
    /// Asking peers which view this key signed last.
    Locked,
    /// May sign.
    Allowed,
}

/// A block that waits for its bodies.
pub(crate) struct Awaited {
    block: Block,
    leader: ValidatorIndex,
}

/// One node without its I/O.
pub struct Driver<D, K> {
    pub(crate) core: State,
    pub(crate) disk: D,
    pub(crate) keys: K,
    pub(crate) genesis_hash: Digest,
    pub(crate) record: Option<SigningRecord>,
    pub(crate) lock: Lock,
    pub(crate) data: Data,
    /// Finalised blocks that wait for their bodies or their turn to be executed.
    pub(crate) to_execute: VecDeque<Block>,
    executed: Height,
    /// Blocks whose bodies are awaited for a vote.
    pub(crate) undecided: BTreeMap<Digest, Awaited>,
    pub(crate) heights: BTreeMap<NodeIndex, Height>,
    pub(crate) highest_votes: BTreeMap<ValidatorIndex, SignedVote>,
    next_sequence: u64,
    /// When to ask for finalised blocks next; `None` while nothing shows that some are missing.
    pub(crate) range_due: Option<Millis>,
    pub(crate) range_asked: Millis,
    pub(crate) attempts: usize,
    pub(crate) next_status: Millis,
    core_timer: Option<Millis>,
    last_voted: Height,
    work: bool,
    pub(crate) now: Millis,
    wall_milliseconds: u64,
    // Collected during a turn.
    pub(crate) events: VecDeque<Event>,
    changes: Vec<Change>,
    to_sign: Vec<Vote>,
    held_back: Vec<(Destination, PeerMessage)>,
    must_sync: bool,
    pub(crate) output: Output,
}

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Takes up where the disk left off. `record` is the signing record of a validator, already opened; `None` for a
    /// full node. `wall_milliseconds` is the time of day, used to number this node's batches after earlier ones.
    pub fn start(
        config: Config,
        genesis_hash: Digest,
        mut disk: D,
        keys: K,
        record: Option<SigningRecord>,
        now: Millis,
        wall_milliseconds: u64,
    ) -> Result<(Self, Output), Halt> {
        let recovered = disk.recover()?;
        let safety = record.as_ref().map(SigningRecord::safety).unwrap_or_default();
        let me = config.me.filter(|_| record.is_some());
        let config = Config { me, ..config };
        let lock = Lock::new(me, &config.validators);
        let mut to_execute = VecDeque::new();
        for height in recovered.executed.0 + 1..=recovered.anchor.height().0 {
            let block = disk.finalized_block(Height(height))?;
            to_execute
                .push_back(block.ok_or_else(|| DiskError::Corrupt(format!("finalised block {height} is missing")))?);
        }
        let core = State::recover(config, recovered.anchor, recovered.anchor_certificate, recovered.records, safety);
        let mut driver = Self {
            core,
            disk,
            keys,
            genesis_hash,
            record,
            lock,
            data: Data::default(),
            to_execute,
            executed: recovered.executed,
            undecided: BTreeMap::new(),
            heights: BTreeMap::new(),
            highest_votes: recovered.highest_votes.into_iter().map(|vote| (vote.signer, vote)).collect(),
            next_sequence: wall_milliseconds << 20,
            range_due: None,
            range_asked: Millis(0),
            attempts: 0,
            next_status: now,
            core_timer: None,
            last_voted: Height(0),
            work: false,
            now,
            wall_milliseconds,
            events: VecDeque::from([Event::Started]),
            changes: Vec::new(),
            to_sign: Vec::new(),
            held_back: Vec::new(),
            must_sync: false,
            output: Output::default(),
        };
        for batch in recovered.batches {
            let digest = driver.digest_of(&batch);
            driver.data.hold(digest, batch);
        }
        for block in driver.to_execute.clone() {
            driver.load_bodies(&block)?;
        }
        if matches!(driver.lock, Lock::Open) {
            driver.events.push_back(Event::SigningAllowed);
        }
        let output = driver.turn(now, wall_milliseconds, [])?;
        Ok((driver, output))
    }

    /// Handles inputs, makes everything durable that follows from them, and returns what may leave the node.
    pub fn turn(
        &mut self,
        now: Millis,
        wall_milliseconds: u64,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Output, Halt> {
        self.now = self.now.max(now);
        self.wall_milliseconds = wall_milliseconds;
        for input in inputs {
            match input {
                Input::Tick => self.events.push_back(Event::Tick),
                Input::Message(from, message) => self.receive(from, message)?,
                Input::Payload(payload) => self.add_payload(payload),
                Input::BatchVerified(batch, valid) => self.batch_verified(batch, valid)?,
            }
        }
        loop {
            self.settle()?;
            let signed = self.flush()?;
            if signed.is_empty() {
                break;
            }
            self.events.extend(signed.into_iter().map(Event::Signed));
        }
        self.timers();
        self.output.sends.append(&mut self.held_back);
        self.output.wake = [
            self.core_timer,
            self.data.next_fetch(),
            self.lock.next_question(),
            self.range_due,
            Some(self.next_status),
        ]
        .into_iter()
        .flatten()
        .min();
        Ok(std::mem::take(&mut self.output))
    }

    /// Runs core and data until nothing is left to do but to write.
    fn settle(&mut self) -> Result<(), Halt> {
        loop {
            while let Some(event) = self.events.pop_front() {
                for effect in self.core.step(self.now, event) {
                    self.apply(effect)?;
                }
            }
            self.decide();
            self.execute();
            let work = self.data.has_work(&self.core.best_chain());
            if work != self.work {
                self.work = work;
                self.events.push_back(Event::Work(work));
            }
            if self.events.is_empty() {
                return Ok(());
            }
        }
    }

    /// S4: one database sync and one signer sync, then signatures and messages.
    fn flush(&mut self) -> Result<Vec<SignedVote>, Halt> {
        // What does not fit one slot of the record (S3) waits for the next round of this turn.
        let fitting = self.to_sign.len().min(VOTES_PER_SLOT_MAX);
        let votes: Vec<Vote> = self.to_sign.drain(..fitting).collect();
        for vote in votes.iter().filter(|vote| matches!(vote.kind, VoteKind::Notarize | VoteKind::Finalize)) {
            if let Some(block) = self.core.block(vote.digest) {
                self.last_voted = self.last_voted.max(block.height);
            }
        }
        let signing = match &mut self.record {
            Some(record) => record.reserve(&votes)?,
            None => Vec::new(),
        };
        let changes = std::mem::take(&mut self.changes);
        if !changes.is_empty() || !signing.is_empty() {
            let sync = self.must_sync || !signing.is_empty();
            self.disk.commit(changes, signing, sync)?;
            self.must_sync = false;
        }
        self.output.sends.append(&mut self.held_back);
        let Some(me) = self.core.config().me else { return Ok(Vec::new()) };
        let genesis_hash = self.genesis_hash;
        Ok(votes
            .into_iter()
            .map(|vote| {
                let signature = self.keys.sign(&vote.signed_bytes(genesis_hash));
                SignedVote { vote, signer: me, signature }
            })
            .collect())
    }

    pub(crate) fn send(&mut self, to: Destination, message: PeerMessage) {
        self.held_back.push((to, message));
    }

    fn apply(&mut self, effect: Effect) -> Result<(), Halt> {
        match effect {
            Effect::Verify(token, votes) => {
                let valid = self.verify(&votes);
                if valid {
                    for vote in &votes {
                        self.note_highest(vote);
                    }
                }
                self.events.push_back(Event::Verified(token, valid));
            }
            Effect::Sign(vote) => self.to_sign.push(vote),
            Effect::Persist(record) => {
                self.changes.push(Change::Record(record));
                self.must_sync = true;
            }
            Effect::Broadcast(message) => self.send(Destination::All, PeerMessage::Consensus(message)),
            Effect::Build { view, parent, ancestors } => {
                let batches = self.data.select(&ancestors);
                let time_milliseconds = self.wall_milliseconds;
                self.events.push_back(Event::Built { view, parent, batches, time_milliseconds });
            }
            Effect::Check { block, leader } => {
                self.await_bodies(block, leader)?;
            }
            Effect::Fetch(want, hint) => {
                let message = match want {
                    Want::Block(digest) => PeerMessage::FetchBlock(digest),
                    Want::View(view) => PeerMessage::FetchView(view),
                };
                if let Some(peer) = self.choose_peer(hint) {
                    self.send(Destination::One(peer), message);
                }
            }
            Effect::CatchUp(_) => self.want_range(),
            Effect::Commit(blocks, certificate) => self.commit(blocks, certificate),
            Effect::SetTimer(at) => self.core_timer = Some(at),
            Effect::Evidence(first, second) => self.output.evidence.push((first, second)),
        }
        Ok(())
    }

    pub(crate) fn verify(&self, votes: &[SignedVote]) -> bool {
        let checks: Vec<(ValidatorIndex, Vec<u8>, Signature)> =
            votes.iter().map(|vote| (vote.signer, vote.vote.signed_bytes(self.genesis_hash), vote.signature)).collect();
        self.keys.verify(&checks)
    }

    /// S5: everyone keeps the highest signed vote seen of each key.
    fn note_highest(&mut self, vote: &SignedVote) {
        let known = self.highest_votes.get(&vote.signer);
        if known.is_none_or(|known| (known.vote.view, known.vote.kind) < (vote.vote.view, vote.vote.kind)) {
            self.highest_votes.insert(vote.signer, *vote);
            self.changes.push(Change::HighestVote(*vote));
        }
    }

    fn commit(&mut self, blocks: Vec<Block>, certificate: Certificate) {
        self.data.order(&blocks);
        let height = self.core.anchor().height();
        self.undecided.retain(|_, awaited| awaited.block.height > height);
        self.to_execute.extend(blocks.iter().cloned());
        self.data.retain_fetches(self.undecided.values().map(|awaited| &awaited.block).chain(&self.to_execute));
        self.changes.push(Change::Finalize(blocks, certificate));
        self.must_sync = true;
        // More may be waiting where this came from.
        self.range_due = self.range_due.map(|_| self.now);
    }

    /// D3 for ancestors at or below the last finalised block; those above are the core's to compare.
    fn await_bodies(&mut self, block: Block, leader: ValidatorIndex) -> Result<(), Halt> {
        for batch in &block.batches {
            if self.is_ordered(*batch)? {
                self.events.push_back(Event::Checked(block.digest(), Verdict::Invalid));
                return Ok(());
            }
        }
        self.undecided.insert(block.digest(), Awaited { block, leader });
        Ok(())
    }

    /// True if a finalised block orders the batch, also one of this very turn.
    pub(crate) fn is_ordered(&self, batch: Digest) -> Result<bool, DiskError> {
        let this_turn = self.changes.iter().any(|change| match change {
            Change::Finalize(blocks, _) => blocks.iter().any(|block| block.batches.contains(&batch)),
            _ => false,
        });
        Ok(this_turn || self.disk.is_ordered(batch)?)
    }

    /// D2: which of the awaited blocks have all their bodies.
    fn decide(&mut self) {
        let (data, now) = (&mut self.data, self.now);
        let decided: Vec<(Digest, Verdict)> = self
            .undecided
            .iter()
            .filter_map(|(digest, awaited)| match data.examine(now, &awaited.block, awaited.leader) {
                Bodies::Held => Some((*digest, Verdict::Held)),
                Bodies::Invalid => Some((*digest, Verdict::Invalid)),
                Bodies::Missing => None,
            })
            .collect();
        for (digest, verdict) in decided {
            self.undecided.remove(&digest);
            self.events.push_back(Event::Checked(digest, verdict));
        }
    }

    /// Executes finalised blocks whose bodies are held, in order.
    fn execute(&mut self) {
        while let Some(block) = self.to_execute.front().cloned() {
            let Some(bodies) = self.data.bodies(&block) else {
                return self.fetch_ahead();
            };
            self.data.release(&block);
            self.to_execute.pop_front();
            self.executed = block.height;
            self.changes.push(Change::Execute(block, bodies));
        }
    }

    /// Asks for bodies of the next finalised blocks together, not one block after the other.
    fn fetch_ahead(&mut self) {
        let missing: Vec<Digest> = self
            .to_execute
            .iter()
            .take(64)
            .flat_map(|block| block.batches.iter().copied())
            .filter(|digest| self.data.get(*digest).is_none())
            .take(64)
            .collect();
        for digest in missing {
            self.data.fetch(digest, None, self.now);
        }
    }

    fn load_bodies(&mut self, block: &Block) -> Result<(), Halt> {
        for digest in &block.batches {
            if let Some(batch) = self.disk.batch(*digest)? {
                self.data.hold(*digest, batch);
            }
        }
        self.data.order(std::slice::from_ref(block));
        Ok(())
    }

    pub(crate) fn digest_of(&self, batch: &Batch) -> Digest {
        Batch::digest(self.genesis_hash, batch.origin, batch.sequence, &batch.payload)
    }

    /// Packs admitted transactions into a batch of this node and pushes it once to everybody.
    fn add_payload(&mut self, payload: Bytes) {
        let Some(origin) = self.core.config().me else { return };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let digest = Batch::digest(self.genesis_hash, origin, sequence, &payload);
        let batch = Batch { origin, sequence, payload, signature: self.keys.sign(&digest.0) };
        self.send(Destination::All, PeerMessage::Batch(batch.clone()));
        self.keep(digest, batch);
    }

    pub(crate) fn keep(&mut self, digest: Digest, batch: Batch) {
        if self.data.hold(digest, batch.clone()) {
            self.changes.push(Change::Batch(digest, batch));
            if let Some(block) = self.to_execute.iter().find(|block| block.batches.contains(&digest)) {
                self.data.order(std::slice::from_ref(block));
            }
        }
    }

    fn batch_verified(&mut self, batch: Batch, valid: bool) -> Result<(), Halt> {
        let digest = self.digest_of(&batch);
        if !valid {
            self.data.check_failed(digest);
        } else if self.awaits_execution(digest) || !self.is_ordered(digest)? {
            self.keep(digest, batch);
        } else {
            // Ordered and executed while it was being checked.
            self.data.check_passed(digest);
        }
        Ok(())
    }

    pub(crate) fn awaits_execution(&self, digest: Digest) -> bool {
        self.to_execute.iter().any(|block| block.batches.contains(&digest))
    }

    /// The core, to look at.
    pub fn core(&self) -> &State {
        &self.core
    }

    /// The disk, to look at.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Gives the disk back, for instance to start again from it.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Height up to which blocks are executed.
    pub fn executed(&self) -> Height {
        self.executed
    }

    /// Highest finalised height that at least one honest validator must have, by what they report; at least the own.
    pub fn network_height(&self) -> Height {
        let validators = &self.core.config().validators;
        let mut reported: Vec<(Height, u64)> = self
            .heights
            .iter()
            .filter_map(|(node, height)| Some((*height, validators.power(ValidatorIndex(*node))?.0)))
            .collect();
        reported.sort_unstable_by(|left, right| right.cmp(left));
        let mut power = 0_u128;
        let believable = reported.into_iter().find(|(_, more)| {
            power += u128::from(*more);
            3 * power > u128::from(validators.total().0)
        });
        believable.map_or(Height(0), |(height, _)| height).max(self.core.anchor().height())
    }

    /// True if enough validators have reported their height for [`Self::network_height`] to mean something: more than a
    /// third of the power, this node included.
    pub fn knows_network(&self) -> bool {
        let Config { validators, me, .. } = self.core.config();
        let heard = self.heights.keys().map(|node| ValidatorIndex(*node)).chain(*me);
        let power: u128 = heard.filter_map(|index| validators.power(index)).map(|power| u128::from(power.0)).sum();
        3 * power > u128::from(validators.total().0)
    }

    /// Last finalised height a peer has reported.
    pub fn reported_height(&self, node: NodeIndex) -> Height {
        self.heights.get(&node).copied().unwrap_or_default()
    }

    /// Whether this node may sign.
    pub fn signing(&self) -> Signing {
        match self.lock {
            Lock::NotAValidator => Signing::NotAValidator,
            Lock::Asking { .. } => Signing::Locked,
            Lock::Open => Signing::Allowed,
        }
    }

    /// Height of the latest block this node notarized or finalized; 0 if none since the start.
    pub fn last_voted(&self) -> Height {
        self.last_voted
    }

    /// Verified batches that no finalised block orders yet.
    pub fn unordered_batches(&self) -> usize {
        self.data.unordered_count()
    }
}
