//! Takes up new peers from the configuration file while the node runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::configuration::{Configuration, ConfigurationError, PeerConfiguration};

/// Compares the file with what is in use every `interval`, until `stopped` turns true. A file that is not valid changes
/// nothing: the peers in use stay.
pub(super) async fn follow(
    file: PathBuf,
    configuration: Configuration,
    interval: Duration,
    wanted: watch::Sender<Vec<PeerConfiguration>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut follower = Follower { file, configuration, seen: None };
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        // Contents are compared, not times: a ConfigMap mount swaps links, and the file is a few kilobytes.
        if let Some(peers) = follower.look(tokio::fs::read_to_string(&follower.file).await) {
            wanted.send_replace(peers);
        }
    }
}

struct Follower {
    file: PathBuf,
    /// What is in use: as started, with the newest peers.
    configuration: Configuration,
    /// What was read last, or why it could not be: each is judged, and warned of, once.
    seen: Option<Result<String, String>>,
}

impl Follower {
    /// New peers, if the file has some.
    fn look(&mut self, read: std::io::Result<String>) -> Option<Vec<PeerConfiguration>> {
        let read = read.map_err(|error| error.to_string());
        if self.seen.as_ref() == Some(&read) {
            return None;
        }
        let path = self.file.display();
        let parsed = match &read {
            Ok(text) => self.parse(text, &self.file).map_err(|error| error.to_string()),
            Err(error) => Err(format!("cannot read {path}: {error}")),
        };
        self.seen = Some(read);
        match parsed {
            Err(error) => {
                tracing::warn!(%error, "the changed configuration is refused; the peers in use stay");
                None
            }
            Ok(new) => {
                let rest = Configuration { peers: self.configuration.peers.clone(), ..new.clone() };
                if rest != self.configuration {
                    tracing::warn!(%path, "the configuration has changed beyond its peers: a restart takes that up");
                }
                if new.peers == self.configuration.peers {
                    return None;
                }
                tracing::info!(peers = new.peers.len(), "new peers are in use");
                self.configuration.peers.clone_from(&new.peers);
                Some(new.peers)
            }
        }
    }

    fn parse(&self, text: &str, path: &Path) -> Result<Configuration, ConfigurationError> {
        let new = Configuration::parse(text, path)?;
        if new.node_name == self.configuration.node_name {
            return Ok(new);
        }
        // Its list of peers would hold this node itself, and not the one it is for.
        let what = format!("is {:?}, and this is {:?}", new.node_name, self.configuration.node_name);
        Err(ConfigurationError::Field { field: "node_name".to_owned(), what })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn text(name: &str, peers: &[&str]) -> String {
        let peers = peers.iter().map(|peer| format!("\n[[peers]]\nname = \"{peer}\"\naddress = \"{peer}:1\"\n"));
        let head = format!(
            "node_name = \"{name}\"\ndata_dir = \"d\"\nvolume_id = \"u\"\ngenesis_file = \"g\"\n[tls]\n\
             certificate_file = \"c\"\nca_file = \"a\"\noperator_ca_file = \"o\"\n"
        );
        [head].into_iter().chain(peers).collect()
    }

    fn follower() -> Follower {
        let configuration = Configuration::parse(&text("v0", &["v1"]), Path::new("node.toml")).unwrap();
        Follower { file: PathBuf::from("node.toml"), configuration, seen: None }
    }

    #[test]
    fn new_peers_are_taken_up_once() {
        let mut follower = follower();
        assert_eq!(follower.look(Ok(text("v0", &["v1"]))), None);
        let new = follower.look(Ok(text("v0", &["v1", "v2"]))).unwrap();
        assert_eq!(new.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
        assert_eq!(follower.look(Ok(text("v0", &["v1", "v2"]))), None);
        assert_eq!(follower.look(Ok(text("v0", &[]))), Some(Vec::new()));
    }

    #[test]
    fn a_file_that_is_not_valid_or_of_another_node_changes_nothing() {
        let mut follower = follower();
        for bad in [text("v0", &["v0"]), text("v0", &["v2", "v2"]), text("v9", &["v2"]), "peers = 1".to_owned()] {
            assert_eq!(follower.look(Ok(bad)), None);
        }
        assert_eq!(follower.look(Err(std::io::ErrorKind::NotFound.into())), None);
        assert!(follower.look(Ok(text("v0", &["v2"]))).is_some());
    }
}
