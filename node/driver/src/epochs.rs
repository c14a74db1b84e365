//! What binds ordering to execution: checkpoints in headers (H1) and the change from one epoch to the next (E1, E2).

use std::collections::{BTreeMap, VecDeque};

use bizra_simplex::block::{CHECKPOINT_INTERVAL, CONTRADICTION_EPOCHS};
use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Anchor, Block, Boundary, Certificate, Checkpoint, Config, Message, Protocol, Record, State};

use crate::driver::{Driver, Halt, NodeIndex, Settings};
use crate::holding::Holding;
use crate::ports::{Change, Disk, DiskError, Keys};
use crate::roster::{Roster, validators_hash};
use crate::signing_record::SigningRecord;
use crate::startup::Lock;

/// Messages of the next epoch kept for one peer until this node is there (R4). More would let a peer fill memory with
/// messages of an epoch that may never come; what is dropped is sent again.
const EARLY_MESSAGES_MAX: usize = 64;

/// Epochs whose validators are kept before the present one: a block orders batches of the epoch before its own, may wait
/// for its execution into the next, and reports contradictions of as many epochs (V7).
const EPOCHS_KEPT: u64 = CONTRADICTION_EPOCHS;

/// Messages of the next epoch, by sender.
pub(crate) type Early = BTreeMap<NodeIndex, VecDeque<Message>>;

/// The validators of the present epoch and the ones before, by epoch.
pub(crate) type Rosters = BTreeMap<Epoch, Roster>;

fn epoch_of(message: &Message) -> Epoch {
    match message {
        Message::Proposal(proposal) => proposal.block.epoch,
        Message::Vote(signed) => signed.vote.epoch,
        Message::Certificate(certificate) => certificate.vote.epoch,
    }
}

/// Reads the validators of an epoch and of those before that still matter; `None` if the epoch's own are not known yet.
pub(crate) fn rosters<D: Disk, K: Keys>(
    epoch: Epoch,
    disk: &D,
    keys: &K,
    settings: &Settings,
) -> Result<Option<Rosters>, DiskError> {
    let mut rosters = Rosters::new();
    for number in epoch.0.saturating_sub(EPOCHS_KEPT)..=epoch.0 {
        // E6: one that was named and never began matters no more.
        if number < epoch.0 && settings.restarts.passes_over(Epoch(number)) {
            continue;
        }
        let Some(members) = disk.validators(Epoch(number))? else {
            return Ok(None);
        };
        rosters.insert(Epoch(number), Roster::new(members, &settings.nodes, keys.public_key())?);
    }
    Ok(Some(rosters))
}

/// P3: the version of an epoch, if this node can go by it. One that cannot stops here, before it signs or executes anything
/// under rules that it does not know.
pub(crate) fn protocol<D: Disk>(epoch: Epoch, disk: &D, settings: &Settings) -> Result<Protocol, Halt> {
    let unknown = || DiskError::Corrupt(format!("the version of epoch {epoch} is missing"));
    let needed = disk.version(epoch)?.ok_or_else(unknown)?;
    let supported = settings.supported;
    let halt = Halt::UpgradeRequired { epoch, needed, supported: supported.version() };
    let known = Protocol::known(needed).filter(|known| *known <= supported);
    known.or_else(|| planted(Bug::VersionIgnored).then_some(supported)).ok_or(halt)
}

/// The core of an epoch, from what a disk held.
pub(crate) fn core(
    epoch: Epoch,
    roster: &Roster,
    (settings, protocol): (&Settings, Protocol),
    record: Option<&SigningRecord>,
    (anchor, certificate): (Anchor, Option<Certificate>),
    mut records: Vec<Record>,
) -> State {
    // What was there when a restart ended the epoch before.
    records.retain(|record| !matches!(record, Record::Block(block) if block.epoch != epoch));
    let (restarted_at, end) = settings.restarts.end(epoch);
    records.extend(end);
    let config = Config {
        epoch,
        cutoff: settings.cutoff(epoch),
        restarted_at,
        validators: roster.set.clone(),
        me: roster.me.filter(|_| record.is_some()),
        timing: settings.timing,
        protocol,
        signals: settings.supported.version(),
    };
    let safety = record.map(|record| record.safety(epoch)).unwrap_or_default();
    State::recover(config, anchor, certificate, records, safety)
}

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Hands a consensus message to the core, keeps it for the next epoch, or takes it as a sign of being behind.
    pub(crate) fn receive_consensus(&mut self, from: NodeIndex, message: Message) {
        let present = self.core.config().epoch;
        let epoch = epoch_of(&message);
        if epoch <= present {
            self.hear(from, message);
            return;
        }
        if !self.core.is_over() {
            self.want_range();
        }
        if epoch == present.next() {
            let kept = self.early.entry(from).or_default();
            kept.push_back(message);
            if kept.len() > EARLY_MESSAGES_MAX {
                kept.pop_front();
            }
        }
    }

    /// H1: the checkpoint at this height as executed here; `None` while that is not committed.
    pub(crate) fn own_checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError> {
        if height == self.checkpoint.height {
            return Ok(Some(self.checkpoint));
        }
        if height > self.applied { Ok(None) } else { self.disk.checkpoint(height) }
    }

    /// The root that this epoch's last block names: of the snapshot at the cut-off before (E1); `None` until it is made. An
    /// epoch that began with a genesis or a restart has no cut-off before it.
    pub(crate) fn snapshot_root(&self) -> Result<Option<Digest>, DiskError> {
        let epoch = self.core.config().epoch;
        match epoch.previous().filter(|_| self.settings.restarts.beginning(epoch).is_none()) {
            Some(before) => self.disk.snapshot(before),
            None => Ok(Some(Digest::default())),
        }
    }

    /// What to say of the next epoch, once its validators and the snapshot before are known (E1).
    pub(crate) fn boundary(&self) -> Result<Option<Boundary>, DiskError> {
        let next = self.core.config().epoch.next();
        if self.applied < self.core.config().cutoff {
            return Ok(None);
        }
        let next_set = self.disk.validators(next)?.zip(self.disk.version(next)?).zip(self.snapshot_root()?);
        Ok(next_set.map(|((members, version), snapshot)| Boundary {
            validators: validators_hash(next, &members),
            snapshot,
            version,
        }))
    }

    /// Whether a header claims what was executed here; `None` while that is not executed.
    pub(crate) fn judge_header(&self, block: &Block) -> Result<Option<bool>, DiskError> {
        let Some(own) = self.own_checkpoint(block.checkpoint.height)? else { return Ok(None) };
        if planted(Bug::StateNotCompared) {
            return Ok(Some(true));
        }
        if own != block.checkpoint || block.boundary.is_none() {
            return Ok(Some(own == block.checkpoint));
        }
        Ok(self.boundary()?.map(|own| Some(own) == block.boundary))
    }

    /// After a commit: notes the newest checkpoint, and compares what finalised headers vouch for with what was executed.
    /// A difference means that this node computes another state than a quorum does: nothing it says may be trusted.
    pub(crate) fn applied(&mut self, executed: &[Block]) -> Result<(), Halt> {
        let Some(last) = executed.last() else { return Ok(()) };
        self.applied = last.height;
        let newest = Height(last.height.0 - last.height.0 % CHECKPOINT_INTERVAL);
        if newest > self.checkpoint.height {
            let checkpoint = self.disk.checkpoint(newest)?;
            self.checkpoint = checkpoint
                .ok_or_else(|| DiskError::Corrupt(format!("the checkpoint of executed block {newest} is missing")))?;
        }
        for block in executed {
            let named = block.checkpoint;
            if named == self.vouched {
                continue;
            }
            self.vouched = named;
            if self.own_checkpoint(named.height)?.is_some_and(|own| own != named) {
                return Err(Halt::Diverged(named.height));
            }
        }
        Ok(())
    }

    /// E2: begins the next epoch once the last block of this one is final and its validators are known. False if
    /// there is nothing to begin.
    pub(crate) fn enter_next_epoch(&mut self) -> Result<bool, Halt> {
        if !self.core.is_over() {
            return Ok(false);
        }
        let (ended, block) = (self.core.config().epoch, self.core.anchor().block.clone());
        let Some(next) = self.settings.restarts.after(&block) else { return Ok(false) };
        let Some(rosters) = rosters(next, &self.disk, &self.keys, &self.settings)? else {
            return Ok(false);
        };
        let Some(roster) = rosters.get(&next) else { return Ok(false) };
        // A node that catches up need not wait for a snapshot that a quorum vouches for already.
        let own = self.disk.validators(next)?.map(|members| validators_hash(next, &members));
        let (version, snapshot) = (self.disk.version(next)?, self.snapshot_root()?);
        let differs = |boundary: &Boundary| {
            own != Some(boundary.validators)
                || version != Some(boundary.version)
                || snapshot.is_some_and(|root| root != boundary.snapshot)
        };
        let restarted = self.settings.restarts.beginning(next).is_some();
        if !restarted && block.boundary.as_ref().is_none_or(differs) {
            return Err(Halt::Diverged(block.height));
        }
        let settings = (&self.settings, protocol(next, &self.disk, &self.settings)?);
        self.core = core(next, roster, settings, self.record.as_ref(), (Anchor::first(block), None), Vec::new());
        // S5 asks what this key has signed. Who voted to the end of the last epoch knows; who only followed asks again.
        let voted = self.record.as_ref().is_some_and(|record| record.knows(ended));
        let config = self.core.config();
        if !(matches!(self.lock, Lock::Open) && voted && config.me.is_some()) {
            self.lock = Lock::new(self.settings.fence, config.me, &config.validators);
        }
        self.rosters = rosters;
        self.undecided.clear();
        self.forget_old_evidence();
        self.holding = Holding::default();
        let forgotten = self.data.enter(next);
        if !forgotten.is_empty() {
            self.push_change(Change::Forget(forgotten));
        }
        self.push_own_batches();
        // Now the blocks that follow prove themselves.
        self.range_due = self.range_due.map(|_| self.now);
        self.begin();
        let early = std::mem::take(&mut self.early);
        for (from, messages) in early {
            for message in messages {
                self.hear(from, message);
            }
        }
        Ok(true)
    }
}
