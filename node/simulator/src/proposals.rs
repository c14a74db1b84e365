//! Proposals of a Byzantine leader: signed well, and against the rules.

use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Height, ValidatorIndex, View};
use bizra_simplex::{
    Block, Boundary, Certificate, Checkpoint, Contradiction, Proposal, SignedVote, Version, Vote, VoteKind,
};

use crate::adversary::Adversary;
use crate::random::Random;

impl Adversary {
    /// A proposal with a valid signature that breaks some rule.
    pub(crate) fn unsound(&mut self, random: &mut Random, proposal: &Proposal) -> Proposal {
        let mut proposal = proposal.clone();
        let stranger = Digest([random.number() as u8; 32]);
        let block = &mut proposal.block;
        let parent = self.blocks.iter().find(|(digest, _)| *digest == block.parent);
        if parent.is_some_and(|(_, parent)| parent.checkpoint.height < block.checkpoint.height) && random.chance(500) {
            // The one moment at which a new state is named.
            block.checkpoint.state = stranger;
            return self.signed(proposal);
        }
        if let Some(boundary) = block.boundary.as_mut().filter(|_| random.chance(400)) {
            // A snapshot that nobody made.
            boundary.snapshot = stranger;
            return self.signed(proposal);
        }
        match random.below(24) {
            0 => block.height = Height(block.height.0 + random.between(1, 3)),
            1 => block.batches.push(stranger),
            2 | 15..18 => {
                // What was ordered long ago, or just now; or one batch alone, that who lacks the bodies of others may hold.
                let last = self.ordered.len().saturating_sub(2);
                let one = random.index(last.max(1));
                let (skip, count) = random.pick(&[(0, 4), (last, 4), (one, 1)]);
                let again: Vec<Digest> = self.ordered.iter().skip(skip).copied().take(count).collect();
                for batch in again {
                    if !block.batches.contains(&batch) {
                        block.batches.push(batch);
                    }
                }
            }
            3 => proposal.parent_view = View(random.below(proposal.view.0)),
            4 => proposal.justification = None,
            5 => block.time_milliseconds = 0,
            6 => block.parent = stranger,
            7 => block.batches.extend([stranger, stranger]),
            8 => proposal.view = View(proposal.view.0 + self.nodes as u64),
            9 => block.checkpoint.state = stranger,
            10 => block.checkpoint.height = Height(block.checkpoint.height.0 + CHECKPOINT_INTERVAL),
            11 => block.checkpoint = Checkpoint::default(),
            13 => {
                // A newer state than the parent's, as it would be named, but not what execution finds.
                let newest = block.height.0 - 1;
                block.checkpoint.height = Height(newest - newest % CHECKPOINT_INTERVAL);
                block.checkpoint.state = stranger;
            }
            12 => {
                let lie = Boundary { validators: stranger, snapshot: stranger, version: Version(9) };
                block.boundary = block.boundary.xor(Some(lie));
            }
            20 => block.signals = Version(0),
            21 => block.proposer = ValidatorIndex(block.proposer.0 ^ 1),
            // Of a later view, so that others seem to have missed turns; or of an earlier one.
            18 => {
                let (later, earlier) = (block.view.0 + random.between(1, 3), random.below(block.view.0));
                block.view = View(random.pick(&[later, earlier]));
            }
            22 | 23 => block.contradictions = self.told(random, block),
            _ => {
                // A batch that everybody can have and nobody may accept.
                let batch = self.invalid_batch();
                proposal.block.batches.push(batch.digest(self.genesis_hash));
            }
        }
        proposal.block.batches.truncate(bizra_simplex::block::BATCHES_PER_BLOCK_MAX);
        self.signed(proposal)
    }

    /// Reports of what nobody signed, of an old report once more, or of more than a block may tell.
    fn told(&self, random: &mut Random, block: &Block) -> Vec<Contradiction> {
        let told_before: Vec<Contradiction> =
            self.blocks.iter().flat_map(|(_, block)| block.contradictions.iter().copied()).collect();
        if !told_before.is_empty() && random.chance(500) {
            return vec![random.pick(&told_before)];
        }
        let view = View(random.between(1, 50));
        let accused = ValidatorIndex(random.below(self.nodes as u64) as u16);
        let vote = |digest| {
            let vote = Vote { epoch: block.epoch, view, kind: VoteKind::Notarize, digest: Digest([digest; 32]) };
            SignedVote { vote, signer: accused, signature: self.sign(&vote.signed_bytes(self.genesis_hash)) }
        };
        let forged = Contradiction::new(vote(1), vote(2));
        vec![forged; random.pick(&[1, 1, 1, bizra_simplex::CONTRADICTIONS_MAX])]
    }

    /// A block on one that was proposed and perhaps never certified: with the certificate of another block, or with a
    /// notarization that nobody signed.
    pub(crate) fn uncertified(&self, random: &mut Random, proposal: &Proposal) -> Option<Proposal> {
        let mut proposal = proposal.clone();
        let certificate = proposal.justification.as_mut()?;
        let of_view = |digest: &Digest| self.proposed.iter().find(|(_, digests)| digests.contains(digest));
        let others = self.blocks.iter().rev().map(|(digest, block)| (block, *digest));
        let candidates: Vec<(&Block, Digest, View)> = others
            .filter(|(_, digest)| *digest != certificate.vote.digest)
            .filter_map(|(block, digest)| Some((block, digest, *of_view(&digest)?.0)))
            .filter(|(_, _, view)| *view < proposal.view)
            .take(4)
            .collect();
        let (parent, digest, view) = *candidates.get(random.index(candidates.len()))?;
        proposal.block.height = parent.height.next();
        proposal.block.parent = digest;
        proposal.block.time_milliseconds = proposal.block.time_milliseconds.max(parent.time_milliseconds);
        if random.chance(700) {
            certificate.vote = Vote { view, kind: VoteKind::Notarize, digest, ..certificate.vote };
            proposal.parent_view = view;
        }
        Some(self.signed(proposal))
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
