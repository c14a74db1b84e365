//! The validators under test, as `bizra-node devnet` runs them, and what `/metrics` says of them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bizra_bench::http::{get, metric};

use crate::usage::{Syncs, Watch, children};
use crate::{BenchError, Mode};

/// Validators of a bench.
pub(crate) const VALIDATORS: usize = 4;

/// Ports each validator takes, as documented by `bizra-node devnet`.
const PORTS_PER_NODE: u16 = 10;
const GRPC: u16 = 1;
const MONITORING: u16 = 4;

/// How long the validators may take to come up.
const START: Duration = Duration::from_mins(1);

/// A running devnet; stopped when dropped.
pub(crate) struct Devnet {
    child: Child,
    base_port: u16,
}

impl Devnet {
    pub(crate) fn start(
        node: &Path,
        accounts: u32,
        base_port: u16,
        mode: Mode,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let mut command = Command::new(node);
        command.args(["devnet", "--validators", &VALIDATORS.to_string(), "--accounts", &accounts.to_string()]);
        if mode == Mode::Opaque {
            command.arg("--opaque");
        }
        let child = command
            .args(["--stop-on-stdin-close", "--base-port", &base_port.to_string(), "--dir"])
            .arg(folder)
            // Closes with this process, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| BenchError::Io(node.display().to_string(), error))?;
        let mut network = Self { child, base_port };
        let deadline = Instant::now() + START;
        while !network.is_ready() {
            if Instant::now() > deadline || network.child.try_wait().is_ok_and(|status| status.is_some()) {
                let log = std::fs::read_to_string(folder.join("v0").join("node.log")).unwrap_or_default();
                return Err(BenchError::Network(format!("the validators did not become ready\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(network)
    }

    fn is_ready(&self) -> bool {
        monitoring_ports(self.base_port).all(|port| get(port, "/readyz").is_some_and(|(status, _)| status == 200))
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        node_ports(self.base_port, GRPC).map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    pub(crate) fn watch(&self) -> Result<Watch, BenchError> {
        let base_port = self.base_port;
        let syncs: Syncs = Box::new(move || {
            let sum = |name: &str| monitoring_ports(base_port).map(|port| metric(port, name)).sum::<Option<f64>>();
            Some(sum("bizra_consensus_syncs_total")? + sum("bizra_consensus_record_syncs_total")?)
        });
        Watch::start(children(self.child.id())?, Some(syncs))
    }

    /// Stops the validators: waiting closes their parent's standard input, which stops it.
    pub(crate) fn stop(&mut self) -> Result<(), BenchError> {
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

fn node_ports(base_port: u16, offset: u16) -> impl Iterator<Item = u16> {
    (0..VALIDATORS as u16).map(move |node| base_port + node * PORTS_PER_NODE + offset)
}

fn monitoring_ports(base_port: u16) -> impl Iterator<Item = u16> {
    node_ports(base_port, MONITORING)
}
