//! Blocks: an order over batches, by digest. A block's digest does not contain the view it is decided in, so that the same
//! block can be proposed again in a later view.

use sha2::{Digest as _, Sha256};

use crate::planted::{Bug, planted};
use crate::types::{Digest, Epoch, Height, ValidatorIndex, View};
use crate::version::{Protocol, Version};
use crate::vote::Contradiction;

/// Most batches one block may order. Bounds a proposal to a few kilobytes.
pub const BATCHES_PER_BLOCK_MAX: usize = 256;

/// Executed state is committed to at heights divisible by this (H1). A commitment costs per changed entry, so it is made
/// once for many blocks.
pub const CHECKPOINT_INTERVAL: u64 = 16;

/// A block this far above the checkpoint it names may not order anything (H1): if execution cannot keep up, ordering
/// waits for it, and nobody votes for ever on a state that nobody has computed.
pub const CHECKPOINT_LAG_MAX: u64 = 64;

/// Contradictions of this many epochs before a block's own may be reported in it (V7): those whose validators every node
/// of the epoch knows without asking its state. Older ones are for the ledger's own transaction.
pub const CONTRADICTION_EPOCHS: u64 = 2;

const BLOCK_DOMAIN: &[u8] = b"bizra/v1/block\0";

/// What executing the chain up to a height has brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Last executed height; divisible by [`CHECKPOINT_INTERVAL`], 0 for the genesis.
    pub height: Height,
    /// Commitment to the whole state after that height; zero for the genesis, whose state the genesis file names.
    pub state: Digest,
    /// Merkle root over the receipts of all blocks above the checkpoint before, up to this one.
    pub receipts: Digest,
}

/// What the last block of an epoch says of the next one (E1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Hash of the next epoch's validators, as the state at this epoch's cut-off height names them.
    pub validators: Digest,
    /// Merkle root over the chunks of the snapshot at the cut-off height of the epoch before; zeros in the first epoch.
    pub snapshot: Digest,
    /// The version whose rules hold in the next epoch (P2).
    pub version: Version,
}

/// A block: the next link of the chain and the batches it orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The epoch whose validators may vote for it.
    pub epoch: Epoch,
    /// One more than the parent's.
    pub height: Height,
    /// Digest of the parent block.
    pub parent: Digest,
    /// The view of its epoch in which it is first proposed; also if another leader proposes it again (E2). The views between
    /// its parent's and this one were given up (T2).
    pub view: View,
    /// The leader that made it; also if another one proposes it again (E2).
    pub proposer: ValidatorIndex,
    /// The highest version that its proposer could go by (P1).
    pub signals: Version,
    /// Milliseconds since 1970 on the proposer's clock, never below the parent's; informational.
    pub time_milliseconds: u64,
    /// The executed state it vouches for (H1); never below the parent's.
    pub checkpoint: Checkpoint,
    /// Set on the last block of its epoch, the first whose checkpoint reaches the epoch's cut-off height.
    pub boundary: Option<Boundary>,
    /// Digests of the ordered batches, none twice.
    pub batches: Vec<Digest>,
    /// Contradictions of validators that no ancestor reports (V7), ascending by epoch and signer.
    pub contradictions: Vec<Contradiction>,
}

impl Block {
    /// The block at height 0, the parent of the first proposal. It orders nothing and is final by definition.
    pub fn genesis(genesis_hash: Digest, time_milliseconds: u64) -> Self {
        Self {
            epoch: Epoch(0),
            height: Height(0),
            parent: genesis_hash,
            view: View(0),
            proposer: ValidatorIndex(0),
            signals: Version(1),
            time_milliseconds,
            checkpoint: Checkpoint::default(),
            boundary: None,
            batches: Vec::new(),
            contradictions: Vec::new(),
        }
    }

    /// True if the header's fields fit each other, and the cut-off height and version of its epoch (H1, E1, D3, P1, V7).
    /// Says nothing about the parent, nor about what checkpoint, boundary and contradictions claim.
    pub fn is_well_formed(&self, cutoff: Height, protocol: Protocol) -> bool {
        let mut sorted = self.batches.clone();
        sorted.sort_unstable();
        let named = self.checkpoint.height;
        self.height > named
            && named.0.is_multiple_of(CHECKPOINT_INTERVAL)
            && (self.batches.is_empty() || self.may_order())
            && self.boundary.is_some() == (named >= cutoff)
            && self.signals >= protocol.version()
            && self.contradictions_fit(protocol)
            && self.batches.len() <= BATCHES_PER_BLOCK_MAX
            && sorted.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// V7: as many as the version allows, of the epochs that may be told of, one for a validator of an epoch.
    fn contradictions_fit(&self, protocol: Protocol) -> bool {
        let oldest = self.epoch.0.saturating_sub(CONTRADICTION_EPOCHS);
        self.contradictions.len() <= protocol.rules().contradictions_max
            && self.contradictions.is_sorted_by(|left, right| left.of() < right.of())
            && self
                .contradictions
                .iter()
                .all(|told| told.is_well_formed() && (oldest..=self.epoch.0).contains(&told.of().0.0))
    }

    /// True if the block reports somebody whom this one reports too (V7).
    pub fn reports_again(&self, ancestor: &Self) -> bool {
        self.contradictions.iter().any(|told| ancestor.contradictions.iter().any(|known| known.of() == told.of()))
    }

    /// True if the named checkpoint is near enough for the block to order batches.
    pub fn may_order(&self) -> bool {
        self.height.0.saturating_sub(self.checkpoint.height.0) <= CHECKPOINT_LAG_MAX
    }

    /// True if the block may come directly after `parent`: heights, times and an epoch's views only grow, and checkpoints are
    /// named one after the other, so that every receipt is under a root that some header names.
    pub fn follows(&self, parent: &Self) -> bool {
        let (before, now) = (&parent.checkpoint, &self.checkpoint);
        self.height == parent.height.next()
            && (self.view > parent.view || self.epoch != parent.epoch)
            && (self.time_milliseconds >= parent.time_milliseconds || planted(Bug::TimeNotMonotone))
            && (before == now || before.height.0.checked_add(CHECKPOINT_INTERVAL) == Some(now.height.0))
    }

    /// Identifies the block: SHA-256 over the fixed layout of all its fields.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(BLOCK_DOMAIN);
        hash.update(self.epoch.0.to_be_bytes());
        hash.update(self.height.0.to_be_bytes());
        hash.update(self.parent.0);
        hash.update(self.view.0.to_be_bytes());
        hash.update(self.proposer.0.to_be_bytes());
        hash.update(self.signals.0.to_be_bytes());
        hash.update(self.time_milliseconds.to_be_bytes());
        hash.update(self.checkpoint.height.0.to_be_bytes());
        hash.update(self.checkpoint.state.0);
        hash.update(self.checkpoint.receipts.0);
        hash.update([u8::from(self.boundary.is_some())]);
        if let Some(boundary) = &self.boundary {
            hash.update(boundary.validators.0);
            hash.update(boundary.snapshot.0);
            hash.update(boundary.version.0.to_be_bytes());
        }
        hash.update((self.batches.len() as u64).to_be_bytes());
        for batch in &self.batches {
            hash.update(batch.0);
        }
        hash.update((self.contradictions.len() as u64).to_be_bytes());
        for signed in self.contradictions.iter().flat_map(|told| [told.first, told.second]) {
            hash.update(signed.signer.0.to_be_bytes());
            hash.update(signed.vote.epoch.0.to_be_bytes());
            hash.update(signed.vote.view.0.to_be_bytes());
            hash.update([signed.vote.kind as u8]);
            hash.update(signed.vote.digest.0);
            hash.update(signed.signature.0);
        }
        Digest(hash.finalize().into())
    }
}
