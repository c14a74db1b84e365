//! Bugs that the crash campaign plants to see whether its oracles find them. Without the cargo feature `planted`, which no shipped
//! binary is built with, [`is`] is a constant `false` and every hook is compiled away.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A bug that a test can plant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            /// All bugs.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// A deletion names neither uid nor version.
    DeletionUnbound = "deletion_unbound",
    /// An eviction does not name the uid.
    EvictionUnbound = "eviction_unbound",
    /// A status is written whatever version the object has by now.
    StatusUnbound = "status_unbound",
    /// A volume claim goes with its node.
    VolumeOwned = "volume_owned",
    /// The disruption budget has no owner.
    BudgetUnowned = "budget_unowned",
    /// The finalizer is only removed by an operator that finds data to delete.
    FinalizerKept = "finalizer_kept",
    /// A pool tells that it has seen its spec before it acts on it, and acts on a spec once.
    StatusFirst = "status_first",
    /// What has failed is not tried again.
    NoRetry = "no_retry",
    /// A status that could not be written counts as written.
    LostReport = "lost_report",
    /// Certificates are first issued by the operator that makes the genesis, and by no other.
    CertificatesOnce = "certificates_once",
    /// An authority is only retired along with a publication.
    AuthorityKept = "authority_kept",
    /// A list does not tell that what is not on it is gone.
    GoneKept = "gone_kept",
    /// A cache answers although it owes an own write.
    OwnWritesUnread = "own_writes_unread",
    /// A pod is made before its configuration.
    PodFirst = "pod_first",
    /// What the Network applies overwrites who has fenced a node.
    FenceOverwritten = "fence_overwritten",
    /// A volume that is larger than its spec is made smaller.
    VolumeShrinks = "volume_shrinks",
    /// Every node is changed at once, and nobody asks for a permit.
    PermitIgnored = "permit_ignored",
    /// A Service that is there is as it should be.
    ServiceOnce = "service_once",
    /// A pod whose end was told of counts as ended.
    HibernationTold = "hibernation_told",
    /// Nobody is woken by what becomes of a pod, nor by its silence.
    LossUnnoticed = "loss_unnoticed",
}

#[cfg(feature = "planted")]
mod active {
    use super::Bug;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The place of the planted one, from 1.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// Plants a bug in every operator of this process, or none.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.store(bug.map_or(0, |bug| bug as usize + 1), Ordering::SeqCst);
    }

    /// True if this bug is planted.
    pub fn is(bug: Bug) -> bool {
        ACTIVE.load(Ordering::Relaxed) == bug as usize + 1
    }
}

#[cfg(feature = "planted")]
pub use active::{is, plant};

/// True if this bug is planted: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Whether this build can plant bugs. A binary that is shipped asserts that it cannot.
pub const PLANTABLE: bool = cfg!(feature = "planted");
