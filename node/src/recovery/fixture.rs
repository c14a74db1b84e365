//! A chain of four owners for tests of documents.

#![allow(clippy::unwrap_used)]

use bizra_proto::ceremony::{Genesis, GenesisValidator, prove_possession};
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Certificate, Vote, VoteKind};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use super::document::{RestartDocument, encode_block, encode_certificate};
use crate::configuration::LoadedGenesis;

pub(super) const CHAIN: &str = "demo-1";

/// Consensus keys are 1 to 99, owners' 100 more.
pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

pub(super) fn public(seed: u8) -> String {
    hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&key(seed))))
}

pub(super) fn validator(owner: u8, seed: u8, power: u64) -> GenesisValidator {
    GenesisValidator {
        name: format!("v{owner}"),
        public_key: public(seed),
        proof_of_possession: prove_possession(&key(seed), CHAIN),
        power: power.to_string(),
        owner: Some(public(100 + owner)),
        stake: None,
    }
}

pub(super) fn genesis() -> LoadedGenesis {
    let genesis = Genesis {
        version: 1,
        chain_id: CHAIN.to_owned(),
        time_milliseconds: 0,
        validators: (1..=4).map(|owner| validator(owner, owner, 1)).collect(),
        accounts: Vec::new(),
        parameters: Parameters::default(),
    };
    LoadedGenesis::parse(&serde_json::to_vec(&genesis).unwrap()).unwrap()
}

/// A block, and what a quorum of three has signed of it.
pub(super) fn block(epoch: u64, height: u64, view: u64, kind: VoteKind) -> (Block, Certificate) {
    let block = Block { epoch: Epoch(epoch), height: Height(height), ..Block::genesis(Digest([7; 32]), 5) };
    let vote = Vote { epoch: Epoch(epoch), view: View(view), kind, digest: block.digest() };
    let signatures = (0..3).map(|signer| (ValidatorIndex(signer), Signature([signer as u8; 64]))).collect();
    (block, Certificate { vote, signatures })
}

/// Restart 1 after a block of epoch 2, with the third and fourth validator replaced.
pub(super) fn document() -> RestartDocument {
    let genesis = genesis();
    let (block, certificate) = block(2, 40, 9, VoteKind::Notarize);
    RestartDocument {
        version: RestartDocument::VERSION,
        chain_id: CHAIN.to_owned(),
        genesis_hash: genesis.hash.to_string(),
        number: 1,
        previous: genesis.hash.to_string(),
        height: 40,
        block_hash: block.digest().to_string(),
        block: encode_block(&block),
        certificate: encode_certificate(&certificate),
        state_commitment: Digest([5; 32]).to_string(),
        epoch: 5,
        may_lose_finality: false,
        validators: vec![validator(1, 1, 1), validator(2, 2, 1), validator(3, 13, 1), validator(4, 14, 1)],
        signatures: Vec::new(),
    }
}
