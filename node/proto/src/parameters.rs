//! Parameters of the ledger: set by the genesis, changed on chain by more than two thirds of the power.

use serde::{Deserialize, Serialize};

/// Blocks between two checkpoints of the state; a cut-off of an epoch is always a checkpoint.
const CHECKPOINT_BLOCKS: u64 = 16;
/// Shortest epoch, in blocks: a set must be executed and named by a header before the next cut-off.
pub const EPOCH_BLOCKS_MIN: u64 = 32;
/// Longest epoch, in blocks.
pub const EPOCH_BLOCKS_MAX: u64 = 1 << 20;
/// Longest unbonding period, in epochs. Bounds how many validator sets are kept.
pub const UNBONDING_EPOCHS_MAX: u32 = 1_024;
/// Largest price of a unit of power; a JSON number holds it exactly.
pub const STAKE_PER_POWER_MAX: u64 = 1 << 53;

/// What the ledger lets itself be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Parameters {
    /// Blocks from one cut-off to the next: a multiple of 16 between 32 and 2^20. Fixed by the genesis.
    pub epoch_blocks: u64,
    /// Epochs from the release of a stake to its payment, and how long evidence counts; 1 to 1,024.
    pub unbonding_epochs: u32,
    /// Base units of reserved stake for one unit of voting power; 1 to 2^53.
    pub stake_per_power: u64,
    /// Thousandths of its stake an equivocating validator loses; at most 1,000.
    pub slash_per_mille: u16,
    /// Version of the protocol's rules in the first epoch, at least 1. Later ones are for validators to signal, not for
    /// owners to vote on.
    pub protocol_version: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            epoch_blocks: 4_096,
            unbonding_epochs: 64,
            stake_per_power: 1_000,
            slash_per_mille: 50,
            protocol_version: 2,
        }
    }
}

/// A parameter is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger parameter `{field}` is {found}; {rule}")]
pub struct ParametersError {
    /// Which one.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// What it may be.
    pub rule: &'static str,
}

impl Parameters {
    /// Width of the encoded form.
    pub const ENCODED_BYTES: usize = 26;

    /// True for the values a genesis without parameters has.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every range.
    pub fn check(&self) -> Result<(), ParametersError> {
        let Self { epoch_blocks, unbonding_epochs, stake_per_power, slash_per_mille, protocol_version } = *self;
        let rules = [
            (
                "epochBlocks",
                epoch_blocks,
                (EPOCH_BLOCKS_MIN..=EPOCH_BLOCKS_MAX).contains(&epoch_blocks)
                    && epoch_blocks.is_multiple_of(CHECKPOINT_BLOCKS),
                "it must be a multiple of 16 between 32 and 1048576",
            ),
            (
                "unbondingEpochs",
                unbonding_epochs.into(),
                (1..=UNBONDING_EPOCHS_MAX).contains(&unbonding_epochs),
                "it must be 1 to 1024",
            ),
            (
                "stakePerPower",
                stake_per_power,
                (1..=STAKE_PER_POWER_MAX).contains(&stake_per_power),
                "it must be 1 to 2^53",
            ),
            ("slashPerMille", slash_per_mille.into(), slash_per_mille <= 1_000, "it must be at most 1000"),
            ("protocolVersion", protocol_version.into(), protocol_version >= 1, "it must be at least 1"),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((field, found, _, rule)) => Err(ParametersError { field, found, rule }),
            None => Ok(()),
        }
    }

    /// The fields in order, big-endian.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..8].copy_from_slice(&self.epoch_blocks.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.unbonding_epochs.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.stake_per_power.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.slash_per_mille.to_be_bytes());
        bytes[22..].copy_from_slice(&self.protocol_version.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote; whether the values are in range is for [`Self::check`] to say.
    pub fn decode(bytes: &[u8; Self::ENCODED_BYTES]) -> Self {
        let number = |from: usize, to: usize| bytes[from..to].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Self {
            epoch_blocks: number(0, 8),
            unbonding_epochs: number(8, 12) as u32,
            stake_per_power: number(12, 20),
            slash_per_mille: number(20, 22) as u16,
            protocol_version: number(22, 26) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_a_round_trip_and_ranges_are_checked() {
        let good = Parameters::default();
        assert_eq!(Parameters::decode(&good.encode()), good);
        assert_eq!(good.check(), Ok(()));
        for (wrong, field) in [
            (Parameters { epoch_blocks: 40, ..good }, "epochBlocks"),
            (Parameters { epoch_blocks: 16, ..good }, "epochBlocks"),
            (Parameters { unbonding_epochs: 0, ..good }, "unbondingEpochs"),
            (Parameters { stake_per_power: 0, ..good }, "stakePerPower"),
            (Parameters { slash_per_mille: 1_001, ..good }, "slashPerMille"),
            (Parameters { protocol_version: 0, ..good }, "protocolVersion"),
        ] {
            assert_eq!(wrong.check().map_err(|error| error.field), Err(field));
        }
    }
}
