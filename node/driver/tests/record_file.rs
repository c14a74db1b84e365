//! The file of the signing record, as the node has it. It needs nothing of the node, whose tests take minutes to build; here
//! it meets its tests in seconds.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../src/consensus/record_file.rs"]
#[allow(unreachable_pub)]
mod record_file;

use std::path::{Path, PathBuf};

use bizra_driver::signing_record::{BLOCK_BYTES, Binding, FILE_BLOCKS, RecordError, SigningRecord};
use bizra_simplex::types::{Digest, Epoch, View};
use bizra_simplex::{Vote, VoteKind};
use record_file::{RecordFile, RecordFileError};

const BINDING: Binding = Binding { genesis_hash: Digest([1; 32]), volume: Digest([2; 32]), public_key: [3; 32] };
const BYTES: usize = FILE_BLOCKS as usize * BLOCK_BYTES;

/// A file that is not there.
fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    path
}

fn vote(view: u64) -> Vote {
    Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Notarize, digest: Digest([view as u8; 32]) }
}

fn refusal(path: &Path, binding: &Binding) -> RecordFileError {
    match RecordFile::open(path, binding) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

/// S2, S3.
#[test]
fn what_was_written_is_there_when_the_file_is_opened_again() {
    let path = file("written");
    RecordFile::create(&path, &BINDING).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), BYTES as u64, "preallocated");
    for view in 1..=3 {
        let (file, mut record) = RecordFile::open(&path, &BINDING).unwrap();
        assert!((1..view).all(|before| record.contains(&vote(before))));
        file.write(&record.reserve(&[vote(view)]).unwrap()).unwrap();
    }
    let record = RecordFile::read(&path, &BINDING).unwrap();
    assert_eq!(record.votes().copied().collect::<Vec<_>>(), [vote(1), vote(2), vote(3)]);
    std::fs::remove_file(path).unwrap();
}

/// Each block is where the record says, in every slot.
#[test]
fn every_block_is_written_to_its_place() {
    let path = file("places");
    RecordFile::create(&path, &BINDING).unwrap();
    let mut expected = vec![0; BYTES];
    let mut place = |blocks: &[(u64, std::sync::Arc<[u8; BLOCK_BYTES]>)]| {
        for (index, block) in blocks {
            expected[*index as usize * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(&block[..]);
        }
        expected.clone()
    };
    assert!(place(&SigningRecord::create(&BINDING)) == std::fs::read(&path).unwrap());
    let (file, mut record) = RecordFile::open(&path, &BINDING).unwrap();
    for view in 1..=300 {
        let blocks = record.reserve(&[vote(view)]).unwrap();
        file.write(&blocks).unwrap();
        let expected = place(&blocks);
        if view % 100 == 0 {
            assert!(expected == std::fs::read(&path).unwrap(), "after {view}");
        }
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_record_that_is_missing_cut_longer_or_from_elsewhere_refuses_and_says_so() {
    let path = file("refused");
    assert!(matches!(refusal(&path, &BINDING), RecordFileError::Missing(missing) if missing == path));
    assert!(matches!(refusal(&path.join("below"), &BINDING), RecordFileError::Missing(_)));
    let folder = path.parent().unwrap();
    assert!(matches!(refusal(folder, &BINDING), RecordFileError::Io { action: "open", .. }), "a folder is not missing");

    RecordFile::create(&path, &BINDING).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let longer = |by: usize| [&sound[..], &vec![0; by]].concat();
    for (what, bytes, blocks) in [
        ("empty", Vec::new(), 0),
        ("cut by a block", sound[..BYTES - BLOCK_BYTES].to_vec(), FILE_BLOCKS - 1),
        ("cut within a block", sound[..BYTES - 1].to_vec(), FILE_BLOCKS - 1),
        ("longer by a byte", longer(1), FILE_BLOCKS),
        ("longer by a block", longer(BLOCK_BYTES), FILE_BLOCKS + 1),
        ("longer by more than is read", longer(3 * BLOCK_BYTES), FILE_BLOCKS + 1),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let RecordFileError::Refused(found) = refusal(&path, &BINDING) else { panic!("{what}") };
        assert_eq!(found, RecordError::Size(blocks), "{what}");
    }
    std::fs::write(&path, &sound).unwrap();
    let elsewhere = Binding { volume: Digest([9; 32]), ..BINDING };
    assert!(matches!(refusal(&path, &elsewhere), RecordFileError::Refused(RecordError::Foreign("volume"))));
    assert!(RecordFile::open(&path, &BINDING).is_ok());
    std::fs::remove_file(path).unwrap();
}
