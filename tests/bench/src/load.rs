//! One run of `bizra-node load`, and what the validators spent from its first transaction to its last receipt.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use bizra_bench::BenchError;
use bizra_bench::devnet::{Devnet, Usage, VALIDATORS};
use serde_json::{Value, json};

/// What `load` says when everything is signed and the clock starts.
const STARTS: &str = "submitting";

/// One run of the load and what it cost.
pub(crate) struct Run {
    pub(crate) rate: u32,
    pub(crate) figures: Value,
    pub(crate) usage: Usage,
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
        let failed = |error| BenchError::Io("bizra-node load".to_owned(), error);
        let mut command = Command::new(node);
        command.args(["load", "--output", "json", "--drain", "15", "--rate", &rate.to_string()]);
        command.args(["--duration", &seconds.to_string(), "--accounts", &accounts.to_string()]);
        for target in network.targets() {
            command.args(["--target", &target]);
        }
        let mut load = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        let mut complaints = String::new();
        let mut words = BufReader::new(load.stderr.take().ok_or_else(|| BenchError::Load("it is mute".to_owned()))?);
        // Reading accounts and signing is not part of the run.
        while !complaints.lines().last().is_some_and(|line| line.starts_with(STARTS)) {
            if words.read_line(&mut complaints).map_err(failed)? == 0 {
                break;
            }
        }
        let watch = network.watch()?;
        words.read_to_string(&mut complaints).map_err(failed)?;
        let output = load.wait_with_output().map_err(failed)?;
        let usage = watch.finish()?;
        let figures = serde_json::from_slice(&output.stdout).map_err(|_| BenchError::Load(complaints))?;
        Ok(Self { rate, figures, usage })
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.figures.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
    }

    /// Of the transactions offered, those that changed the ledger.
    pub(crate) fn applied_share(&self) -> f64 {
        let offered = self.number("/offered");
        if offered == 0.0 { 0.0 } else { self.number("/applied") / offered }
    }

    /// True if the network kept up: nearly everything final, and at the pace at which it was offered.
    pub(crate) fn kept_up(&self) -> bool {
        self.applied_share() >= 0.999 && self.number("/finalisedPerSecond") >= 0.95 * f64::from(self.rate)
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

    /// Waits for the disk, the signing record's included.
    pub(crate) fn syncs_per_transaction(&self) -> f64 {
        self.per_transaction(self.usage.syncs)
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
            "validators": {
                "cpuSeconds": self.usage.cpu_seconds,
                "cpuMicrosecondsPerTransactionPerValidator": self.cpu_per_transaction(),
                "syncsPerTransactionPerValidator": self.syncs_per_transaction(),
                "bytesWrittenPerTransactionPerValidator": self.bytes_per_transaction(),
                "residentBytesMax": self.usage.resident_bytes_max,
            },
        })
    }
}
