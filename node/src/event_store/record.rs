//! What is stored of a block's events, byte by byte. Integers are big-endian; there is one form.
//!
//! | width | field |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 4 | number of runs |
//! | 5 each | verdict (1: 0 applied, 255 duplicate, else the number of the failure), how many transactions in a row (4) |
//! | 2 | number of effects |
//! | each | when (4): 0 before the transactions, 2^32 - 1 after them, else the index of a receipt plus 1; kind (1), body |
//!
//! | kind | body |
//! | --- | --- |
//! | 1 stake paid out | amount (8) |
//! | 2 validator jailed | owner (32), consensus key (32), slashed (8) |
//! | 3 parameters updated | parameters (26) |
//! | 4 validator set chosen | epoch (8), hash (32), members (2), power (8), number of waiting owners (2), each (32) |
//! | 5 report refused | owner (32), consensus key (32), number of the failure (1) |
//!
//! Neighbouring runs differ, no run is empty, and effects come in the order in which they happened.

use bizra_proto::parameters::Parameters;
use bizra_simplex::block::BATCHES_PER_BLOCK_MAX;
use bizra_simplex::types::Digest;

use crate::blockchain::{BlockOutcome, Effect, Failure, Moment};
use crate::storage::Fields;
use crate::transaction::{Address, PAYLOAD_TRANSACTIONS_MAX};

const VERSION: u8 = 1;
const APPLIED: u8 = 0;
const DUPLICATE: u8 = u8::MAX;
const BEFORE: u32 = 0;
const AFTER: u32 = u32::MAX;
/// Most transactions a block orders.
const TRANSACTIONS_MAX: u32 = (BATCHES_PER_BLOCK_MAX * PAYLOAD_TRANSACTIONS_MAX) as u32;

/// What became of a transaction that a block orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect.
    Applied,
    /// It changed nothing.
    Failed(Failure),
    /// It was executed before and skipped.
    Duplicate,
}

impl Verdict {
    fn number(self) -> u8 {
        match self {
            Self::Applied => APPLIED,
            Self::Failed(failure) => failure as u8,
            Self::Duplicate => DUPLICATE,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            APPLIED => Some(Self::Applied),
            DUPLICATE => Some(Self::Duplicate),
            number => Failure::from_number(number).map(Self::Failed),
        }
    }
}

/// What blocks and bodies do not say of a block's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockRecord {
    /// Verdicts over the transactions in the block's order: each holds for so many in a row.
    pub(super) runs: Vec<(Verdict, u32)>,
    /// Changes that no transaction spells out.
    pub(super) effects: Vec<(Moment, Effect)>,
}

impl BlockRecord {
    /// The record of an executed block.
    pub fn of(outcome: &BlockOutcome) -> Self {
        let mut runs: Vec<(Verdict, u32)> = Vec::new();
        let mut duplicates = outcome.duplicate_positions.iter().copied().peekable();
        let mut receipts = outcome.receipts.iter();
        for position in 0..(outcome.receipts.len() + outcome.duplicate_positions.len()) as u32 {
            let verdict = match duplicates.next_if_eq(&position) {
                Some(_) => Verdict::Duplicate,
                None => receipts.next().and_then(|receipt| receipt.failure).map_or(Verdict::Applied, Verdict::Failed),
            };
            match runs.last_mut() {
                Some((last, count)) if *last == verdict => *count += 1,
                _ => runs.push((verdict, 1)),
            }
        }
        Self { runs, effects: outcome.effects.clone() }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&(self.runs.len() as u32).to_be_bytes());
        for (verdict, count) in &self.runs {
            bytes.push(verdict.number());
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        // Fewer than 2^16: a block executes some dozen operations with effects, whose signatures it checks.
        bytes.extend_from_slice(&(self.effects.len() as u16).to_be_bytes());
        for (moment, effect) in &self.effects {
            let moment = match moment {
                Moment::BeforeTransactions => BEFORE,
                // A block has fewer than 2^20 transactions.
                Moment::With(receipt) => receipt.saturating_add(1),
                Moment::AfterTransactions => AFTER,
            };
            bytes.extend_from_slice(&moment.to_be_bytes());
            write_effect(&mut bytes, effect);
        }
        bytes
    }

    /// Reads the stored form. Total: any bytes give an answer, and what decodes encodes to the same bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        fields.version(VERSION)?;
        let mut record = Self::default();
        let mut transactions: u32 = 0;
        for _ in 0..fields.u32()? {
            let (verdict, count) = (Verdict::from_number(fields.u8()?)?, fields.u32()?);
            transactions = transactions.checked_add(count).filter(|sum| count > 0 && *sum <= TRANSACTIONS_MAX)?;
            if record.runs.last().is_some_and(|(last, _)| *last == verdict) {
                return None;
            }
            record.runs.push((verdict, count));
        }
        let mut last = Moment::BeforeTransactions;
        for _ in 0..fields.u16()? {
            let moment = match fields.u32()? {
                BEFORE => Moment::BeforeTransactions,
                AFTER => Moment::AfterTransactions,
                place => Moment::With(place.checked_sub(1).filter(|receipt| *receipt < transactions)?),
            };
            if moment < last {
                return None;
            }
            last = moment;
            record.effects.push((moment, read_effect(&mut fields)?));
        }
        fields.end().map(|()| record)
    }
}

fn write_effect(bytes: &mut Vec<u8>, effect: &Effect) {
    match effect {
        Effect::StakePaidOut { amount } => {
            bytes.push(1);
            bytes.extend_from_slice(&amount.to_be_bytes());
        }
        Effect::ValidatorJailed { owner, consensus_key, slashed } => {
            bytes.push(2);
            bytes.extend_from_slice(&owner.0);
            bytes.extend_from_slice(consensus_key);
            bytes.extend_from_slice(&slashed.to_be_bytes());
        }
        Effect::ParametersUpdated(parameters) => {
            bytes.push(3);
            bytes.extend_from_slice(&parameters.encode());
        }
        Effect::ValidatorSetChosen { epoch, hash, members, power, waiting } => {
            bytes.push(4);
            bytes.extend_from_slice(&epoch.to_be_bytes());
            bytes.extend_from_slice(&hash.0);
            bytes.extend_from_slice(&members.to_be_bytes());
            bytes.extend_from_slice(&power.to_be_bytes());
            // No more than there are registered validators.
            bytes.extend_from_slice(&(waiting.len() as u16).to_be_bytes());
            for owner in waiting {
                bytes.extend_from_slice(&owner.0);
            }
        }
        Effect::ReportRefused { owner, consensus_key, failure } => {
            bytes.push(5);
            bytes.extend_from_slice(&owner.0);
            bytes.extend_from_slice(consensus_key);
            bytes.push(*failure as u8);
        }
    }
}

fn read_effect(fields: &mut Fields<'_>) -> Option<Effect> {
    Some(match fields.u8()? {
        1 => Effect::StakePaidOut { amount: fields.u64()? },
        2 => {
            let (owner, consensus_key) = (Address(fields.take()?), fields.take()?);
            Effect::ValidatorJailed { owner, consensus_key, slashed: fields.u64()? }
        }
        3 => {
            let encoded = fields.take()?;
            let parameters = Parameters::decode(&encoded);
            Effect::ParametersUpdated(Some(parameters).filter(|parameters| parameters.encode() == encoded)?)
        }
        4 => {
            let (epoch, hash) = (fields.u64()?, Digest(fields.take()?));
            let (members, power) = (fields.u16()?, fields.u64()?);
            let waiting = (0..fields.u16()?).map(|_| fields.take().map(Address)).collect::<Option<_>>()?;
            Effect::ValidatorSetChosen { epoch, hash, members, power, waiting }
        }
        5 => {
            let (owner, consensus_key) = (Address(fields.take()?), fields.take()?);
            Effect::ReportRefused { owner, consensus_key, failure: Failure::from_number(fields.u8()?)? }
        }
        _ => return None,
    })
}
