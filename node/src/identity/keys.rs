//! The consensus key and the TLS key: made on the volume, kept there, wiped from memory.

use std::fmt;
use std::path::Path;

use bizra_proto::ceremony::{KeyReport, prove_possession};
use ed25519_zebra::{Signature, SigningKey, VerificationKeyBytes};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::{IdentityError, file};

/// Bytes of the consensus key's file: the Ed25519 seed and nothing else.
const SEED_BYTES: usize = 32;

/// The Ed25519 key that signs votes. Not `Clone`: there is one in the process, and dropping it wipes it.
pub struct ConsensusKey(SigningKey);

impl ConsensusKey {
    /// Makes a fresh key.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|error| certificate_error("gather randomness for a key", &error))?;
        Ok(Self(SigningKey::from(*seed)))
    }

    /// Reads the key from its file; refuses wrong permissions and any other length.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let content = file::read_secret(path)?;
        let seed = <[u8; SEED_BYTES]>::try_from(content.as_slice()).map(Zeroizing::new).map_err(|_| {
            IdentityError::Damaged {
                path: path.to_owned(),
                what: format!("it has {} bytes instead of {SEED_BYTES}", content.len()),
            }
        })?;
        Ok(Self(SigningKey::from(*seed)))
    }

    /// Writes the key to a new file; the folder is synced by the caller.
    pub(super) fn create(&self, path: &Path) -> Result<(), IdentityError> {
        let seed = Zeroizing::new(<[u8; SEED_BYTES]>::from(self.0));
        file::create(path, seed.as_slice())
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        VerificationKeyBytes::from(&self.0).into()
    }

    /// Signs. Whether this may be signed at all is for the signing record to say, before.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }

    /// What the ceremony needs to know of this node.
    pub fn report(
        &self,
        tls: &TlsKey,
        chain_id: &str,
        node_name: &str,
        genesis_hash: Option<String>,
    ) -> Result<KeyReport, IdentityError> {
        Ok(KeyReport {
            public_key: hex::encode(self.public_key()),
            proof_of_possession: prove_possession(&self.0, chain_id),
            certificate_request: tls.certificate_request(node_name)?,
            genesis_hash,
        })
    }
}

impl Drop for ConsensusKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ConsensusKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConsensusKey({})", hex::encode(self.public_key()))
    }
}

/// The ECDSA P-256 key of the node's connections.
pub struct TlsKey {
    pair: KeyPair,
    pem: Zeroizing<String>,
}

impl TlsKey {
    /// Makes a fresh key.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| certificate_error("make a TLS key", &error))?;
        let pem = Zeroizing::new(pair.serialize_pem());
        Ok(Self { pair, pem })
    }

    /// Reads the key from its PEM file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let damaged = |what: String| IdentityError::Damaged { path: path.to_owned(), what };
        let content = file::read_secret(path)?;
        let text = std::str::from_utf8(&content).map_err(|_| damaged("it is not text".to_owned()))?;
        let pem = Zeroizing::new(text.to_owned());
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| damaged(format!("it is not a P-256 key in PEM ({error})")))?;
        Ok(Self { pair, pem })
    }

    /// Writes the key to a new file; the folder is synced by the caller.
    pub(super) fn create(&self, path: &Path) -> Result<(), IdentityError> {
        file::create(path, self.pem.as_bytes())
    }

    /// The secret key in PEM, for the TLS library.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// DER of the public key, as a certificate for it holds it.
    pub fn subject_public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// A signing request for a certificate of that node name, in PEM.
    pub fn certificate_request(&self, node_name: &str) -> Result<String, IdentityError> {
        let request = || {
            let mut parameters = CertificateParams::new(vec![node_name.to_owned()])?;
            parameters.distinguished_name = DistinguishedName::new();
            parameters.distinguished_name.push(DnType::CommonName, node_name);
            parameters.serialize_request(&self.pair)?.pem()
        };
        request().map_err(|error: rcgen::Error| certificate_error("make a certificate request", &error))
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsKey")
    }
}

/// An error of key or certificate making.
pub(super) fn certificate_error(action: &'static str, reason: &impl fmt::Display) -> IdentityError {
    IdentityError::Certificate { action, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use bizra_proto::ceremony::verify_possession;

    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consensus.key");
        let key = ConsensusKey::generate().unwrap();
        key.create(&path).unwrap();
        assert_eq!(ConsensusKey::load(&path).unwrap().public_key(), key.public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(key.create(&path).is_err(), "a key is never overwritten");
    }

    #[test]
    fn a_key_readable_by_everybody_is_refused_and_group_bits_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consensus.key");
        ConsensusKey::generate().unwrap().create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ConsensusKey::load(&path), Err(IdentityError::Permissions { mode: 0o644, .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        ConsensusKey::load(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consensus.key");
        file::create(&path, &[7; 31]).unwrap();
        assert!(matches!(ConsensusKey::load(&path), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_report_proves_possession_and_fits_a_termination_message() {
        let (key, tls) = (ConsensusKey::generate().unwrap(), TlsKey::generate().unwrap());
        let report = key.report(&tls, "demo-1", "demo-v0", Some("ab".repeat(32))).unwrap();
        assert_eq!(
            verify_possession(&report.public_key, &report.proof_of_possession, "demo-1").unwrap(),
            key.public_key()
        );
        assert!(serde_json::to_vec(&report).unwrap().len() < 4096);
    }

    #[test]
    fn debug_output_has_no_secret() {
        let key = ConsensusKey(SigningKey::from([9; 32]));
        assert!(!format!("{key:?}").contains(&hex::encode([9; 32])));
    }
}
