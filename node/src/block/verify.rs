//! Checks a chain on disk, block by block: every hash, certificate, signature and body.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bizra_driver::Restarts;
use bizra_driver::batch::Batch;
use bizra_simplex::types::{Digest, Epoch, Height, ValidatorIndex, View};
use bizra_simplex::{Block, Certificate, Protocol, ValidatorSet, Version, VoteKind};
use ed25519_zebra::{Signature, VerificationKey};

use super::store::{BlockStore, StoredBlock};
use crate::configuration::LoadedGenesis;
use crate::storage::StorageError;
use crate::transaction::{ChainId, PayloadVerifier};
use crate::validator::ValidatorSetRecord;

/// Payloads checked at one time; their signatures are verified together.
const PAYLOADS_AT_ONCE: usize = 16;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Finalised blocks.
    pub blocks: u64,
    /// Certificates, with every signature.
    pub certificates: u64,
    /// Batches, with the origin's signature and every transaction's.
    pub batches: u64,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A value cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A block is not what the chain says it is.
    #[error("block {height}: {what}")]
    Block {
        /// Its height.
        height: Height,
        /// What is wrong.
        what: String,
    },
    /// Something beside the chain is not what its key says.
    #[error("{0}")]
    Index(String),
    /// The chain id of the genesis names no chain.
    #[error("the genesis has no valid chain id")]
    ChainId,
}

/// The validators of any epoch that the caller knows.
pub type Sets<'a> = &'a dyn Fn(Epoch) -> Option<Arc<ValidatorSetRecord>>;

/// The keys of epochs, made from their validators once.
pub(super) struct Keys {
    genesis_hash: Digest,
    restarts: Restarts,
    epochs: BTreeMap<Epoch, EpochKeys>,
}

struct EpochKeys {
    set: ValidatorSet,
    keys: Vec<Option<VerificationKey>>,
}

impl Keys {
    pub(super) fn new(genesis_hash: Digest, restarts: Restarts) -> Self {
        Self { genesis_hash, restarts, epochs: BTreeMap::new() }
    }

    /// What votes of an epoch are signed with.
    pub(super) fn domain(&self, epoch: Epoch) -> Digest {
        self.restarts.domain(self.genesis_hash, epoch)
    }

    fn of(&mut self, epoch: Epoch, sets: Sets<'_>) -> Result<&EpochKeys, String> {
        Ok(match self.epochs.entry(epoch) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let record = sets(epoch).ok_or_else(|| format!("the validators of its epoch {epoch} are not known"))?;
                let set = record.validator_set().map_err(|error| error.to_string())?;
                let key = |member: &crate::validator::Member| VerificationKey::try_from(member.consensus_key).ok();
                place.insert(EpochKeys { set, keys: record.members.iter().map(key).collect() })
            }
        })
    }

    /// True if the block's maker led in its view.
    fn led(&mut self, block: &Block, sets: Sets<'_>) -> Result<bool, String> {
        Ok(self.of(block.epoch, sets)?.set.leader(block.view) == block.proposer)
    }

    /// True if the validator of this index and epoch signed the message.
    pub(super) fn signed(
        &mut self,
        epoch: Epoch,
        signer: ValidatorIndex,
        message: &[u8],
        signature: bizra_simplex::types::Signature,
        sets: Sets<'_>,
    ) -> Result<bool, String> {
        let key = self.of(epoch, sets)?.keys.get(usize::from(signer.0));
        Ok(key.and_then(Option::as_ref).is_some_and(|key| key.verify(&Signature::from(signature.0), message).is_ok()))
    }

    /// Checks the quorum and every signature of a certificate.
    pub(super) fn certificate(&mut self, certificate: &Certificate, sets: Sets<'_>) -> Result<(), String> {
        let epoch = certificate.vote.epoch;
        if !certificate.is_well_formed(epoch, &self.of(epoch, sets)?.set) {
            return Err("its certificate carries no quorum".to_owned());
        }
        let message = certificate.vote.signed_bytes(self.domain(epoch));
        for (signer, signature) in &certificate.signatures {
            if !self.signed(epoch, *signer, &message, *signature, sets)? {
                return Err(format!("the signature of validator {signer} on its certificate is not valid"));
            }
        }
        Ok(())
    }

    /// Checks that a batch is the one its digest names, and signed by its origin.
    pub(super) fn batch(&mut self, digest: Digest, batch: &Batch, sets: Sets<'_>) -> Result<(), String> {
        if batch.digest(self.genesis_hash) != digest {
            return Err(format!("its batch {digest} is another one"));
        }
        if !self.signed(batch.epoch, batch.origin, &digest.0, batch.signature, sets)? {
            return Err(format!("its batch {digest} is not signed by its origin"));
        }
        Ok(())
    }

    pub(super) fn genesis_hash(&self) -> Digest {
        self.genesis_hash
    }
}

/// Walks a chain upwards, from the genesis or from the oldest block that is kept.
pub struct ChainCheck<'a> {
    store: &'a BlockStore,
    epoch_blocks: u64,
    keys: Keys,
    payloads: PayloadVerifier,
    parent: Option<Block>,
    /// Above it, bodies and the validators of the next epoch may be missing.
    executed: Height,
    /// Blocks that the next certificate finalises, and the view they were stored with.
    uncertified: Vec<(Height, View)>,
    waiting: Vec<(Height, Batch)>,
    report: ChainReport,
}

impl<'a> ChainCheck<'a> {
    /// Begins above `parent`; without one, at a block whose parent is not kept. Blocks up to `executed` must have
    /// their bodies; of those above, a node that was stopped while it caught up may lack some.
    pub fn new(
        store: &'a BlockStore,
        genesis: &LoadedGenesis,
        restarts: Restarts,
        parent: Option<Block>,
        executed: Height,
    ) -> Result<Self, VerifyError> {
        let chain = ChainId::new(&genesis.genesis.chain_id).ok_or(VerifyError::ChainId)?;
        Ok(Self {
            store,
            epoch_blocks: genesis.genesis.parameters.epoch_blocks,
            keys: Keys::new(genesis.hash, restarts),
            payloads: PayloadVerifier::new(chain),
            parent,
            executed,
            uncertified: Vec::new(),
            waiting: Vec::new(),
            report: ChainReport::default(),
        })
    }

    /// Reads and checks the next block with the bodies it orders.
    pub fn block(&mut self, height: Height, sets: Sets<'_>) -> Result<(Block, Vec<Batch>), VerifyError> {
        let wrong = |what: String| VerifyError::Block { height, what };
        let StoredBlock { block, view } = self.store.get(height)?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        self.header(height, &block, sets).map_err(wrong)?;
        let digest = block.digest();
        if self.store.height_of(digest)? != Some(height) {
            return Err(wrong("its digest is not indexed under its height".to_owned()));
        }
        self.report.blocks += 1;
        self.uncertified.push((height, view));
        if let Some(certificate) = self.store.finalization(height)? {
            // E6: the owners' word makes the last block before a restart final, with its notarization.
            let restarted = self.keys.restarts.at(height, digest).is_some();
            if !(certificate.vote.kind == VoteKind::Finalize
                || (restarted && certificate.vote.kind == VoteKind::Notarize))
                || certificate.vote.digest != digest
                || certificate.vote.epoch != block.epoch
            {
                return Err(wrong("its certificate finalises another block".to_owned()));
            }
            self.keys.certificate(&certificate, sets).map_err(wrong)?;
            if let Some((height, _)) = self.uncertified.drain(..).find(|(_, view)| *view != certificate.view()) {
                let what = "it is stored with another view than that of its certificate".to_owned();
                return Err(VerifyError::Block { height, what });
            }
            self.report.certificates += 1;
        }
        let mut batches = Vec::with_capacity(block.batches.len());
        for digest in &block.batches {
            let Some(batch) = self.store.batch(*digest)? else {
                if height > self.executed {
                    continue;
                }
                return Err(wrong(format!("its batch {digest} is missing")));
            };
            if !batch.fits(block.epoch) {
                return Err(wrong(format!("its batch {digest} is of another epoch")));
            }
            self.keys.batch(*digest, &batch, sets).map_err(wrong)?;
            if self.store.ordered_at(*digest)? != Some(height) {
                return Err(wrong(format!("its batch {digest} is not noted as ordered by it")));
            }
            self.waiting.push((height, batch.clone()));
            batches.push(batch);
        }
        if self.waiting.len() >= PAYLOADS_AT_ONCE {
            self.check_payloads()?;
        }
        self.parent = Some(block.clone());
        Ok((block, batches))
    }

    fn header(&mut self, height: Height, block: &Block, sets: Sets<'_>) -> Result<(), String> {
        if block.height != height {
            return Err(format!("block {} is in its place", block.height));
        }
        if let Some(parent) = &self.parent {
            let epoch = self.keys.restarts.after(parent).unwrap_or(parent.epoch);
            if block.parent != parent.digest() || !block.follows(parent) || block.epoch != epoch {
                return Err("it does not follow the block below".to_owned());
            }
        }
        let cutoff = Height(block.epoch.next().0.saturating_mul(self.epoch_blocks));
        let set = sets(block.epoch).ok_or("the validators of its epoch are not known")?;
        let protocol = Protocol::known(Version(set.version)).ok_or_else(|| {
            format!("its epoch has version {} of the protocol, which this build does not know", set.version)
        })?;
        if !block.is_well_formed(cutoff, protocol) {
            return Err("its header contradicts itself".to_owned());
        }
        if !self.keys.led(block, sets)? {
            return Err(format!("its maker {} does not lead in its view {}", block.proposer, block.view));
        }
        if let Some(boundary) = &block.boundary {
            match sets(block.epoch.next()) {
                Some(next) if (next.hash(), next.version) != (boundary.validators, boundary.version.0) => {
                    return Err("it names other validators or another version for the next epoch".to_owned());
                }
                None if height <= self.executed => return Err("the validators after it are not known".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_payloads(&mut self) -> Result<(), VerifyError> {
        let batches = std::mem::take(&mut self.waiting);
        let payloads: Vec<_> = batches.iter().map(|(_, batch)| batch.payload.clone()).collect();
        for ((height, _), verdict) in batches.iter().zip(self.payloads.verify(&payloads)) {
            verdict.map_err(|error| VerifyError::Block { height: *height, what: error.to_string() })?;
        }
        self.report.batches += payloads.len() as u64;
        Ok(())
    }

    /// The end of the chain was reached.
    pub fn finish(mut self) -> Result<ChainReport, VerifyError> {
        self.check_payloads()?;
        if let Some((height, _)) = self.uncertified.last() {
            let what = "no certificate finalises the end of the chain".to_owned();
            return Err(VerifyError::Block { height: *height, what });
        }
        Ok(self.report)
    }
}
