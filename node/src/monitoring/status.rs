//! The node's picture of itself, filled by consensus between two turns and read by everybody else without asking it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bizra_proto::v1::{NodeStatus, SigningState, SnapshotProgress, SyncState};
use tokio::sync::watch;

/// A driver that has taken no turn for so long is stuck: an idle chain has a block each second, and the longest view
/// timer is 8 s.
const STALLED_AFTER: Duration = Duration::from_mins(2);

/// The shared status. A clone is cheap; all clones show the same.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    sender: Arc<watch::Sender<Published>>,
}

#[derive(Clone, Debug)]
struct Published {
    status: NodeStatus,
    /// None until the driver's first turn, which may wait for long recovery.
    last_update: Option<Instant>,
}

impl StatusHandle {
    /// A status that says `starting`, with what is known from the configuration and the genesis.
    pub fn new(mut initial: NodeStatus) -> Self {
        env!("CARGO_PKG_VERSION").clone_into(&mut initial.version);
        initial.set_sync_state(SyncState::Starting);
        Self { sender: Arc::new(watch::Sender::new(Published { status: initial, last_update: None })) }
    }

    /// Changes the status after a turn. Cheap, callable from any thread; also the driver's sign of life, so call it at
    /// least once in some seconds.
    pub fn update(&self, change: impl FnOnce(&mut NodeStatus)) {
        self.sender.send_modify(|published| {
            change(&mut published.status);
            published.last_update = Some(Instant::now());
        });
    }

    /// The status now. Certificate and volume fields are empty here; the admin server fills them.
    pub fn current(&self) -> NodeStatus {
        self.sender.borrow().status.clone()
    }

    /// Waits until a status passes the test.
    pub async fn wait_for(&self, test: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let mut receiver = self.sender.subscribe();
        match receiver.wait_for(|published| test(&published.status)).await {
            Ok(published) => published.status.clone(),
            // Cannot be: `self` holds the sender.
            Err(_) => self.current(),
        }
    }

    /// Ready means in sync and, for a validator, able to vote; otherwise the reason it is not.
    pub fn readiness(&self) -> Result<(), String> {
        readiness(&self.sender.borrow().status)
    }

    /// Alive unless the driver has begun and then stopped taking turns.
    pub fn liveness(&self) -> Result<(), String> {
        match self.sender.borrow().last_update.map(|update| update.elapsed()) {
            Some(silent) if silent > STALLED_AFTER => Err(format!("no turn of the driver for {} s", silent.as_secs())),
            _ => Ok(()),
        }
    }
}

/// As [`StatusHandle::readiness`], for a status at hand. Inside of [`StatusHandle::wait_for`] only this may be used: asking
/// the handle again there would wait for a writer that waits for the first look to end.
pub fn readiness(status: &NodeStatus) -> Result<(), String> {
    match status.sync_state() {
        SyncState::InSync => {}
        SyncState::CatchingUp if status.snapshot.is_some() => {
            let SnapshotProgress { height, chunks, chunks_total } = status.snapshot.unwrap_or_default();
            return Err(format!("fetching the snapshot at height {height}: {chunks} of {chunks_total} chunks"));
        }
        SyncState::CatchingUp => {
            return Err(format!("catching up: at height {} of {}", status.finalized_height, status.network_height));
        }
        SyncState::Starting | SyncState::Unspecified => return Err("starting".to_owned()),
    }
    match status.signing_state() {
        SigningState::Allowed | SigningState::NotAValidator => Ok(()),
        // Who would not vote anyway is as it should be.
        SigningState::Fenced if status.power == 0 => Ok(()),
        SigningState::Fenced => Err("fenced: the configuration says that this key signs nothing".to_owned()),
        SigningState::Locked | SigningState::Unspecified => {
            Err("waiting for a quorum to say which view this key signed last".to_owned())
        }
        SigningState::Refused => Err("this key was seen signing elsewhere and must be rotated".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_in_sync_and_able_to_vote() {
        let status = StatusHandle::new(NodeStatus::default());
        assert_eq!(status.readiness(), Err("starting".to_owned()));
        status.update(|status| status.set_sync_state(SyncState::InSync));
        assert!(status.readiness().is_err(), "nothing is known about signing yet");
        for (state, ready) in [
            (SigningState::NotAValidator, true),
            (SigningState::Locked, false),
            (SigningState::Allowed, true),
            (SigningState::Refused, false),
        ] {
            status.update(|status| status.set_signing_state(state));
            assert_eq!(status.readiness().is_ok(), ready, "{state:?}");
        }
        status.update(|status| status.set_signing_state(SigningState::Fenced));
        assert!(status.readiness().is_ok(), "a full node has nothing to vote with");
        status.update(|status| status.power = 1);
        assert!(status.readiness().is_err_and(|reason| reason.contains("fenced")));
        status.update(|status| {
            status.power = 0;
            status.set_sync_state(SyncState::CatchingUp);
        });
        assert!(status.readiness().is_err());
    }

    #[test]
    fn a_node_that_still_opens_its_storage_is_alive() {
        assert_eq!(StatusHandle::new(NodeStatus::default()).liveness(), Ok(()));
    }
}
