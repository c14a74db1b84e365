//! The driver's talk with peers: answering, asking, and everything that time alone brings.

use bizra_simplex::types::{Height, ValidatorIndex, View};
use bizra_simplex::{Certificate, Event, Message, SignedVote};

use crate::batch::Batch;
use crate::driver::{Destination, Driver, Halt, NodeIndex};
use crate::ports::{Disk, Keys};
use crate::startup::Answer;
use crate::wire::PeerMessage;

/// Time between two requests for a range, in milliseconds.
const RANGE_INTERVAL: u64 = 500;

/// A network this many blocks ahead is asked for a range even if no certificate shows the gap.
const STATUS_GAP: u64 = 8;

impl<D: Disk, K: Keys> Driver<D, K> {
    /// The digest does not cover the signature, so anybody can put a wrong one under somebody else's batch: that says
    /// nothing about the batch, and is dropped before the digest is remembered in any way. What passes is the origin's
    /// own word, and if it is invalid the origin is to blame (D1).
    fn receive_batch(&mut self, batch: Batch) -> Result<(), Halt> {
        let digest = self.digest_of(&batch);
        if !self.data.wants(digest, &batch) || self.core.config().validators.power(batch.origin).is_none() {
            return Ok(());
        }
        if !self.keys.verify(&[(batch.origin, digest.0.to_vec(), batch.signature)]) {
            return Ok(());
        }
        if self.awaits_execution(digest) {
            // A finalised block orders it: a quorum has verified these very bytes.
            self.keep(digest, batch);
        } else if !self.is_ordered(digest)? {
            self.data.start_check(digest);
            self.output.verify.push(batch);
        }
        Ok(())
    }

    pub(crate) fn receive(&mut self, from: NodeIndex, message: PeerMessage) -> Result<(), Halt> {
        match message {
            PeerMessage::Consensus(message) => self.events.push_back(Event::Received(message)),
            PeerMessage::Batch(batch) => self.receive_batch(batch)?,
            PeerMessage::Block(block) => self.events.push_back(Event::Fetched(block)),
            PeerMessage::Range(blocks, certificate) => self.events.push_back(Event::Range(blocks, certificate)),
            PeerMessage::Status(height) => {
                self.heights.insert(from, height);
                if self.network_height().0 > self.core.anchor().height().0 + STATUS_GAP {
                    self.want_range();
                }
            }
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
            PeerMessage::FetchBatch(digest) => {
                let batch = match self.data.get(digest) {
                    Some(batch) => Some(batch.clone()),
                    None => self.disk.batch(digest)?,
                };
                if let Some(batch) = batch {
                    self.send(Destination::One(from), PeerMessage::Batch(batch));
                }
            }
            PeerMessage::FetchRange(height) => self.serve_range(from, height)?,
            PeerMessage::FetchHighestVote(validator) => {
                let highest = self.highest_votes.get(&validator).copied();
                self.send(Destination::One(from), PeerMessage::HighestVote(validator, highest));
            }
            PeerMessage::HighestVote(validator, highest) => self.take_answer(from, validator, highest)?,
        }
        Ok(())
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
        // Up to the range's length, and on until a finalization proves what was collected.
        while height <= top && (proven.is_none() || (blocks.len() as u64) < crate::wire::RANGE_BLOCKS_MAX) {
            let Some(block) = self.disk.finalized_block(height)? else { break };
            blocks.push(block);
            if let Some(certificate) = self.disk.finalization(height)? {
                proven = Some((blocks.len(), certificate));
            }
            height = height.next();
        }
        if let Some((count, certificate)) = proven {
            blocks.truncate(count);
            self.send(Destination::One(to), PeerMessage::Range(blocks, certificate));
        }
        Ok(())
    }

    fn take_answer(
        &mut self,
        from: NodeIndex,
        validator: ValidatorIndex,
        highest: Option<SignedVote>,
    ) -> Result<(), Halt> {
        let (Some(me), Some(record)) = (self.core.config().me, &self.record) else { return Ok(()) };
        if validator != me || highest.is_some_and(|vote| vote.signer != me || !self.verify(&[vote])) {
            // A claim counts only with the vote itself.
            return Ok(());
        }
        let validators = &self.core.config().validators;
        match self.lock.answer(ValidatorIndex(from), highest, me, validators, record) {
            Answer::Wait => {}
            Answer::Open => self.events.push_back(Event::SigningAllowed),
            Answer::Elsewhere(vote) => return Err(Halt::SignedElsewhere(vote.vote.view)),
        }
        Ok(())
    }

    pub(crate) fn want_range(&mut self) {
        self.range_due.get_or_insert(self.now.max(self.range_asked.plus(RANGE_INTERVAL)));
    }

    /// Everything that time alone brings.
    pub(crate) fn timers(&mut self) {
        if self.lock.ask_now(self.now)
            && let Some(me) = self.core.config().me
        {
            self.send(Destination::All, PeerMessage::FetchHighestVote(me));
        }
        if self.next_status <= self.now {
            self.next_status = self.now.plus(self.core.config().timing.resend_milliseconds);
            self.send(Destination::All, PeerMessage::Status(self.core.anchor().height()));
        }
        for (digest, attempts, hint) in self.data.due_fetches(self.now) {
            let peer = self.choose_peer(hint.filter(|_| attempts == 0));
            if let Some(peer) = peer {
                self.send(Destination::One(peer), PeerMessage::FetchBatch(digest));
            }
        }
        if self.range_due.is_some_and(|due| due <= self.now) {
            self.range_asked = self.now;
            let behind = self.network_height() > self.core.anchor().height();
            self.range_due = behind.then(|| self.now.plus(RANGE_INTERVAL));
            let next = self.core.anchor().height().next();
            if let Some(peer) = self.choose_peer(None) {
                self.send(Destination::One(peer), PeerMessage::FetchRange(next));
            }
        }
    }

    /// The hinted peer, or the next in turn.
    pub(crate) fn choose_peer(&mut self, hint: Option<ValidatorIndex>) -> Option<NodeIndex> {
        let me = self.core.config().me;
        if let Some(hint) = hint.filter(|hint| Some(*hint) != me) {
            return Some(hint.0);
        }
        let others: Vec<ValidatorIndex> =
            self.core.config().validators.indices().filter(|index| Some(*index) != me).collect();
        self.attempts = self.attempts.wrapping_add(1);
        (!others.is_empty()).then(|| others[self.attempts % others.len()].0)
    }
}
