//! What the driver needs from the world. The node gives it disks, keys and a ledger; the simulator gives it models.

use std::fmt;

use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature};
use bizra_simplex::{Anchor, Block, Certificate, Checkpoint, Contradiction, Record, Reputation, SignedVote, Version};

use crate::batch::Batch;
use crate::signing_record::BlockWrite;

/// A consensus key's public half: 32 bytes, Ed25519 in the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// A validator of an epoch; its position in the list is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its key, no other member's.
    pub key: PublicKey,
    /// Its voting power, above zero.
    pub power: Power,
    /// How much of its power counts when turns to lead are given out (T2).
    pub reputation: Reputation,
}

/// The disk failed. The node must stop: after a failed write or sync nothing that was promised durable may be relied
/// on, and nothing is tried again (S2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// What is stored is not what was written. The database can be rebuilt from peers; the signing record cannot.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// A read, write or sync failed.
    #[error("storage failed: {0}")]
    Failed(String),
    /// A restart by owners (E6) contradicts what is stored, or too few have signed it.
    #[error("the chain cannot be restarted here: {0}")]
    Restart(String),
}

/// One change of the database. A turn's changes are applied together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A block or certificate above the last finalised block.
    Record(Record),
    /// A verified batch that no finalised block orders yet.
    Batch(Digest, Batch),
    /// These blocks are final, ascending; the certificate finalises the last. Records up to its view are obsolete, and
    /// the batches they order are ordered now.
    Finalize(Vec<Block>, Certificate),
    /// Execute a finalised block with the bodies it orders, in its order; heights come without gaps.
    Execute(Block, Vec<Batch>),
    /// Unordered batches that no block may order any more.
    Forget(Vec<Digest>),
    /// Two votes of this key that contradict each other (V6); kept for good, once for a key and epoch.
    Evidence(PublicKey, SignedVote, SignedVote),
    /// The vote of the highest epoch and view seen of a key (S5).
    HighestVote(PublicKey, SignedVote),
}

/// What a disk holds when the node starts.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Last finalised block.
    pub anchor: Anchor,
    /// Its finalization; `None` for the genesis block.
    pub anchor_certificate: Option<Certificate>,
    /// Records above it.
    pub records: Vec<Record>,
    /// Verified batches that no finalised block orders.
    pub batches: Vec<Batch>,
    /// Height up to which blocks are executed; at most the anchor's.
    pub executed: Height,
    /// Highest vote seen of each key.
    pub highest_votes: Vec<(PublicKey, SignedVote)>,
    /// Contradictions kept, each with the key that signed both votes.
    pub evidence: Vec<(PublicKey, Contradiction)>,
}

/// Database and signing record.
pub trait Disk {
    /// Reads what was there when the node started.
    fn recover(&mut self) -> Result<Recovered, DiskError>;

    /// Applies the changes atomically. With `sync`, returns when they and everything applied before are durable. Signing
    /// blocks are written and synced too, in parallel if the disk can. Executed blocks become readable only with this.
    /// A sync of what is durable already costs nothing.
    fn commit(&mut self, changes: Vec<Change>, signing: Vec<BlockWrite>, sync: bool) -> Result<(), DiskError>;

    /// A finalised block.
    fn finalized_block(&self, height: Height) -> Result<Option<Block>, DiskError>;

    /// Height of a finalised block.
    fn height_of(&self, block: Digest) -> Result<Option<Height>, DiskError>;

    /// The finalization of exactly this block, if one is stored.
    fn finalization(&self, height: Height) -> Result<Option<Certificate>, DiskError>;

    /// A stored batch.
    fn batch(&self, digest: Digest) -> Result<Option<Batch>, DiskError>;

    /// True if a finalised block orders this batch.
    fn is_ordered(&self, batch: Digest) -> Result<bool, DiskError>;

    /// The checkpoint at an executed height divisible by [`bizra_simplex::block::CHECKPOINT_INTERVAL`]; `None` if that is
    /// not executed and committed, or pruned.
    fn checkpoint(&self, height: Height) -> Result<Option<Checkpoint>, DiskError>;

    /// The validators of an epoch: those of the genesis for epoch 0, else what the state at the cut-off height of the
    /// epoch before names (E1); `None` until that height is executed and committed. For an epoch that a restart begins, the
    /// ones that its document names (E6), once the block below it is executed and what the document says of it found true.
    fn validators(&self, epoch: Epoch) -> Result<Option<Vec<Member>>, DiskError>;

    /// Merkle root over the chunks of the snapshot of the state at the cut-off height of this epoch (E1); `None` until it
    /// is made, or if it is not kept any more.
    fn snapshot(&self, epoch: Epoch) -> Result<Option<Digest>, DiskError>;

    /// The version whose rules hold in an epoch (P2): that of the genesis for epoch 0, else what the state at the cut-off
    /// height of the epoch before names; `None` where [`Disk::validators`] is.
    fn version(&self, epoch: Epoch) -> Result<Option<Version>, DiskError>;

    /// True if, by the state as executed and committed, a block of this epoch must not report this key any more (V7): it was
    /// punished, or reported in this epoch already.
    fn is_reported(&self, key: PublicKey, epoch: Epoch) -> Result<bool, DiskError>;
}

/// Keys.
pub trait Keys {
    /// This node's consensus key; `None` for a node that never votes.
    fn public_key(&self) -> Option<PublicKey>;

    /// Signs with this node's consensus key. Called only if there is one.
    fn sign(&self, message: &[u8]) -> Signature;

    /// Checks signatures, all at once; true if every one is valid.
    fn verify(&self, checks: &[(PublicKey, Vec<u8>, Signature)]) -> bool;
}
