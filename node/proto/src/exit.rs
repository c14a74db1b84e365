//! Why a node stopped: an exit code and a termination message that the operator turns into a condition.

use serde::{Deserialize, Serialize};

/// Reasons a node stops by itself. The number is the process exit code, the name the `reason` of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// The configuration cannot be read or contradicts itself.
    InvalidConfiguration = 10,
    /// The genesis is malformed, or is not the one this volume has pinned.
    WrongGenesis = 11,
    /// A listening address is taken or cannot be bound.
    AddressUnavailable = 12,
    /// The database is damaged; it can be rebuilt from peers.
    DatabaseCorrupt = 13,
    /// The signing record is missing, damaged or bound to another volume: this key must not sign.
    SigningRecordRefused = 14,
    /// A write or sync failed; what was promised to be durable may not be.
    StorageFailed = 15,
    /// The chain has activated rules this binary does not know.
    UpgradeRequired = 16,
    /// A peer has seen a later signature of this key than the signing record holds: rotate the key.
    SignedElsewhere = 17,
    /// The volume is full; the node goes on once it has grown.
    VolumeFull = 18,
}

impl ExitReason {
    /// Every reason, in order of its code.
    pub const ALL: [Self; 9] = [
        Self::InvalidConfiguration,
        Self::WrongGenesis,
        Self::AddressUnavailable,
        Self::DatabaseCorrupt,
        Self::SigningRecordRefused,
        Self::StorageFailed,
        Self::UpgradeRequired,
        Self::SignedElsewhere,
        Self::VolumeFull,
    ];

    /// The process exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason behind an exit code, if it is one of ours.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| i32::from(reason.code()) == code)
    }
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, formatter)
    }
}

/// What a stopping node writes to its termination log, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Why it stopped.
    pub reason: ExitReason,
    /// What was wrong and what to do, one sentence or two.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::ExitReason;

    #[test]
    fn every_code_leads_back_to_its_reason() {
        for reason in ExitReason::ALL {
            assert_eq!(ExitReason::from_code(i32::from(reason.code())), Some(reason));
        }
        assert_eq!(ExitReason::from_code(1), None);
    }
}
