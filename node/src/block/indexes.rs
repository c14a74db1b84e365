//! Checks everything the store holds beside the chain itself: that each key names what is stored under it, and that
//! nothing is there that should not be.

use bizra_driver::light::Link;
use bizra_driver::{PublicKey, Restarts};
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Block, Record, SignedVote};
use ed25519_zebra::{Signature, VerificationKey};

use super::keys;
use super::store::BlockStore;
use super::verify::{Keys, Sets, VerifyError};
use crate::configuration::LoadedGenesis;
use crate::gateway::BlockReader as _;
use crate::light::{genesis_epoch, verify_signatures};
use crate::storage::{Family, StorageError};
use crate::transaction::{ChainId, PayloadVerifier};

/// How many entries were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Blocks, digests and certificates of the chain.
    pub blocks: u64,
    /// Batches and what orders them.
    pub batches: u64,
    /// Votes, certificates, proposals and evidence above the last finalised block.
    pub consensus: u64,
}

fn wrong(family: Family, key: &[u8], what: &str) -> VerifyError {
    VerifyError::Index(format!("the entry {} of {family:?} {what}", hex::encode(key)))
}

/// Follows the links between epochs from the genesis; returns how many there are. All up to the epoch of the block above
/// `executed` must be there.
fn check_links(
    store: &BlockStore,
    genesis: &LoadedGenesis,
    restarts: &Restarts,
    executed: Height,
) -> Result<u64, VerifyError> {
    let wrong = |epoch: Epoch, what: &dyn std::fmt::Display| {
        VerifyError::Index(format!("the link from epoch {epoch} to the next is wrong: {what}"))
    };
    let last = store.get(executed)?.map(|stored| stored.block);
    let ended = last.map_or(0, |block| block.epoch.0 + u64::from(block.boundary.is_some()));
    let mut trusted = genesis_epoch(genesis).map_err(|error| wrong(Epoch(0), &error))?;
    while trusted.epoch().0 < ended {
        let epoch = trusted.epoch();
        if let Some(restart) = restarts.ending(epoch) {
            trusted = trusted.restart(restart).map_err(|error| wrong(epoch, &error))?;
            continue;
        }
        let link = store.links(epoch, 1)?.pop().ok_or_else(|| wrong(epoch, &"it is missing"))?;
        let link = Link::decode(link).map_err(|error| wrong(epoch, &error))?;
        let stored = store.get(link.block.height)?;
        if stored.is_some_and(|stored| stored.block != link.block) {
            return Err(wrong(epoch, &"it is of another block than is stored"));
        }
        trusted = trusted.advance(&link, verify_signatures).map_err(|error| wrong(epoch, &error))?;
    }
    Ok(ended)
}

/// Checks every entry of the store's families against its key. Blocks from `oldest` up to the last finalised one were
/// checked as a chain before; below, only the last blocks of epochs are kept.
pub fn verify_indexes(
    store: &BlockStore,
    genesis: &LoadedGenesis,
    restarts: &Restarts,
    oldest: Height,
    executed: Height,
    sets: Sets<'_>,
) -> Result<IndexReport, VerifyError> {
    let mut report = IndexReport::default();
    let links = check_links(store, genesis, restarts, executed)?;
    for item in store.entries(Family::Blocks)? {
        let (key, _) = item?;
        report.blocks += 1;
        if let Err(what) = check_block_entry(store, &key, oldest, links)? {
            return Err(wrong(Family::Blocks, &key, &what));
        }
    }
    let mut checks = Keys::new(genesis.hash, restarts.clone());
    let mut payloads = PayloadVerifier::new(ChainId::new(&genesis.genesis.chain_id).ok_or(VerifyError::ChainId)?);
    for item in store.entries(Family::Batches)? {
        let (key, value) = item?;
        report.batches += 1;
        if let Err(what) = check_batch_entry(store, &key, &value, oldest, &mut checks, &mut payloads, sets)? {
            return Err(wrong(Family::Batches, &key, &what));
        }
    }
    for item in store.entries(Family::Consensus)? {
        let (key, value) = item?;
        report.consensus += 1;
        if let Err(what) = check_consensus_entry(&key, value.into_vec(), &mut checks, sets)? {
            return Err(wrong(Family::Consensus, &key, &what));
        }
    }
    Ok(report)
}

/// The outer error is one of reading, the inner one says what is wrong.
type Checked = Result<Result<(), String>, StorageError>;

// Wrapped, because every check ends with it.
#[allow(clippy::unnecessary_wraps)]
fn refuse(what: &str) -> Checked {
    Ok(Err(what.to_owned()))
}

fn height_in(key: &[u8]) -> Option<Height> {
    let (_, number) = key.split_first()?;
    Some(Height(u64::from_be_bytes(number.try_into().ok()?)))
}

fn digest_in(key: &[u8]) -> Option<Digest> {
    let (_, digest) = key.split_first()?;
    Some(Digest(digest.try_into().ok()?))
}

/// True if the block is the one at the cut-off of the snapshot that the database began at: the first block that is kept names
/// it as its parent.
fn is_base(store: &BlockStore, block: &Block, oldest: Height) -> Result<bool, StorageError> {
    let first = store.get(oldest)?.filter(|_| block.height.next() == oldest);
    Ok(first.is_some_and(|first| first.block.parent == block.digest()))
}

fn check_block_entry(store: &BlockStore, key: &[u8], oldest: Height, links: u64) -> Checked {
    if key == keys::LAST_FINALIZED {
        return Ok(Ok(()));
    }
    let height = match (key.first(), height_in(key), digest_in(key)) {
        (Some(&(keys::BLOCK | keys::FINALIZATION)), Some(height), _) => height,
        (Some(&keys::HEIGHT_OF), _, Some(digest)) => match store.height_of(digest)? {
            Some(height) => height,
            None => return refuse("has no height"),
        },
        (Some(&keys::LINK), Some(Height(epoch)), _) if epoch < links => return Ok(Ok(())),
        _ => return refuse("has a key of no kind"),
    };
    if height > store.finalized().0 || height == Height(0) {
        return refuse("is of a block that is not finalised");
    }
    let Some(stored) = store.get(height)? else { return refuse("is of a block that is missing") };
    let digest = stored.block.digest();
    if key.first() == Some(&keys::HEIGHT_OF) && digest_in(key) != Some(digest) {
        return refuse("names a height that has another block");
    }
    if height < oldest {
        // Not walked as part of the chain: kept for light clients, or because a snapshot begins there.
        let certificate = store.finalization(height)?;
        let fits = match stored.block.boundary {
            Some(_) => certificate.is_some_and(|certificate| certificate.vote.digest == digest),
            None => is_base(store, &stored.block, oldest)?,
        };
        if stored.block.height != height || !fits {
            return refuse("is neither of the last block of an epoch nor where a snapshot begins, and was not pruned");
        }
        if store.height_of(digest)? != Some(height) {
            return refuse("is of a block whose digest is not indexed");
        }
    }
    Ok(Ok(()))
}

fn check_batch_entry(
    store: &BlockStore,
    key: &[u8],
    value: &[u8],
    oldest: Height,
    checks: &mut Keys,
    payloads: &mut PayloadVerifier,
    sets: Sets<'_>,
) -> Checked {
    let Some(digest) = digest_in(key) else { return refuse("has a key of no kind") };
    let ordered = store.ordered_at(digest)?;
    match key.first() {
        Some(&keys::BLOCK) => {
            let Some(batch) = store.batch(digest)? else { return refuse("is missing") };
            if batch.digest(checks.genesis_hash()) != digest {
                return refuse("is another batch");
            }
            if ordered.is_none() && !store.is_listed_unordered(digest)? {
                return refuse("is neither ordered nor listed as unordered");
            }
        }
        Some(&keys::ORDERED) => {
            let block = ordered.map_or(Ok(None), |height| store.get(height))?.map(|stored| stored.block);
            let Some(block) = block.filter(|block| block.batches.contains(&digest)) else {
                return refuse("names a block that does not order it");
            };
            if block.height < oldest && !is_base(store, &block, oldest)? {
                return refuse("is of a block that was pruned");
            }
        }
        Some(&keys::UNORDERED) => {
            if ordered.is_some() || !value.is_empty() {
                return refuse("is ordered by a block");
            }
            let Some(batch) = store.batch(digest)? else { return refuse("names a batch that is missing") };
            if let Err(what) = checks.batch(digest, &batch, sets) {
                return Ok(Err(what));
            }
            if let Some(Err(error)) = payloads.verify(&[batch.payload]).pop() {
                return Ok(Err(error.to_string()));
            }
        }
        _ => return refuse("has a key of no kind"),
    }
    Ok(Ok(()))
}

fn signed_by_key(key: PublicKey, vote: &SignedVote, domain: Digest) -> bool {
    let message = vote.vote.signed_bytes(domain);
    let signature = Signature::from(vote.signature.0);
    VerificationKey::try_from(key.0).is_ok_and(|key| key.verify(&signature, &message).is_ok())
}

fn check_consensus_entry(key: &[u8], value: Vec<u8>, checks: &mut Keys, sets: Sets<'_>) -> Checked {
    // The index of a signer is not part of what it signed.
    let is_of = |key: PublicKey, vote: &SignedVote| {
        let set = sets(vote.vote.epoch);
        set.is_none_or(|set| {
            set.members.get(usize::from(vote.signer.0)).is_some_and(|member| member.consensus_key == key.0)
        })
    };
    match key.first() {
        Some(&keys::BLOCK) => {
            let Record::Block(block) = super::store::decode_record(keys::BLOCK, value)? else {
                return refuse("is no block");
            };
            if keys::candidate(block.digest()) != key {
                return refuse("is another block");
            }
        }
        Some(&keys::CERTIFICATE) => {
            let Record::Certificate(certificate) = super::store::decode_record(keys::CERTIFICATE, value)? else {
                return refuse("is no certificate");
            };
            if keys::certificate(certificate.view(), certificate.vote.kind) != key {
                return refuse("is another certificate");
            }
            if let Err(what) = checks.certificate(&certificate, sets) {
                return Ok(Err(what));
            }
        }
        Some(&keys::VOTE) => {
            let (public, vote) = super::store::decode_vote(value)?;
            if keys::vote(public) != key
                || !signed_by_key(public, &vote, checks.domain(vote.vote.epoch))
                || !is_of(public, &vote)
            {
                return refuse("is not a vote signed by its key");
            }
        }
        Some(&keys::EVIDENCE) => {
            let (public, told) = super::store::decode_evidence(value)?;
            let domain = checks.domain(told.of().0);
            let sound = [&told.first, &told.second]
                .into_iter()
                .all(|vote| signed_by_key(public, vote, domain) && is_of(public, vote));
            if keys::evidence(public, told.of().0) != key || !sound || !told.is_well_formed() {
                return refuse("is not a contradiction signed by its key");
            }
        }
        _ => return refuse("has a key of no kind"),
    }
    Ok(Ok(()))
}
