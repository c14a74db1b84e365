//! The driver's talk with peers: answering, asking, and everything that time alone brings.

use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Height, ValidatorIndex, View};
use bizra_simplex::{Certificate, Event, Message, SignedVote};

use crate::batch::Batch;
use crate::driver::{Destination, Driver, Halt, NodeIndex};
use crate::ports::{Disk, Keys, PublicKey};
use crate::startup::{Answer, Lock};
use crate::wire::PeerMessage;

/// Time between two requests for a range, in milliseconds.
const RANGE_INTERVAL: u64 = 500;

/// Finalised blocks that wait for their bodies (R4): with more, no further range is asked for. A peer that serves blocks and
/// withholds their bodies would fill the memory.
const WAITING_BLOCKS_MAX: usize = 4_096;

/// A network this many blocks ahead is asked for a range even if no certificate shows the gap.
const STATUS_GAP: u64 = 8;

impl<D: Disk, K: Keys> Driver<D, K> {
    /// The digest does not cover the signature, so anybody can put a wrong one under somebody else's batch: that says
    /// nothing about the batch, and is dropped before the digest is remembered in any way. What passes is the origin's
    /// own word, and if it is invalid the origin is to blame (D1).
    fn receive_batch(&mut self, batch: Batch) -> Result<(), Halt> {
        let digest = self.digest_of(&batch);
        let origin = self.rosters.get(&batch.epoch).and_then(|roster| roster.key(batch.origin));
        let Some(origin) = origin.filter(|_| self.data.wants(digest, &batch)) else {
            return Ok(());
        };
        if !planted(Bug::BatchSignatureUnchecked) && !self.keys.verify(&[(origin, digest.0.to_vec(), batch.signature)])
        {
            return Ok(());
        }
        if self.awaits_execution(digest) {
            // A finalised block orders it: a quorum has verified these very bytes.
            self.keep(digest, batch);
        } else if batch.fits(self.core.config().epoch) && !self.is_ordered(digest)? {
            self.data.start_check(digest, &batch);
            self.output.verify.push(batch);
        }
        Ok(())
    }

    pub(crate) fn receive(&mut self, from: NodeIndex, message: PeerMessage) -> Result<(), Halt> {
        match message {
            PeerMessage::Consensus(message) => self.receive_consensus(from, message),
            PeerMessage::Batch(batch) => self.receive_batch(batch)?,
            PeerMessage::Block(block) => self.events.push_back(Event::Fetched(block)),
            PeerMessage::Range(blocks, certificate) => self.events.push_back(Event::Range(blocks, certificate)),
            PeerMessage::Status(height) => {
                self.heights.insert(from, height);
                if self.network_height().0 > self.core.anchor().height().0 + STATUS_GAP {
                    self.want_range();
                }
            }
            // R2.
            PeerMessage::FetchBlock(digest) => {
                let block = match self.core.block(digest) {
                    Some(block) => Some(block.clone()),
                    None => match self.disk.height_of(digest)? {
                        Some(height) => self.disk.finalized_block(height)?,
                        None => None,
                    },
                };
                if let Some(block) = block {
                    self.send(Destination::One(from), PeerMessage::Block(block));
                }
            }
            PeerMessage::FetchView(view) => self.serve_view(from, view),
            // D2.
            PeerMessage::FetchBatch(digest) => {
                let batch = match self.data.get(digest) {
                    Some(batch) => Some(batch.clone()),
                    None => self.disk.batch(digest)?,
                };
                if let Some(batch) = batch.filter(|_| !planted(Bug::BatchNotServed)) {
                    self.send(Destination::One(from), PeerMessage::Batch(batch));
                }
            }
            PeerMessage::FetchRange(height) => self.serve_range(from, height)?,
            PeerMessage::Evidence(first, second) => self.receive_evidence(first, second),
            // D4.
            PeerMessage::FetchHeld(digests) => {
                let (held, lacking): (Vec<_>, Vec<_>) =
                    digests.into_iter().partition(|digest| self.data.get(*digest).is_some());
                // Who asks is about to name them, and hands them out.
                let asker = self.roster().and_then(|roster| roster.validator(from));
                for digest in lacking {
                    self.data.fetch(digest, asker, self.now);
                }
                if !held.is_empty() {
                    self.send(Destination::One(from), PeerMessage::Held(held));
                }
            }
            PeerMessage::Held(digests) => {
                if let Some(from) = self.roster().and_then(|roster| roster.validator(from)) {
                    self.holding.note(from, &digests);
                }
            }
            // S5: answered also while this node asks itself, so that a full restart does not wait in a circle.
            PeerMessage::FetchHighestVote(key) => {
                // Who asks has just started: it should not sign before it knows how far the others are.
                self.send(Destination::One(from), PeerMessage::Status(self.core.anchor().height()));
                let highest = self.highest_votes.get(&key).copied();
                self.send(Destination::One(from), PeerMessage::HighestVote(key, highest));
            }
            PeerMessage::HighestVote(key, highest) => self.take_answer(from, key, highest)?,
            // Of snapshots the driver knows nothing: the node serves and takes them beside it.
            PeerMessage::FetchBoundaries(_)
            | PeerMessage::Boundaries(..)
            | PeerMessage::FetchManifest(_)
            | PeerMessage::Manifest(..)
            | PeerMessage::FetchChunk(..)
            | PeerMessage::Chunk(..) => {}
        }
        Ok(())
    }

    /// Who is who follows from what peers prove: of two that hold one key, the one that proved it last is its holder.
    pub(crate) fn note_holder(&mut self, node: NodeIndex, key: Option<PublicKey>) {
        let nodes = &mut self.settings.nodes;
        if key.is_some_and(|key| nodes.get(&key) == Some(&node)) {
            return;
        }
        nodes.retain(|_, holder| *holder != node);
        if let Some(key) = key {
            nodes.insert(key, node);
        }
        // What it said before, it said as somebody else.
        self.heights.remove(&node);
        self.early.remove(&node);
        for roster in self.rosters.values_mut() {
            roster.locate(&self.settings.nodes);
        }
    }

    fn serve_view(&mut self, from: NodeIndex, view: View) {
        let anchor_view = self.core.anchor().view;
        let certificates: Vec<Certificate> = if view <= anchor_view {
            self.core.anchor_certificate().cloned().into_iter().collect()
        } else {
            self.core.certificates(view).cloned().collect()
        };
        for certificate in certificates {
            self.send(Destination::One(from), PeerMessage::Consensus(Message::Certificate(certificate)));
        }
    }

    fn serve_range(&mut self, to: NodeIndex, from: Height) -> Result<(), Halt> {
        let mut blocks = Vec::new();
        let mut proven = None;
        let top = self.core.anchor().height();
        let mut height = Height(from.0.max(1));
        let mut ended = false;
        // Up to the range's length or the end of its epoch, and on until a finalization proves what was collected.
        while height <= top && !ended && (proven.is_none() || (blocks.len() as u64) < crate::wire::RANGE_BLOCKS_MAX) {
            let Some(block) = self.disk.finalized_block(height)? else { break };
            ended = self.settings.restarts.after(&block).is_some();
            blocks.push(block);
            if let Some(certificate) = self.disk.finalization(height)? {
                proven = Some((blocks.len(), certificate));
            }
            height = height.next();
        }
        if let Some((count, certificate)) = proven.filter(|_| !planted(Bug::RangeNotServed)) {
            blocks.truncate(count);
            self.send(Destination::One(to), PeerMessage::Range(blocks, certificate));
        }
        Ok(())
    }

    fn take_answer(&mut self, from: NodeIndex, key: PublicKey, highest: Option<SignedVote>) -> Result<(), Halt> {
        let (Some(me), Some(record)) = (self.core.config().me, &self.record) else { return Ok(()) };
        let Some(from) = self.roster().and_then(|roster| roster.validator(from)) else { return Ok(()) };
        // A claim counts only with the vote itself, whatever index the key had when it signed.
        let sound = |vote: SignedVote| self.keys.verify(&[(key, self.signed_bytes(&vote), vote.signature)]);
        if self.keys.public_key() != Some(key) || highest.is_some_and(|vote| !sound(vote)) {
            return Ok(());
        }
        let validators = &self.core.config().validators;
        match self.lock.answer(from, highest, me, validators, record) {
            Answer::Wait => {}
            Answer::Open => self.release_signing(),
            Answer::Elsewhere(vote) => return Err(Halt::SignedElsewhere(vote.vote.epoch, vote.vote.view)),
        }
        Ok(())
    }

    /// Lets the core sign once the peers have answered (S5) and this node is where they are: what it would say far below
    /// helps nobody, and after the loss of a database the record alone would stand between it and an old view.
    pub(crate) fn release_signing(&mut self) {
        let behind = self.network_height().0 > self.core.anchor().height().0 + STATUS_GAP;
        if matches!(self.lock, Lock::Open) && !self.signing_released && !behind {
            self.signing_released = true;
            self.events.push_back(Event::SigningAllowed);
        }
    }

    /// While a snapshot is on its way, the blocks below it are not asked for.
    pub fn pause_ranges(&mut self, paused: bool) {
        self.ranges_paused = paused;
    }

    pub(crate) fn want_range(&mut self) {
        self.range_due.get_or_insert(self.now.max(self.range_asked.plus(RANGE_INTERVAL)));
    }

    /// Everything that time alone brings.
    pub(crate) fn timers(&mut self) {
        if self.lock.ask_now(self.now)
            && let Some(key) = self.keys.public_key()
        {
            self.send(Destination::All, PeerMessage::FetchHighestVote(key));
        }
        if self.next_status <= self.now {
            self.next_status = self.now.plus(self.core.config().timing.resend_milliseconds);
            self.send(Destination::All, PeerMessage::Status(self.core.anchor().height()));
        }
        for (digest, attempts, hint) in self.data.due_fetches(self.now) {
            let peer = self.choose_peer(hint.filter(|_| attempts == 0), Whom::Ahead);
            if let Some(peer) = peer {
                self.send(Destination::One(peer), PeerMessage::FetchBatch(digest));
            }
        }
        if !self.ranges_paused && self.range_due.is_some_and(|due| due <= self.now) {
            self.range_asked = self.now;
            let behind = self.network_height() > self.core.anchor().height();
            self.range_due = behind.then(|| self.now.plus(RANGE_INTERVAL));
            let next = self.core.anchor().height().next();
            // Blocks come faster than bodies: what cannot be executed yet is not added to. And what follows the last block
            // of an epoch proves nothing to this node before it has executed enough to know who validates then.
            let room = self.to_execute.len() < WAITING_BLOCKS_MAX && !self.core.is_over();
            if let Some(peer) = self.choose_peer(None, Whom::Ahead).filter(|_| room) {
                self.send(Destination::One(peer), PeerMessage::FetchRange(next));
            }
        }
    }

    /// The hinted peer, or any other of those to ask. Not in turn: with as many questions a round as there are peers, each question would
    /// meet the same peer every time, and a liar among them would never be passed by.
    pub(crate) fn choose_peer(&mut self, hint: Option<ValidatorIndex>, whom: Whom) -> Option<NodeIndex> {
        let height = self.core.anchor().height();
        let behind = whom == Whom::Ahead && self.network_height() > height;
        let roster = self.roster()?;
        let me = roster.me;
        let node = |index: ValidatorIndex| roster.node(index).filter(|_| Some(index) != me);
        if let Some(hinted) = hint.and_then(node) {
            return Some(hinted);
        }
        let mut others: Vec<NodeIndex> = roster.set.indices().filter_map(node).collect();
        if others.is_empty() {
            // Far behind, all validators of this epoch may have other keys by now: any peer is better than none.
            let own = self.keys.public_key();
            others = self.settings.nodes.iter().filter(|(key, _)| Some(**key) != own).map(|(_, node)| *node).collect();
        }
        if behind {
            // Validators with more than a third of the power say that they are ahead, so an honest one is among them.
            others.retain(|node| self.reported_height(*node) > height);
        }
        self.attempts = self.attempts.wrapping_add(1);
        (!others.is_empty()).then(|| others[(scatter(self.attempts) % others.len() as u64) as usize])
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Any validator.
    Anyone,
    /// While this node is behind, only those that say they have what it lacks.
    Ahead,
}

/// Spreads consecutive numbers evenly (the finaliser of `SplitMix64`, Steele et al. 2014).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
