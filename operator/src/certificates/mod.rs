//! Certificates of a network: two authorities, the certificates of its nodes, and the operator's client certificate.
//!
//! The *network authority* signs what nodes show each other and the operator. The *operator authority* signs only the
//! operator's client certificate: the admin port accepts nothing else, so that no node can ask another one for what
//! only the operator may. Private keys of nodes are born on their volumes; only requests come here.

mod inspect;

use std::collections::BTreeMap;
use std::time::Duration;

pub use inspect::{CertificateFacts, inspect};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
    date_time_ymd,
};
use sha2::{Digest as _, Sha256};

use crate::{memo::Memo, resources::names};

/// Validity of the operator's client certificate, which lives in memory only.
const CLIENT_VALIDITY: Duration = Duration::from_hours(24);
/// Clocks of hosts may differ by this much, and by no more than a tenth of a short validity.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The Secret lacks a part.
    #[error("the authority Secret lacks {0}; delete the Secret to have a new authority made")]
    Incomplete(&'static str),
    /// A part of the Secret is no certificate.
    #[error("{0} of the authority Secret is no certificate; delete the Secret to have a new authority made")]
    Unreadable(&'static str),
    /// Making or signing failed.
    #[error("failed to {what}: {source}")]
    Crypto {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
}

fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> CertificateError {
    move |source| CertificateError::Crypto { what, source }
}

/// The two authorities of a network, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Certificate of the network authority.
    pub certificate: String,
    key: String,
    /// Certificate of the operator authority.
    pub operator_certificate: String,
    operator_key: String,
}

/// Keys of the Secret, in the order of the fields of [`Authority`].
const PARTS: [&str; 4] = ["ca.crt", "ca.key", "operator-ca.crt", "operator-ca.key"];

impl Authority {
    /// Makes new authorities for a network. `now` is in seconds since 1970. Each generation has a name of its own, by
    /// which those who verify tell the two apart that are trusted during a replacement.
    pub fn generate(
        namespace: &str,
        network: &str,
        generation: u32,
        validity: Duration,
        now: u64,
    ) -> Result<Self, CertificateError> {
        let named =
            |what: &str| self_signed(&format!("BIZRA {what} {generation} {namespace}/{network}"), validity, now);
        let (certificate, key) = named("network")?;
        let (operator_certificate, operator_key) = named("operator")?;
        Ok(Self { certificate, key, operator_certificate, operator_key })
    }

    /// Reads authorities from the data of their Secret.
    pub fn from_data(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CertificateError> {
        let part = |index: usize| {
            data.get(PARTS[index])
                .and_then(|bytes| String::from_utf8(bytes.clone()).ok())
                .ok_or(CertificateError::Incomplete(PARTS[index]))
        };
        Ok(Self { certificate: part(0)?, key: part(1)?, operator_certificate: part(2)?, operator_key: part(3)? })
    }

    /// That both certificates are certificates.
    pub fn check(&self) -> Result<(), CertificateError> {
        let readable = |certificate, name| inspect(certificate).map(drop).ok_or(CertificateError::Unreadable(name));
        readable(&self.certificate, PARTS[0])?;
        readable(&self.operator_certificate, PARTS[2])
    }

    /// The data of their Secret.
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let parts = [&self.certificate, &self.key, &self.operator_certificate, &self.operator_key];
        PARTS.iter().zip(parts).map(|(&name, part)| (name.to_owned(), part.clone().into_bytes())).collect()
    }

    /// Signs a node's request. Only its key is taken from the request; what the certificate says is said here.
    pub fn sign(
        &self,
        request: &str,
        node: &NodeNames<'_>,
        validity: Duration,
        now: u64,
    ) -> Result<String, CertificateError> {
        let request =
            CertificateSigningRequestParams::from_pem(request).map_err(crypto("read a certificate request"))?;
        let issuer = issuer(&self.certificate, &self.key)?;
        let mut parameters = leaf(node.node, now, validity, request.public_key.der_bytes());
        parameters.subject_alt_names = node.host_names()?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate =
            parameters.signed_by(&request.public_key, &issuer).map_err(crypto("sign a node's certificate"))?;
        Ok(certificate.pem())
    }

    /// Makes a client certificate for the operator: certificate and key as PEM, and the time to make the next one.
    pub fn client(&self, now: u64) -> Result<ClientIdentity, CertificateError> {
        let key = KeyPair::generate().map_err(crypto("make the operator's key"))?;
        let issuer = issuer(&self.operator_certificate, &self.operator_key)?;
        let mut parameters = leaf("bizra-operator", now, CLIENT_VALIDITY, key.der_bytes());
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &issuer).map_err(crypto("sign the operator's certificate"))?;
        Ok(ClientIdentity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            renew_at: now.saturating_add(CLIENT_VALIDITY.as_secs() * 2 / 3),
        })
    }
}

/// What the operator needs to speak with a network's nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    /// Certificates of the authorities whose nodes are believed, PEM.
    pub roots: Vec<String>,
    /// Who signs the operator's client certificate.
    pub client: Authority,
}

/// The operator's client certificate.
#[derive(Clone)]
pub struct ClientIdentity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// Seconds since 1970 after which another one should be made.
    pub renew_at: u64,
}

/// What a node is called.
pub struct NodeNames<'a> {
    /// Its own name.
    pub node: &'a str,
    /// Its network.
    pub network: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

impl NodeNames<'_> {
    fn host_names(&self) -> Result<Vec<SanType>, CertificateError> {
        let host = names::host(self.node, self.network, self.namespace);
        let api = format!("{}.{}.svc", names::api_service(self.network), self.namespace);
        [self.node.to_owned(), format!("{host}.cluster.local"), host, format!("{api}.cluster.local"), api]
            .into_iter()
            .map(|name| {
                let name = name.try_into().map_err(crypto("name a node in its certificate"))?;
                Ok(SanType::DnsName(name))
            })
            .collect()
    }
}

/// True if a node needs a (new) certificate: it has none, has another key, two thirds of its validity are over, or it
/// is valid for longer than it now should be. A request that cannot be read needs none: there is nothing to sign.
pub fn needs_issue(current: Option<&CertificateFacts>, request: &str, validity: Duration, now: u64) -> bool {
    let Ok(key) = requested_key(request) else { return false };
    let Some(facts) = current else { return true };
    facts.public_key != key || is_due(facts, validity, now)
}

/// The key a request asks to have certified, proven by its signature.
fn requested_key(request: &str) -> Result<Vec<u8>, rcgen::Error> {
    static READ: Memo<Vec<u8>> = Memo::new(16_384);
    READ.result(&[request.as_bytes()], || {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        Ok(request.public_key.der_bytes().to_vec())
    })
}

/// True if two thirds of a certificate's validity are over, or it is valid for longer than it now should be.
pub fn is_due(facts: &CertificateFacts, validity: Duration, now: u64) -> bool {
    let latest = now.saturating_add(validity.as_secs()).saturating_add(CLOCK_SKEW.as_secs());
    now >= facts.renew_at() || facts.not_after > latest
}

fn self_signed(name: &str, validity_time: Duration, now: u64) -> Result<(String, String), CertificateError> {
    let key = KeyPair::generate().map_err(crypto("make an authority's key"))?;
    let mut parameters = validity(now, validity_time);
    parameters.distinguished_name = named(name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key).map_err(crypto("sign an authority's certificate"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, CertificateError> {
    let key = KeyPair::from_pem(key).map_err(crypto("read an authority's key"))?;
    Issuer::from_ca_cert_pem(certificate, key).map_err(crypto("read an authority's certificate"))
}

fn leaf(name: &str, now: u64, validity_time: Duration, public_key: &[u8]) -> CertificateParams {
    let mut parameters = validity(now, validity_time);
    parameters.distinguished_name = named(name);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    // An issuer never uses a serial number twice: it comes from what is signed and when.
    let mut serial: [u8; 16] = [0; 16];
    let digest = Sha256::new().chain_update(public_key).chain_update(now.to_be_bytes()).finalize();
    serial.iter_mut().zip(digest).for_each(|(byte, random)| *byte = random);
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    // A common name holds 64 characters.
    distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished_name
}

fn validity(now: u64, validity_time: Duration) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    let mut parameters = CertificateParams::default();
    parameters.not_before = now - CLOCK_SKEW.min(validity_time / 10);
    parameters.not_after = now + validity_time;
    parameters
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAYS_90: Duration = Duration::from_hours(90 * 24);

    fn authority() -> Authority {
        Authority::generate("default", "demo", 1, Duration::from_hours(10 * 365 * 24), NOW).unwrap()
    }

    fn needs_issue(current: Option<&str>, request: &str, now: u64) -> bool {
        super::needs_issue(current.and_then(inspect).as_ref(), request, DAYS_90, now)
    }

    fn request() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    const NAMES: NodeNames<'_> = NodeNames { node: "demo-v0", network: "demo", namespace: "default" };

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let authority = authority();
        let request = request();
        let certificate = authority.sign(&request, &NAMES, DAYS_90, NOW).unwrap();
        assert!(needs_issue(None, &request, NOW));
        assert!(!needs_issue(Some(&certificate), &request, NOW));
        assert!(!needs_issue(Some(&certificate), &request, NOW + 59 * 86_400));
        assert!(needs_issue(Some(&certificate), &request, NOW + 61 * 86_400));
    }

    #[test]
    fn a_new_key_needs_a_new_certificate() {
        let authority = authority();
        let certificate = authority.sign(&request(), &NAMES, DAYS_90, NOW).unwrap();
        assert!(needs_issue(Some(&certificate), &request(), NOW));
        assert!(!needs_issue(Some(&certificate), "nonsense", NOW));
    }

    #[test]
    fn a_short_life_is_not_over_when_it_begins_and_a_long_one_can_be_shortened() {
        let (authority, request, life) = (authority(), request(), Duration::from_secs(90));
        let facts = inspect(&authority.sign(&request, &NAMES, life, NOW).unwrap()).unwrap();
        assert_eq!(facts.not_after, NOW + 90);
        assert!(!is_due(&facts, life, NOW + 50));
        assert!(is_due(&facts, life, NOW + 60));
        let long = inspect(&authority.sign(&request, &NAMES, DAYS_90, NOW).unwrap()).unwrap();
        assert!(!is_due(&long, DAYS_90, NOW));
        assert!(is_due(&long, life, NOW));
    }

    #[test]
    fn a_certificate_tells_which_authority_signed_it() {
        let (first, second) = (authority(), authority());
        let leaf = inspect(&second.sign(&request(), &NAMES, DAYS_90, NOW).unwrap()).unwrap();
        assert!(!leaf.authority_key_identifier.is_empty());
        assert_eq!(leaf.authority_key_identifier, inspect(&second.certificate).unwrap().key_identifier);
        assert_ne!(leaf.authority_key_identifier, inspect(&first.certificate).unwrap().key_identifier);
    }

    #[test]
    fn authorities_survive_their_secret() {
        let authority = authority();
        assert!(Authority::from_data(&authority.to_data()).unwrap() == authority);
        assert!(Authority::from_data(&BTreeMap::new()).is_err());
    }
}
