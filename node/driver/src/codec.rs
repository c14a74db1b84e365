//! Fixed-layout encoding of everything that is sent or stored: big-endian numbers, length-prefixed lists, one canonical
//! form. Decoding never panics and never allocates more than the input could fill.

use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{
    Block, Boundary, CONTRADICTIONS_MAX, Certificate, Checkpoint, Contradiction, Message, Proposal, SignedVote,
    VALIDATORS_MAX, Version, Vote, VoteKind,
};
use bytes::Bytes;

use crate::batch::{BATCH_PAYLOAD_MAX_BYTES, Batch};

/// Why bytes do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends too early.
    #[error("the message is cut short")]
    Short,
    /// The input goes on after its end.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// A length or number outside its bounds.
    #[error("a field is out of bounds: {0}")]
    Bounds(&'static str),
    /// A format version this build does not know.
    #[error("format version {0} is not one that this build reads: the older side needs an upgrade")]
    Version(u8),
}

/// Reads fields from the front of a buffer; payloads are slices of it, not copies.
pub struct Reader {
    bytes: Bytes,
    position: usize,
}

impl Reader {
    /// Starts at the front.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, position: 0 }
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], DecodeError> {
        let rest = &self.bytes[self.position..];
        let slice = rest.get(..length).ok_or(DecodeError::Short)?;
        self.position += length;
        Ok(slice)
    }

    /// A payload, which shares the buffer. Fixed fields are read in place: sharing costs more than they do.
    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let from = self.position;
        self.slice(length)?;
        Ok(self.bytes.slice(from..self.position))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.slice(N)?.try_into().map_err(|_| DecodeError::Short)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// 32 bytes.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest(self.array()?))
    }

    /// Checks the version byte every stored value and frame starts with.
    pub fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            version if version == known => Ok(()),
            version => Err(DecodeError::Version(version)),
        }
    }

    /// Nothing may follow.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.position {
            0 => Ok(()),
            trailing => Err(DecodeError::Trailing(trailing)),
        }
    }

    /// This many bytes, without copying them.
    pub fn bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.take(length)
    }

    fn signature(&mut self) -> Result<Signature, DecodeError> {
        Ok(Signature(self.array()?))
    }

    /// A vote.
    pub fn vote(&mut self) -> Result<Vote, DecodeError> {
        let (epoch, view, kind, digest) = (Epoch(self.u64()?), View(self.u64()?), self.u8()?, self.digest()?);
        let kind = VoteKind::from_number(kind).ok_or(DecodeError::Bounds("vote kind"))?;
        Ok(Vote { epoch, view, kind, digest })
    }

    /// A signed vote.
    pub fn signed_vote(&mut self) -> Result<SignedVote, DecodeError> {
        Ok(SignedVote { vote: self.vote()?, signer: ValidatorIndex(self.u16()?), signature: self.signature()? })
    }

    /// A certificate.
    pub fn certificate(&mut self) -> Result<Certificate, DecodeError> {
        let vote = self.vote()?;
        let count = usize::from(self.u16()?);
        if count > VALIDATORS_MAX {
            return Err(DecodeError::Bounds("certificate signers"));
        }
        let signatures =
            (0..count).map(|_| Ok((ValidatorIndex(self.u16()?), self.signature()?))).collect::<Result<_, _>>()?;
        Ok(Certificate { vote, signatures })
    }

    /// A checkpoint.
    pub fn checkpoint(&mut self) -> Result<Checkpoint, DecodeError> {
        Ok(Checkpoint { height: Height(self.u64()?), state: self.digest()?, receipts: self.digest()? })
    }

    /// A block.
    pub fn block(&mut self) -> Result<Block, DecodeError> {
        let (epoch, height, parent) = (Epoch(self.u64()?), Height(self.u64()?), self.digest()?);
        let (view, proposer, signals) = (View(self.u64()?), ValidatorIndex(self.u16()?), Version(self.u32()?));
        let time_milliseconds = self.u64()?;
        let checkpoint = self.checkpoint()?;
        let boundary = match self.u8()? {
            0 => None,
            1 => Some(Boundary { validators: self.digest()?, snapshot: self.digest()?, version: Version(self.u32()?) }),
            _ => return Err(DecodeError::Bounds("boundary flag")),
        };
        let count = usize::from(self.u16()?);
        if count > bizra_simplex::block::BATCHES_PER_BLOCK_MAX {
            return Err(DecodeError::Bounds("batches of a block"));
        }
        let batches = (0..count).map(|_| self.digest()).collect::<Result<_, _>>()?;
        let count = usize::from(self.u8()?);
        if count > CONTRADICTIONS_MAX {
            return Err(DecodeError::Bounds("contradictions of a block"));
        }
        let contradictions = (0..count).map(|_| self.contradiction()).collect::<Result<_, _>>()?;
        Ok(Block {
            epoch,
            height,
            parent,
            view,
            proposer,
            signals,
            time_milliseconds,
            checkpoint,
            boundary,
            batches,
            contradictions,
        })
    }

    /// A contradiction.
    pub fn contradiction(&mut self) -> Result<Contradiction, DecodeError> {
        Ok(Contradiction { first: self.signed_vote()?, second: self.signed_vote()? })
    }

    /// A consensus message.
    pub fn message(&mut self) -> Result<Message, DecodeError> {
        match self.u8()? {
            1 => {
                let (view, parent_view, block) = (View(self.u64()?), View(self.u64()?), self.block()?);
                let justification = match self.u8()? {
                    0 => None,
                    1 => Some(self.certificate()?),
                    _ => return Err(DecodeError::Bounds("justification flag")),
                };
                let signature = self.signature()?;
                Ok(Message::Proposal(Proposal { view, parent_view, block, justification, signature }))
            }
            2 => Ok(Message::Vote(self.signed_vote()?)),
            3 => Ok(Message::Certificate(self.certificate()?)),
            _ => Err(DecodeError::Bounds("consensus message kind")),
        }
    }

    /// A batch.
    pub fn batch(&mut self) -> Result<Batch, DecodeError> {
        let (epoch, origin, sequence) = (Epoch(self.u64()?), ValidatorIndex(self.u16()?), self.u64()?);
        let length = self.u32()? as usize;
        if length > BATCH_PAYLOAD_MAX_BYTES {
            return Err(DecodeError::Bounds("batch payload"));
        }
        Ok(Batch { epoch, origin, sequence, payload: self.take(length)?, signature: self.signature()? })
    }
}

/// Appends fields to a buffer.
pub trait Write {
    /// A vote.
    fn put_vote(&mut self, vote: &Vote);
    /// A signed vote.
    fn put_signed_vote(&mut self, vote: &SignedVote);
    /// A certificate.
    fn put_certificate(&mut self, certificate: &Certificate);
    /// A checkpoint.
    fn put_checkpoint(&mut self, checkpoint: &Checkpoint);
    /// A block.
    fn put_block(&mut self, block: &Block);
    /// A consensus message.
    fn put_message(&mut self, message: &Message);
    /// A batch.
    fn put_batch(&mut self, batch: &Batch);
}

impl Write for Vec<u8> {
    fn put_vote(&mut self, vote: &Vote) {
        self.extend_from_slice(&vote.epoch.0.to_be_bytes());
        self.extend_from_slice(&vote.view.0.to_be_bytes());
        self.push(vote.kind as u8);
        self.extend_from_slice(&vote.digest.0);
    }

    fn put_signed_vote(&mut self, vote: &SignedVote) {
        self.put_vote(&vote.vote);
        self.extend_from_slice(&vote.signer.0.to_be_bytes());
        self.extend_from_slice(&vote.signature.0);
    }

    fn put_certificate(&mut self, certificate: &Certificate) {
        self.put_vote(&certificate.vote);
        self.extend_from_slice(&(certificate.signatures.len() as u16).to_be_bytes());
        for (signer, signature) in &certificate.signatures {
            self.extend_from_slice(&signer.0.to_be_bytes());
            self.extend_from_slice(&signature.0);
        }
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.extend_from_slice(&checkpoint.height.0.to_be_bytes());
        self.extend_from_slice(&checkpoint.state.0);
        self.extend_from_slice(&checkpoint.receipts.0);
    }

    fn put_block(&mut self, block: &Block) {
        self.extend_from_slice(&block.epoch.0.to_be_bytes());
        self.extend_from_slice(&block.height.0.to_be_bytes());
        self.extend_from_slice(&block.parent.0);
        self.extend_from_slice(&block.view.0.to_be_bytes());
        self.extend_from_slice(&block.proposer.0.to_be_bytes());
        self.extend_from_slice(&block.signals.0.to_be_bytes());
        self.extend_from_slice(&block.time_milliseconds.to_be_bytes());
        self.put_checkpoint(&block.checkpoint);
        self.push(u8::from(block.boundary.is_some()));
        if let Some(boundary) = &block.boundary {
            self.extend_from_slice(&boundary.validators.0);
            self.extend_from_slice(&boundary.snapshot.0);
            self.extend_from_slice(&boundary.version.0.to_be_bytes());
        }
        self.extend_from_slice(&(block.batches.len() as u16).to_be_bytes());
        for batch in &block.batches {
            self.extend_from_slice(&batch.0);
        }
        self.push(block.contradictions.len() as u8);
        for told in &block.contradictions {
            self.put_signed_vote(&told.first);
            self.put_signed_vote(&told.second);
        }
    }

    fn put_message(&mut self, message: &Message) {
        match message {
            Message::Proposal(proposal) => {
                self.push(1);
                self.extend_from_slice(&proposal.view.0.to_be_bytes());
                self.extend_from_slice(&proposal.parent_view.0.to_be_bytes());
                self.put_block(&proposal.block);
                match &proposal.justification {
                    None => self.push(0),
                    Some(certificate) => {
                        self.push(1);
                        self.put_certificate(certificate);
                    }
                }
                self.extend_from_slice(&proposal.signature.0);
            }
            Message::Vote(vote) => {
                self.push(2);
                self.put_signed_vote(vote);
            }
            Message::Certificate(certificate) => {
                self.push(3);
                self.put_certificate(certificate);
            }
        }
    }

    fn put_batch(&mut self, batch: &Batch) {
        self.extend_from_slice(&batch.epoch.0.to_be_bytes());
        self.extend_from_slice(&batch.origin.0.to_be_bytes());
        self.extend_from_slice(&batch.sequence.to_be_bytes());
        self.extend_from_slice(&(batch.payload.len() as u32).to_be_bytes());
        self.extend_from_slice(&batch.payload);
        self.extend_from_slice(&batch.signature.0);
    }
}
