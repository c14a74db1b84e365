//! What a certificate says.

use sha2::{Digest as _, Sha256};
use x509_parser::{extensions::ParsedExtension, pem::parse_x509_pem};

/// The part of a certificate that decides about its renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Bytes of the subject's public key.
    pub public_key: Vec<u8>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Identifier of the subject's key; empty if the certificate does not say.
    pub key_identifier: Vec<u8>,
    /// Identifier of the key it was signed with; empty if the certificate does not say.
    pub authority_key_identifier: Vec<u8>,
    /// SHA-256 of the certificate, lower-case hex: what nodes call an authority.
    pub fingerprint: String,
}

impl CertificateFacts {
    /// When two thirds of the validity are over, in seconds since 1970.
    pub fn renew_at(&self) -> u64 {
        self.not_before.saturating_add(self.not_after.saturating_sub(self.not_before) / 3 * 2)
    }
}

/// Reads a PEM certificate; none if it is not one.
pub fn inspect(pem: &str) -> Option<CertificateFacts> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let (mut key_identifier, mut authority_key_identifier) = (Vec::new(), Vec::new());
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => key_identifier = identifier.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                authority_key_identifier =
                    authority.key_identifier.as_ref().map(|identifier| identifier.0.to_vec()).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(CertificateFacts {
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        not_before: u64::try_from(validity.not_before.timestamp()).ok()?,
        not_after: u64::try_from(validity.not_after.timestamp()).ok()?,
        key_identifier,
        authority_key_identifier,
        fingerprint: hex::encode(Sha256::digest(&pem.contents)),
    })
}
