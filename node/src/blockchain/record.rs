//! Stored forms of the blockchain's families. Fixed widths, big-endian; what does not decode is corruption.

use crate::storage::{Fields, StorageError};
use crate::transaction::{ChainId, TraceId, TransactionId};
use crate::validator::Money;

use super::receipt::Receipt;
use bizra_ledger::Failure;

/// Key of [`State`] in the `Ledger` family.
pub(super) const STATE_KEY: &[u8] = b"state";
const STATE_VERSION: u8 = 2;
/// Key of the lanes of the commitment as of the last checkpoint, in the `Ledger` family.
pub(super) const LATTICE_KEY: &[u8] = b"lattice";

/// Key of something of a block in the `Ledger` family: a letter, then the height.
pub(super) fn numbered(kind: u8, height: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&height.to_be_bytes());
    key
}

/// Key of the totals at a cut-off height, in the `Ledger` family.
pub(super) fn totals_key(cutoff: u64) -> [u8; 9] {
    numbered(b't', cutoff)
}

/// Key of a receipt that was replaced at this height, in the `Ledger` family.
pub(super) fn superseded_key(height: u64, id: &TransactionId) -> Vec<u8> {
    [&numbered(SUPERSEDED, height)[..], &id.0].concat()
}

/// First letter of [`superseded_key`].
pub(super) const SUPERSEDED: u8 = b'x';

/// Where and how a transaction was finalised, and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    /// Its receipt.
    pub receipt: Receipt,
    /// Position among the batches of its block.
    pub batch: u16,
    /// Where its bytes start in the payload of that batch.
    pub offset: u32,
    /// How many bytes it has.
    pub length: u16,
}

/// The ledger's own account of itself, written with every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) chain: ChainId,
    pub(super) executed: u64,
    pub(super) supply: u64,
    pub(super) fees: u64,
    pub(super) transactions: u64,
    pub(super) money: Money,
    /// Height of the next cut-off.
    pub(super) next_cutoff: u64,
}

pub(super) fn corrupt(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} of the ledger does not decode"))
}

impl TransactionRecord {
    pub(super) fn encode(&self) -> [u8; 37] {
        let mut bytes = [0; 37];
        bytes[..8].copy_from_slice(&self.receipt.height.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.receipt.index.to_be_bytes());
        bytes[12] = self.receipt.failure.map_or(0, |failure| failure as u8);
        bytes[13..29].copy_from_slice(&self.receipt.trace.0);
        bytes[29..31].copy_from_slice(&self.batch.to_be_bytes());
        bytes[31..35].copy_from_slice(&self.offset.to_be_bytes());
        bytes[35..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Height of the block, without the rest.
    pub(super) fn height(bytes: &[u8]) -> Result<u64, StorageError> {
        Fields(bytes).u64().ok_or_else(|| corrupt("a receipt"))
    }

    pub(super) fn decode(id: TransactionId, bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            let height = fields.u64()?;
            let index = fields.u32()?;
            let failure = match fields.u8()? {
                0 => None,
                code => Some(Failure::from_number(code)?),
            };
            let trace = TraceId(fields.take()?);
            let batch = fields.u16()?;
            let offset = fields.u32()?;
            let length = fields.u16()?;
            fields.end()?;
            Some(Self { receipt: Receipt { id, height, index, failure, trace }, batch, offset, length })
        };
        read().ok_or_else(|| corrupt("a receipt"))
    }
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![STATE_VERSION];
        bytes.extend_from_slice(self.chain.as_bytes());
        let Self { executed, supply, fees, transactions, money: Money { staked, slashed }, next_cutoff, .. } = *self;
        for number in [executed, supply, fees, transactions, staked, slashed, next_cutoff] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut fields = Fields(bytes);
        let mut read = || {
            fields.version(STATE_VERSION)?;
            let chain = ChainId::from_padded(fields.take()?)?;
            let state = Self {
                chain,
                executed: fields.u64()?,
                supply: fields.u64()?,
                fees: fields.u64()?,
                transactions: fields.u64()?,
                money: Money { staked: fields.u64()?, slashed: fields.u64()? },
                next_cutoff: fields.u64()?,
            };
            fields.end().map(|()| state)
        };
        read().ok_or_else(|| corrupt("the state"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bizra_ledger::Account;

    use super::*;

    #[test]
    fn records_survive_a_round_trip_and_reject_other_lengths() {
        let account = Account { balance: 3, nonce: u64::MAX };
        assert_eq!(Account::decode(&account.encode()).unwrap(), account);
        assert!(Account::decode(&[0; 15]).is_err());

        for failure in Failure::ALL.map(Some).into_iter().chain([None]) {
            let id = TransactionId([1; 32]);
            let receipt = Receipt { id, height: 9, index: 4, failure, trace: TraceId([7; 16]) };
            let record = TransactionRecord { receipt, batch: 3, offset: 70_000, length: 256 };
            assert_eq!(TransactionRecord::decode(id, &record.encode()).unwrap(), record);
        }
        assert!(TransactionRecord::decode(TransactionId([1; 32]), &[99; 37]).is_err());

        let chain = ChainId::new("demo-1").unwrap();
        let money = Money { staked: 5, slashed: 6 };
        let state = State { chain, executed: 1, supply: 2, fees: 3, transactions: 4, money, next_cutoff: 32 };
        assert_eq!(State::decode(&state.encode()).unwrap(), state);
        assert!(State::decode(&[]).is_err());
    }
}
