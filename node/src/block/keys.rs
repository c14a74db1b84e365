//! Keys of the families: one letter for the kind, then big-endian numbers or a digest.

use bizra_driver::PublicKey;
use bizra_simplex::VoteKind;
use bizra_simplex::types::{Digest, Epoch, Height, View};

pub(super) const LAST_FINALIZED: &[u8] = b"z";
pub(super) const BLOCK: u8 = b'b';
pub(super) const CERTIFICATE: u8 = b'c';
pub(super) const UNORDERED: u8 = b'u';
pub(super) const VOTE: u8 = b'v';
pub(super) const EVIDENCE: u8 = b'e';
pub(super) const FINALIZATION: u8 = b'f';
pub(super) const HEIGHT_OF: u8 = b'h';
pub(super) const ORDERED: u8 = b'o';
pub(super) const LINK: u8 = b'l';

pub(super) fn block(height: Height) -> Vec<u8> {
    numbered(BLOCK, height.0)
}

pub(super) fn finalization(height: Height) -> Vec<u8> {
    numbered(FINALIZATION, height.0)
}

/// The link from this epoch to the next.
pub(super) fn link(epoch: Epoch) -> Vec<u8> {
    numbered(LINK, epoch.0)
}

pub(super) fn height_of(block: Digest) -> Vec<u8> {
    named(HEIGHT_OF, block)
}

pub(super) fn candidate(block: Digest) -> Vec<u8> {
    named(BLOCK, block)
}

pub(super) fn certificate(view: View, kind: VoteKind) -> Vec<u8> {
    let mut key = numbered(CERTIFICATE, view.0);
    key.push(kind as u8);
    key
}

pub(super) fn vote(signer: PublicKey) -> Vec<u8> {
    [&[VOTE][..], &signer.0].concat()
}

pub(super) fn evidence(signer: PublicKey, epoch: Epoch) -> Vec<u8> {
    [&[EVIDENCE][..], &signer.0, &epoch.0.to_be_bytes()].concat()
}

pub(super) fn batch(digest: Digest) -> Vec<u8> {
    named(BLOCK, digest)
}

pub(super) fn unordered(digest: Digest) -> Vec<u8> {
    named(UNORDERED, digest)
}

pub(super) fn ordered(digest: Digest) -> Vec<u8> {
    named(ORDERED, digest)
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    [&[kind][..], &number.to_be_bytes()].concat()
}

fn named(kind: u8, digest: Digest) -> Vec<u8> {
    [&[kind][..], &digest.0].concat()
}
