//! Small files that must be durable or private: written once with a sync of file and folder, read with their mode checked.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::IdentityError;

/// Everything in the signer folder is far smaller; a larger file is not ours.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Turns an I/O error into one that says what was being done to what.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

/// Writes a file that must not exist, mode 0600, and syncs it. The folder is synced by the caller.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("create", path))?;
    file.write_all(content).map_err(io("write", path))?;
    file.sync_all().map_err(io("sync", path))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), IdentityError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io("sync", path))
}

/// Reads a secret after checking that only its owner can.
///
/// The kubelet adds group bits to every file of a volume when a Pod has an `fsGroup`. They are taken away again here,
/// because the group holds nobody but this Pod; bits for everybody are refused.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let mut file = File::open(path).map_err(io("open", path))?;
    let metadata = file.metadata().map_err(io("inspect", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(IdentityError::Permissions { path: path.to_owned(), mode });
    }
    if mode & 0o070 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|_| IdentityError::Permissions { path: path.to_owned(), mode })?;
    }
    if metadata.len() > FILE_MAX_BYTES {
        return Err(IdentityError::Damaged { path: path.to_owned(), what: format!("{} bytes long", metadata.len()) });
    }
    // Full capacity at once: growing would leave unwiped copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.read_to_end(&mut content).map_err(io("read", path))?;
    Ok(content)
}

/// Reads a small text file. What is no text is damage, not a failure of the disk.
pub(super) fn read_text(path: &Path) -> Result<String, IdentityError> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    String::from_utf8(bytes)
        .map_err(|_| IdentityError::Damaged { path: path.to_owned(), what: "it is not text".to_owned() })
}
