//! One run of `bizra-node load`, and what the validators spent from its first transaction to its last receipt.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Map, Value, json};

use crate::BenchError;
use crate::devnet::{Devnet, VALIDATORS};
use crate::usage::{Usage, Watch, cpu_seconds};

/// What `load` says when everything is signed and the clock starts.
const STARTS: &str = "submitting";

/// What the peer's load says when nothing more is to come; it then reads the blocks, which is not part of the run.
const ENDS: &str = "drained";

/// At least this share of the offered transactions is to be finalised.
pub(crate) const APPLIED_SHARE_MIN: f64 = 0.999;

/// One run of the load and what it cost.
pub(crate) struct Run {
    pub(crate) rate: u32,
    pub(crate) figures: Value,
    pub(crate) usage: Usage,
    /// What the load itself took of the processors, seconds; none if it was not looked at.
    pub(crate) load_cpu_seconds: Option<f64>,
}

/// A process that does not outlive what it was started for.
pub(crate) struct Stopped(pub(crate) Child);

impl Stopped {
    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> std::io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Both are refused if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    /// Offers `rate` transactions a second for `seconds`.
    pub(crate) fn measure(
        node: &Path,
        network: &Devnet,
        accounts: u32,
        rate: u32,
        seconds: u32,
    ) -> Result<Self, BenchError> {
        let mut command = Command::new(node);
        command.args(["load", "--output", "json", "--drain", "15", "--rate", &rate.to_string()]);
        command.args(["--duration", &seconds.to_string(), "--accounts", &accounts.to_string()]);
        for target in network.targets() {
            command.args(["--target", &target]);
        }
        Self::of(command, rate, || network.watch())
    }

    /// Runs a load and watches the validators while it submits and waits for answers.
    pub(crate) fn of(
        mut command: Command,
        rate: u32,
        watch: impl FnOnce() -> Result<Watch, BenchError>,
    ) -> Result<Self, BenchError> {
        let name = command.get_program().display().to_string();
        let failed = |error| BenchError::Io(name.clone(), error);
        let mut load = Stopped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?);
        let mut complaints = String::new();
        let mut words = BufReader::new(load.0.stderr.take().ok_or_else(|| BenchError::Load("it is mute".to_owned()))?);
        // Reading accounts and signing is not part of the run.
        let mut until = |said: &str| {
            while !complaints.lines().last().is_some_and(|line| line.starts_with(said)) {
                if words.read_line(&mut complaints)? == 0 {
                    break;
                }
            }
            Ok(())
        };
        until(STARTS).map_err(failed)?;
        let load_cpu = || cpu_seconds(load.0.id());
        let (watch, load_cpu_before) = (watch()?, load_cpu());
        until(ENDS).map_err(failed)?;
        let (usage, load_cpu_seconds) =
            (watch.finish()?, load_cpu().zip(load_cpu_before).map(|(after, before)| after - before));
        words.read_to_string(&mut complaints).map_err(failed)?;
        let mut output = String::new();
        if let Some(mut printed) = load.0.stdout.take() {
            printed.read_to_string(&mut output).map_err(failed)?;
        }
        load.wait().map_err(failed)?;
        let figures = serde_json::from_str(&output).map_err(|_| BenchError::Load(complaints))?;
        Ok(Self { rate, figures, usage, load_cpu_seconds })
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.figures.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
    }

    /// Of the transactions offered, those that changed the ledger.
    pub(crate) fn applied_share(&self) -> f64 {
        let offered = self.number("/offered");
        if offered == 0.0 { 0.0 } else { self.number("/applied") / offered }
    }

    /// True if nearly everything offered changed the ledger.
    pub(crate) fn all_applied(&self) -> bool {
        self.applied_share() >= APPLIED_SHARE_MIN
    }

    /// True if the network kept up: nearly everything final, and at the pace at which it was offered.
    pub(crate) fn kept_up(&self) -> bool {
        self.all_applied() && self.number("/finalisedPerSecond") >= 0.95 * f64::from(self.rate)
    }

    /// What one validator spends of something on one finalised transaction.
    fn per_transaction(&self, total: f64) -> f64 {
        let finalised = self.number("/finalised");
        if finalised == 0.0 { 0.0 } else { total / VALIDATORS as f64 / finalised }
    }

    /// Microseconds.
    pub(crate) fn cpu_per_transaction(&self) -> f64 {
        self.per_transaction(self.usage.cpu_seconds * 1e6)
    }

    /// Microseconds that one validator spends on one transaction, by name of thread, the most first.
    pub(crate) fn threads_per_transaction(&self) -> impl Iterator<Item = (String, Value)> {
        let each = |(name, seconds): &(String, f64)| (name.clone(), self.per_transaction(seconds * 1e6).into());
        self.usage.threads.iter().map(each)
    }

    /// Microseconds that the load took of the processors for each of its transactions.
    pub(crate) fn load_cpu_per_transaction(&self) -> Option<f64> {
        self.load_cpu_seconds.map(|seconds| self.per_transaction(seconds * 1e6 * VALIDATORS as f64))
    }

    /// Waits for the disk, the signing record's included.
    pub(crate) fn syncs_per_transaction(&self) -> Option<f64> {
        self.usage.syncs.map(|syncs| self.per_transaction(syncs))
    }

    /// Bytes that reached the disk, the log, files and their rewriting included.
    pub(crate) fn bytes_per_transaction(&self) -> f64 {
        self.per_transaction(self.usage.written_bytes)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "rate": self.rate,
            "keptUp": self.kept_up(),
            "appliedShare": self.applied_share(),
            "load": self.figures,
            "loadCpuMicrosecondsPerTransaction": self.load_cpu_per_transaction(),
            "validators": {
                "cpuSeconds": self.usage.cpu_seconds,
                "cpuMicrosecondsPerTransactionPerValidator": self.cpu_per_transaction(),
                "syncsPerTransactionPerValidator": self.syncs_per_transaction(),
                "bytesWrittenPerTransactionPerValidator": self.bytes_per_transaction(),
                "residentBytesMax": self.usage.resident_bytes_max,
                "cpuMicrosecondsPerTransactionByThread": self.threads_per_transaction().collect::<Map<_, _>>(),
            },
        })
    }
}
