//! Key files of account owners: 64 lower-case hex digits and a newline, readable by their owner only.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bizra_proto::ceremony::decode_hex;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use zeroize::Zeroizing;

use super::termination::CliError;
use crate::transaction::Address;

/// Longest file that may be a key.
const FILE_MAX_BYTES: u64 = 128;

/// Makes a key and writes it to a file that must not exist yet.
pub(super) fn create(path: &Path) -> Result<SigningKey, CliError> {
    let fail = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut()).map_err(|error| fail(&error))?;
    let text = Zeroizing::new(format!("{}\n", Zeroizing::new(hex::encode(*secret)).as_str()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| fail(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| fail(&error))?;
    Ok(SigningKey::from(*secret))
}

/// Reads a key file that only its owner can read.
pub(super) fn read(path: &Path) -> Result<SigningKey, CliError> {
    let fail = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot use key {}: {error}", path.display()));
    let file = File::open(path).map_err(|error| fail(&error))?;
    let mode = file.metadata().map_err(|error| fail(&error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(fail(&format!("others can read it (mode {mode:o}); chmod 600 it")));
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX_BYTES as usize));
    file.take(FILE_MAX_BYTES).read_to_string(&mut text).map_err(|error| fail(&error))?;
    let secret = decode_hex::<32>(text.trim_end()).map(Zeroizing::new);
    secret.map(|secret| SigningKey::from(*secret)).ok_or_else(|| fail(&"it is not 64 lower-case hex digits"))
}

/// The account of a key.
pub(super) fn address(key: &SigningKey) -> Address {
    Address(VerificationKeyBytes::from(key).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_private_never_overwritten_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.key");
        let key = create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(address(&read(&path).unwrap()), address(&key));
        assert!(create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).is_err());
    }
}
