//! A light client (PROTOCOL E5): follows the chain without executing it, from nodes it does not trust.
//!
//! It believes the genesis file, or an anchor it verified earlier, and what less than a third of Byzantine power per epoch
//! cannot forge: links from one epoch to the next, and headers, each finalised by a quorum of the validators walked to.
//! The rules are [`bizra_driver::light`]; this room adds signatures, clocks, a file, and the asking of nodes.
//!
//! **Age.** Whoever left the validator set long enough ago has its stake back and loses nothing by signing another history.
//! So a starting point is refused when it is older than the unbonding period, by two measures that both must hold:
//! - *epochs*: the walk may pass as many epochs as the genesis' `unbondingEpochs`, no more. Exact, but a forger can stop
//!   short of it;
//! - *this machine's clock*: the time since the starting point was seen to be current may be as long as those epochs
//!   last. Headers are not asked: their time is what proposers say. How long epochs last is not knowable without trusting
//!   somebody, so by default it is the shortest possible: [`shortest_unbonding`].
//!
//! An older client needs a fresh anchor, the digest of a recent boundary block, from somebody it trusts.
//!
//! **What it cannot see.** That the nodes it asks withhold the end of the chain: it reports the time of the header it
//! reached. With several nodes it takes the highest, and two verified headers that contradict each other are reported as
//! what they are: a third of the power, or more, is Byzantine.

mod client;
mod source;
mod trust;

use std::time::Duration;

use bizra_driver::light::{ChainRules, Check};
use bizra_proto::parameters::Parameters;
use bizra_simplex::{Timing, Version};
use ed25519_zebra::VerificationKey;

pub use client::{Fork, Head, LightClient, LightClientError, Proven};
pub use source::{Fault, Source, inclusion_proof};
pub use trust::{Trust, TrustError, genesis_epoch};

use crate::configuration::LoadedGenesis;

/// True if every signature is valid, under the rules validators check with (ZIP-215).
pub fn verify_signatures(checks: &[Check]) -> bool {
    checks.iter().all(|(key, message, signature)| {
        let key = VerificationKey::try_from(key.0);
        key.is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
    })
}

/// What a genesis fixes for light clients.
pub fn chain_rules(genesis: &LoadedGenesis) -> ChainRules {
    let parameters = &genesis.genesis.parameters;
    ChainRules {
        genesis_hash: genesis.hash,
        epoch_blocks: Some(parameters.epoch_blocks),
        version: Version(parameters.protocol_version),
    }
}

/// The shortest time an unbonding period can last: every block at the pace of a busy network.
pub fn shortest_unbonding(parameters: &Parameters) -> Duration {
    let blocks = u64::from(parameters.unbonding_epochs).saturating_mul(parameters.epoch_blocks);
    Duration::from_millis(blocks.saturating_mul(Timing::default().min_view_milliseconds))
}
