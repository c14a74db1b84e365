//! Questions the edge answers, the same for gRPC and REST. Reads run off the asynchronous threads: a cold read may
//! wait for the disk.

use std::time::Duration;

use bizra_simplex::types::{Digest, Height};
use bizra_simplex::{Checkpoint, Turns};
use bytes::Bytes;

use super::{BlockView, Gateway};
use crate::blockchain::{Account, AtHeight, InclusionProof, Receipt, checkpoint_of};
use crate::storage::StorageError;
use crate::transaction::{Address, Payload, TransactionId};
use crate::validator::{Stake, Validator, ValidatorSetRecord};

/// Longest wait for a receipt.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    #[error("{0}")]
    NotFound(&'static str),
    #[error("this node keeps heights from {oldest} on; ask one that keeps more")]
    Pruned { oldest: u64 },
    #[error("the last executed height is {executed}; ask again later")]
    Future { executed: u64 },
    #[error("too many requests are waiting; ask again in a moment")]
    Busy,
    #[error("the node could not read its database")]
    Storage(#[from] StorageError),
    #[error("the node is stopping")]
    Stopping,
}

/// A finalised transaction.
pub(super) struct FinalizedTransaction {
    pub(super) receipt: Receipt,
    /// Its bytes; `None` if the batch that held it was pruned.
    pub(super) encoded: Option<Bytes>,
}

/// A finalised block and how many transactions it executed.
pub(super) struct FinalizedBlock {
    pub(super) view: BlockView,
    pub(super) transactions: u32,
}

/// The chain as a whole.
pub(super) struct Chain {
    pub(super) id: String,
    pub(super) genesis_hash: Digest,
    pub(super) height: Height,
    pub(super) hash: Digest,
    pub(super) transactions: u64,
    pub(super) oldest: u64,
}

/// Turns a question about a height into its answer or the reason why there is none.
fn at_height<T>(answer: AtHeight<T>) -> Result<(T, u64), QueryError> {
    match answer {
        AtHeight::Found(value, height) => Ok((value, height)),
        AtHeight::Pruned { oldest } => Err(QueryError::Pruned { oldest }),
        AtHeight::Future { executed } => Err(QueryError::Future { executed }),
    }
}

impl Gateway {
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let room = self.reads.clone().acquire_owned().await.map_err(|_| QueryError::Stopping)?;
        let gateway = self.clone();
        let read = move |gateway: &Self| {
            let _room = room;
            read(gateway)
        };
        let result = tokio::task::spawn_blocking(move || read(&gateway)).await.map_err(|_| QueryError::Stopping)?;
        result.map_err(|error| {
            tracing::error!(%error, "a request could not be answered");
            QueryError::Storage(error)
        })
    }

    /// A finalised transaction, waiting up to `wait` (at most [`WAIT_MAX`]) for it to become final.
    pub(super) async fn transaction(
        &self,
        id: TransactionId,
        wait: Duration,
    ) -> Result<FinalizedTransaction, QueryError> {
        // Registered before the first look, so that finality between the two is not missed.
        let mut waiter = match wait {
            Duration::ZERO => None,
            _ => Some(self.pool.wait_for(id).ok_or(QueryError::Busy)?),
        };
        if let Some(found) = self.read(move |gateway| gateway.find_transaction(id)).await? {
            return Ok(found);
        }
        if let Some(waiter) = &mut waiter
            && let Ok(notice) = tokio::time::timeout(wait.min(WAIT_MAX), waiter.receipt()).await
        {
            notice.ok_or(QueryError::Stopping)?;
            if let Some(found) = self.read(move |gateway| gateway.find_transaction(id)).await? {
                return Ok(found);
            }
        }
        Err(QueryError::NotFound("no finalised transaction has this id"))
    }

    fn find_transaction(&self, id: TransactionId) -> Result<Option<FinalizedTransaction>, StorageError> {
        let Some(record) = self.ledger.transaction(&id)? else {
            return Ok(None);
        };
        let block = self.blocks.block(Height(record.receipt.height))?;
        let batch = block.and_then(|block| block.batches.get(usize::from(record.batch)).copied());
        let payload = batch.map_or(Ok(None), |batch| self.blocks.batch_payload(&batch))?;
        let start = record.offset as usize;
        let range = start..start.saturating_add(usize::from(record.length));
        let encoded = payload.filter(|payload| range.end <= payload.len()).map(|payload| payload.slice(range));
        Ok(Some(FinalizedTransaction { receipt: record.receipt, encoded }))
    }

    /// An account as of a height, by default the last executed one.
    pub(super) async fn account(&self, address: Address, height: Option<u64>) -> Result<(Account, u64), QueryError> {
        at_height(self.read(move |gateway| gateway.ledger.account(&address, height)).await?)
    }

    /// An owner's validator, stake and turns since the last cut-off as of a height, by default the last executed one.
    pub(super) async fn validator(
        &self,
        owner: Address,
        height: Option<u64>,
    ) -> Result<((Option<Validator>, Stake, Turns), u64), QueryError> {
        at_height(self.read(move |gateway| gateway.ledger.validator(&owner, height)).await?)
    }

    /// Base units of stake for one unit of power, by the parameters in force.
    pub(super) async fn stake_per_power(&self) -> Result<u64, QueryError> {
        Ok(self.read(|gateway| gateway.ledger.parameters()).await?.stake_per_power)
    }

    /// The validator set of an epoch, by default the one computed last.
    pub(super) async fn validator_set(&self, epoch: Option<u64>) -> Result<ValidatorSetRecord, QueryError> {
        let set = self.read(move |gateway| gateway.ledger.validator_set(epoch)).await?;
        set.ok_or(QueryError::NotFound("no validator set of this epoch is kept"))
    }

    /// The commitment at a checkpoint height, by default the last one.
    pub(super) async fn checkpoint(&self, height: Option<u64>) -> Result<Checkpoint, QueryError> {
        let found = self.read(move |gateway| {
            let executed = gateway.ledger.totals()?.height;
            let last = executed - executed % checkpoint_of(1);
            Ok((gateway.ledger.checkpoint(height.unwrap_or(last))?, executed, gateway.ledger.oldest()?))
        });
        match (found.await?, height) {
            ((Some(checkpoint), ..), _) => Ok(checkpoint),
            ((None, executed, _), Some(height)) if height > executed => Err(QueryError::Future { executed }),
            ((None, _, oldest), Some(height)) if height < oldest => Err(QueryError::Pruned { oldest }),
            ((None, ..), _) => Err(QueryError::NotFound("only heights divisible by 16 are checkpoints")),
        }
    }

    /// Proves that a transaction was executed.
    pub(super) async fn proof(&self, id: TransactionId) -> Result<InclusionProof, QueryError> {
        let found = self.read(move |gateway| {
            let Some(record) = gateway.ledger.transaction(&id)? else { return Ok(None) };
            let height = record.receipt.height;
            let ids = gateway.ordered_transactions(height)?;
            let proof = ids.map_or(Ok(None), |ids| gateway.ledger.proof(&id, &ids))?;
            Ok(Some((proof, height, gateway.ledger.totals()?.height, gateway.ledger.oldest()?)))
        });
        match found.await? {
            None => Err(QueryError::NotFound("no finalised transaction has this id")),
            Some((Some(proof), ..)) => Ok(proof),
            Some((None, height, executed, _)) if checkpoint_of(height) > executed => {
                Err(QueryError::Future { executed })
            }
            Some((None, _, _, oldest)) => Err(QueryError::Pruned { oldest }),
        }
    }

    /// Ids of all transactions a block orders; `None` if a body was pruned.
    fn ordered_transactions(&self, height: u64) -> Result<Option<Vec<TransactionId>>, StorageError> {
        let Some(block) = self.blocks.block(Height(height))? else { return Ok(None) };
        let mut ids = Vec::new();
        for batch in &block.batches {
            let Some(payload) = self.blocks.batch_payload(batch)? else { return Ok(None) };
            let payload = Payload::parse(&payload)
                .map_err(|error| StorageError::Corrupt(format!("batch {batch} of block {height}: {error}")))?;
            ids.extend(payload.entries().map(|entry| TransactionId::of(entry.transaction)));
        }
        Ok(Some(ids))
    }

    /// At most `limit` finalised blocks from `from` upwards; from the end of the chain if `from` is `None`.
    pub(super) async fn blocks(&self, from: Option<u64>, limit: u64) -> Result<Vec<FinalizedBlock>, QueryError> {
        self.read(move |gateway| {
            let (Height(last), _) = gateway.blocks.finalized();
            let first = from.unwrap_or_else(|| last.saturating_sub(limit.saturating_sub(1)));
            let end = first.saturating_add(limit).min(last.saturating_add(1));
            let oldest = gateway.ledger.oldest()?;
            if first < oldest && from.is_some() {
                return Ok(Err(QueryError::Pruned { oldest }));
            }
            let first = first.max(oldest);
            (first..end).map_while(|height| gateway.find_block(height).transpose()).collect::<Result<_, _>>().map(Ok)
        })
        .await?
    }

    fn find_block(&self, height: u64) -> Result<Option<FinalizedBlock>, StorageError> {
        let (Some(view), Some(transactions)) =
            (self.blocks.block(Height(height))?, self.ledger.block_transactions(height)?)
        else {
            return Ok(None);
        };
        Ok(Some(FinalizedBlock { view, transactions }))
    }

    /// The finalised block at a height.
    pub(super) async fn block(&self, height: u64) -> Result<FinalizedBlock, QueryError> {
        let found = self.read(move |gateway| Ok((gateway.find_block(height)?, gateway.ledger.oldest()?)));
        match found.await? {
            (Some(block), _) => Ok(block),
            (None, oldest) if height < oldest => Err(QueryError::Pruned { oldest }),
            (None, _) => Err(QueryError::NotFound("no finalised block has this height")),
        }
    }

    /// The chain and where it is.
    pub(super) async fn chain(&self) -> Result<Chain, QueryError> {
        self.read(|gateway| {
            let (height, hash) = gateway.blocks.finalized();
            Ok(Chain {
                id: gateway.chain.to_string(),
                genesis_hash: gateway.genesis_hash,
                height,
                hash,
                transactions: gateway.ledger.totals()?.transactions,
                oldest: gateway.ledger.oldest()?,
            })
        })
        .await
    }
}
