//! Faults of hosts: power, links, the way to the API server. They need the embedded cluster, whose hosts are on this machine.

use std::path::PathBuf;

use kube::Config;
use tokio::process::Command;

use crate::scene::SceneError;

/// The hosts of the embedded cluster.
#[derive(Clone, Debug)]
pub struct Hosts {
    cluster: PathBuf,
}

/// A fault that lasts until it is healed, at the latest when this is dropped: a test that fails leaves no broken host behind.
#[must_use = "the fault is healed as soon as this is dropped"]
#[derive(Debug)]
pub struct Fault {
    undo: Option<Vec<String>>,
}

impl Fault {
    /// Ends the fault.
    pub async fn heal(mut self) -> Result<(), SceneError> {
        match self.undo.take() {
            Some(undo) => run(&undo).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some((program, arguments)) = self.undo.take().as_deref().and_then(<[String]>::split_first) {
            // The test has failed already; what goes wrong here shows in the next one.
            let _ = std::process::Command::new(program).args(arguments).output();
        }
    }
}

impl Hosts {
    /// The embedded cluster of `BIZRA_CLUSTER_BIN`.
    pub fn embedded() -> Result<Self, SceneError> {
        let folder = std::env::var_os("BIZRA_CLUSTER_BIN").ok_or_else(|| {
            SceneError::Unexpected(
                "BIZRA_CLUSTER_BIN is not set: faults of hosts need the embedded cluster; run `make e2e` without KUBECONFIG"
                    .to_owned(),
            )
        })?;
        Ok(Self { cluster: PathBuf::from(folder).join("cluster") })
    }

    fn line(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.cluster.to_string_lossy().into_owned();
        std::iter::once(program).chain(arguments.iter().map(|&argument| argument.to_owned())).collect()
    }

    /// Runs a command inside of a host and returns what it says.
    pub async fn exec(&self, host: &str, command: &[&str]) -> Result<String, SceneError> {
        run(&self.line(&[&["node-exec", index(host)?], command].concat())).await
    }

    /// Takes the power of a host. Its disk stays.
    pub async fn power_off(&self, host: &str) -> Result<Fault, SceneError> {
        let index = index(host)?;
        let fault = Fault { undo: Some(self.line(&["node-on", index])) };
        run(&self.line(&["node-off", index])).await?;
        Ok(fault)
    }

    /// Cuts the link of a host: nothing reaches it or leaves it, and all that runs on it goes on.
    pub async fn cut_link(&self, host: &str) -> Result<Fault, SceneError> {
        let link = format!("bizra-v{}", index(host)?);
        let set = |state: &str| ["ip", "link", "set", &link, state].map(str::to_owned).to_vec();
        let fault = Fault { undo: Some(set("up")) };
        run(&set("down")).await?;
        Ok(fault)
    }

    /// Takes the API server from a host's own programs, the kubelet first of all; its pods reach everything as before.
    pub async fn hide_api_server(&self, host: &str) -> Result<Fault, SceneError> {
        let config = Config::infer().await.map_err(|error| SceneError::Unexpected(error.to_string()))?;
        let unexpected = || SceneError::Unexpected(format!("no address and port in {}", config.cluster_url));
        let address = config.cluster_url.host().ok_or_else(unexpected)?.to_owned();
        let port = config.cluster_url.port_u16().ok_or_else(unexpected)?.to_string();
        let index = index(host)?;
        let rule = |operation| {
            let rule = ["OUTPUT", "-d", &address, "-p", "tcp", "--dport", &port, "-j", "DROP"];
            self.line(&[&["node-exec", index, "iptables", "-w", operation], &rule[..]].concat())
        };
        let fault = Fault { undo: Some(rule("-D")) };
        run(&rule("-I")).await?;
        Ok(fault)
    }

    /// Gives an image that is on every host another name there.
    pub async fn name_image(&self, hosts: &[String], from: &str, to: &str) -> Result<(), SceneError> {
        let ctr = self.cluster.with_file_name("ctr").to_string_lossy().into_owned();
        for host in hosts {
            self.exec(host, &[&ctr, "--namespace", "k8s.io", "images", "tag", "--force", from, to]).await?;
        }
        Ok(())
    }
}

/// The number of a host of the embedded cluster.
fn index(host: &str) -> Result<&str, SceneError> {
    host.strip_prefix("node")
        .filter(|index| index.parse::<u8>().is_ok())
        .ok_or_else(|| SceneError::Unexpected(format!("{host} is no host of the embedded cluster")))
}

/// Runs a program to its end and returns what it prints.
pub async fn run(line: &[String]) -> Result<String, SceneError> {
    let failed = |why: String| SceneError::Unexpected(format!("`{}`: {why}", line.join(" ")));
    let (program, arguments) = line.split_first().ok_or_else(|| failed("nothing to run".to_owned()))?;
    let output = Command::new(program).args(arguments).output().await.map_err(|error| failed(error.to_string()))?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(failed(format!("{} {error}{out}", output.status))) }
}
