//! What a certificate says.

use x509_parser::pem::parse_x509_pem;

/// The part of a certificate that decides about its renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Bytes of the subject's public key.
    pub public_key: Vec<u8>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
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
    Some(CertificateFacts {
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        not_before: u64::try_from(validity.not_before.timestamp()).ok()?,
        not_after: u64::try_from(validity.not_after.timestamp()).ok()?,
    })
}
