//! The file of the signing record: preallocated, written in blocks, synced before anything is signed.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bizra_driver::signing_record::{BLOCK_BYTES, Binding, BlockWrite, FILE_BLOCKS, RecordError, SigningRecord};

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordFileError {
    /// A file operation failed.
    #[error("cannot {action} the signing record {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It is gone.
    #[error(
        "the signing record {0} is missing: what this key signed is no longer known, and it must not sign any more; \
         restore the volume, or rotate the key"
    )]
    Missing(PathBuf),
    /// The content refuses.
    #[error("{0}; this key must not sign any more: rotate it, or restore the volume")]
    Refused(#[from] RecordError),
}

/// The open file.
pub struct RecordFile {
    path: PathBuf,
    file: File,
}

impl RecordFile {
    /// Makes a fresh record, durably. An unfinished one of an interrupted first start is replaced; the caller knows that
    /// this key has never signed.
    pub fn create(path: &Path, binding: &Binding) -> Result<(), RecordFileError> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let file = options.open(path).map_err(io("create", path))?;
        let record = Self { path: path.to_owned(), file };
        record.write(&SigningRecord::create(binding))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of", path))
    }

    /// Opens the file and reads the record.
    pub fn open(path: &Path, binding: &Binding) -> Result<(Self, SigningRecord), RecordFileError> {
        let (file, record) = Self::read_with(OpenOptions::new().read(true).write(true), path, binding)?;
        Ok((Self { path: path.to_owned(), file }, record))
    }

    /// Reads the record, to look at.
    pub fn read(path: &Path, binding: &Binding) -> Result<SigningRecord, RecordFileError> {
        Ok(Self::read_with(OpenOptions::new().read(true), path, binding)?.1)
    }

    fn read_with(
        options: &OpenOptions,
        path: &Path,
        binding: &Binding,
    ) -> Result<(File, SigningRecord), RecordFileError> {
        let mut file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RecordFileError::Missing(path.to_owned()),
            _ => io("open", path)(error),
        })?;
        let mut bytes = Vec::new();
        // One block more than there should be shows a file that is too long.
        let limit = (FILE_BLOCKS + 1) * BLOCK_BYTES as u64;
        (&mut file).take(limit).read_to_end(&mut bytes).map_err(io("read", path))?;
        let whole_blocks = bytes.len() / BLOCK_BYTES;
        if bytes.len() % BLOCK_BYTES != 0 || whole_blocks as u64 != FILE_BLOCKS {
            return Err(RecordError::Size(whole_blocks as u64).into());
        }
        let blocks: Vec<Box<[u8; BLOCK_BYTES]>> = bytes
            .chunks_exact(BLOCK_BYTES)
            .map(|chunk| {
                let mut block = Box::new([0; BLOCK_BYTES]);
                block.copy_from_slice(chunk);
                block
            })
            .collect();
        let record = SigningRecord::open(binding, &blocks)?;
        Ok((file, record))
    }

    /// Writes blocks and returns when they are on the disk.
    pub fn write(&self, blocks: &[BlockWrite]) -> Result<(), RecordFileError> {
        for (index, block) in blocks {
            self.file.write_all_at(&block[..], index * BLOCK_BYTES as u64).map_err(io("write", &self.path))?;
        }
        self.file.sync_data().map_err(io("sync", &self.path))
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RecordFileError {
    let path = path.to_owned();
    move |source| RecordFileError::Io { action, path, source }
}
