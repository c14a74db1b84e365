//! The payload of a batch: version byte, count (u32), then for each transaction its trace id (16 bytes), its length
//! (u32) and its bytes. Integers are big-endian. The payload is never copied: entries are views by offset.

use bizra_driver::batch::BATCH_PAYLOAD_MAX_BYTES;
use bytes::{BufMut as _, Bytes, BytesMut};

use bizra_transaction::TraceId;
use bizra_transaction::{TRANSACTION_MAX_BYTES, TRANSACTION_MIN_BYTES};

/// Payload layout version.
pub(super) const PAYLOAD_VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
const ENTRY_HEADER_BYTES: usize = 20;
/// Most transactions a payload can hold: the shortest ones, in the largest payload.
pub const PAYLOAD_TRANSACTIONS_MAX: usize =
    (BATCH_PAYLOAD_MAX_BYTES - HEADER_BYTES) / (ENTRY_HEADER_BYTES + TRANSACTION_MIN_BYTES);

/// Why bytes are not a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A version this build does not know.
    #[error("payload version {0} is unknown; this node reads version {PAYLOAD_VERSION}")]
    UnknownVersion(u8),
    /// The payload is larger than a batch may be.
    #[error("the payload has {0} bytes; at most {BATCH_PAYLOAD_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// The bytes end inside an entry.
    #[error("the payload ends early")]
    Truncated,
    /// Bytes follow the last entry.
    #[error("bytes follow the last transaction of the payload")]
    TrailingBytes,
    /// A payload without transactions has no use.
    #[error("the payload holds no transaction")]
    Empty,
    /// The length of an entry is not the length of any transaction.
    #[error("entry {0} of the payload does not have the length of a transaction")]
    EntryLength(u32),
}

/// A payload of sound layout.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    count: u32,
    entries: &'a [u8],
}

/// One transaction in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Trace id of its submit.
    pub trace: TraceId,
    /// Where the transaction starts in the payload, in bytes.
    pub offset: u32,
    /// The encoded transaction.
    pub transaction: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Checks the layout from end to end. Total: any bytes give an answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        if bytes.len() > BATCH_PAYLOAD_MAX_BYTES {
            return Err(LayoutError::TooLarge(bytes.len()));
        }
        let (&[version], rest) = bytes.split_first_chunk().ok_or(LayoutError::Truncated)?;
        if version != PAYLOAD_VERSION {
            return Err(LayoutError::UnknownVersion(version));
        }
        let (&count, entries) = rest.split_first_chunk().ok_or(LayoutError::Truncated)?;
        let count = u32::from_be_bytes(count);
        if count == 0 {
            return Err(LayoutError::Empty);
        }
        let mut rest = entries;
        for index in 0..count {
            let (_, length, tail) = split_entry(rest).ok_or(LayoutError::Truncated)?;
            if !(TRANSACTION_MIN_BYTES..=TRANSACTION_MAX_BYTES).contains(&length) {
                return Err(LayoutError::EntryLength(index));
            }
            (_, rest) = tail.split_at_checked(length).ok_or(LayoutError::Truncated)?;
        }
        if rest.is_empty() { Ok(Self { count, entries }) } else { Err(LayoutError::TrailingBytes) }
    }

    /// How many transactions it holds; at least one, at most [`PAYLOAD_TRANSACTIONS_MAX`].
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The transactions, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let (mut rest, mut offset) = (self.entries, HEADER_BYTES);
        std::iter::from_fn(move || {
            let (trace, length, tail) = split_entry(rest)?;
            let (transaction, tail) = tail.split_at_checked(length)?;
            let start = offset + ENTRY_HEADER_BYTES;
            (rest, offset) = (tail, start + length);
            Some(Entry { trace, offset: start as u32, transaction })
        })
    }
}

fn split_entry(bytes: &[u8]) -> Option<(TraceId, usize, &[u8])> {
    let (&trace, rest) = bytes.split_first_chunk()?;
    let (&length, rest) = rest.split_first_chunk()?;
    Some((TraceId(trace), u32::from_be_bytes(length) as usize, rest))
}

/// Packs transactions into one payload.
pub struct PayloadBuilder {
    buffer: BytesMut,
    count: u32,
}

impl Default for PayloadBuilder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), count: 0 }
    }
}

impl PayloadBuilder {
    /// True if nothing was packed yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if a transaction of `length` bytes still fits.
    pub fn fits(&self, length: usize) -> bool {
        self.buffer.len().max(HEADER_BYTES) + ENTRY_HEADER_BYTES + length <= BATCH_PAYLOAD_MAX_BYTES
    }

    /// Adds a transaction for which [`Self::fits`] holds.
    pub fn push(&mut self, trace: TraceId, transaction: &[u8]) {
        debug_assert!(self.fits(transaction.len()), "the caller asks before it pushes");
        if self.count == 0 {
            self.buffer.reserve(HEADER_BYTES + 64 * (ENTRY_HEADER_BYTES + transaction.len()));
            self.buffer.put_u8(PAYLOAD_VERSION);
            self.buffer.put_u32(0);
        }
        self.buffer.put_slice(&trace.0);
        self.buffer.put_u32(transaction.len() as u32);
        self.buffer.put_slice(transaction);
        self.count += 1;
    }

    /// The payload, and an empty builder in its place; `None` if nothing was packed.
    pub fn finish(&mut self) -> Option<Bytes> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let count = std::mem::take(&mut self.count);
        buffer.get_mut(1..HEADER_BYTES)?.copy_from_slice(&count.to_be_bytes());
        Some(buffer.freeze())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn packed(lengths: &[usize]) -> Bytes {
        let mut builder = PayloadBuilder::default();
        for (index, &length) in lengths.iter().enumerate() {
            builder.push(TraceId([index as u8; 16]), &vec![index as u8; length]);
        }
        builder.finish().unwrap()
    }

    #[test]
    fn entries_are_views_by_offset() {
        let payload = packed(&[196, 256, 708]);
        let parsed = Payload::parse(&payload).unwrap();
        assert_eq!(parsed.count(), 3);
        for (index, entry) in parsed.entries().enumerate() {
            assert_eq!(entry.trace, TraceId([index as u8; 16]));
            let start = entry.offset as usize;
            assert_eq!(&payload[start..start + entry.transaction.len()], entry.transaction);
        }
        assert_eq!(parsed.entries().count(), 3);
    }

    #[test]
    fn only_the_exact_layout_is_accepted() {
        let payload = packed(&[196, 200]);
        let mut longer = payload.to_vec();
        longer.push(0);
        assert_eq!(Payload::parse(&longer).unwrap_err(), LayoutError::TrailingBytes);
        assert_eq!(Payload::parse(&payload[..payload.len() - 1]).unwrap_err(), LayoutError::Truncated);
        assert_eq!(Payload::parse(&[1, 0, 0, 0, 0]).unwrap_err(), LayoutError::Empty);
        assert_eq!(Payload::parse(&[2]).unwrap_err(), LayoutError::UnknownVersion(2));
        assert_eq!(Payload::parse(&packed(&[10])).unwrap_err(), LayoutError::EntryLength(0));
    }

    #[test]
    fn a_full_payload_is_within_the_limit_of_a_batch() {
        let mut builder = PayloadBuilder::default();
        while builder.fits(TRANSACTION_MIN_BYTES) {
            builder.push(TraceId::default(), &[0; TRANSACTION_MIN_BYTES]);
        }
        let payload = builder.finish().unwrap();
        assert_eq!(Payload::parse(&payload).unwrap().count(), PAYLOAD_TRANSACTIONS_MAX);
        assert!(builder.finish().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), sound: bool) {
            if sound && bytes.len() > 5 {
                bytes[..5].copy_from_slice(&[1, 0, 0, 0, 2]);
            }
            if let Ok(payload) = Payload::parse(&bytes) {
                prop_assert_eq!(payload.entries().count(), payload.count());
            }
        }
    }
}
