//! Takes up what may change in the configuration file while the node runs: its peers, and whether it may sign.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::configuration::{Configuration, ConfigurationError, PeerConfiguration, SigningConfiguration};

/// Compares the file with what is in use every `interval`, until `stopped` turns true. A file that is not valid changes
/// nothing: what is in use stays.
pub(super) async fn follow(
    file: PathBuf,
    configuration: Configuration,
    interval: Duration,
    wanted: watch::Sender<Vec<PeerConfiguration>>,
    signing: watch::Sender<SigningConfiguration>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut follower = Follower { file, configuration, seen: None };
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        // Contents are compared, not times: a ConfigMap mount swaps links, and the file is a few kilobytes.
        let changes = follower.look(tokio::fs::read_to_string(&follower.file).await);
        if let Some(peers) = changes.peers {
            wanted.send_replace(peers);
        }
        if let Some(permission) = changes.signing {
            signing.send_replace(permission);
        }
    }
}

/// What a file says anew.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    peers: Option<Vec<PeerConfiguration>>,
    signing: Option<SigningConfiguration>,
}

struct Follower {
    file: PathBuf,
    /// What is in use: as started, with the newest of what may change.
    configuration: Configuration,
    /// What was read last, or why it could not be: each is judged, and warned of, once.
    seen: Option<Result<String, String>>,
}

impl Follower {
    /// What is new in the file.
    fn look(&mut self, read: std::io::Result<String>) -> Changes {
        let read = read.map_err(|error| error.to_string());
        if self.seen.as_ref() == Some(&read) {
            return Changes::default();
        }
        let path = self.file.display();
        let parsed = match &read {
            Ok(text) => self.parse(text, &self.file).map_err(|error| error.to_string()),
            Err(error) => Err(format!("cannot read {path}: {error}")),
        };
        self.seen = Some(read);
        match parsed {
            Err(error) => {
                tracing::warn!(%error, "the changed configuration is refused; what is in use stays");
                Changes::default()
            }
            Ok(new) => {
                let used = &mut self.configuration;
                let rest = Configuration { peers: used.peers.clone(), signing: used.signing, ..new.clone() };
                if rest != *used {
                    tracing::warn!(%path, "more has changed in the configuration than peers and signing: a restart takes that up");
                }
                let mut changes = Changes::default();
                if new.peers != used.peers {
                    tracing::info!(peers = new.peers.len(), "new peers are in use");
                    used.peers.clone_from(&new.peers);
                    changes.peers = Some(new.peers);
                }
                if new.signing != used.signing {
                    used.signing = new.signing;
                    changes.signing = Some(new.signing);
                }
                changes
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
        assert_eq!(follower.look(Ok(text("v0", &["v1"]))), Changes::default());
        let new = follower.look(Ok(text("v0", &["v1", "v2"]))).peers.unwrap();
        assert_eq!(new.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
        assert_eq!(follower.look(Ok(text("v0", &["v1", "v2"]))), Changes::default());
        assert_eq!(follower.look(Ok(text("v0", &[]))).peers, Some(Vec::new()));
    }

    #[test]
    fn a_fence_is_taken_up_and_an_unreadable_file_does_not_lift_it() {
        let mut follower = follower();
        let fenced = format!("signing = \"fenced\"\n{}", text("v0", &["v1"]));
        let order = |signing| Changes { peers: None, signing: Some(signing) };
        assert_eq!(follower.look(Ok(fenced.clone())), order(SigningConfiguration::Fenced));
        assert_eq!(follower.look(Err(std::io::ErrorKind::NotFound.into())), Changes::default());
        assert_eq!(follower.look(Ok("signing = \"perhaps\"".to_owned())), Changes::default());
        assert_eq!(follower.look(Ok(fenced)), Changes::default());
        assert_eq!(follower.look(Ok(text("v0", &["v1"]))), order(SigningConfiguration::Allowed));
    }

    #[test]
    fn a_file_that_is_not_valid_or_of_another_node_changes_nothing() {
        let mut follower = follower();
        for bad in [text("v0", &["v0"]), text("v0", &["v2", "v2"]), text("v9", &["v2"]), "peers = 1".to_owned()] {
            assert_eq!(follower.look(Ok(bad)), Changes::default());
        }
        assert_eq!(follower.look(Err(std::io::ErrorKind::NotFound.into())), Changes::default());
        assert!(follower.look(Ok(text("v0", &["v2"]))).peers.is_some());
    }
}
