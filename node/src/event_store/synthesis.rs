//! Makes the events of a block from the block, the bodies of its batches, and its record. The order is the module's.

use bizra_simplex::types::Digest;
use bytes::Bytes;

use super::event::{Event, EventData, Position};
use super::record::{BlockRecord, Verdict};
use crate::blockchain::{Effect, Moment};
use crate::gateway::BlockView;
use crate::storage::StorageError;
use crate::transaction::{Action, Address, Operation, Payload, TraceId, Transaction, TransactionId};

/// Why the next events of a block cannot be made.
#[derive(Debug)]
pub(super) enum SynthesisError {
    /// A body is not there, perhaps no longer.
    MissingBody(Digest),
    /// Reading failed, or what was read contradicts itself.
    Storage(StorageError),
}

impl From<StorageError> for SynthesisError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The events of one block, a part at a time: those of one body, or those between bodies. So no more than one body is in
/// memory, however large the block is.
#[derive(Debug)]
pub(super) struct BlockEvents {
    block: BlockView,
    record: BlockRecord,
    /// The next part: once all bodies, the block, all bodies again, the end.
    part: usize,
    /// Index of the next event.
    index: u32,
    cursor: Cursor,
    failed: u32,
}

/// A walk over the transactions of a block and their verdicts.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    run: usize,
    used: u32,
    receipt: u32,
    effect: usize,
}

impl Cursor {
    fn verdict(&mut self, record: &BlockRecord) -> Option<Verdict> {
        let (verdict, count) = record.runs.get(self.run)?;
        self.used += 1;
        if self.used == *count {
            (self.run, self.used) = (self.run + 1, 0);
        }
        Some(*verdict)
    }

    /// The next effect, if it is of this moment.
    fn effect<'r>(&mut self, record: &'r BlockRecord, moment: Moment) -> Option<&'r Effect> {
        let (_, effect) = record.effects.get(self.effect).filter(|(of, _)| *of == moment)?;
        self.effect += 1;
        Some(effect)
    }
}

impl BlockEvents {
    /// The events of a block from its first one on.
    pub(super) fn new(block: BlockView, record: BlockRecord) -> Self {
        Self { block, record, part: 0, index: 0, cursor: Cursor::default(), failed: 0 }
    }

    /// Height of the block.
    pub(super) fn height(&self) -> u64 {
        self.block.height.0
    }

    /// Index of the next event; after the last part the number of the block's events.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The next events; `None` after the last. `body` reads the payload of a batch.
    pub(super) fn part(
        &mut self,
        body: impl FnOnce(&Digest) -> Result<Option<Bytes>, StorageError>,
    ) -> Result<Option<Vec<Event>>, SynthesisError> {
        let bodies = self.block.batches.len();
        let part = self.part;
        let mut events = Vec::new();
        match part {
            part if part < bodies => self.submitted(part, body, &mut events)?,
            part if part == bodies => {
                self.finish_walk(false)?;
                self.cursor = Cursor::default();
                self.agreed(&mut events)?;
            }
            part if part <= 2 * bodies => self.executed(part - bodies - 1, body, &mut events)?,
            part if part == 2 * bodies + 1 => self.closed(&mut events)?,
            _ => return Ok(None),
        }
        self.part += 1;
        Ok(Some(events))
    }

    fn push(&mut self, events: &mut Vec<Event>, of: Option<(TransactionId, TraceId)>, data: EventData) {
        let position = Position { height: self.block.height.0, index: self.index };
        self.index += 1;
        let (transaction, trace) = of.map_or((None, TraceId::default()), |(id, trace)| (Some(id), trace));
        events.push(Event { position, transaction, trace, data });
    }

    fn contradiction(&self, what: &str) -> StorageError {
        StorageError::Corrupt(format!("the record of events of block {} {what}", self.block.height))
    }

    /// Calls `each` for every transaction of a body, with its verdict.
    fn walk(
        &mut self,
        batch: usize,
        body: impl FnOnce(&Digest) -> Result<Option<Bytes>, StorageError>,
        mut each: impl FnMut(&mut Self, Verdict, (TransactionId, TraceId), Transaction<'_>) -> Result<(), StorageError>,
    ) -> Result<(), SynthesisError> {
        let Some(&digest) = self.block.batches.get(batch) else { return Ok(()) };
        let payload = body(&digest)?.ok_or(SynthesisError::MissingBody(digest))?;
        let invalid = |what: &dyn std::fmt::Display| {
            StorageError::Corrupt(format!("batch {digest}, which a finalised block orders, is invalid: {what}"))
        };
        for entry in Payload::parse(&payload).map_err(|error| invalid(&error))?.entries() {
            let transaction = Transaction::decode(entry.transaction).map_err(|error| invalid(&error))?;
            let verdict = self.cursor.verdict(&self.record);
            let verdict =
                verdict.ok_or_else(|| self.contradiction("counts fewer transactions than the block orders"))?;
            if verdict != Verdict::Duplicate {
                each(self, verdict, (TransactionId::of(entry.transaction), entry.trace), transaction)?;
            }
        }
        Ok(())
    }

    fn submitted(
        &mut self,
        batch: usize,
        body: impl FnOnce(&Digest) -> Result<Option<Bytes>, StorageError>,
        events: &mut Vec<Event>,
    ) -> Result<(), SynthesisError> {
        self.walk(batch, body, |this, _, of, transaction| {
            this.push(events, Some(of), EventData::TransactionSubmitted { sender: transaction.sender });
            Ok(())
        })
    }

    fn agreed(&mut self, events: &mut Vec<Event>) -> Result<(), StorageError> {
        let BlockView { hash, parent, epoch, time_milliseconds, .. } = self.block;
        let batches = self.block.batches.len() as u32;
        self.push(events, None, EventData::BlockCreated { hash, parent, epoch, time_milliseconds, batches });
        self.push(events, None, EventData::BlockValidated { hash, epoch });
        self.push(events, None, EventData::ConsensusReached { hash, epoch });
        let mut cursor = self.cursor;
        while let Some(effect) = cursor.effect(&self.record, Moment::BeforeTransactions) {
            let data = match effect.clone() {
                Effect::ValidatorSetChosen { epoch, hash, members, power, waiting } => {
                    EventData::ValidatorSetChosen { epoch, hash, members, power, waiting }
                }
                Effect::ValidatorJailed { owner, consensus_key, slashed } => {
                    EventData::ValidatorJailed { owner, consensus_key, slashed }
                }
                Effect::ReportRefused { owner, consensus_key, failure } => {
                    EventData::ReportRefused { owner, consensus_key, failure }
                }
                _ => return Err(self.contradiction("names an effect that nothing before its transactions can have")),
            };
            self.push(events, None, data);
        }
        self.cursor = cursor;
        Ok(())
    }

    fn executed(
        &mut self,
        batch: usize,
        body: impl FnOnce(&Digest) -> Result<Option<Bytes>, StorageError>,
        events: &mut Vec<Event>,
    ) -> Result<(), SynthesisError> {
        self.walk(batch, body, |this, verdict, of, transaction| {
            let Transaction { sender, terms, action, .. } = transaction;
            let receipt = this.cursor.receipt;
            this.cursor.receipt += 1;
            if let Verdict::Failed(failure) = verdict {
                this.failed += 1;
                this.push(events, Some(of), EventData::TransactionFailed { sender, failure });
                return Ok(());
            }
            let (nonce, fee) = (terms.nonce, terms.fee);
            this.push(events, Some(of), EventData::TransactionApplied { sender, nonce, fee });
            match action {
                Action::Transfer { recipient, amount, .. } => {
                    this.push(events, Some(of), EventData::Transferred { sender, recipient, amount });
                    Ok(())
                }
                Action::Operation(operation) => this.operation(events, of, sender, *operation, receipt),
            }
        })
    }

    fn operation(
        &mut self,
        events: &mut Vec<Event>,
        of: (TransactionId, TraceId),
        owner: Address,
        operation: Operation,
        receipt: u32,
    ) -> Result<(), StorageError> {
        let mut spelled = None;
        match operation {
            Operation::ReserveStake { amount } => spelled = Some(EventData::StakeReserved { owner, amount }),
            Operation::ReleaseStake { amount: 0 } | Operation::ReportEquivocation(_) => {}
            Operation::ReleaseStake { amount } => spelled = Some(EventData::StakeReleased { owner, amount }),
            Operation::RegisterValidator { name: node_name } => {
                spelled = Some(EventData::ValidatorRegistered { owner, node_name });
            }
            Operation::DeregisterValidator => spelled = Some(EventData::ValidatorDeregistered { owner }),
            Operation::ActivateValidator(proof) => {
                spelled = Some(EventData::ValidatorActivated { owner, consensus_key: proof.public_key });
            }
            Operation::DeactivateValidator => spelled = Some(EventData::ValidatorDeactivated { owner }),
            Operation::RotateConsensusKey(proof) => {
                spelled = Some(EventData::ConsensusKeyRotated { owner, consensus_key: proof.public_key });
            }
            Operation::UpdateParameters(parameters) => {
                spelled = Some(EventData::ParametersApproved { owner, parameters });
            }
        }
        if let Some(data) = spelled {
            self.push(events, Some(of), data);
        }
        let mut cursor = self.cursor;
        while let Some(effect) = cursor.effect(&self.record, Moment::With(receipt)) {
            let data = match *effect {
                Effect::StakePaidOut { amount } => EventData::StakePaidOut { owner, amount },
                Effect::ValidatorJailed { owner, consensus_key, slashed } => {
                    EventData::ValidatorJailed { owner, consensus_key, slashed }
                }
                _ => return Err(self.contradiction("names an effect that the transaction cannot have")),
            };
            self.push(events, Some(of), data);
        }
        self.cursor = cursor;
        Ok(())
    }

    fn closed(&mut self, events: &mut Vec<Event>) -> Result<(), StorageError> {
        let mut cursor = self.cursor;
        while let Some(effect) = cursor.effect(&self.record, Moment::AfterTransactions) {
            let data = match effect.clone() {
                Effect::ParametersUpdated(parameters) => EventData::ParametersUpdated { parameters },
                Effect::ValidatorSetChosen { epoch, hash, members, power, waiting } => {
                    EventData::ValidatorSetChosen { epoch, hash, members, power, waiting }
                }
                _ => return Err(self.contradiction("names an effect that a block cannot have")),
            };
            self.push(events, None, data);
        }
        self.cursor = cursor;
        self.finish_walk(true)?;
        let BlockView { hash, epoch, next_validators, .. } = self.block;
        if let Some(next_validators) = next_validators {
            self.push(events, None, EventData::EpochEnded { epoch, next_validators });
        }
        let (transactions, failed) = (self.cursor.receipt, self.failed);
        self.push(events, None, EventData::BlockFinalized { hash, epoch, transactions, failed });
        Ok(())
    }

    /// Everything the record says must have been used.
    fn finish_walk(&self, with_effects: bool) -> Result<(), StorageError> {
        if self.cursor.run < self.record.runs.len() {
            return Err(self.contradiction("counts more transactions than the block orders"));
        }
        if with_effects && self.cursor.effect < self.record.effects.len() {
            return Err(self.contradiction("names an effect of a transaction that was not applied"));
        }
        Ok(())
    }
}
