//! CometBFT's validators and loads, run by the programs of `tests/peer`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::BenchError;
use crate::devnet::VALIDATORS;
use crate::load::{Run, Stopped};
use crate::usage::{Watch, children};

/// Length of a transaction, as of ours.
pub(super) const TRANSACTION_BYTES: u32 = 256;

/// Where the validators answer.
const HOSTS: [&str; VALIDATORS] = ["127.0.91.1", "127.0.91.2", "127.0.91.3", "127.0.91.4"];
const PORT: u16 = 26_657;

/// How long `peer-network` may take to stop its validators; it kills them after five seconds.
const STOP: Duration = Duration::from_secs(10);

/// How long blocks are waited for when CometBFT's own load tool has sent everything.
const DRAIN: Duration = Duration::from_secs(5);

/// Which settings the validators run with; files in `tests/peer/config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    /// As they come.
    Stock,
    /// For one machine and full speed.
    Tuned,
    /// So too, and with less gossip of transactions.
    TunedSparse,
}

/// What the validators execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Application {
    /// CometBFT's own, in memory; checks no signature.
    Kvstore,
    /// Checks each signature as the transaction enters a node, and remembers.
    Signed,
    /// Checks signatures in batches of whole blocks, and nothing before.
    SignedInBlocks,
}

/// Where programs and settings are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) programs: PathBuf,
    pub(super) config: PathBuf,
}

/// Running validators; stopped when dropped.
pub(super) struct Network<'a> {
    programs: &'a Programs,
    child: Child,
}

impl Settings {
    /// The heap's growth, in percent, after which Go collects garbage.
    const fn gogc(self) -> &'static str {
        match self {
            Self::Stock => "100",
            Self::Tuned | Self::TunedSparse => "400",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Stock => "stock.toml",
            Self::Tuned => "tuned.toml",
            Self::TunedSparse => "tuned-sparse.toml",
        }
    }
}

impl Application {
    const fn name(self) -> &'static str {
        match self {
            Self::Kvstore => "kvstore",
            Self::Signed => "signed",
            Self::SignedInBlocks => "signed_in_blocks",
        }
    }

    const fn transactions(self) -> &'static str {
        match self {
            Self::Kvstore => "opaque",
            Self::Signed | Self::SignedInBlocks => "signed",
        }
    }
}

impl<'a> Network<'a> {
    pub(super) fn start(
        programs: &'a Programs,
        settings: Settings,
        application: Application,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let program = programs.programs.join("peer-network");
        // Its standard input is the pipe that ends with this process, however that ends.
        let child = Command::new(&program)
            .args(["--application", application.name(), "--gogc", settings.gogc()])
            .args(["--address", HOSTS[0], "--programs"])
            .arg(&programs.programs)
            .arg("--config")
            .arg(programs.config.join(settings.file()))
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| BenchError::Io(program.display().to_string(), error))?;
        let mut network = Self { programs, child };
        let mut line = String::new();
        if let Some(output) = network.child.stdout.take() {
            // It gives up by itself after half a minute.
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(|error| BenchError::Io(program.display().to_string(), error))?;
        }
        if line.trim() == "ready" {
            return Ok(network);
        }
        let mut complaints = String::new();
        if let Some(mut output) = network.child.stderr.take() {
            // Without it the message is shorter.
            let _ = output.read_to_string(&mut complaints);
        }
        Err(BenchError::Network(complaints))
    }

    /// Offers transactions evenly with `peer-load`.
    pub(super) fn measure(
        &self,
        application: Application,
        accounts: u32,
        rate: u32,
        seconds: u32,
    ) -> Result<Run, BenchError> {
        let nodes = HOSTS.map(|host| format!("{host}:{PORT}")).join(",");
        let mut command = Command::new(self.programs.programs.join("peer-load"));
        command.args(["--nodes", &nodes, "--transactions", application.transactions(), "--rate", &rate.to_string()]);
        command.args(["--duration", &format!("{seconds}s"), "--accounts", &accounts.to_string(), "--drain", "15s"]);
        command.args(["--size", &TRANSACTION_BYTES.to_string()]);
        Run::of(command, rate, || self.watch())
    }

    /// Offers transactions with CometBFT's own load tool, in one burst a second, and has its own report time them: from the
    /// making of a transaction to the time in the header after its block's. The validators are stopped for that.
    pub(super) fn measure_with_its_own_tools(
        mut self,
        folder: &Path,
        rate: u32,
        seconds: u32,
    ) -> Result<Run, BenchError> {
        let endpoints = HOSTS.map(|host| format!("ws://{host}:{PORT}/websocket")).join(",");
        let (statistics, latencies) = (folder.join("load.csv"), folder.join("report.csv"));
        let failed = |what: &Path| {
            let what = what.display().to_string();
            move |error| BenchError::Io(what, error)
        };
        let program = self.programs.programs.join("load");
        let watch = self.watch()?;
        let load = Command::new(&program)
            .args(["-c", "1", "-s", &TRANSACTION_BYTES.to_string(), "-T", &seconds.to_string()])
            .args(["-r", &rate.div_ceil(VALIDATORS as u32).to_string(), "--broadcast-tx-method", "sync"])
            .args(["--endpoints", &endpoints, "--stats-output"])
            .arg(&statistics)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed(&program))?;
        Stopped(load).wait().map_err(failed(&program))?;
        let usage = watch.finish()?;
        std::thread::sleep(DRAIN);
        self.stop()?;

        let program = self.programs.programs.join("report");
        let output = Command::new(&program)
            .args(["--database-type", "goleveldb", "--data-dir"])
            .arg(folder.join("node0").join("data"))
            .arg("--csv")
            .arg(&latencies)
            .output()
            .map_err(failed(&program))?;
        if !output.status.success() {
            return Err(BenchError::Load(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let offered = std::fs::read_to_string(&statistics).map_err(failed(&statistics))?;
        let offered = offered.lines().find_map(|line| line.strip_prefix("total_txs,")?.split(',').next()?.parse().ok());
        let offered: u64 =
            offered.ok_or_else(|| BenchError::Load("the load tool does not tell what it sent".to_owned()))?;
        let table = std::fs::read_to_string(&latencies).map_err(failed(&latencies))?;
        Ok(Run { rate, figures: report_figures(&table, offered), usage, load_cpu_seconds: None })
    }

    fn watch(&self) -> Result<Watch, BenchError> {
        Watch::start(children(self.child.id())?, None)
    }

    /// Ends the pipe and waits.
    pub(super) fn stop(&mut self) -> Result<(), BenchError> {
        drop(self.child.stdin.take());
        let failed = |error| BenchError::Io("peer-network".to_owned(), error);
        let deadline = Instant::now() + STOP;
        while self.child.try_wait().map_err(failed)?.is_none() {
            if Instant::now() > deadline {
                // The validators die with it.
                self.child.kill().map_err(failed)?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // Nothing more can be done if even this fails.
        let _ = self.stop();
    }
}

/// The report's table as the figures of a run: per transaction the time of its block and how long it took, nanoseconds.
fn report_figures(table: &str, offered: u64) -> serde_json::Value {
    let number = |column: Option<&str>| column?.parse::<i64>().ok();
    let rows: Vec<(i64, i64)> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split(',').skip(1);
            Some((number(columns.next())?, number(columns.next())?))
        })
        .collect();
    let mut times: Vec<i64> = rows.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let milliseconds = |time: i64| time as f64 / 1e6;
    let at = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(place).copied().map_or(0.0, milliseconds)
    };
    let first = rows.iter().map(|(block, time)| block - time).min().unwrap_or_default();
    let last = rows.iter().map(|(block, _)| *block).max().unwrap_or_default();
    let elapsed = milliseconds(last - first) / 1e3;
    let count = times.len() as f64;
    json!({
        "offered": offered,
        "finalised": times.len(),
        "applied": times.len(),
        "elapsedSeconds": elapsed,
        "finalisedPerSecond": if elapsed > 0.0 { count / elapsed } else { 0.0 },
        "latencyMilliseconds": {
            "mean": if times.is_empty() { 0.0 } else { times.iter().map(|time| milliseconds(*time)).sum::<f64>() / count },
            "p50": at(50), "p95": at(95), "p99": at(99), "max": at(100),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_table_gives_rate_and_percentiles() {
        // Made at 0; final after as many milliseconds.
        let row = |index: i64| format!("id,{0},{0},AB,1,1,256", index * 1_000_000);
        let header = "experiment_id,block_time,duration_ns,tx_hash,connections,rate,size".to_owned();
        let table = std::iter::once(header).chain((1..=100).map(row)).collect::<Vec<_>>().join("\n");
        let figures = report_figures(&table, 200);
        assert_eq!(figures["offered"], 200);
        assert_eq!(figures["finalised"], 100);
        assert_eq!(figures["finalisedPerSecond"], 1_000.0);
        assert_eq!(figures["latencyMilliseconds"]["p50"], 51.0);
        assert_eq!(figures["latencyMilliseconds"]["p99"], 100.0);
        assert_eq!(report_figures("", 5)["finalisedPerSecond"], 0.0);
    }
}
