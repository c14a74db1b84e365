//! Why a transaction came to nothing.

/// Why a finalised transaction changed nothing. The number is its stored form; 0 stands for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Failure {
    /// Its nonce was not the number of transactions its sender had applied before.
    BadNonce = 1,
    /// The block's height was above its expiry height.
    Expired = 2,
    /// The sender could not pay amount and fee.
    InsufficientBalance = 3,
    /// The stake is smaller than what is to be released, or too small for a validator.
    InsufficientStake = 4,
    /// The release would leave a registered validator without power.
    StakeInUse = 5,
    /// Too many parts of the stake are unbonding already.
    TooManyReleases = 6,
    /// The account owns a validator already.
    AlreadyRegistered = 7,
    /// The account owns no validator.
    NotRegistered = 8,
    /// Another validator has this name.
    NameTaken = 9,
    /// No more validators can be registered.
    RegistryFull = 10,
    /// The validator is active already.
    AlreadyActive = 11,
    /// The validator is not active.
    NotActive = 12,
    /// The validator or its key is jailed.
    Jailed = 13,
    /// Another validator has this consensus key.
    KeyInUse = 14,
    /// The key proof names no header of the last 100 blocks.
    StaleKeyProof = 15,
    /// The consensus key did not sign this proof.
    InvalidKeyProof = 16,
    /// The validator is active, or still in a set.
    StillValidating = 17,
    /// The votes do not conflict, or the key did not sign both in that epoch.
    InvalidEvidence = 18,
    /// The evidence is of an epoch whose stakes have unbonded, or of none.
    EvidenceOutOfRange = 19,
    /// The key was punished before.
    AlreadyPunished = 20,
    /// Jailing the validator would jail a third of the power: an alarm.
    JailingStopped = 21,
    /// The account owns no validator of the set.
    NotAValidator = 22,
    /// The block checks as many signatures of operations as it may.
    BlockBusy = 23,
    /// The expiry height is more than 100,000 blocks above the block.
    ExpiryTooFar = 24,
    /// The length of an epoch is fixed by the genesis.
    EpochLengthFixed = 25,
    /// The version of the protocol is for validators to signal, not for owners to set.
    ProtocolVersionSignalled = 26,
}

impl Failure {
    /// Every failure, in order of its number.
    pub const ALL: [Self; 26] = [
        Self::BadNonce,
        Self::Expired,
        Self::InsufficientBalance,
        Self::InsufficientStake,
        Self::StakeInUse,
        Self::TooManyReleases,
        Self::AlreadyRegistered,
        Self::NotRegistered,
        Self::NameTaken,
        Self::RegistryFull,
        Self::AlreadyActive,
        Self::NotActive,
        Self::Jailed,
        Self::KeyInUse,
        Self::StaleKeyProof,
        Self::InvalidKeyProof,
        Self::StillValidating,
        Self::InvalidEvidence,
        Self::EvidenceOutOfRange,
        Self::AlreadyPunished,
        Self::JailingStopped,
        Self::NotAValidator,
        Self::BlockBusy,
        Self::ExpiryTooFar,
        Self::EpochLengthFixed,
        Self::ProtocolVersionSignalled,
    ];

    /// The failure behind its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&failure| failure as u8 == number)
    }

    /// Stable name for clients and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadNonce => "BadNonce",
            Self::Expired => "Expired",
            Self::InsufficientBalance => "InsufficientBalance",
            Self::InsufficientStake => "InsufficientStake",
            Self::StakeInUse => "StakeInUse",
            Self::TooManyReleases => "TooManyReleases",
            Self::AlreadyRegistered => "AlreadyRegistered",
            Self::NotRegistered => "NotRegistered",
            Self::NameTaken => "NameTaken",
            Self::RegistryFull => "RegistryFull",
            Self::AlreadyActive => "AlreadyActive",
            Self::NotActive => "NotActive",
            Self::Jailed => "Jailed",
            Self::KeyInUse => "KeyInUse",
            Self::StaleKeyProof => "StaleKeyProof",
            Self::InvalidKeyProof => "InvalidKeyProof",
            Self::StillValidating => "StillValidating",
            Self::InvalidEvidence => "InvalidEvidence",
            Self::EvidenceOutOfRange => "EvidenceOutOfRange",
            Self::AlreadyPunished => "AlreadyPunished",
            Self::JailingStopped => "JailingStopped",
            Self::NotAValidator => "NotAValidator",
            Self::BlockBusy => "BlockBusy",
            Self::ExpiryTooFar => "ExpiryTooFar",
            Self::EpochLengthFixed => "EpochLengthFixed",
            Self::ProtocolVersionSignalled => "ProtocolVersionSignalled",
        }
    }
}
