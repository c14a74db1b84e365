//! Leadership by a Lease. It saves work; safety never needs it. Whoever loses the lease ends the process, because
//! whatever it has begun may be going on elsewhere.

use std::{thread, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::Tenure;

/// Times of an election. A leader stops renewing at `renew_deadline`, well before others may take over at `duration`.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// Others may take the lease this long after the last renewal they saw.
    pub duration: Duration,
    /// A leader that has not renewed for this long has lost.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// How long giving the lease back may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds the lease now.
    #[error("lost the lease {lease} to {holder}; another replica takes over")]
    Taken {
        /// Name of the lease.
        lease: String,
        /// Who holds it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("could not renew the lease {lease} within {seconds} s; ending so that another replica can take over")]
    Expired {
        /// Name of the lease.
        lease: String,
        /// The renew deadline.
        seconds: u64,
    },
    /// There is no thread to seek it on, or no runtime there.
    #[error("cannot start the thread that keeps the lease: {0}")]
    Thread(#[from] std::io::Error),
    /// There is no client for it.
    #[error("cannot make a client for the lease: {0}")]
    Client(#[from] kube::Error),
    /// The thread that keeps it has died.
    #[error("nothing keeps the lease any more; ending so that another replica can take over")]
    Abandoned,
}

/// A lease that is sought and kept on a thread of its own, over a connection of its own: it is renewed in time however much
/// there is to do, as after a start, when all objects are looked at at once. That the others still work is for the liveness
/// probe to tell.
pub struct Leadership {
    taken: oneshot::Receiver<Tenure>,
    lost: oneshot::Receiver<LeaseError>,
    leave: oneshot::Sender<()>,
}

impl Leadership {
    /// Begins to seek the lease `name` in `namespace`.
    pub fn seek(
        config: kube::Config,
        namespace: &str,
        name: &str,
        identity: &str,
        settings: LeaseSettings,
    ) -> Result<Self, LeaseError> {
        let (has_taken, taken) = oneshot::channel();
        let (has_lost, lost) = oneshot::channel();
        let (leave, is_left) = oneshot::channel();
        let (namespace, name, identity) = (namespace.to_owned(), name.to_owned(), identity.to_owned());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut elector = Elector::new(Client::try_from(config)?, &namespace, &name, &identity, settings);
                let leading = async {
                    elector.acquire().await;
                    // Should nobody listen any more, `is_left` is next.
                    let _ = has_taken.send(elector.tenure());
                    elector.keep().await
                };
                tokio::select! {
                    error = leading => return Err(error),
                    // Asked to, or the other end was dropped.
                    _ = is_left => {}
                }
                elector.release().await;
                Ok(())
            })
        };
        thread::Builder::new().name("lease".to_owned()).spawn(move || {
            if let Err(error) = work() {
                let _ = has_lost.send(error);
            }
        })?;
        Ok(Self { taken, lost, leave })
    }

    /// Waits until this process leads, or cannot come to; how long it may write then, always as of the last renewal.
    pub async fn taken(&mut self) -> Result<Tenure, LeaseError> {
        match (&mut self.taken).await {
            Ok(tenure) => Ok(tenure),
            Err(_) => Err(self.lost().await),
        }
    }

    /// Waits until the lease is lost.
    pub async fn lost(&mut self) -> LeaseError {
        (&mut self.lost).await.unwrap_or(LeaseError::Abandoned)
    }

    /// Gives the lease back, so that another replica need not wait.
    pub async fn release(self) {
        drop(self.leave);
        // The thread drops its end when it is through.
        let _ = self.lost.await;
    }
}

/// What was last seen of another holder, on our own clock: clocks of different hosts are never compared.
struct Sighting {
    holder: String,
    version: String,
    at: Instant,
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    settings: LeaseSettings,
    held: Option<Lease>,
    sighting: Option<Sighting>,
    /// Until when this process may write.
    until: watch::Sender<Option<Instant>>,
}

impl Elector {
    /// An elector for the lease `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, settings: LeaseSettings) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            settings,
            held: None,
            sighting: None,
            until: watch::Sender::new(None),
        }
    }

    /// How long this process may write, always as of the last renewal.
    pub fn tenure(&self) -> Tenure {
        Tenure::new(self.until.subscribe())
    }

    /// The lease was taken or renewed by an attempt that began at `begun`; returns that.
    fn renewed(&self, begun: Instant) -> Instant {
        self.until.send_replace(Some(begun + self.settings.renew_deadline));
        begun
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(self.settings.renew_deadline, self.attempt()).await {
                Ok(Ok(true)) => {
                    self.renewed(begun);
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, lease = %self.name, "failed to take the lease"),
                Err(_) => tracing::warn!(lease = %self.name, "taking the lease timed out"),
            }
            tokio::time::sleep(self.settings.retry).await;
        }
    }

    /// Keeps the lease; returns when it is lost.
    pub async fn keep(&mut self) -> LeaseError {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.settings.retry).await;
            let begun = Instant::now();
            let left = self.settings.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = self.renewed(begun),
                Ok(Ok(false)) => {
                    let holder = self.sighting.as_ref().map(|seen| seen.holder.clone()).unwrap_or_default();
                    return LeaseError::Taken { lease: self.name.clone(), holder };
                }
                Ok(Err(error)) => tracing::warn!(%error, lease = %self.name, "failed to renew the lease"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.settings.renew_deadline {
                return LeaseError::Expired {
                    lease: self.name.clone(),
                    seconds: self.settings.renew_deadline.as_secs(),
                };
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait. A renewal that was given up half-way may have changed it: then
    /// it is read again.
    pub async fn release(&mut self) {
        let releasing = async {
            loop {
                let held = match self.held.take() {
                    Some(lease) => Some(lease),
                    None => self.api.get_opt(&self.name).await?.filter(|lease| self.is_ours(lease)),
                };
                let Some(mut lease) = held else { return Ok(()) };
                if let Some(spec) = lease.spec.as_mut() {
                    spec.holder_identity = None;
                    spec.lease_duration_seconds = Some(1);
                }
                match self.api.replace(&self.name, &PostParams::default(), &lease).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    replaced => return replaced.map(drop),
                }
            }
        };
        if !matches!(tokio::time::timeout(RELEASE_PATIENCE, releasing).await, Ok(Ok(()))) {
            tracing::debug!(lease = %self.name, "lease not released; it will run out");
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder == Some(self.identity.as_str())
    }

    /// One attempt to take or renew, by compare-and-swap on the resource version. True if this process holds it now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let live = match &self.held {
            Some(lease) => Some(lease.clone()),
            None => self.api.get_opt(&self.name).await?,
        };
        let Some(live) = live else {
            return self.settle(self.api.create(&PostParams::default(), &self.lease(None)).await).await;
        };
        let holder = live.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.has_run_out(&live, &holder) {
            return Ok(false);
        }
        let wanted = self.lease(Some(&live));
        self.settle(self.api.replace(&self.name, &PostParams::default(), &wanted).await).await
    }

    async fn settle(&mut self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(lease) => {
                self.held = Some(lease);
                self.sighting = None;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Somebody else wrote, or our own write succeeded and its answer was lost.
                self.held = None;
                let live = self.api.get_opt(&self.name).await?;
                if live.as_ref().is_some_and(|lease| self.is_ours(lease)) {
                    self.held = live;
                    return Ok(true);
                }
                let holder =
                    live.as_ref().and_then(|lease| lease.spec.as_ref()).and_then(|spec| spec.holder_identity.clone());
                self.sighting = Some(Sighting {
                    holder: holder.unwrap_or_default(),
                    version: live.and_then(|lease| lease.metadata.resource_version).unwrap_or_default(),
                    at: Instant::now(),
                });
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// True once the lease has not changed for its whole duration, measured here.
    fn has_run_out(&mut self, live: &Lease, holder: &str) -> bool {
        let version = live.metadata.resource_version.clone().unwrap_or_default();
        match &self.sighting {
            Some(seen) if seen.version == version => seen.at.elapsed() >= self.settings.duration,
            _ => {
                self.sighting = Some(Sighting { holder: holder.to_owned(), version, at: Instant::now() });
                false
            }
        }
    }

    fn lease(&self, previous: Option<&Lease>) -> Lease {
        let old = previous.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let continued = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let now = Some(MicroTime(Timestamp::now()));
        Lease {
            metadata: previous.map_or_else(
                || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
                acquire_time: if continued { old.acquire_time } else { now.clone() },
                renew_time: now,
                lease_transitions: Some(if continued {
                    old.lease_transitions.unwrap_or(0)
                } else {
                    old.lease_transitions.map_or(0, |count| count.saturating_add(1))
                }),
                ..LeaseSpec::default()
            }),
        }
    }
}
