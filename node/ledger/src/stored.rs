//! What the ledger's rules know of storage: that reading may fail, and how the fields of a stored value are read from its front.

use bizra_proto::exit::{ExitReason, Termination};

/// Storage failed. The database's own words say where.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is damaged, or a stored value does not decode.
    #[error("the database is corrupt: {0}; it can be rebuilt from peers")]
    Corrupt(String),
    /// The disk or the file system refused.
    #[error("the database could not be read or written: {0}")]
    Failed(String),
}

impl From<StorageError> for Termination {
    fn from(error: StorageError) -> Self {
        let reason = match error {
            StorageError::Corrupt(_) => ExitReason::DatabaseCorrupt,
            StorageError::Failed(_) => ExitReason::StorageFailed,
        };
        Self { reason, message: error.to_string() }
    }
}

/// What is left of the value. Integers are big-endian; `None` if fewer bytes are left than the field has.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next bytes.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    /// The same, of a length that is known when it is read.
    pub fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A form's version: `None` if it is another one.
    pub fn version(&mut self, known: u8) -> Option<()> {
        (self.u8()? == known).then_some(())
    }

    /// `None` if anything is left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
