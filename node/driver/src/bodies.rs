//! From a block's digests to bodies to its execution (D1–D4, H1): which batches a leader names, whether a block may be voted for,
//! and what is done with it once it is final.

use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Signature, ValidatorIndex};
use bizra_simplex::{Block, Certificate, Config, Event, Verdict};
use bytes::Bytes;

use crate::batch::Batch;
use crate::data::Bodies;
use crate::driver::{Destination, Driver, Fence, Halt};
use crate::holding::Unsure;
use crate::ports::{Change, Disk, DiskError, Keys};
use crate::wire::PeerMessage;

/// A block that waits for its bodies.
pub(crate) struct Awaited {
    block: Block,
    leader: ValidatorIndex,
}

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Batches for a new block. Others are asked which of those they hold that may not be named yet (D4).
    pub(crate) fn select(&mut self, ancestors: &[Block]) -> Vec<Digest> {
        let Config { me: Some(me), validators, .. } = self.core.config() else { return Vec::new() };
        let (holding, mut unsure) = (&self.holding, Unsure::default());
        let may_name = |digest, batch: &Batch| holding.may_name(digest, batch, validators, &mut unsure);
        let chosen = self.data.select(ancestors, may_name);
        let question = self.holding.question(&unsure, *me);
        if !question.is_empty() {
            self.send(Destination::All, PeerMessage::FetchHeld(question));
        }
        chosen
    }

    pub(crate) fn commit(&mut self, blocks: Vec<Block>, certificate: Certificate) {
        self.data.order(&blocks);
        self.holding.ordered(&blocks);
        let height = self.core.anchor().height();
        self.undecided.retain(|_, awaited| awaited.block.height > height);
        self.to_execute.extend(blocks.iter().cloned());
        self.data.retain_fetches(self.undecided.values().map(|awaited| &awaited.block).chain(&self.to_execute));
        self.changes.push(Change::Finalize(blocks, certificate));
        self.must_sync = true;
        // More may be waiting where this came from.
        self.range_due = self.range_due.map(|_| self.now);
    }

    /// D3 and V7 for ancestors at or below the last finalised block; those above are the core's to compare.
    pub(crate) fn await_bodies(&mut self, block: Block, leader: ValidatorIndex) -> Result<(), Halt> {
        for batch in &block.batches {
            if !planted(Bug::BatchOrderedTwice) && self.is_ordered(*batch)? {
                self.events.push_back(Event::Checked(block.digest(), Verdict::Invalid));
                return Ok(());
            }
        }
        if !self.contradictions_hold(&block)? {
            self.events.push_back(Event::Checked(block.digest(), Verdict::Invalid));
            return Ok(());
        }
        self.undecided.insert(block.digest(), Awaited { block, leader });
        self.decided_with = None;
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

    /// D2, H1: which of the awaited blocks have all their bodies and name a state that is executed here.
    pub(crate) fn decide(&mut self) -> Result<(), Halt> {
        if self.undecided.is_empty() {
            return Ok(());
        }
        let with = Some((self.data.version(), self.applied, self.snapshot_root()?));
        if self.decided_with == with {
            return Ok(());
        }
        self.decided_with = with;
        let mut decided = Vec::new();
        for (digest, awaited) in &self.undecided {
            let verdict = match self.data.examine(self.now, &awaited.block, awaited.leader) {
                Bodies::Held => match self.judge_header(&awaited.block)? {
                    Some(true) => Verdict::Held,
                    Some(false) => Verdict::Invalid,
                    None => continue,
                },
                Bodies::Invalid => Verdict::Invalid,
                Bodies::Missing => continue,
            };
            decided.push((*digest, verdict));
        }
        for (digest, verdict) in decided {
            self.undecided.remove(&digest);
            self.events.push_back(Event::Checked(digest, verdict));
        }
        Ok(())
    }

    /// Executes finalised blocks whose bodies are held, in order.
    pub(crate) fn execute(&mut self) {
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
    pub(crate) fn fetch_ahead(&mut self) {
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

    pub(crate) fn load_bodies(&mut self, block: &Block) -> Result<(), Halt> {
        for digest in &block.batches {
            if let Some(batch) = self.disk.batch(*digest)? {
                self.data.hold(*digest, batch);
            }
        }
        self.data.order(std::slice::from_ref(block));
        Ok(())
    }

    pub(crate) fn digest_of(&self, batch: &Batch) -> Digest {
        batch.digest(self.settings.genesis_hash)
    }

    /// Packs admitted transactions into a batch of this node and pushes it once to everybody.
    pub(crate) fn add_payload(&mut self, payload: Bytes) {
        if self.settings.fence == Fence::Closed {
            return;
        }
        let Config { me: Some(origin), epoch, .. } = *self.core.config() else { return };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut batch = Batch { epoch, origin, sequence, payload, signature: Signature([0; 64]) };
        let digest = self.digest_of(&batch);
        batch.signature = self.keys.sign(&digest.0);
        self.send(Destination::All, PeerMessage::Batch(batch.clone()));
        self.keep(digest, batch);
    }

    /// Pushes this node's unordered batches once more: if it does not vote any more, nobody asks it for what others miss.
    pub(crate) fn push_own_batches(&mut self) {
        let Some(own) = self.keys.public_key() else { return };
        let is_own =
            |batch: &&Batch| self.rosters.get(&batch.epoch).and_then(|roster| roster.key(batch.origin)) == Some(own);
        let batches: Vec<Batch> = self.data.unordered().filter(is_own).cloned().collect();
        for batch in batches {
            self.send(Destination::All, PeerMessage::Batch(batch));
        }
    }

    pub(crate) fn keep(&mut self, digest: Digest, batch: Batch) {
        if self.data.hold(digest, batch.clone()) {
            self.holding.arrived(digest, &batch);
            self.changes.push(Change::Batch(digest, batch));
            if let Some(block) = self.to_execute.iter().find(|block| block.batches.contains(&digest)) {
                self.data.order(std::slice::from_ref(block));
            }
        }
    }

    pub(crate) fn batch_verified(&mut self, batch: Batch, valid: bool) -> Result<(), Halt> {
        let digest = self.digest_of(&batch);
        if !valid && !planted(Bug::InvalidBatchTaken) {
            self.data.check_failed(digest);
            let origin = self.rosters.get(&batch.epoch).and_then(|roster| roster.node(batch.origin));
            self.output.blamed.extend(origin);
        } else if self.awaits_execution(digest) || (batch.fits(self.core.config().epoch) && !self.is_ordered(digest)?) {
            self.keep(digest, batch);
        } else {
            // Ordered and executed, or out of date, while it was being checked.
            self.data.check_passed(digest);
        }
        Ok(())
    }

    pub(crate) fn awaits_execution(&self, digest: Digest) -> bool {
        self.to_execute.iter().any(|block| block.batches.contains(&digest))
    }
}
