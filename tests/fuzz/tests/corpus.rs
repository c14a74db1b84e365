//! Every kept input goes through its target: what once crashed stays fixed, what was once interesting stays covered.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use bizra_fuzz::TARGETS;

#[test]
fn all_kept_inputs_pass() {
    let corpus = Path::new("corpus");
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} holds no input", folder.display());
    }
}

#[test]
fn every_corpus_has_its_target() {
    for entry in std::fs::read_dir(Path::new("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(bizra_fuzz::target(&name).is_some(), "corpus/{name} belongs to no target");
    }
}
