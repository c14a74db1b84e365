//! The validators under test, as `bizra-node devnet` runs them, and what `/metrics` says of them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::{get, metric};
use crate::{BenchError, Mode};

/// Validators of a bench.
pub const VALIDATORS: usize = 4;

/// Ports each validator takes, as documented by `bizra-node devnet`.
const PORTS_PER_NODE: u16 = 10;
const GRPC: u16 = 1;
const MONITORING: u16 = 4;

/// How long the validators may take to come up.
const START: Duration = Duration::from_mins(1);

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

/// A running devnet; stopped when dropped.
pub struct Devnet {
    child: Child,
    base_port: u16,
}

/// What the validators used during a run.
pub struct Usage {
    /// Seconds of CPU, all validators together.
    pub cpu_seconds: f64,
    /// Syncs of database and signing record, all validators together.
    pub syncs: f64,
    /// Bytes sent to the disk, all validators together.
    pub written_bytes: f64,
    /// Most memory one validator had resident at any look, bytes.
    pub resident_bytes_max: f64,
}

/// Looks at the validators until [`Watch::finish`].
pub struct Watch {
    base_port: u16,
    validators: Vec<u32>,
    before: Totals,
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<f64>,
}

/// What all validators together have used since they started.
#[derive(Clone, Copy)]
struct Totals {
    cpu_seconds: f64,
    syncs: f64,
    written_bytes: f64,
}

impl Devnet {
    /// Starts a new devnet, or continues the one in `folder`, and waits until every validator is ready. `extra` are
    /// further arguments of `bizra-node devnet`.
    pub fn start(
        node: &Path,
        accounts: u32,
        base_port: u16,
        mode: Mode,
        folder: &Path,
        extra: &[&str],
    ) -> Result<Self, BenchError> {
        let mut command = Command::new(node);
        command.args(["devnet", "--validators", &VALIDATORS.to_string(), "--accounts", &accounts.to_string()]);
        if mode == Mode::Opaque {
            command.arg("--opaque");
        }
        let child = command
            .args(extra)
            .args(["--base-port", &base_port.to_string(), "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| BenchError::Io(node.display().to_string(), error))?;
        let mut network = Self { child, base_port };
        let deadline = Instant::now() + START;
        while !network.is_ready() {
            if Instant::now() > deadline || network.child.try_wait().is_ok_and(|status| status.is_some()) {
                let log = std::fs::read_to_string(folder.join("v0").join("node.log")).unwrap_or_default();
                return Err(BenchError::Devnet(format!("the validators did not become ready\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(network)
    }

    fn is_ready(&self) -> bool {
        monitoring_ports(self.base_port).all(|port| get(port, "/readyz").is_some_and(|(status, _)| status == 200))
    }

    /// gRPC addresses.
    pub fn targets(&self) -> Vec<String> {
        node_ports(self.base_port, GRPC).map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// Begins to look at the validators.
    pub fn watch(&self) -> Result<Watch, BenchError> {
        let base_port = self.base_port;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let validators = children(self.child.id())?;
        let before = Totals::read(base_port, &validators)?;
        let sampler = std::thread::spawn(move || {
            let mut most = 0.0_f64;
            while !stopped.load(Ordering::Relaxed) {
                let resident =
                    monitoring_ports(base_port).filter_map(|port| metric(port, "process_resident_memory_bytes"));
                most = resident.fold(most, f64::max);
                std::thread::sleep(SAMPLE);
            }
            most
        });
        Ok(Watch { base_port, validators, before, stop, sampler })
    }

    /// The validators' process ids.
    pub fn processes(&self) -> Result<Vec<u32>, BenchError> {
        children(self.child.id())
    }

    /// Stops the validators as a user would: the end of their parent's standard input is the end of them.
    pub fn stop(&mut self) -> Result<(), BenchError> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").arg(&pid).status();
        status.map_err(|error| BenchError::Io("kill".to_owned(), error))?;
        self.child.wait().map_err(|error| BenchError::Io("the validators".to_owned(), error))?;
        Ok(())
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Nothing more can be done if even this fails.
            let _ = self.stop();
        }
    }
}

impl Watch {
    /// What was used since [`Devnet::watch`].
    pub fn finish(self) -> Result<Usage, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let resident_bytes_max = self.sampler.join().unwrap_or_default();
        let after = Totals::read(self.base_port, &self.validators)?;
        Ok(Usage {
            cpu_seconds: after.cpu_seconds - self.before.cpu_seconds,
            syncs: after.syncs - self.before.syncs,
            written_bytes: after.written_bytes - self.before.written_bytes,
            resident_bytes_max,
        })
    }
}

fn node_ports(base_port: u16, offset: u16) -> impl Iterator<Item = u16> {
    (0..VALIDATORS as u16).map(move |node| base_port + node * PORTS_PER_NODE + offset)
}

/// Where each validator answers `/metrics` and `/readyz`.
pub fn monitoring_ports(base_port: u16) -> impl Iterator<Item = u16> {
    node_ports(base_port, MONITORING)
}

impl Totals {
    fn read(base_port: u16, validators: &[u32]) -> Result<Self, BenchError> {
        let sum = |name: &str| monitoring_ports(base_port).map(|port| metric(port, name)).sum::<Option<f64>>();
        let read = || {
            Some(Self {
                cpu_seconds: validators.iter().map(|process| cpu_seconds(*process)).sum::<Option<f64>>()?,
                syncs: sum("bizra_consensus_syncs_total")? + sum("bizra_consensus_record_syncs_total")?,
                written_bytes: validators.iter().map(|process| written_bytes(*process)).sum::<Option<f64>>()?,
            })
        };
        read().ok_or_else(|| BenchError::Devnet("a validator does not answer any more".to_owned()))
    }
}

/// The processes a process has started.
fn children(process: u32) -> Result<Vec<u32>, BenchError> {
    let path = format!("/proc/{process}/task");
    let failed = |error| BenchError::Io(path.clone(), error);
    let mut children = Vec::new();
    // A child belongs to the thread that started it.
    for thread in std::fs::read_dir(&path).map_err(failed)? {
        let list = std::fs::read_to_string(thread.map_err(failed)?.path().join("children")).map_err(failed)?;
        children.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(children)
}

/// In hundredths; the metric of the same name counts whole seconds.
fn cpu_seconds(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let mut times = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / rustix::param::clock_ticks_per_second() as f64)
}

fn written_bytes(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}
