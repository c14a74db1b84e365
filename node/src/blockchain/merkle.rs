//! Merkle trees over lists, and proofs that something is in one (PROTOCOL H2). The tree of RFC 6962: leaves and inner
//! nodes have domains of their own, a lone node moves up unchanged, and the empty list has the hash of nothing.

use bizra_simplex::types::Digest;
use sha2::{Digest as _, Sha256};

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// Hash of a leaf's content.
pub fn leaf(content: &[u8]) -> Digest {
    Digest(Sha256::new().chain_update(LEAF).chain_update(content).finalize().into())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Digest(Sha256::new().chain_update(NODE).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// One level up.
fn parents(level: &[Digest]) -> Vec<Digest> {
    let join = |pair: &[Digest]| match pair {
        [left, right] => node(left, right),
        lone => lone.first().copied().unwrap_or_default(),
    };
    level.chunks(2).map(join).collect()
}

/// Root over leaf hashes.
pub fn root(leaves: &[Digest]) -> Digest {
    if leaves.is_empty() {
        return Digest(Sha256::digest([]).into());
    }
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = parents(&level);
    }
    level.pop().unwrap_or_default()
}

/// The siblings from a leaf up to the root; `None` if there is no such leaf.
pub fn path(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    leaves.get(index)?;
    let (mut level, mut index, mut path) = (leaves.to_vec(), index, Vec::new());
    while level.len() > 1 {
        path.extend(level.get(index ^ 1));
        (level, index) = (parents(&level), index / 2);
    }
    Some(path)
}

/// The root to which a path leads from leaf `index` of `count`; `None` if the path has not the length such a tree needs.
/// Total: any values give an answer.
pub fn climb(leaf: Digest, index: u64, count: u64, path: &[Digest]) -> Option<Digest> {
    if index >= count {
        return None;
    }
    let (mut hash, mut index, mut last) = (leaf, index, count - 1);
    let mut siblings = path.iter();
    while last > 0 {
        if index % 2 == 1 {
            hash = node(siblings.next()?, &hash);
        } else if index < last {
            hash = node(&hash, siblings.next()?);
        }
        (index, last) = (index / 2, last / 2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|number| leaf(&[number])).collect()
    }

    #[test]
    fn roots_are_those_of_rfc_6962() {
        // The test vectors of Certificate Transparency: no leaf, one empty leaf, and the leaves "" and "00".
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let one = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        let two = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
        assert_eq!(root(&[]).to_string(), empty);
        assert_eq!(root(&[leaf(&[])]).to_string(), one);
        assert_eq!(root(&[leaf(&[]), leaf(&[0])]).to_string(), two);
    }

    #[test]
    fn every_leaf_is_proven_and_nothing_else_is() {
        for count in 1..40 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for index in 0..count {
                let steps = path(&leaves, usize::from(index)).unwrap();
                let leads = |leaf, index: u8, count: u8, path: &[Digest]| {
                    climb(leaf, index.into(), count.into(), path) == Some(root)
                };
                assert!(leads(leaves[usize::from(index)], index, count, &steps));
                assert!(!leads(leaf(b"other"), index, count, &steps));
                assert!(count == 1 || !leads(leaves[usize::from(index)], index ^ 1, count, &steps));
                assert!(!leads(leaves[usize::from(index)], index, count, &[&steps[..], &[root]].concat()));
                assert!(steps.is_empty() || !leads(leaves[usize::from(index)], index, count, &steps[1..]));
            }
            assert!(path(&leaves, usize::from(count)).is_none());
        }
    }
}
