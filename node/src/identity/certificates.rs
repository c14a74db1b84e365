//! The certificates other parts made for this node: loaded, and checked against the key, the name, the authority and the
//! clock before anything is served with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::{IdentityError, TlsKey};

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The node's own certificate.
    pub certificate_file: PathBuf,
    /// Certificates of the authorities that sign nodes; several while one is being replaced.
    pub ca_file: PathBuf,
    /// Certificates of the authorities that sign operators.
    pub operator_ca_file: PathBuf,
}

/// The certificates of a node, checked, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The node's own certificate.
    pub certificate_pem: String,
    /// Authorities of nodes.
    pub ca_pem: String,
    /// Authorities of operators.
    pub operator_ca_pem: String,
    /// End of validity of the node's certificate, seconds since 1970.
    pub not_after_seconds: i64,
    /// SHA-256 of every authority's certificate, of nodes and then of operators, lower-case hex.
    pub trusted_authorities: Vec<String>,
    /// SHA-256 of the certificate of the authority that has signed the node's own, lower-case hex.
    pub certificate_authority: String,
}

impl Certificates {
    /// Reads all three files and checks that the certificate is for this key and name, comes from the given authority
    /// and is valid now.
    pub fn load(files: &CertificateFiles, key: &TlsKey, node_name: &str) -> Result<Self, IdentityError> {
        let certificate_pem = read(&files.certificate_file)?;
        let ca_pem = read(&files.ca_file)?;
        let operator_ca_pem = read(&files.operator_ca_file)?;
        let authorities = parse_pem(&files.ca_file, &ca_pem)?;
        let operators = parse_pem(&files.operator_ca_file, &operator_ca_pem)?;
        let chain = parse_pem(&files.certificate_file, &certificate_pem)?;
        let unusable = |what: String| IdentityError::Unusable { path: files.certificate_file.clone(), what };

        let [own, ..] = chain.as_slice() else {
            return Err(unusable("is empty".to_owned()));
        };
        let own = parse_der(own).map_err(|what| unusable(format!("is not a certificate: {what}")))?;
        if own.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(
                "is for another TLS key than this volume's; sign the node's current request".to_owned(),
            ));
        }
        if !names_of(&own).iter().any(|name| name == node_name) {
            return Err(unusable(format!("does not name {node_name:?} among its DNS names")));
        }
        let Some(signer) = authorities.iter().find(|authority| signed_by(&own, authority)) else {
            return Err(unusable(format!("is not signed by an authority in {}", files.ca_file.display())));
        };
        let (from, until) = (own.validity().not_before.timestamp(), own.validity().not_after.timestamp());
        let now = seconds_since_1970();
        if now < from {
            return Err(unusable(format!("is valid only from {}; check the clock", own.validity().not_before)));
        }
        if now > until {
            return Err(unusable(format!("expired at {}; have a new one signed", own.validity().not_after)));
        }
        let certificate_authority = fingerprint(signer);
        let trusted_authorities = authorities.iter().chain(&operators).map(fingerprint).collect();
        Ok(Self {
            certificate_pem,
            ca_pem,
            operator_ca_pem,
            not_after_seconds: until,
            trusted_authorities,
            certificate_authority,
        })
    }
}

/// The DNS names of a certificate that TLS has already verified; empty if it cannot be parsed.
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    parse_der(certificate).map(|parsed| names_of(&parsed)).unwrap_or_default()
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names.filter_map(|name| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None }).collect()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate.as_ref()))
}

fn signed_by(certificate: &X509Certificate<'_>, authority: &CertificateDer<'_>) -> bool {
    parse_der(authority).is_ok_and(|authority| certificate.verify_signature(Some(authority.public_key())).is_ok())
}

fn parse_der<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate.as_ref()).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

/// These files are configuration, not state: that one is missing is not a fault of storage.
fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path)
        .map_err(|error| IdentityError::Unusable { path: path.to_owned(), what: format!("cannot be read: {error}") })
}

fn parse_pem(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unusable = |what: String| IdentityError::Unusable { path: path.to_owned(), what };
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// A clock before 1970 counts as 1970: every certificate is then not yet valid.
fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Authority;
    use super::*;

    struct Folder {
        files: tempfile::TempDir,
        authority: Authority,
        key: TlsKey,
    }

    impl Folder {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::generate("nodes").unwrap();
            fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).unwrap();
            let operators = Authority::generate("operators").unwrap();
            fs::write(folder.path().join("operator-ca.crt"), operators.certificate_pem()).unwrap();
            Self { files: folder, authority, key: TlsKey::generate().unwrap() }
        }

        fn load_signed_by(
            &self,
            authority: &Authority,
            key: &TlsKey,
            name: &str,
        ) -> Result<Certificates, IdentityError> {
            let request = key.certificate_request("ignored").unwrap();
            let files = CertificateFiles {
                certificate_file: self.files.path().join("demo-v0.crt"),
                ca_file: self.files.path().join("ca.crt"),
                operator_ca_file: self.files.path().join("operator-ca.crt"),
            };
            fs::write(&files.certificate_file, authority.sign_request(&request, &[name.to_owned()]).unwrap()).unwrap();
            Certificates::load(&files, &self.key, "demo-v0")
        }
    }

    #[test]
    fn a_certificate_of_our_authority_for_our_key_and_name_is_accepted() {
        let folder = Folder::new();
        let loaded = folder.load_signed_by(&folder.authority, &folder.key, "demo-v0").unwrap();
        assert!(loaded.not_after_seconds > seconds_since_1970());
    }

    #[test]
    fn of_several_authorities_each_is_told_and_which_one_signed() {
        let folder = Folder::new();
        let next = Authority::generate("nodes").unwrap();
        let both = [folder.authority.certificate_pem(), next.certificate_pem()].concat();
        fs::write(folder.files.path().join("ca.crt"), both).unwrap();
        let former = folder.load_signed_by(&folder.authority, &folder.key, "demo-v0").unwrap();
        let latter = folder.load_signed_by(&next, &folder.key, "demo-v0").unwrap();
        assert_eq!(former.trusted_authorities, latter.trusted_authorities);
        assert_eq!(former.trusted_authorities.len(), 3);
        assert_eq!(former.certificate_authority, former.trusted_authorities[0]);
        assert_eq!(latter.certificate_authority, former.trusted_authorities[1]);
    }

    #[test]
    fn another_key_name_or_authority_is_refused_with_the_reason() {
        let folder = Folder::new();
        let refusal = |result: Result<Certificates, IdentityError>| result.unwrap_err().to_string();
        let other_key = TlsKey::generate().unwrap();
        assert!(refusal(folder.load_signed_by(&folder.authority, &other_key, "demo-v0")).contains("another TLS key"));
        assert!(refusal(folder.load_signed_by(&folder.authority, &folder.key, "demo-v1")).contains("DNS names"));
        let other_authority = Authority::generate("nodes").unwrap();
        assert!(refusal(folder.load_signed_by(&other_authority, &folder.key, "demo-v0")).contains("not signed by"));
    }
}
