//! A devnet under steady load for a long time, with pruning on. Memory must be flat, the disk bounded, and no pause between
//! two heights long.
//!
//! Warm-up is the first third; verdicts are about the rest. Memory: the line of least squares through each validator's
//! resident memory may rise by [`MEMORY_RISE_PERCENT`] of its mean at most. Disk: receipts stay for 100,000 blocks, so that
//! nothing is executed twice; the rest is pruned. Per finalised transaction the disk may therefore grow by
//! [`DISK_BYTES_PER_TRANSACTION_MAX`], which is less than half of what a transaction takes if its body stays. Write buffers
//! and logs fill and empty every few minutes, so that neither is judged in a run shorter than [`JUDGED_SECONDS_MIN`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bizra_bench::http;
use clap::Args;
use serde_json::{Value, json};

use crate::traffic::Traffic;
use crate::{FaultError, VALIDATORS, write_json};

/// The chain id of every devnet.
const CHAIN_ID: &str = "devnet";

/// Short enough that pruning, which keeps two epochs, has something to do soon.
const EPOCH_BLOCKS: &str = "256";

/// A devnet that is not ready by then never will be.
const START: Duration = Duration::from_mins(1);

/// Senders; each waits for its receipt, so that there are enough for every rate that is asked for.
const ACCOUNTS: u32 = 2_000;

/// Most that resident memory may rise after warm-up, of its mean.
const MEMORY_RISE_PERCENT: f64 = 10.0;

/// Most that the disk of a validator may grow after warm-up.
const DISK_BYTES_PER_TRANSACTION_MAX: f64 = 150.0;

/// Shortest time after warm-up in which memory and disk are judged: several rounds of filling and emptying.
const JUDGED_SECONDS_MIN: f64 = 600.0;

/// Longest time between two heights.
const GAP_MAX: Duration = Duration::from_secs(1);

/// Time between two looks at heights; what a gap may be longer than it looks.
const LOOK: Duration = Duration::from_millis(20);

const SAMPLE: Duration = Duration::from_secs(1);

/// How long the last receipts may take.
const DRAIN: Duration = Duration::from_secs(30);

/// Let a devnet run under load and look at memory, disk and heights.
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    /// The `bizra-node` binary.
    #[arg(long, value_name = "FILE")]
    node: PathBuf,
    /// How long, minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Transfers a second.
    #[arg(long, default_value_t = 3_000)]
    rate: u32,
    /// Blocks kept; not fewer than two epochs.
    #[arg(long, default_value_t = 1_024)]
    keep_blocks: u64,
    /// First port of the devnet.
    #[arg(long, value_name = "PORT", default_value_t = 29_100)]
    base_port: u16,
    /// Where the devnet lives while it runs.
    #[arg(long, value_name = "FOLDER", default_value = "target/soak/work")]
    work: PathBuf,
    /// The figures.
    #[arg(long, value_name = "FILE", default_value = "target/soak/soak.json")]
    out: PathBuf,
}

/// One look at all validators.
#[derive(Clone, Debug)]
struct Sample {
    seconds: f64,
    resident_bytes: Vec<f64>,
    disk_bytes: Vec<f64>,
    heights: Vec<u64>,
    finalised: u64,
}

/// The running devnet; stopped when dropped.
struct Devnet(Child);

impl Devnet {
    /// Starts it and waits until every validator is ready.
    fn start(arguments: &SoakArgs) -> Result<Self, FaultError> {
        let child = Command::new(&arguments.node)
            .args(["devnet", "--validators", &VALIDATORS.to_string(), "--accounts", &ACCOUNTS.to_string()])
            .args(["--keep-blocks", &arguments.keep_blocks.to_string(), "--epoch-blocks", EPOCH_BLOCKS])
            .args(["--stop-on-stdin-close", "--base-port", &arguments.base_port.to_string(), "--dir"])
            .arg(&arguments.work)
            // Closes with this process, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| FaultError::Io(arguments.node.display().to_string(), error))?;
        let mut network = Self(child);
        let deadline = Instant::now() + START;
        let ready = |port| http::get(port, "/readyz").is_some_and(|(status, _)| status == 200);
        while !arguments.ports(4).all(ready) {
            if Instant::now() > deadline || network.0.try_wait().is_ok_and(|status| status.is_some()) {
                let log = arguments.work.join("v0").join("node.log");
                let log = std::fs::read_to_string(log).unwrap_or_default();
                return Err(FaultError::Setup(format!("the validators did not become ready\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(network)
    }

    /// Ids of the validators' processes, which are the devnet's children.
    fn validators(&self) -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id()));
        // A child belongs to the thread that started it.
        let children = threads.into_iter().flatten().flatten();
        let children = children.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let ids = |list: String| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>();
        children.flat_map(ids).collect()
    }

    /// Waiting closes its standard input, which stops it.
    fn stop(&mut self) {
        let _ = self.0.wait();
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SoakArgs {
    /// One port of each validator, by its place among the validator's.
    fn ports(&self, place: u16) -> impl Iterator<Item = u16> {
        let base = self.base_port + place;
        (0..VALIDATORS as u16).map(move |index| base + index * 10)
    }

    /// True if every verdict is good.
    pub(crate) fn run(&self, interrupted: &Arc<AtomicBool>) -> Result<bool, FaultError> {
        let setup = |error: &dyn std::fmt::Display| FaultError::Setup(error.to_string());
        if self.work.exists() {
            std::fs::remove_dir_all(&self.work)
                .map_err(|error| FaultError::Io(self.work.display().to_string(), error))?;
        }
        crate::layout::create_folder(&self.work)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| setup(&error))?;
        let mut network = Devnet::start(self)?;
        let processes = network.validators();
        let ports: Vec<u16> = self.ports(1).collect();
        let traffic = Traffic::start(CHAIN_ID, &ports, ACCOUNTS as usize, self.rate, false, runtime.handle())?;
        let stopping = Arc::new(AtomicBool::new(false));
        // A network without work has a height a second: gaps are those under load.
        let deadline = Instant::now() + START;
        while traffic.finalised() < u64::from(self.rate) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let gaps: Vec<Gap> = ports.iter().map(|port| Gap::start(port + 1, &stopping)).collect();

        let started = Instant::now();
        let length = Duration::from_secs_f64(self.minutes * 60.0);
        let mut samples = Vec::new();
        println!("{:>7} {:>9} {:>11} {:>26} {:>26}", "minute", "height", "finalised/s", "resident MiB", "disk MiB");
        let mut shown = 0;
        while started.elapsed() < length && !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(SAMPLE);
            samples.push(self.sample(started, &processes, &gaps, &traffic)?);
            let due = started.elapsed().as_millis() * 10 / length.as_millis().max(1);
            if due > shown {
                shown = due;
                print(&samples);
            }
        }
        stopping.store(true, Ordering::Relaxed);
        let pauses: Vec<Pause> = gaps.into_iter().map(Gap::longest).collect();
        let in_time = traffic.finish(DRAIN);
        let contradictions = traffic.contradictions();
        network.stop();
        drop(runtime);
        // Its size was measured; the figures stay.
        let _ = std::fs::remove_dir_all(&self.work);

        let verdicts = verdicts(&samples, &pauses, in_time, &contradictions, self.rate);
        println!();
        for verdict in &verdicts {
            let word = match verdict.good {
                Some(true) => "ok    ",
                Some(false) => "FAILED",
                None => "short ",
            };
            println!("{word} {}", verdict.text);
        }
        write_json(&self.out, &self.json(&samples, &pauses, &verdicts))?;
        Ok(verdicts.iter().all(|verdict| verdict.good != Some(false)))
    }

    fn sample(
        &self,
        started: Instant,
        processes: &[u32],
        gaps: &[Gap],
        traffic: &Traffic,
    ) -> Result<Sample, FaultError> {
        // Which process is which validator does not matter: the most is what counts.
        let resident = processes.iter().map(|process| resident_bytes(*process)).collect::<Option<Vec<f64>>>();
        let stopped = || FaultError::Setup("a validator stopped by itself; see its log".to_owned());
        let alive = self.ports(4).all(|port| http::get(port, "/livez").is_some());
        let resident_bytes = resident.filter(|_| alive).ok_or_else(stopped)?;
        let disk_bytes = (0..VALIDATORS).map(|index| disk_bytes(&self.work.join(format!("v{index}")).join("database")));
        Ok(Sample {
            seconds: started.elapsed().as_secs_f64(),
            resident_bytes,
            disk_bytes: disk_bytes.collect(),
            heights: gaps.iter().map(|gap| gap.height.load(Ordering::Relaxed)).collect(),
            finalised: traffic.finalised(),
        })
    }

    fn json(&self, samples: &[Sample], pauses: &[Pause], verdicts: &[Verdict]) -> Value {
        let sample = |sample: &Sample| {
            json!({
                "seconds": sample.seconds, "residentBytes": sample.resident_bytes, "diskBytes": sample.disk_bytes,
                "heights": sample.heights, "finalised": sample.finalised,
            })
        };
        json!({
            "minutes": self.minutes,
            "rate": self.rate,
            "keepBlocks": self.keep_blocks,
            "longestGapMilliseconds": pauses.iter().map(|pause| pause.length.as_millis() as u64).collect::<Vec<_>>(),
            "longestGapEndedAtSeconds": pauses.iter().map(|pause| pause.at.as_secs_f64()).collect::<Vec<_>>(),
            "verdicts": verdicts.iter().map(|verdict| json!({ "good": verdict.good, "text": verdict.text })).collect::<Vec<_>>(),
            "samples": samples.iter().map(sample).collect::<Vec<_>>(),
        })
    }
}

fn print(samples: &[Sample]) {
    let Some(last) = samples.last() else { return };
    let mebibytes = |all: &[f64]| {
        all.iter().map(|bytes| format!("{:.0}", bytes / f64::from(1 << 20))).collect::<Vec<_>>().join(" ")
    };
    println!(
        "{:>7.1} {:>9} {:>11.0} {:>26} {:>26}",
        last.seconds / 60.0,
        last.heights.iter().max().copied().unwrap_or_default(),
        last.finalised as f64 / last.seconds,
        mebibytes(&last.resident_bytes),
        mebibytes(&last.disk_bytes)
    );
}

/// Follows the height of one validator.
struct Gap {
    height: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Pause>,
}

/// A time without a new height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Pause {
    length: Duration,
    /// Its end, since the start.
    at: Duration,
}

impl Gap {
    fn start(port: u16, stopping: &Arc<AtomicBool>) -> Self {
        let height = Arc::new(AtomicU64::new(0));
        let (seen, stopping) = (Arc::clone(&height), Arc::clone(stopping));
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let (mut longest, mut last) = (Pause::default(), started);
            while !stopping.load(Ordering::Relaxed) {
                let answer =
                    http::get(port, "/v1/chain").and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
                let now = answer.and_then(|chain| chain["finalizedHeight"].as_u64()).unwrap_or_default();
                if now > seen.fetch_max(now, Ordering::Relaxed) {
                    longest = longest.max(Pause { length: last.elapsed(), at: started.elapsed() });
                    last = Instant::now();
                }
                std::thread::sleep(LOOK);
            }
            longest.max(Pause { length: last.elapsed(), at: started.elapsed() })
        });
        Self { height, thread }
    }

    fn longest(self) -> Pause {
        // A thread that died saw nothing: no pause is longer.
        self.thread.join().unwrap_or(Pause { length: Duration::MAX, at: Duration::ZERO })
    }
}

struct Verdict {
    /// None if the run was too short to say.
    good: Option<bool>,
    text: String,
}

fn verdicts(samples: &[Sample], pauses: &[Pause], in_time: bool, contradictions: &[String], rate: u32) -> Vec<Verdict> {
    let settled = samples.get(samples.len() / 3..).unwrap_or_default();
    let (Some(first), Some(last)) = (settled.first(), settled.last()) else {
        return vec![Verdict { good: Some(false), text: "too short to say anything".to_owned() }];
    };
    let seconds = last.seconds - first.seconds;
    let judged = seconds >= JUDGED_SECONDS_MIN;
    let times: Vec<f64> = settled.iter().map(|sample| sample.seconds).collect();
    let worst = |of: &dyn Fn(&Sample, usize) -> f64| {
        (0..VALIDATORS)
            .map(|index| line(&times, &settled.iter().map(|sample| of(sample, index)).collect::<Vec<_>>()))
            .max_by(|left, right| left.0.total_cmp(&right.0))
            .unwrap_or_default()
    };
    let (slope, mean) = worst(&|sample, index| sample.resident_bytes[index]);
    let rise = slope * seconds / mean * 100.0;
    let memory = Verdict {
        good: judged.then_some(rise <= MEMORY_RISE_PERCENT),
        text: format!(
            "memory: {:.0} MiB on average, {:+.1} MiB a minute, {rise:+.1} % in {seconds:.0} s after warm-up (at most {MEMORY_RISE_PERCENT} %)",
            mean / f64::from(1 << 20),
            slope * 60.0 / f64::from(1 << 20)
        ),
    };
    let finalised = (last.finalised - first.finalised) as f64;
    let (slope, mean) = worst(&|sample, index| sample.disk_bytes[index]);
    let each = slope * seconds / finalised.max(1.0);
    let disk = Verdict {
        good: judged.then_some(each <= DISK_BYTES_PER_TRANSACTION_MAX),
        text: format!(
            "disk: {:.0} MiB on average, {each:+.0} bytes a transaction after warm-up (at most {DISK_BYTES_PER_TRANSACTION_MAX})",
            mean / f64::from(1 << 20)
        ),
    };
    let longest = pauses.iter().max().copied().unwrap_or(Pause { length: Duration::MAX, at: Duration::ZERO });
    let heights = Verdict {
        good: Some(longest.length <= GAP_MAX),
        text: format!(
            "heights: {} ms at most between two of them, in minute {:.1} (at most {})",
            longest.length.as_millis(),
            longest.at.as_secs_f64() / 60.0,
            GAP_MAX.as_millis()
        ),
    };
    let offered = f64::from(rate) * last.seconds;
    // The first second's are from before the clock.
    let share = last.finalised.saturating_sub(u64::from(rate)) as f64 / offered * 100.0;
    let load = Verdict {
        good: Some(in_time && contradictions.is_empty() && share >= 98.0),
        text: format!(
            "load: {} transfers final, {share:.1} % of {rate} a second; {} failed or changed{}",
            last.finalised,
            contradictions.len(),
            if in_time { "" } else { "; some never got a receipt" }
        ),
    };
    vec![memory, disk, heights, load]
}

/// Slope and mean of the line of least squares.
fn line(times: &[f64], values: &[f64]) -> (f64, f64) {
    let count = times.len().max(1) as f64;
    let (time, mean) = (times.iter().sum::<f64>() / count, values.iter().sum::<f64>() / count);
    let covariance: f64 = times.iter().zip(values).map(|(at, value)| (at - time) * (value - mean)).sum();
    let variance: f64 = times.iter().map(|at| (at - time).powi(2)).sum();
    (if variance > 0.0 { covariance / variance } else { 0.0 }, mean)
}

fn resident_bytes(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().trim_end_matches(" kB");
    Some(kibibytes.trim().parse::<f64>().ok()? * 1024.0)
}

/// Bytes of all files in a folder; a file that goes away meanwhile counts nothing.
fn disk_bytes(folder: &Path) -> f64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0.0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len() as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(f64) -> f64, disk: impl Fn(f64) -> f64) -> Vec<Sample> {
        (1..=1_000_u32)
            .map(|second| Sample {
                seconds: f64::from(second),
                resident_bytes: vec![resident(f64::from(second)); VALIDATORS],
                disk_bytes: vec![disk(f64::from(second)); VALIDATORS],
                heights: vec![1; VALIDATORS],
                finalised: 3_000 * u64::from(second),
            })
            .collect()
    }

    fn pause(length: Duration) -> Pause {
        Pause { length, at: Duration::ZERO }
    }

    fn good(samples: &[Sample], gap: Duration) -> Vec<Option<bool>> {
        verdicts(samples, &[pause(gap)], true, &[], 3_000).into_iter().map(|verdict| verdict.good).collect()
    }

    #[test]
    fn a_leak_a_filling_disk_and_a_pause_are_each_seen() {
        let (flat, short) = (|_| 1e8, Duration::from_millis(300));
        assert_eq!(good(&samples(flat, flat), short), [Some(true); 4]);
        assert_eq!(good(&samples(|second| 1e8 + 1e5 * second, flat), short)[0], Some(false));
        // Rising only while it warms up is no leak.
        assert_eq!(good(&samples(|second| 1e8 + 1e6 * second.min(300.0), flat), short)[0], Some(true));
        // Bodies that stay: 3,000 a second of 300 bytes.
        assert_eq!(good(&samples(flat, |second| 9e5 * second), short)[1], Some(false));
        assert_eq!(good(&samples(flat, flat), Duration::from_millis(1_001))[2], Some(false));
        assert_eq!(verdicts(&samples(flat, flat), &[pause(short)], true, &[], 4_000)[3].good, Some(false));
        // A minute says nothing of memory and disk.
        let minute = samples(|second| 1e6 * second, flat);
        assert_eq!(good(&minute[..60], short)[..2], [None, None]);
    }
}
