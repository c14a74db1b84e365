//! Golden files: forms that nodes of different versions must agree on, kept beside the code that writes them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Compares with a file under `node/src`; Cargo runs tests in the folder of their package. With `BIZRA_WRITE_GOLDEN` set it is
/// written instead, which is right only for a form that was never released: a released one gets a new version and a new file.
pub(crate) fn assert_golden(path: &str, now: &str) {
    let path = Path::new("src").join(path);
    if std::env::var_os("BIZRA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(now == golden, "the form in {} changed; now it is:\n{now}", path.display());
}
