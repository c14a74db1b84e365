//! What a stopped node's volume knows: the highest block that it can vouch for, and the state after it. Nothing is written:
//! blocks that are not executed yet are executed in memory, and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use bizra_driver::Batch;
use bizra_driver::signing_record::SigningRecord;
use bizra_simplex::types::{Digest, Epoch, Height, View};
use bizra_simplex::{Anchor, Block, Certificate, Record, Vote, VoteKind};

use super::RecoveryError;
use super::pinned::PinnedRestarts;
use crate::block::BlockStore;
use crate::blockchain::{Ledger, LedgerMetrics};
use crate::configuration::{Configuration, LoadedGenesis};
use crate::consensus::{RecordFile, binding};
use crate::identity::{IdentityError, SignerFolder};
use crate::snapshot::DatabaseFolders;
use crate::storage::{Database, StorageError};
use crate::validator::ValidatorSetRecord;

/// A stopped node, opened.
pub(super) struct Volume {
    pub(super) genesis: LoadedGenesis,
    pub(super) signer: SignerFolder,
    pub(super) public_key: [u8; 32],
    pub(super) pinned: PinnedRestarts,
    folders: DatabaseFolders,
}

/// What its database and its signing record say.
pub(super) struct Survey {
    /// The last finalised block.
    pub(super) finalized: Anchor,
    /// Blocks above it up to the best one, ascending.
    pub(super) above: Vec<Block>,
    /// The highest block that is notarized or final, and of which every body is held, with its certificate.
    pub(super) best: Block,
    pub(super) certificate: Certificate,
    /// The ledger after that block.
    pub(super) ledger: Ledger,
    /// The validators of its epoch.
    pub(super) set: Arc<ValidatorSetRecord>,
}

impl Volume {
    pub(super) fn open(configuration: &Configuration) -> Result<Self, RecoveryError> {
        let genesis = LoadedGenesis::load(&configuration.genesis_file)?;
        let signer = SignerFolder::open(&configuration.data_dir, &configuration.volume_id)?;
        if let Some(pinned) = signer.pinned_genesis()?.filter(|pinned| *pinned != genesis.hash) {
            return Err(IdentityError::OtherGenesis { pinned, given: genesis.hash }.into());
        }
        let folders = DatabaseFolders::new(&configuration.data_dir);
        if folders.database().exists() && Database::is_in_use(&folders.database())? {
            return Err(RecoveryError::Running);
        }
        let public_key = signer.consensus_key()?.public_key();
        let pinned = PinnedRestarts::load(&signer, &genesis)?;
        Ok(Self { genesis, signer, public_key, pinned, folders })
    }

    /// The signing record; `None` if this key has never signed.
    pub(super) fn record(&self, configuration: &Configuration) -> Result<Option<SigningRecord>, RecoveryError> {
        if self.signer.may_make_record() {
            return Ok(None);
        }
        let binding = binding(self.genesis.hash, &configuration.volume_id, self.public_key);
        let record = RecordFile::read(&self.signer.record_path(), &binding);
        Ok(Some(record.map_err(crate::consensus::ConsensusError::from)?))
    }

    /// The blocks of its database; `None` if it has none.
    pub(super) fn blocks(&self) -> Result<Option<(Database, BlockStore)>, RecoveryError> {
        if !self.folders.database().join("CURRENT").exists() {
            return Ok(None);
        }
        let database = Database::open_read_only(&self.folders.database())?;
        let genesis_block = Block::genesis(self.genesis.hash, self.genesis.genesis.time_milliseconds);
        let blocks = BlockStore::open(database.clone(), genesis_block)?;
        Ok(Some((database, blocks)))
    }

    /// Executes in memory what is not executed yet; `None` if nothing was ever finalised here. With `stop_at`, no further
    /// than to that block; `None` too if the way there is not whole.
    pub(super) fn survey(&self, stop_at: Option<Digest>) -> Result<Option<Survey>, RecoveryError> {
        let Some((database, blocks)) = self.blocks()? else { return Ok(None) };
        let (finalized, Some(certificate)) = blocks.anchor()? else { return Ok(None) };
        let metrics = LedgerMetrics::new(&prometheus::Registry::new())
            .map_err(|error| StorageError::Failed(format!("metrics cannot be made: {error}")))?;
        let ledger = Ledger::open(database.clone(), &self.genesis.genesis, self.genesis.hash, metrics)?;
        let mut ledger = ledger.with_restarts(self.pinned.ledger());
        // Never committed.
        let mut writes = database.writes();
        let missing = |height: Height| {
            RecoveryError::Contradicts(format!(
                "block {height} is final here, and a body that it orders is missing: this node was catching up; start it once \
                 more beside another survivor, or report without it"
            ))
        };
        for height in ledger.executed().0 + 1..=finalized.height().0 {
            let block =
                blocks.get(Height(height))?.map(|stored| stored.block).ok_or_else(|| missing(Height(height)))?;
            match bodies(&blocks, &block)? {
                Some(bodies) => drop(ledger.execute(&block, &bodies, &mut writes)?),
                // It vouches for nothing; what is to be compared is compared when it has caught up.
                None if stop_at.is_some() => return Ok(None),
                None => return Err(missing(Height(height))),
            }
        }
        let mut survey = Survey {
            best: finalized.block.clone(),
            certificate,
            above: Vec::new(),
            set: set_of(&ledger, finalized.block.epoch)?,
            ledger,
            finalized,
        };
        if stop_at == Some(survey.finalized.digest) {
            return Ok(Some(survey));
        }
        if let Some((path, certificate)) = self.highest_notarized(&blocks, &survey.finalized, stop_at)? {
            for (block, bodies) in &path {
                survey.ledger.execute(block, bodies, &mut writes)?;
            }
            survey.above = path.into_iter().map(|(block, _)| block).collect();
            if let Some(best) = survey.above.last() {
                survey.set = set_of(&survey.ledger, best.epoch)?;
                survey.best = best.clone();
            }
            survey.certificate = certificate;
        }
        Ok(Some(survey))
    }

    /// The block notarized in the highest view of the running epoch, with what is between it and the finalised one: of
    /// those whose bodies are all here. Whoever signed a finalize for a block holds these of it (PROTOCOL D2, S4).
    fn highest_notarized(
        &self,
        blocks: &BlockStore,
        finalized: &Anchor,
        stop_at: Option<Digest>,
    ) -> Result<Option<(Path, Certificate)>, RecoveryError> {
        let epoch = self.pinned.consensus().after(&finalized.block).unwrap_or(finalized.block.epoch);
        // In a new epoch views begin anew.
        let above = if epoch == finalized.block.epoch { finalized.view } else { View(0) };
        let (mut candidates, mut certificates) = (BTreeMap::new(), Vec::new());
        for record in blocks.records()? {
            match record {
                Record::Block(block) => drop(candidates.insert(block.digest(), block)),
                Record::Certificate(certificate) => certificates.push(certificate),
            }
        }
        certificates.retain(|certificate| {
            let Vote { epoch: of, view, kind, digest } = certificate.vote;
            of == epoch
                && view > above
                && matches!(kind, VoteKind::Notarize | VoteKind::Finalize)
                && stop_at.is_none_or(|stop_at| digest == stop_at)
        });
        certificates.sort_by_key(|certificate| std::cmp::Reverse((certificate.view(), certificate.vote.kind)));
        for certificate in certificates {
            if let Some(path) = path(blocks, &candidates, finalized, certificate.vote.digest)? {
                return Ok(Some((path, certificate)));
            }
        }
        Ok(None)
    }
}

fn set_of(ledger: &Ledger, epoch: Epoch) -> Result<Arc<ValidatorSetRecord>, RecoveryError> {
    let unknown = || StorageError::Corrupt(format!("the validators of epoch {epoch} are missing"));
    Ok(ledger.validators_of_epoch(epoch.0).ok_or_else(unknown)?)
}

/// Blocks with their bodies, ascending.
type Path = Vec<(Block, Vec<Batch>)>;

fn path(
    blocks: &BlockStore,
    candidates: &BTreeMap<Digest, Block>,
    finalized: &Anchor,
    tip: Digest,
) -> Result<Option<Path>, RecoveryError> {
    let (mut path, mut at) = (Vec::new(), tip);
    while at != finalized.digest {
        // Every step is one height lower, so it ends.
        let Some(block) = candidates.get(&at).filter(|block| block.height > finalized.height()) else {
            return Ok(None);
        };
        if path.last().is_some_and(|(child, _): &(Block, _)| child.height != block.height.next()) {
            return Ok(None);
        }
        let Some(bodies) = bodies(blocks, block)? else { return Ok(None) };
        at = block.parent;
        path.push((block.clone(), bodies));
    }
    path.reverse();
    Ok(Some(path))
}

fn bodies(blocks: &BlockStore, block: &Block) -> Result<Option<Vec<Batch>>, RecoveryError> {
    let mut bodies = Vec::with_capacity(block.batches.len());
    for digest in &block.batches {
        let Some(batch) = blocks.batch(*digest)? else { return Ok(None) };
        bodies.push(batch);
    }
    Ok(Some(bodies))
}

/// The finalize vote of the highest epoch and view that a key has signed, of those that its record still holds.
pub(super) fn highest_finalize(record: &SigningRecord) -> Option<Vote> {
    record.votes().filter(|vote| vote.kind == VoteKind::Finalize).max_by_key(|vote| (vote.epoch, vote.view)).copied()
}
