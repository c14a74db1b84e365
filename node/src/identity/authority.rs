//! A small certificate authority for networks on one machine. On Kubernetes the operator has its own.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::IdentityError;
use super::keys::certificate_error;

/// A certificate authority whose key lives in memory only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate and the key it is for, both in PEM.
pub struct IssuedIdentity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its secret key.
    pub key_pem: Zeroizing<String>,
}

impl Authority {
    /// Makes an authority of that name, with a fresh key.
    pub fn generate(name: &str) -> Result<Self, IdentityError> {
        let make = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.distinguished_name = common_name(name);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            let certificate_pem = parameters.self_signed(&key)?.pem();
            Ok(Self { issuer: Issuer::new(parameters, key), certificate_pem })
        };
        make().map_err(|error: rcgen::Error| certificate_error("make a certificate authority", &error))
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a request for these DNS names or addresses; what the request itself asks for beyond its key is ignored.
    pub fn sign_request(&self, request_pem: &str, names: &[String]) -> Result<String, IdentityError> {
        let sign = || {
            let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
            request.params = node_parameters(names)?;
            Ok(request.signed_by(&self.issuer)?.pem())
        };
        sign().map_err(|error: rcgen::Error| certificate_error("sign a certificate request", &error))
    }

    /// Makes a key and a certificate for it, for a client such as the operator.
    pub fn issue(&self, name: &str) -> Result<IssuedIdentity, IdentityError> {
        let issue = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate_pem = node_parameters(&[name.to_owned()])?.signed_by(&key, &self.issuer)?.pem();
            Ok(IssuedIdentity { certificate_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
        };
        issue().map_err(|error: rcgen::Error| certificate_error("issue a certificate", &error))
    }
}

/// Nodes are servers and clients towards each other, so both usages are granted.
fn node_parameters(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters.distinguished_name = common_name(names.first().map_or("bizra", String::as_str));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
