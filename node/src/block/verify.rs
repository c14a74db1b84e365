//! Checks a whole chain on disk: every hash, certificate, signature and body.

use bizra_driver::batch::Batch;
use bizra_driver::light::{Headers, LightError, Link, TrustedEpoch};
use bizra_simplex::types::{Digest, Height};
use bytes::Bytes;

use super::store::{BlockStore, StoredBlock};
use crate::configuration::LoadedGenesis;
use crate::gateway::BlockReader as _;
use crate::light::{genesis_epoch, verify_signatures};
use crate::storage::StorageError;
use crate::transaction::{ChainId, PayloadVerifier};

/// Payloads checked at one time; their signatures are verified together.
const PAYLOADS_AT_ONCE: usize = 16;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Finalised blocks above the genesis.
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
    /// The validators of the genesis do not form a set.
    #[error(transparent)]
    Validators(#[from] LightError),
    /// The genesis names no chain.
    #[error("the genesis has no valid chain id")]
    ChainId,
}

/// Walks the chain from the genesis to the last finalised block, from one validator set to the next.
pub fn verify_chain(store: &BlockStore, genesis: &LoadedGenesis) -> Result<ChainReport, VerifyError> {
    let chain = ChainId::new(&genesis.genesis.chain_id).ok_or(VerifyError::ChainId)?;
    let mut payloads = PayloadVerifier::new(chain);
    let mut epochs = Epochs { before: None, present: genesis_epoch(genesis)? };
    let (top, _) = store.finalized();
    let mut report = ChainReport::default();
    let mut parent = store.get(Height(0))?.map(|stored| stored.block.digest()).unwrap_or_default();
    let mut uncertified = Vec::new();
    let mut waiting: Vec<(Height, Batch)> = Vec::new();
    for height in 1..=top.0 {
        let height = Height(height);
        let wrong = |what: String| VerifyError::Block { height, what };
        let StoredBlock { block, .. } = store.get(height)?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        if block.height != height || block.parent != parent {
            return Err(wrong("it does not follow the block below".to_owned()));
        }
        parent = block.digest();
        if store.height_of(parent)? != Some(height) {
            return Err(wrong("its digest is not indexed under its height".to_owned()));
        }
        report.blocks += 1;
        for digest in &block.batches {
            let batch = store.batch(*digest)?.ok_or_else(|| wrong(format!("its batch {digest} is missing")))?;
            if batch.digest(genesis.hash) != *digest {
                return Err(wrong(format!("its batch {digest} is another one")));
            }
            if !epochs.signed_by_origin(&batch, *digest) {
                return Err(wrong(format!("its batch {digest} is not signed by its origin")));
            }
            waiting.push((height, batch));
        }
        let ends = block.boundary.is_some();
        uncertified.push(block);
        if let Some(finalization) = store.finalization(height)? {
            let headers = Headers { blocks: std::mem::take(&mut uncertified), finalization };
            epochs.present.headers(&headers, verify_signatures).map_err(|error| wrong(error.to_string()))?;
            report.certificates += 1;
        }
        if ends {
            match store.links(epochs.present.epoch(), 1)?.pop() {
                Some(link) => epochs.enter(link, parent).map_err(wrong)?,
                None if height == top => {}
                None => return Err(wrong("the validators of the epoch that begins after it are missing".to_owned())),
            }
        }
        if waiting.len() >= PAYLOADS_AT_ONCE {
            report.batches += check_payloads(&mut payloads, &mut waiting)?;
        }
    }
    report.batches += check_payloads(&mut payloads, &mut waiting)?;
    if !uncertified.is_empty() {
        return Err(VerifyError::Block {
            height: top,
            what: "no certificate finalises the end of the chain".to_owned(),
        });
    }
    Ok(report)
}

/// The validators of the epoch that is being walked through, and of the one before, whose batches may still be ordered.
struct Epochs {
    before: Option<TrustedEpoch>,
    present: TrustedEpoch,
}

impl Epochs {
    fn signed_by_origin(&self, batch: &Batch, digest: Digest) -> bool {
        let known = [Some(&self.present), self.before.as_ref()];
        let epoch = known.into_iter().flatten().find(|known| known.epoch() == batch.epoch);
        let origin = epoch.and_then(|epoch| epoch.members().get(usize::from(batch.origin.0)));
        origin.is_some_and(|origin| verify_signatures(&[(origin.key, digest.0.to_vec(), batch.signature)]))
    }

    /// Goes on to the next epoch, over the link that is stored for the block with this digest.
    fn enter(&mut self, link: Bytes, block: Digest) -> Result<(), String> {
        let link = Link::decode(link).map_err(|error| format!("the link to the next epoch: {error}"))?;
        if link.block.digest() != block {
            return Err("the link to the next epoch is of another block".to_owned());
        }
        let next = self.present.advance(&link, verify_signatures).map_err(|error| error.to_string())?;
        self.before = Some(std::mem::replace(&mut self.present, next));
        Ok(())
    }
}

fn check_payloads(verifier: &mut PayloadVerifier, waiting: &mut Vec<(Height, Batch)>) -> Result<u64, VerifyError> {
    let batches = std::mem::take(waiting);
    let payloads: Vec<_> = batches.iter().map(|(_, batch)| batch.payload.clone()).collect();
    for ((height, _), verdict) in batches.iter().zip(verifier.verify(&payloads)) {
        verdict.map_err(|error| VerifyError::Block { height: *height, what: error.to_string() })?;
    }
    Ok(payloads.len() as u64)
}
