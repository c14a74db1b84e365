//! The store of blocks, certificates and batches.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bizra_driver::PublicKey;
use bizra_driver::batch::Batch;
use bizra_driver::codec::{DecodeError, Reader, Write as _};
use bizra_driver::light::Headers;
use bizra_simplex::types::{Digest, Epoch, Height, View};
use bizra_simplex::{Anchor, Block, Certificate, Contradiction, Record, SignedVote, VoteKind};
use bytes::Bytes;

use super::keys;
use crate::gateway::{BlockReader, BlockView};
use crate::storage::{Database, Entry, Family, StorageError, Writes};

/// Version byte of every stored value.
const FORMAT: u8 = 1;

/// A finalised block and the view of the certificate that finalised it or a descendant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// The block.
    pub block: Block,
    /// View of that certificate.
    pub view: View,
}

/// Blocks and bodies of one chain. Cheap to clone; reads are safe from any thread, changes come from one.
#[derive(Clone)]
pub struct BlockStore {
    database: Database,
    genesis: Block,
    last: Arc<Mutex<(Height, Digest)>>,
    live: Arc<Mutex<Live>>,
}

/// What is stored above the last finalised block. Looking it up in the database at every finalised block would step over
/// everything ever deleted there.
#[derive(Default)]
struct Live {
    candidates: BTreeSet<(Height, Digest)>,
    certificates: BTreeSet<(View, VoteKind)>,
}

impl Live {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Block(block) => {
                self.candidates.insert((block.height, block.digest()));
            }
            Record::Certificate(certificate) => {
                self.certificates.insert((certificate.view(), certificate.vote.kind));
            }
        }
    }

    /// Takes out what a finalised block of this height and view makes obsolete; returns the keys.
    fn take_obsolete(&mut self, height: Height, view: View) -> Vec<Vec<u8>> {
        let mut obsolete = Vec::new();
        let is_below = |(candidate, _): &(Height, Digest)| *candidate <= height;
        while self.candidates.first().is_some_and(is_below)
            && let Some((_, digest)) = self.candidates.pop_first()
        {
            obsolete.push(keys::candidate(digest));
        }
        while self.certificates.first().is_some_and(|(certificate, _)| *certificate <= view)
            && let Some((view, kind)) = self.certificates.pop_first()
        {
            obsolete.push(keys::certificate(view, kind));
        }
        obsolete
    }
}

impl BlockStore {
    /// Opens the store of the chain that begins with `genesis`.
    pub fn open(database: Database, genesis: Block) -> Result<Self, StorageError> {
        let digest = genesis.digest();
        let last = Arc::new(Mutex::new((Height(0), digest)));
        let store = Self { database, genesis, last, live: Arc::default() };
        store.records()?.iter().for_each(|record| store.live().add(record));
        let last = match store.last_height()? {
            Some(height) => (height, store.require(height)?.block.digest()),
            None => (Height(0), digest),
        };
        store.set_last(last);
        Ok(store)
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    fn last_height(&self) -> Result<Option<Height>, StorageError> {
        let value = self.database.get(Family::Blocks, keys::LAST_FINALIZED)?;
        value.map(|bytes| decode(bytes, |reader| reader.u64().map(Height))).transpose()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_last(&self, last: (Height, Digest)) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// A finalised block; the genesis block at height 0.
    pub fn get(&self, height: Height) -> Result<Option<StoredBlock>, StorageError> {
        if height == Height(0) {
            return Ok(Some(StoredBlock { block: self.genesis.clone(), view: View(0) }));
        }
        let value = self.database.get(Family::Blocks, &keys::block(height))?;
        value
            .map(|bytes| decode(bytes, |reader| Ok(StoredBlock { view: View(reader.u64()?), block: reader.block()? })))
            .transpose()
    }

    fn require(&self, height: Height) -> Result<StoredBlock, StorageError> {
        self.get(height)?.ok_or_else(|| StorageError::Corrupt(format!("finalised block {height} is missing")))
    }

    /// Height of a finalised block.
    pub fn height_of(&self, block: Digest) -> Result<Option<Height>, StorageError> {
        let value = self.database.get(Family::Blocks, &keys::height_of(block))?;
        value.map(|bytes| decode(bytes, |reader| reader.u64().map(Height))).transpose()
    }

    /// The finalization of exactly this block, if one was seen.
    pub fn finalization(&self, height: Height) -> Result<Option<Certificate>, StorageError> {
        let value = self.database.get(Family::Blocks, &keys::finalization(height))?;
        value.map(|bytes| decode(bytes, Reader::certificate)).transpose()
    }

    /// A stored batch.
    pub fn batch(&self, digest: Digest) -> Result<Option<Batch>, StorageError> {
        let value = self.database.get(Family::Batches, &keys::batch(digest))?;
        value.map(|bytes| decode(bytes, Reader::batch)).transpose()
    }

    /// Height of the finalised block that orders a batch.
    pub(super) fn ordered_at(&self, batch: Digest) -> Result<Option<Height>, StorageError> {
        let value = self.database.get(Family::Batches, &keys::ordered(batch))?;
        value.map(|bytes| decode(bytes, |reader| reader.u64().map(Height))).transpose()
    }

    /// True if the batch is listed among those that no block orders.
    pub(super) fn is_listed_unordered(&self, batch: Digest) -> Result<bool, StorageError> {
        Ok(self.database.get(Family::Batches, &keys::unordered(batch))?.is_some())
    }

    /// Every entry of one of the store's families.
    pub(super) fn entries(
        &self,
        family: Family,
    ) -> Result<impl Iterator<Item = Result<Entry, StorageError>> + '_, StorageError> {
        self.database.scan(family, &[])
    }

    /// True if a finalised block orders this batch.
    pub fn is_ordered(&self, batch: Digest) -> Result<bool, StorageError> {
        Ok(self.database.get(Family::Batches, &keys::ordered(batch))?.is_some())
    }

    /// The last finalised block and the certificate that finalised it.
    pub fn anchor(&self) -> Result<(Anchor, Option<Certificate>), StorageError> {
        let (height, digest) = self.finalized();
        if height == Height(0) {
            return Ok((Anchor::first(self.genesis.clone()), None));
        }
        let StoredBlock { block, view } = self.require(height)?;
        let certificate = self
            .finalization(height)?
            .ok_or_else(|| StorageError::Corrupt(format!("the finalization of block {height} is missing")))?;
        Ok((Anchor { view, digest, block }, Some(certificate)))
    }

    /// Blocks and certificates above the last finalised block.
    pub fn records(&self) -> Result<Vec<Record>, StorageError> {
        let blocks = self.values(Family::Consensus, keys::BLOCK, Reader::block)?;
        let certificates = self.values(Family::Consensus, keys::CERTIFICATE, Reader::certificate)?;
        Ok(blocks.into_iter().map(Record::Block).chain(certificates.into_iter().map(Record::Certificate)).collect())
    }

    /// The highest vote seen of each key.
    pub fn highest_votes(&self) -> Result<Vec<(PublicKey, SignedVote)>, StorageError> {
        self.values(Family::Consensus, keys::VOTE, read_vote)
    }

    /// Batches that no finalised block orders, in no particular order.
    pub fn unordered(&self) -> Result<Vec<Batch>, StorageError> {
        let mut batches = Vec::new();
        for item in self.database.scan(Family::Batches, &[keys::UNORDERED])? {
            let (key, _) = item?;
            let Some(digest) = key.strip_prefix(&[keys::UNORDERED]).and_then(|name| name.try_into().ok()) else {
                break;
            };
            let digest = Digest(digest);
            let batch = self.batch(digest)?;
            batches.push(batch.ok_or_else(|| StorageError::Corrupt(format!("batch {digest} is missing")))?);
        }
        // Each origin's own order, as it was sent.
        batches.sort_by_key(|batch| (batch.sequence, batch.origin));
        Ok(batches)
    }

    fn values<T>(
        &self,
        family: Family,
        kind: u8,
        read: impl Fn(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, StorageError> {
        let mut values = Vec::new();
        for item in self.database.scan(family, &[kind])? {
            let (key, value) = item?;
            if key.first() != Some(&kind) {
                break;
            }
            values.push(decode(value.into_vec(), &read)?);
        }
        Ok(values)
    }

    /// Adds a record above the last finalised block. If the writes are not applied, the node must stop.
    pub fn put_record(&self, writes: &mut Writes<'_>, record: &Record) -> Result<(), StorageError> {
        self.live().add(record);
        let mut value = vec![FORMAT];
        let key = match record {
            Record::Block(block) => {
                value.put_block(block);
                keys::candidate(block.digest())
            }
            Record::Certificate(certificate) => {
                value.put_certificate(certificate);
                keys::certificate(certificate.view(), certificate.vote.kind)
            }
        };
        writes.put(Family::Consensus, &key, &value)
    }

    /// Remembers the highest vote of a key.
    pub fn put_vote(&self, writes: &mut Writes<'_>, key: PublicKey, vote: &SignedVote) -> Result<(), StorageError> {
        let mut value = vec![FORMAT];
        value.extend_from_slice(&key.0);
        value.put_signed_vote(vote);
        writes.put(Family::Consensus, &keys::vote(key), &value)
    }

    /// Keeps a verified batch.
    pub fn put_batch(&self, writes: &mut Writes<'_>, digest: Digest, batch: &Batch) -> Result<(), StorageError> {
        let mut value = Vec::with_capacity(batch.payload.len() + 96);
        value.push(FORMAT);
        value.put_batch(batch);
        writes.put(Family::Batches, &keys::batch(digest), &value)?;
        if !self.is_ordered(digest)? {
            writes.put(Family::Batches, &keys::unordered(digest), &[])?;
        }
        Ok(())
    }

    /// Keeps a contradiction of a key.
    pub fn put_evidence(
        &self,
        writes: &mut Writes<'_>,
        key: PublicKey,
        first: &SignedVote,
        second: &SignedVote,
    ) -> Result<(), StorageError> {
        let mut value = vec![FORMAT];
        value.extend_from_slice(&key.0);
        value.put_signed_vote(first);
        value.put_signed_vote(second);
        writes.put(Family::Consensus, &keys::evidence(key, first.vote.epoch), &value)
    }

    /// Contradictions kept, each with the key that signed both votes.
    pub fn evidence(&self) -> Result<Vec<(PublicKey, Contradiction)>, StorageError> {
        self.values(Family::Consensus, keys::EVIDENCE, read_evidence)
    }

    /// Removes unordered batches that no block may order any more.
    pub fn forget_batches(&self, writes: &mut Writes<'_>, batches: &[Digest]) -> Result<(), StorageError> {
        for digest in batches {
            writes.delete(Family::Batches, &keys::batch(*digest))?;
            writes.delete(Family::Batches, &keys::unordered(*digest))?;
        }
        Ok(())
    }

    /// Makes blocks final: ascending, the certificate finalises the last. Records they make obsolete are removed.
    pub fn finalize(
        &self,
        writes: &mut Writes<'_>,
        blocks: &[Block],
        certificate: &Certificate,
    ) -> Result<(), StorageError> {
        let Some(last) = blocks.last() else { return Ok(()) };
        for block in blocks {
            let digest = block.digest();
            let mut value = vec![FORMAT];
            value.extend_from_slice(&certificate.view().0.to_be_bytes());
            value.put_block(block);
            writes.put(Family::Blocks, &keys::block(block.height), &value)?;
            writes.put(Family::Blocks, &keys::height_of(digest), &number(block.height.0))?;
            for batch in &block.batches {
                writes.put(Family::Batches, &keys::ordered(*batch), &number(block.height.0))?;
                writes.delete(Family::Batches, &keys::unordered(*batch))?;
            }
        }
        let mut value = vec![FORMAT];
        value.put_certificate(certificate);
        writes.put(Family::Blocks, &keys::finalization(last.height), &value)?;
        writes.put(Family::Blocks, keys::LAST_FINALIZED, &number(last.height.0))?;
        // Views begin anew after the last block of an epoch: nothing of the old one is of use then.
        let (height, view) = match last.boundary {
            Some(_) => (Height(u64::MAX), View(u64::MAX)),
            None => (last.height, certificate.view()),
        };
        for key in self.live().take_obsolete(height, view) {
            writes.delete(Family::Consensus, &key)?;
        }
        Ok(())
    }

    /// Removes a finalised block, the bodies it orders and its certificate. The last block of an epoch stays, with its
    /// certificate, for light clients (PROTOCOL E5); its bodies go too. Called from the pruning thread, far below the
    /// last finalised block.
    pub fn prune(&self, writes: &mut Writes<'_>, height: Height) -> Result<(), StorageError> {
        let Some(StoredBlock { block, .. }) = self.get(height)? else { return Ok(()) };
        for batch in &block.batches {
            writes.delete(Family::Batches, &keys::batch(*batch))?;
            writes.delete(Family::Batches, &keys::ordered(*batch))?;
        }
        if block.boundary.is_none() {
            writes.delete(Family::Blocks, &keys::block(height))?;
            writes.delete(Family::Blocks, &keys::height_of(block.digest()))?;
            writes.delete(Family::Blocks, &keys::finalization(height))?;
        }
        Ok(())
    }

    /// To be called when the writes of [`Self::finalize`] are applied.
    pub fn finalized_to(&self, block: &Block) {
        self.set_last((block.height, block.digest()));
    }
}

impl BlockReader for BlockStore {
    fn block(&self, height: Height) -> Result<Option<BlockView>, StorageError> {
        if height > self.finalized().0 {
            return Ok(None);
        }
        Ok(self.get(height)?.map(|StoredBlock { block, view }| BlockView {
            height: block.height,
            hash: block.digest(),
            parent: block.parent,
            time_milliseconds: block.time_milliseconds,
            epoch: block.epoch,
            checkpoint: block.checkpoint,
            next_validators: block.boundary.map(|boundary| boundary.validators),
            batches: block.batches,
            view: view.0,
        }))
    }

    fn finalized(&self) -> (Height, Digest) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch_payload(&self, batch: &Digest) -> Result<Option<Bytes>, StorageError> {
        Ok(self.batch(*batch)?.map(|batch| batch.payload))
    }

    fn epoch_links(&self, from: Epoch, limit: usize) -> Result<Vec<Bytes>, StorageError> {
        self.links(from, limit)
    }

    fn finalised_headers(&self, from: Height) -> Result<Option<Headers>, StorageError> {
        self.headers(from)
    }

    fn header_naming(&self, checkpoint: Height, oldest: Height) -> Result<Option<Height>, StorageError> {
        self.naming(checkpoint, oldest)
    }
}

fn read_vote(reader: &mut Reader) -> Result<(PublicKey, SignedVote), DecodeError> {
    Ok((PublicKey(reader.digest()?.0), reader.signed_vote()?))
}

fn read_evidence(reader: &mut Reader) -> Result<(PublicKey, Contradiction), DecodeError> {
    Ok((PublicKey(reader.digest()?.0), reader.contradiction()?))
}

/// Reads a record above the last finalised block, of the kind its key says.
pub(super) fn decode_record(kind: u8, value: Vec<u8>) -> Result<Record, StorageError> {
    decode(value, |reader| match kind {
        keys::BLOCK => reader.block().map(Record::Block),
        _ => reader.certificate().map(Record::Certificate),
    })
}

pub(super) fn decode_vote(value: Vec<u8>) -> Result<(PublicKey, SignedVote), StorageError> {
    decode(value, read_vote)
}

pub(super) fn decode_evidence(value: Vec<u8>) -> Result<(PublicKey, Contradiction), StorageError> {
    decode(value, read_evidence)
}

fn number(number: u64) -> Vec<u8> {
    [&[FORMAT][..], &number.to_be_bytes()].concat()
}

/// Reads one stored value whole.
fn decode<T>(bytes: Vec<u8>, read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>) -> Result<T, StorageError> {
    let mut reader = Reader::new(bytes.into());
    reader
        .version(FORMAT)
        .and_then(|()| read(&mut reader))
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| StorageError::Corrupt(format!("a stored value does not decode: {error}")))
}
