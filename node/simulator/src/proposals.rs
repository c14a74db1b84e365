//! Proposals of a Byzantine leader: signed well, and against the rules.

use bizra_driver::Batch;
use bizra_simplex::types::{Digest, Height, View};
use bizra_simplex::{Block, Certificate, Proposal};

use crate::adversary::Adversary;
use crate::random::Random;

impl Adversary {
    /// A proposal with a valid signature that breaks some rule.
    pub(crate) fn unsound(&mut self, random: &mut Random, proposal: &Proposal) -> Proposal {
        let mut proposal = proposal.clone();
        let stranger = Digest([random.number() as u8; 32]);
        let block = &mut proposal.block;
        match random.below(10) {
            0 => block.height = Height(block.height.0 + random.between(1, 3)),
            1 => block.batches.push(stranger),
            2 => block.batches.extend(self.ordered.iter().copied().take(4)),
            3 => proposal.parent_view = View(random.below(proposal.view.0)),
            4 => proposal.justification = None,
            5 => block.time_milliseconds = 0,
            6 => block.parent = stranger,
            7 => block.batches.extend([stranger, stranger]),
            8 => proposal.view = View(proposal.view.0 + self.nodes as u64),
            _ => {
                // A batch that everybody can have and nobody may accept.
                let batch = self.invalid_batch();
                let digest = Batch::digest(self.genesis_hash, batch.origin, batch.sequence, &batch.payload);
                proposal.block.batches.push(digest);
            }
        }
        proposal.block.batches.truncate(bizra_simplex::block::BATCHES_PER_BLOCK_MAX);
        self.signed(proposal)
    }

    /// A block on the newest notarized parent but one: it skips a view that may be final. Honest validators must ask for
    /// a nullification that cannot exist.
    pub(crate) fn fork(&self, proposal: &Proposal) -> Option<Proposal> {
        let newest = proposal.parent_view;
        let older = |(_, certificate): &&(Block, Certificate)| certificate.view() < newest;
        let (parent, certificate) = self.parents.iter().rev().find(older)?;
        let mut fork = proposal.clone();
        fork.block.height = parent.height.next();
        fork.block.parent = parent.digest();
        fork.parent_view = certificate.view();
        fork.justification = Some(certificate.clone());
        Some(self.signed(fork))
    }
}
