//! Attacks on what a node has and has not executed: one validator is kept from bodies of a block, so that it stands at a
//! final block that it cannot execute, and is asked to order once more what it still holds; and finality is claimed with
//! signatures that nobody made.

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Destination};
use bizra_simplex::types::{Digest, ValidatorIndex};
use bizra_simplex::{Block, Certificate, Proposal, Vote, VoteKind};

use crate::adversary::{Adversary, Sends};
use crate::faults::{Fault, Faults};
use crate::random::Random;

/// Batches remembered as withheld from the victim.
const WITHHELD_MAX: usize = 64;

/// Blocks below the last final one that may still wait for their execution at the victim.
const WAITING_BLOCKS: usize = 6;

/// Blocks of a range with forged finality: enough to reach down to the last final block.
const FORGED_BLOCKS: usize = 4;

impl Adversary {
    /// Chooses whom to starve from now on.
    pub(crate) fn choose_victim(&mut self, random: &mut Random) {
        let others: Vec<usize> = self.others().collect();
        self.victim = others.get(random.index(others.len())).copied();
        self.withheld.clear();
    }

    /// Hands a batch to everybody who is to have it but the victim.
    pub(crate) fn starve(&mut self, faults: &mut Faults, to: Destination, batch: &Batch, sends: &mut Sends) {
        let is_meant = |node: &usize| match to {
            Destination::All => true,
            Destination::One(one) => usize::from(one) == *node,
        };
        if self.victim.as_ref().is_some_and(is_meant) {
            faults.count(Fault::StarvedOfBatch);
        }
        self.withheld.push_back(batch.digest(self.genesis_hash));
        if self.withheld.len() > WITHHELD_MAX {
            self.withheld.pop_front();
        }
        let frame = PeerMessage::Batch(batch.clone()).encode();
        let served = self.others().filter(|node| is_meant(node) && Some(*node) != self.victim);
        sends.extend(served.map(|node| (node, frame.clone())));
    }

    /// Notes the latest block that is known to be final.
    pub(crate) fn note_final(&mut self, certificate: &Certificate) {
        let vote = certificate.vote;
        let newer = |known: Vote| (known.epoch, known.view) < (vote.epoch, vote.view);
        if vote.kind == VoteKind::Finalize && self.finalized.is_none_or(newer) {
            self.finalized = Some(vote);
        }
    }

    /// D3: orders once more what is final and what the victim, which waits for a body below, has not executed yet.
    pub(crate) fn again(&self, random: &mut Random, proposal: &Proposal) -> Option<Proposal> {
        let waiting = self.chain(self.finalized?.digest, WAITING_BLOCKS);
        let is_withheld = |batch: &Digest| self.withheld.contains(batch);
        let first = waiting.iter().position(|block| block.batches.iter().any(is_withheld))?;
        let held: Vec<Digest> = waiting[first..]
            .iter()
            .flat_map(|block| &block.batches)
            .filter(|batch| !is_withheld(batch))
            .copied()
            .collect();
        let mut again = proposal.clone();
        again.block.batches = vec![*held.get(random.index(held.len()))?];
        Some(self.signed(again))
    }

    /// A range up to a block that was just proposed, with the finalize votes of everybody, none signed by them.
    pub(crate) fn forged_range(&self, proposal: &Proposal) -> PeerMessage {
        let vote = Vote { kind: VoteKind::Finalize, ..proposal.vote() };
        let signature = self.sign(&vote.signed_bytes(self.genesis_hash));
        let signers = 0..self.validators(vote.epoch) as u16;
        let signatures = signers.map(|signer| (ValidatorIndex(signer), signature)).collect();
        PeerMessage::Range(self.chain(vote.digest, FORGED_BLOCKS), Certificate { vote, signatures })
    }

    /// The remembered blocks from at most `most` below up to this one, lowest first.
    fn chain(&self, digest: Digest, most: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut next = digest;
        while let Some((_, block)) =
            self.blocks.iter().find(|(digest, _)| *digest == next).filter(|_| blocks.len() < most)
        {
            next = block.parent;
            blocks.push(block.clone());
        }
        blocks.reverse();
        blocks
    }
}
