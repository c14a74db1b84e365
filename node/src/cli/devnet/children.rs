//! The processes of a devnet: started, watched, asked how they are, stopped.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bizra_proto::ceremony::GenesisAccount;
use bizra_proto::exit::Termination;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::CliError;
use super::layout::{Layout, NodeFiles};
use crate::cli::termination;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Balance of each account of the load: enough for years.
const LOAD_BALANCE: &str = "1000000000000";

/// The running nodes. Dropping it kills those that are left.
pub(super) struct Nodes(Vec<Node>);

struct Node {
    name: String,
    monitoring: SocketAddr,
    log_file: PathBuf,
    termination_file: PathBuf,
    child: Child,
    is_ready: bool,
}

impl Nodes {
    /// Starts all nodes.
    pub(super) fn start(layout: &Layout) -> Result<Self, CliError> {
        layout.nodes.iter().map(Node::start).collect::<Result<_, _>>().map(Self)
    }

    /// Until every node says that it is ready; an error as soon as one ends.
    pub(super) async fn wait_until_ready(&mut self) -> Result<(), CliError> {
        loop {
            let mut all = true;
            for node in &mut self.0 {
                node.check_running()?;
                node.is_ready = node.is_ready || matches!(get(node.monitoring, "/readyz").await, Some((200, _)));
                all &= node.is_ready;
            }
            if all {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Names of those that are not ready.
    pub(super) fn unready(&self) -> String {
        let names: Vec<_> = self.0.iter().filter(|node| !node.is_ready).map(|node| node.name.as_str()).collect();
        names.join(", ")
    }

    /// Returns only when a node ends by itself.
    pub(super) async fn watch(&mut self) -> CliError {
        loop {
            for node in &mut self.0 {
                if let Err(error) = node.check_running() {
                    return error;
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// A line for each node that still answers.
    pub(super) async fn summaries(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for node in &mut self.0 {
            if let Some((200, metrics)) = get(node.monitoring, "/metrics").await {
                let value = |name: &str| metric(&metrics, name).unwrap_or("?").to_owned();
                let (height, view) = (value("bizra_finalized_height"), value("bizra_view"));
                lines.push(format!("  {}  finalised height {height}  view {view}", node.name));
            }
        }
        lines
    }

    /// Asks all to stop, waits ten seconds, kills the rest and returns their names.
    pub(super) async fn stop(mut self) -> Vec<String> {
        for node in &mut self.0 {
            terminate(&node.child);
            // The other sign to stop, and the only one if the signal was missed.
            drop(node.child.stdin.take());
        }
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        let mut killed = Vec::new();
        for mut node in self.0 {
            if tokio::time::timeout_at(deadline, node.child.wait()).await.is_err() {
                // An error means that it has just ended.
                let _ = node.child.kill().await;
                killed.push(node.name);
            }
        }
        killed
    }
}

impl Node {
    fn start(files: &NodeFiles) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| {
            CliError::Failed(format!("cannot start {}: {error}", files.configuration.node_name))
        };
        let log = OpenOptions::new().append(true).create(true).open(&files.log_file).map_err(failed)?;
        match fs::remove_file(&files.termination_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["run", "--stop-on-stdin-close", "--config"])
            .arg(&files.configuration_file)
            .env(termination::FILE_VARIABLE, &files.termination_file)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // A group of its own: Ctrl-C reaches only this process, which stops the nodes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: files.configuration.node_name.clone(),
            monitoring: files.configuration.listen.monitoring,
            log_file: files.log_file.clone(),
            termination_file: files.termination_file.clone(),
            child,
            is_ready: false,
        })
    }

    /// An error with the node's own reason if it has ended.
    fn check_running(&mut self) -> Result<(), CliError> {
        let Some(status) = self.child.try_wait().map_err(CliError::failed)? else { return Ok(()) };
        let reason = read_termination(&self.termination_file).map_or_else(
            || format!("see {}", self.log_file.display()),
            |termination| format!("{}: {}", termination.reason, termination.message),
        );
        Err(CliError::Failed(format!("{} stopped by itself with {status}; {reason}", self.name)))
    }
}

/// The accounts `load` sends from, with money. Asked of the command itself, which alone knows its keys.
pub(super) async fn load_accounts(count: u32) -> Result<Vec<GenesisAccount>, CliError> {
    let failed = |error: &dyn Display| CliError::Failed(format!("cannot list the accounts of the load: {error}"));
    let executable = std::env::current_exe().map_err(|error| failed(&error))?;
    let output = Command::new(executable)
        .args(["load", "accounts", "--count", &count.to_string(), "--balance", LOAD_BALANCE])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

/// The process that submits transactions.
pub(super) struct Load(Child);

impl Load {
    /// Starts it against all nodes; its summary goes to this process's standard output.
    pub(super) fn start(layout: &Layout, rate: NonZeroU32, seconds: Option<NonZeroU32>) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::Failed(format!("cannot start the load: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["load", "--rate", &rate.to_string(), "--accounts", &layout.accounts.to_string()]);
        for node in &layout.nodes {
            command.args(["--target", &format!("http://{}", node.configuration.listen.grpc)]);
        }
        if let Some(seconds) = seconds {
            command.args(["--duration", &seconds.to_string()]);
        }
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn().map(Self).map_err(failed)
    }

    /// Until it has ended.
    pub(super) async fn finish(mut self) -> Result<(), CliError> {
        let status = self.0.wait().await.map_err(CliError::failed)?;
        if status.success() { Ok(()) } else { Err(CliError::Failed(format!("the load ended with {status}"))) }
    }
}

/// SIGTERM, by a process id that cannot belong to another: the child has not been waited for.
fn terminate(child: &Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // An error means that it has ended.
        let _ = kill_process(id, Signal::TERM);
    }
}

fn read_termination(path: &Path) -> Option<Termination> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Status and body of a GET; none if nobody answers in time.
async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.ok().flatten()
}

fn metric<'a>(metrics: &'a str, name: &str) -> Option<&'a str> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let metrics = "# HELP bizra_view Current view.\nbizra_views_total 9\nbizra_view 7\n";
        assert_eq!(metric(metrics, "bizra_view"), Some("7"));
        assert_eq!(metric(metrics, "bizra"), None);
    }
}
