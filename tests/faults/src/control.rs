//! The arms of the experiment: two ways to keep a signing record, run by processes of their own on the volumes that lose
//! power. One is the product's; the other is the common one, a new file renamed over the old one without a sync, and must
//! lose something, or the cuts prove nothing.
//!
//! Each process records one number after another and says each on its standard output when it is recorded; the last one
//! said is what it acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bizra_driver::signing_record::Binding;
use bizra_node::consensus::RecordFile;
use bizra_simplex::types::{Digest, Epoch, View};
use bizra_simplex::{Vote, VoteKind};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};

use crate::FaultError;
use crate::leftovers::Leftovers;
use crate::record::Remembered;

/// Time between two numbers: a busy validator's.
const PACE: Duration = Duration::from_millis(10);

/// A way to keep a signing record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arm {
    /// The product's: slots of a preallocated file, `fdatasync` before the answer.
    Slots,
    /// A temporary file renamed over the last one, nothing synced.
    Rename,
}

impl Arm {
    pub(crate) const ALL: [Self; 2] = [Self::Slots, Self::Rename];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Rename => "rename",
        }
    }

    /// The last number on the disk; none if there is no record any more.
    fn recorded(self, file: &Path) -> Option<u64> {
        match self {
            Self::Slots => Some(Remembered::read(file).ok()?.votes.last().map_or(0, |vote| vote.1)),
            Self::Rename => std::fs::read_to_string(file).ok()?.trim().parse().ok(),
        }
    }
}

/// Records numbers until it is killed.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecorderArgs {
    /// How.
    #[arg(long, value_enum)]
    arm: Arm,
    /// The record.
    #[arg(long)]
    file: PathBuf,
}

impl RecorderArgs {
    pub(crate) fn run(&self) -> Result<(), FaultError> {
        let failed = |error: &dyn std::fmt::Display| FaultError::Setup(format!("{}: {error}", self.file.display()));
        match self.arm {
            Arm::Slots => {
                let binding = Binding { genesis_hash: Digest([1; 32]), volume: Digest([2; 32]), public_key: [3; 32] };
                if !self.file.exists() {
                    RecordFile::create(&self.file, &binding).map_err(|error| failed(&error))?;
                }
                let (file, mut record) = RecordFile::open(&self.file, &binding).map_err(|error| failed(&error))?;
                let first = record.latest().1.0 + 1;
                count(first, |number| {
                    let view = View(number);
                    let vote = Vote { epoch: Epoch(0), view, kind: VoteKind::Nullify, digest: Digest::default() };
                    let blocks = record.reserve(&[vote]).map_err(|error| failed(&error))?;
                    file.write(&blocks).map_err(|error| failed(&error))
                })
            }
            Arm::Rename => {
                let first = self.arm.recorded(&self.file).unwrap_or_default() + 1;
                let aside = self.file.with_extension("new");
                count(first, |number| {
                    std::fs::write(&aside, number.to_string()).map_err(|error| failed(&error))?;
                    std::fs::rename(&aside, &self.file).map_err(|error| failed(&error))
                })
            }
        }
    }
}

fn count(first: u64, mut record: impl FnMut(u64) -> Result<(), FaultError>) -> Result<(), FaultError> {
    for number in first.. {
        record(number)?;
        writeln!(std::io::stdout(), "{number}").map_err(|error| FaultError::Io("standard output".to_owned(), error))?;
        std::thread::sleep(PACE);
    }
    Ok(())
}

/// A recorder's process on one volume.
pub(crate) struct Recorder {
    arm: Arm,
    file: PathBuf,
    child: Child,
    reader: Option<JoinHandle<()>>,
    acknowledged: Arc<AtomicU64>,
}

/// What a cut did to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) arm: Arm,
    pub(crate) acknowledged: u64,
    /// None if no record was left.
    pub(crate) recorded: Option<u64>,
}

impl Judgement {
    pub(crate) fn lost(&self) -> u64 {
        self.acknowledged.saturating_sub(self.recorded.unwrap_or_default())
    }
}

impl Recorder {
    pub(crate) fn start(arm: Arm, volume: &Path, leftovers: &mut Leftovers) -> Result<Self, FaultError> {
        let file = volume.join(format!("control-{}", arm.name()));
        let failed = |error| FaultError::Io("a recorder".to_owned(), error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["recorder", "--arm", arm.name(), "--file"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        leftovers.process(child.id())?;
        let output = child.stdout.take();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&acknowledged);
        let reader = output.map(|output| {
            std::thread::spawn(move || {
                for number in BufReader::new(output).lines().map_while(Result::ok).filter_map(|line| line.parse().ok())
                {
                    heard.store(number, Ordering::Relaxed);
                }
            })
        });
        Ok(Self { arm, file, child, reader, acknowledged })
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = Pid::from_raw(self.child.id().cast_signed()) {
            // Not waited for yet: the id is its own. An error means that it has ended.
            let _ = kill_process(process, signal);
        }
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends the process; what it said until then is known afterwards.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // It ends with the pipe.
            let _ = reader.join();
        }
    }

    /// Compares what was said with what the disk holds, after the power is back.
    pub(crate) fn judge(&self) -> Judgement {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        Judgement { arm: self.arm, acknowledged, recorded: self.arm.recorded(&self.file) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}
