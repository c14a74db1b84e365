//! Events and their names.

use std::fmt;
use std::str::FromStr;

use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Epoch};

use crate::blockchain::Failure;
use crate::transaction::{Address, TraceId, TransactionId};

/// Names an event for ever, on every node: the height of its block and its place among the block's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Height of the block; the first events are those of block 1.
    pub height: u64,
    /// Counts up from 0 in each block.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.height, self.index)
    }
}

/// Text is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position in the event log: it has the form HEIGHT:INDEX, for example 1200:0")]
pub struct PositionError(String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        /// Longer text is no two numbers, and is not worth repeating.
        const TEXT_MAX_BYTES: usize = 40;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let read = || {
            let (height, index) = text.split_once(':').filter(|(height, index)| digits(height) && digits(index))?;
            Some(Self { height: height.parse().ok()?, index: index.parse().ok()? })
        };
        read().ok_or_else(|| PositionError(text.chars().take(TEXT_MAX_BYTES).collect()))
    }
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What kind of thing happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name for clients: stable.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

event_kinds! {
    /// A transaction was submitted and ordered.
    TransactionSubmitted,
    /// A leader proposed the block.
    BlockCreated,
    /// Validators with more than two thirds of the power hold and checked everything the block orders.
    BlockValidated,
    /// More than two thirds of the power finalised the block or one above it.
    ConsensusReached,
    /// A transaction took effect.
    TransactionApplied,
    /// A transaction changed nothing.
    TransactionFailed,
    /// Money moved between accounts.
    Transferred,
    /// Money of a balance became stake.
    StakeReserved,
    /// Stake began to unbond.
    StakeReleased,
    /// Stake that had unbonded went back to the balance.
    StakePaidOut,
    /// An account registered a validator.
    ValidatorRegistered,
    /// An account's validator is no longer registered.
    ValidatorDeregistered,
    /// A validator wants to vote from the next epoch on.
    ValidatorActivated,
    /// A validator wants to leave the set.
    ValidatorDeactivated,
    /// A validator wants to vote with another key.
    ConsensusKeyRotated,
    /// A validator that equivocated was jailed and lost a part of its stake.
    ValidatorJailed,
    /// A block reported a validator that equivocated, and it was not jailed.
    ReportRefused,
    /// A validator's owner approves parameters.
    ParametersApproved,
    /// Parameters that found their majority hold from here on.
    ParametersUpdated,
    /// The state at a cut-off named the validators of the next epoch.
    ValidatorSetChosen,
    /// This is the last block of its epoch.
    EpochEnded,
    /// The block is executed: final for good.
    BlockFinalized,
}

impl EventKind {
    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Which kinds of events a subscriber wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFilter(u32);

impl Default for EventFilter {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl EventFilter {
    /// Only these kinds; all of them if the list is empty.
    pub fn only(kinds: &[EventKind]) -> Self {
        if kinds.is_empty() {
            return Self::default();
        }
        Self(kinds.iter().fold(0, |set, kind| set | 1 << (*kind as u8)))
    }

    /// The filter of a list of names; the error says which one no event has.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        /// No list of different names is longer.
        const NAMES_MAX: usize = EventKind::ALL.len();
        let mut kinds = Vec::new();
        for name in names {
            let known = || EventKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            let kind = EventKind::from_name(name).filter(|_| kinds.len() < NAMES_MAX);
            kinds.push(kind.ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                format!("{name:?} is no type of event, or one too many; there are: {}", known())
            })?);
        }
        Ok(Self::only(&kinds))
    }

    /// True if the subscriber wants events of this kind.
    pub fn wants(self, kind: EventKind) -> bool {
        self.0 & 1 << (kind as u8) != 0
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub position: Position,
    /// The transaction it is about, if it is about one.
    pub transaction: Option<TransactionId>,
    /// Correlation id: trace id of that transaction's submit; zeros without one.
    pub trace: TraceId,
    /// What happened.
    pub data: EventData,
}

/// What happened. Amounts are base units.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of the transactions and blocks that the kinds name.
pub enum EventData {
    TransactionSubmitted { sender: Address },
    BlockCreated { hash: Digest, parent: Digest, epoch: Epoch, time_milliseconds: u64, batches: u32 },
    BlockValidated { hash: Digest, epoch: Epoch },
    ConsensusReached { hash: Digest, epoch: Epoch },
    TransactionApplied { sender: Address, nonce: u64, fee: u64 },
    TransactionFailed { sender: Address, failure: Failure },
    Transferred { sender: Address, recipient: Address, amount: u64 },
    StakeReserved { owner: Address, amount: u64 },
    StakeReleased { owner: Address, amount: u64 },
    StakePaidOut { owner: Address, amount: u64 },
    ValidatorRegistered { owner: Address, node_name: String },
    ValidatorDeregistered { owner: Address },
    ValidatorActivated { owner: Address, consensus_key: [u8; 32] },
    ValidatorDeactivated { owner: Address },
    ConsensusKeyRotated { owner: Address, consensus_key: [u8; 32] },
    ValidatorJailed { owner: Address, consensus_key: [u8; 32], slashed: u64 },
    ReportRefused { owner: Address, consensus_key: [u8; 32], failure: Failure },
    ParametersApproved { owner: Address, parameters: Parameters },
    ParametersUpdated { parameters: Parameters },
    ValidatorSetChosen { epoch: u64, hash: Digest, members: u16, power: u64, waiting: Vec<Address> },
    EpochEnded { epoch: Epoch, next_validators: Digest },
    BlockFinalized { hash: Digest, epoch: Epoch, transactions: u32, failed: u32 },
}

impl EventData {
    /// Its kind.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::TransactionSubmitted { .. } => EventKind::TransactionSubmitted,
            Self::BlockCreated { .. } => EventKind::BlockCreated,
            Self::BlockValidated { .. } => EventKind::BlockValidated,
            Self::ConsensusReached { .. } => EventKind::ConsensusReached,
            Self::TransactionApplied { .. } => EventKind::TransactionApplied,
            Self::TransactionFailed { .. } => EventKind::TransactionFailed,
            Self::Transferred { .. } => EventKind::Transferred,
            Self::StakeReserved { .. } => EventKind::StakeReserved,
            Self::StakeReleased { .. } => EventKind::StakeReleased,
            Self::StakePaidOut { .. } => EventKind::StakePaidOut,
            Self::ValidatorRegistered { .. } => EventKind::ValidatorRegistered,
            Self::ValidatorDeregistered { .. } => EventKind::ValidatorDeregistered,
            Self::ValidatorActivated { .. } => EventKind::ValidatorActivated,
            Self::ValidatorDeactivated { .. } => EventKind::ValidatorDeactivated,
            Self::ConsensusKeyRotated { .. } => EventKind::ConsensusKeyRotated,
            Self::ValidatorJailed { .. } => EventKind::ValidatorJailed,
            Self::ReportRefused { .. } => EventKind::ReportRefused,
            Self::ParametersApproved { .. } => EventKind::ParametersApproved,
            Self::ParametersUpdated { .. } => EventKind::ParametersUpdated,
            Self::ValidatorSetChosen { .. } => EventKind::ValidatorSetChosen,
            Self::EpochEnded { .. } => EventKind::EpochEnded,
            Self::BlockFinalized { .. } => EventKind::BlockFinalized,
        }
    }
}
