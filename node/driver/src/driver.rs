//! The driver: feeds the core, makes what it orders durable, and only then lets anything out.

use std::collections::{BTreeMap, VecDeque};

use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Signature, View};
use bizra_simplex::{
    Anchor, BestTip, Block, Checkpoint, Config, Contradiction, Effect, Event, Message, Protocol, Record, SignedVote,
    State, Timing, Version, Vote, VoteKind, Want,
};
use bytes::Bytes;

use crate::batch::Batch;
use crate::bodies::Awaited;
use crate::data::Data;
use crate::epochs::{self, Early, Rosters};
use crate::holding::Holding;
use crate::light::cutoff;
use crate::peers::Whom;
use crate::ports::{Change, Disk, DiskError, Keys, PublicKey};
use crate::restart::Restarts;
use crate::roster::Roster;
use crate::signing_record::{BlockWrite, RecordError, SigningRecord, VOTES_PER_SLOT_MAX};
use crate::startup::Lock;
use crate::wire::PeerMessage;

/// A node as the driver knows it: its number among this node's peers, whatever it may be in an epoch.
pub type NodeIndex = u16;

/// What holds for all epochs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The chain.
    pub genesis_hash: Digest,
    /// Durations.
    pub timing: Timing,
    /// Blocks from one cut-off height to the next, divisible by [`bizra_simplex::block::CHECKPOINT_INTERVAL`]; `None` if
    /// the validators never change.
    pub epoch_blocks: Option<u64>,
    /// The highest version of the rules this node goes by; what it signals (P1). Less than [`Protocol::LATEST`] makes it a
    /// node that was not upgraded.
    pub supported: Protocol,
    /// The nodes that are known to hold these keys at the start; [`Input::Holder`] tells of others.
    pub nodes: BTreeMap<PublicKey, NodeIndex>,
    /// The restarts of the chain (E6).
    pub restarts: Restarts,
    /// Whether this node may sign at all.
    pub fence: Fence,
}

/// Whether a node may sign at all, by the word of who runs it. Holds for the life of a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// It may, if it is a validator and nothing else forbids it.
    #[default]
    Open,
    /// It follows and serves the chain and signs neither votes nor batches.
    Closed,
}

impl Settings {
    /// The height whose execution ends an epoch (E1).
    pub(crate) fn cutoff(&self, epoch: Epoch) -> Height {
        cutoff(self.epoch_blocks, epoch)
    }

    /// The bytes that a vote's signature is over: its chain, or what the last restart put in the place of that (E6).
    pub(crate) fn signed_bytes(&self, vote: &Vote) -> Vec<u8> {
        vote.signed_bytes(self.restarts.domain(self.genesis_hash, vote.epoch))
    }
}

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A frame of a peer, decoded.
    Message(NodeIndex, PeerMessage),
    /// A peer has proven that it holds this key, and so holds no other any more; `None` for a peer that is gone.
    Holder(NodeIndex, Option<PublicKey>),
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
    /// Contradicting votes of one validator, once for each key and epoch.
    pub evidence: Vec<(SignedVote, SignedVote)>,
    /// Nodes that signed a batch with an invalid transaction in it (D1), or sent a consensus message with an invalid
    /// signature in it; once for each. No honest node does.
    pub blamed: Vec<NodeIndex>,
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
    #[error(
        "a peer holds a vote of this key in view {1} of epoch {0} that the signing record does not know: rotate the key"
    )]
    SignedElsewhere(Epoch, View),
    /// P3: the rules of the epoch are not known here.
    #[error(
        "epoch {epoch} goes by version {needed} of the protocol and this node knows {supported} at most: upgrade the node"
    )]
    UpgradeRequired {
        /// The epoch it would have to enter.
        epoch: Epoch,
        /// The version of its rules.
        needed: Version,
        /// The highest version this node goes by.
        supported: Version,
    },
    /// H1: a quorum vouches for another state than the one executed here.
    #[error(
        "a quorum vouches for another state at height {0} than the one executed here: rebuild the database from peers"
    )]
    Diverged(Height),
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
    /// Told not to sign ([`Fence::Closed`]).
    Fenced,
}

/// One node without its I/O.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Driver<D, K> {
    pub(crate) core: State,
    pub(crate) disk: D,
    pub(crate) keys: K,
    pub(crate) settings: Settings,
    pub(crate) rosters: Rosters,
    pub(crate) record: Option<SigningRecord>,
    pub(crate) lock: Lock,
    /// True if the core knows that it may sign.
    pub(crate) signing_released: bool,
    pub(crate) data: Data,
    pub(crate) holding: Holding,
    /// Finalised blocks that wait for their bodies or their turn to be executed.
    pub(crate) to_execute: VecDeque<Block>,
    pub(crate) executed: Height,
    /// Up to here the effects of execution are committed and can be read.
    pub(crate) applied: Height,
    /// The newest checkpoint at or below that.
    pub(crate) checkpoint: Checkpoint,
    /// The checkpoint of a finalised header that was compared last.
    pub(crate) vouched: Checkpoint,
    pub(crate) early: Early,
    /// Blocks whose bodies are awaited for a vote.
    pub(crate) undecided: BTreeMap<Digest, Awaited>,
    pub(crate) heights: BTreeMap<NodeIndex, Height>,
    pub(crate) highest_votes: BTreeMap<PublicKey, SignedVote>,
    /// Contradictions that a block may still report (V7), by the key that signed both votes and the epoch.
    pub(crate) evidence: BTreeMap<(PublicKey, Epoch), Contradiction>,
    pub(crate) next_sequence: u64,
    /// When to ask for finalised blocks next; `None` while nothing shows that some are missing.
    pub(crate) range_due: Option<Millis>,
    pub(crate) range_asked: Millis,
    pub(crate) ranges_paused: bool,
    pub(crate) attempts: u64,
    pub(crate) next_status: Millis,
    core_timer: Option<Millis>,
    last_voted: Height,
    work: bool,
    /// What `work` was found from.
    work_seen: Option<(u64, BestTip)>,
    /// What the undecided blocks were last examined with: bodies, executed height and snapshot. `None` if a block is new.
    pub(crate) decided_with: Option<(u64, Height, Option<Digest>)>,
    pub(crate) now: Millis,
    wall_milliseconds: u64,
    // Collected during a turn.
    pub(crate) events: VecDeque<Event>,
    /// Who sent the messages among these events, in their order.
    heard: VecDeque<NodeIndex>,
    /// Who sent the message that the core is at.
    hearing: Option<NodeIndex>,
    pub(crate) changes: Vec<Change>,
    to_sign: Vec<Vote>,
    held_back: Vec<(Destination, PeerMessage)>,
    pub(crate) must_sync: bool,
    /// Something was committed since the last sync.
    unsynced: bool,
    pub(crate) output: Output,
}

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Takes up where the disk left off. `record` is the signing record of a node with a key, already opened; `None` for
    /// one that never votes. `wall_milliseconds` is the time of day, used to number this node's batches after earlier ones.
    pub fn start(
        settings: Settings,
        mut disk: D,
        keys: K,
        record: Option<SigningRecord>,
        now: Millis,
        wall_milliseconds: u64,
    ) -> Result<(Self, Output), Halt> {
        let recovered = disk.recover()?;
        let last = &recovered.anchor.block;
        let mut to_execute = VecDeque::new();
        for height in recovered.executed.0 + 1..=last.height.0 {
            let block = disk.finalized_block(Height(height))?;
            to_execute
                .push_back(block.ok_or_else(|| DiskError::Corrupt(format!("finalised block {height} is missing")))?);
        }
        // An epoch whose last block is final and executed far enough is left behind at once.
        let next = match settings.restarts.after(last) {
            Some(next) => epochs::rosters(next, &disk, &keys, &settings)?.map(|rosters| (next, rosters)),
            None => None,
        };
        let (epoch, rosters, anchor) = if let Some((next, rosters)) = next {
            (next, rosters, (Anchor::first(last.clone()), None))
        } else {
            let rosters = epochs::rosters(last.epoch, &disk, &keys, &settings)?;
            let unknown = || DiskError::Corrupt(format!("the validators of epoch {} are missing", last.epoch));
            (last.epoch, rosters.ok_or_else(unknown)?, (recovered.anchor.clone(), recovered.anchor_certificate))
        };
        let roster = rosters.get(&epoch).ok_or_else(|| DiskError::Corrupt("no validators".to_owned()))?;
        let protocol = epochs::protocol(epoch, &disk, &settings)?;
        let core = epochs::core(epoch, roster, (&settings, protocol), record.as_ref(), anchor, recovered.records);
        let lock = Lock::new(settings.fence, core.config().me, &core.config().validators);
        let newest = Height(recovered.executed.0 - recovered.executed.0 % CHECKPOINT_INTERVAL);
        let checkpoint = match newest {
            Height(0) => Checkpoint::default(),
            newest => disk.checkpoint(newest)?.unwrap_or_default(),
        };
        let mut driver = Self {
            core,
            disk,
            keys,
            settings,
            rosters,
            record,
            lock,
            signing_released: false,
            data: Data::default(),
            holding: Holding::default(),
            to_execute,
            executed: recovered.executed,
            applied: recovered.executed,
            checkpoint,
            vouched: Checkpoint::default(),
            early: Early::new(),
            undecided: BTreeMap::new(),
            heights: BTreeMap::new(),
            highest_votes: recovered.highest_votes.into_iter().collect(),
            evidence: recovered.evidence.into_iter().map(|(key, told)| ((key, told.of().0), told)).collect(),
            next_sequence: wall_milliseconds << 20,
            range_due: None,
            range_asked: Millis(0),
            ranges_paused: false,
            attempts: 0,
            next_status: now,
            core_timer: None,
            last_voted: Height(0),
            work: false,
            work_seen: None,
            decided_with: None,
            now,
            wall_milliseconds,
            events: VecDeque::new(),
            heard: VecDeque::new(),
            hearing: None,
            changes: Vec::new(),
            to_sign: Vec::new(),
            held_back: Vec::new(),
            // What the process before wrote may not be durable: nothing rests on it until it is.
            must_sync: !planted(Bug::StartNotSynced),
            unsynced: true,
            output: Output::default(),
        };
        for batch in recovered.batches.into_iter().filter(|_| !planted(Bug::UnorderedBatchLost)) {
            let digest = driver.digest_of(&batch);
            driver.data.hold(digest, batch);
        }
        for block in driver.to_execute.clone() {
            driver.load_bodies(&block)?;
        }
        let stale = driver.data.enter(epoch);
        if !stale.is_empty() {
            driver.push_change(Change::Forget(stale));
        }
        driver.forget_old_evidence();
        driver.begin();
        let output = driver.turn(now, wall_milliseconds, [])?;
        Ok((driver, output))
    }

    /// The core is new: at the start, and in each epoch.
    pub(crate) fn begin(&mut self) {
        self.core_timer = None;
        self.work = false;
        self.work_seen = None;
        self.events.push_back(Event::Started);
        self.signing_released = false;
        self.release_signing();
    }

    /// Hands the core a message of a peer.
    pub(crate) fn hear(&mut self, from: NodeIndex, message: Message) {
        self.heard.push_back(from);
        self.events.push_back(Event::Received(message));
    }

    pub(crate) fn push_change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The validators of the present epoch.
    pub(crate) fn roster(&self) -> Option<&Roster> {
        self.rosters.get(&self.core.config().epoch)
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
                Input::Holder(node, key) => self.note_holder(node, key),
                Input::Payload(payload) => self.add_payload(payload),
                Input::BatchVerified(batch, valid) => self.batch_verified(batch, valid)?,
            }
        }
        self.release_signing();
        loop {
            self.settle()?;
            let (signed, executed) = self.flush()?;
            self.applied(&executed)?;
            let entered = self.enter_next_epoch()?;
            let may_decide = !executed.is_empty() && !self.undecided.is_empty();
            if signed.is_empty() && !entered && !may_decide {
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
            self.range_due.filter(|_| !self.ranges_paused),
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
                self.hearing = if matches!(event, Event::Received(_)) { self.heard.pop_front() } else { None };
                for effect in self.core.step(self.now, event) {
                    self.apply(effect)?;
                }
            }
            self.decide()?;
            self.execute();
            let seen = (self.data.version(), self.core.best_tip());
            if self.work_seen != Some(seen) {
                self.work_seen = Some(seen);
                let work = self.data.unordered_count() > 0 && self.data.has_work(&self.core.best_chain());
                if work != self.work {
                    self.work = work;
                    self.events.push_back(Event::Work(work));
                }
            }
            if self.events.is_empty() {
                return Ok(());
            }
        }
    }

    /// S4: one database sync and one signer sync, in parallel but for finalize votes, then signatures and messages. Says what was signed and executed.
    fn flush(&mut self) -> Result<(Vec<SignedVote>, Vec<Block>), Halt> {
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
        let executed = changes.iter().filter_map(|change| match change {
            Change::Execute(block, _) => Some(block.clone()),
            _ => None,
        });
        let executed: Vec<Block> = executed.collect();
        // D2: a vote that is recorded already needs no slot, but its bodies may have come in this turn or a late one.
        let promises =
            votes.iter().any(|vote| vote.kind != VoteKind::Nullify) && (self.unsynced || !changes.is_empty());
        if !changes.is_empty() || !signing.is_empty() || promises || self.must_sync {
            let sync = self.must_sync || !signing.is_empty() || promises;
            let sync = sync && !planted(Bug::VoteBeforeSync);
            let signing = if planted(Bug::RecordNotWritten) { Vec::new() } else { signing };
            // A recorded finalize forbids to nullify its view for ever (V3). If a crash kept it and lost the notarization it
            // rests on, and nobody else had that, the view might never end: the database goes first.
            let finalizes = votes.iter().any(|vote| vote.kind == VoteKind::Finalize);
            if finalizes && promises && !signing.is_empty() && !planted(Bug::FinalizeBeforeNotarization) {
                self.write(changes, Vec::new(), sync)?;
                self.write(Vec::new(), signing, sync)?;
            } else {
                self.write(changes, signing, sync)?;
            }
            self.must_sync = false;
            self.unsynced = !sync;
        }
        self.output.sends.append(&mut self.held_back);
        let Some(me) = self.core.config().me else { return Ok((Vec::new(), executed)) };
        let signed = votes
            .into_iter()
            .map(|vote| {
                let signature = self.keys.sign(&self.settings.signed_bytes(&vote));
                SignedVote { vote, signer: me, signature }
            })
            .collect();
        Ok((signed, executed))
    }

    fn write(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError> {
        match self.disk.commit(changes, signing, sync) {
            Err(DiskError::Failed(_)) if planted(Bug::WriteErrorIgnored) => Ok(()),
            result => result,
        }
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
                } else {
                    // Votes come from who signed them, certificates and proposals from who has checked them.
                    self.output.blamed.extend(self.hearing);
                }
                self.events.push_back(Event::Verified(token, valid));
            }
            // S2: reserved, synced and signed at the end of the turn.
            Effect::Sign(vote) => self.to_sign.push(vote),
            // R1, R2.
            Effect::Persist(record) => {
                self.note_nullification(&record);
                self.changes.push(Change::Record(record));
                self.must_sync = true;
            }
            Effect::Broadcast(message) => self.send(Destination::All, PeerMessage::Consensus(message)),
            // D3, D4, H1, E1, V7.
            Effect::Build { view, parent, ancestors } => {
                let batches = self.select(&ancestors);
                let named = self.core.block(parent).map(|block| block.checkpoint.height).unwrap_or_default();
                let next = Height(named.0.saturating_add(CHECKPOINT_INTERVAL));
                let boundary = self.boundary()?;
                // While the snapshot is being made, the chain goes on with the checkpoint that its parent names.
                let waits = boundary.is_none() && next >= self.core.config().cutoff;
                let checkpoint = if waits { None } else { self.own_checkpoint(next)? }.unwrap_or_default();
                let contradictions = self.reportable(&ancestors)?;
                let time_milliseconds = self.wall_milliseconds;
                self.events.push_back(Event::Built {
                    view,
                    parent,
                    batches,
                    time_milliseconds,
                    checkpoint,
                    boundary,
                    contradictions,
                });
            }
            // D2, D3, H1, V7.
            Effect::Check { block, leader } => {
                self.await_bodies(block, leader)?;
            }
            Effect::Fetch(want, hint) => {
                let message = match want {
                    Want::Block(digest) => PeerMessage::FetchBlock(digest),
                    Want::View(view) => PeerMessage::FetchView(view),
                };
                if let Some(peer) = self.choose_peer(hint, Whom::Anyone) {
                    self.send(Destination::One(peer), message);
                }
            }
            Effect::CatchUp(_) => self.want_range(),
            Effect::Commit(blocks, certificate) => self.commit(blocks, certificate),
            Effect::SetTimer(at) => self.core_timer = Some(at),
            // V6.
            Effect::Evidence(first, second) => {
                if let Some(key) = self.roster().and_then(|roster| roster.key(first.signer)) {
                    self.accuse(key, Contradiction::new(first, second));
                }
            }
        }
        Ok(())
    }

    /// Checks votes of the present epoch.
    pub(crate) fn verify(&self, votes: &[SignedVote]) -> bool {
        let check =
            |vote: &SignedVote| Some((self.roster()?.key(vote.signer)?, self.signed_bytes(vote), vote.signature));
        let checks: Option<Vec<(PublicKey, Vec<u8>, Signature)>> = votes.iter().map(check).collect();
        checks.is_some_and(|checks| self.keys.verify(&checks))
    }

    pub(crate) fn signed_bytes(&self, vote: &SignedVote) -> Vec<u8> {
        self.settings.signed_bytes(&vote.vote)
    }

    /// S5: everyone keeps the highest signed vote seen of each key.
    fn note_highest(&mut self, vote: &SignedVote) {
        let Some(key) = self.roster().and_then(|roster| roster.key(vote.signer)) else { return };
        let rank = |vote: &Vote| (vote.epoch, vote.view, vote.kind);
        if self.highest_votes.get(&key).is_none_or(|known| rank(&known.vote) < rank(&vote.vote)) {
            self.highest_votes.insert(key, *vote);
            self.changes.push(Change::HighestVote(key, *vote));
        }
    }

    /// D4: batches of a nullified view make their origins suspect.
    fn note_nullification(&mut self, record: &Record) {
        if let Record::Certificate(certificate) = record
            && certificate.vote.kind == VoteKind::Nullify
            && let Some(block) = self.core.proposed(certificate.view())
        {
            let data = &self.data;
            self.holding.nullified(block, |digest| data.get(*digest));
        }
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
        let power_of = |node: &NodeIndex| validators.power(self.roster()?.validator(*node)?);
        let mut reported: Vec<(Height, u64)> =
            self.heights.iter().filter_map(|(node, height)| Some((*height, power_of(node)?.0))).collect();
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
        let heard = self.heights.keys().filter_map(|node| self.roster()?.validator(*node)).chain(*me);
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
            Lock::Fenced => Signing::Fenced,
            Lock::Open if self.signing_released => Signing::Allowed,
            Lock::Asking { .. } | Lock::Open => Signing::Locked,
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
