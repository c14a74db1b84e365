//! When a volume is grown, and to what. Pure.

use k8s_openapi::{
    api::core::v1::PersistentVolumeClaim,
    jiff::{SignedDuration, Timestamp},
};

use super::{claim::bytes, labels, pod};
use crate::{
    api::{AutoGrowSpec, StorageSpec},
    planted::{self, Bug},
};

const MEBIBYTE: u128 = 1 << 20;
/// Percent of a volume in use above which it is told of even if nothing can be done by itself.
const TOLD_PERCENT: u128 = 90;

/// How full a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Not known.
    Unknown,
    /// So many percent of it are in use.
    Percent(u128),
    /// The node has stopped, because nothing more can be written.
    Full,
}

impl Fill {
    /// From bytes of the file system; 0 in all stands for unknown.
    pub fn of(total: u64, free: u64) -> Self {
        if total == 0 {
            return Self::Unknown;
        }
        let used = u128::from(total.saturating_sub(free));
        Self::Percent(used * 100 / u128::from(total))
    }

    fn percent(self) -> u128 {
        match self {
            Self::Unknown => 0,
            Self::Percent(percent) => percent,
            Self::Full => 100,
        }
    }
}

/// What becomes of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It is large enough, or larger than anybody asked: it is left as it is.
    Enough,
    /// It is asked to be this large.
    To(String),
    /// A growth is under way.
    UnderWay,
    /// It should grow, and may not before this.
    NotBefore(Timestamp),
    /// It should grow, and nobody has allowed that, or not so far.
    NotAllowed,
}

/// Judges a bound claim.
pub fn judge(existing: &PersistentVolumeClaim, storage: &StorageSpec, fill: Fill, now: Timestamp) -> Growth {
    let status = existing.status.as_ref();
    let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    let requested = existing
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref())
        .and_then(|resources| resources.requests.as_ref())
        .and_then(|requests| bytes(&requests.get("storage")?.0));
    // Growing needs a bound volume; until then the claim is too young to be too small.
    let (Some(requested), true) = (requested, bound) else { return Growth::Enough };
    let shrinks = |wanted| planted::is(Bug::VolumeShrinks) && wanted < requested;
    if bytes(&storage.size).is_some_and(|wanted| wanted > requested || shrinks(wanted)) {
        return Growth::To(storage.size.clone());
    }
    let Some(auto) = storage.auto_grow.as_ref().filter(|auto| fill.percent() >= threshold(auto)) else {
        return if fill.percent() >= TOLD_PERCENT { Growth::NotAllowed } else { Growth::Enough };
    };
    let capacity = status.and_then(|status| bytes(&status.capacity.as_ref()?.get("storage")?.0));
    if capacity.is_some_and(|capacity| capacity < requested) {
        return Growth::UnderWay;
    }
    let limit = bytes(&auto.limit).unwrap_or(0);
    let step = requested.saturating_mul(u128::try_from(auto.step_percent).unwrap_or(0)) / 100;
    let target = requested.saturating_add(step.max(MEBIBYTE)).div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE).min(limit);
    if target <= requested {
        return Growth::NotAllowed;
    }
    let grown_at = pod::annotation(&existing.metadata, labels::GROWN_AT).and_then(|at| at.parse::<Timestamp>().ok());
    let pause = SignedDuration::from_secs(i64::from(auto.cool_down_seconds));
    match grown_at.and_then(|at| at.checked_add(pause).ok()).filter(|at| *at > now) {
        Some(at) => Growth::NotBefore(at),
        None if target % MEBIBYTE == 0 => Growth::To(format!("{}Mi", target / MEBIBYTE)),
        // The limit itself, in the words of the spec.
        None => Growth::To(auto.limit.clone()),
    }
}

/// True if somebody should know how full it is.
pub fn is_trouble(fill: Fill) -> bool {
    fill.percent() >= TOLD_PERCENT
}

fn threshold(auto: &AutoGrowSpec) -> u128 {
    u128::try_from(auto.threshold_percent).unwrap_or(100)
}

/// What a claim remembers of its growth.
pub fn grown_at(now: Timestamp) -> String {
    // Whole seconds are enough.
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::resources::claim;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn storage(size: &str, limit: &str) -> StorageSpec {
        let auto = json!({"thresholdPercent": 80, "stepPercent": 25, "limit": limit, "coolDownSeconds": 3600});
        StorageSpec {
            size: size.to_owned(),
            auto_grow: Some(serde_json::from_value(auto).unwrap()),
            ..StorageSpec::default()
        }
    }

    fn bound(requested: &str, capacity: &str) -> PersistentVolumeClaim {
        let storage = StorageSpec { size: requested.to_owned(), ..StorageSpec::default() };
        let mut claim = claim::claim("demo-v0", "default", "demo", "demo-1", &storage);
        let status = json!({"phase": "Bound", "capacity": {"storage": capacity}});
        claim.status = Some(serde_json::from_value(status).unwrap());
        claim
    }

    #[test]
    fn a_volume_grows_by_a_step_at_its_threshold_and_to_its_limit() {
        let storage = storage("1Gi", "1500Mi");
        let judged = |requested: &str, fill| judge(&bound(requested, requested), &storage, fill, now());
        assert_eq!(judged("1Gi", Fill::Percent(79)), Growth::Enough);
        assert_eq!(judged("1Gi", Fill::Unknown), Growth::Enough);
        assert_eq!(judged("1Gi", Fill::Percent(80)), Growth::To("1280Mi".to_owned()));
        assert_eq!(judged("1Gi", Fill::Full), Growth::To("1280Mi".to_owned()));
        assert_eq!(judged("1280Mi", Fill::Full), Growth::To("1500Mi".to_owned()));
        assert_eq!(judged("1500Mi", Fill::Full), Growth::NotAllowed);
        // Grown by somebody else, beyond the limit: left as it is.
        assert_eq!(judged("9Gi", Fill::Percent(10)), Growth::Enough);
        assert_eq!(judged("9Gi", Fill::Percent(99)), Growth::NotAllowed);
    }

    #[test]
    fn one_growth_at_a_time_and_a_pause_after_it() {
        let storage = storage("1Gi", "4Gi");
        assert_eq!(judge(&bound("2Gi", "1Gi"), &storage, Fill::Full, now()), Growth::UnderWay);
        let mut grown = bound("2Gi", "2Gi");
        let annotations = grown.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::GROWN_AT.to_owned(), grown_at(now()));
        let later = |seconds: i64| now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(judge(&grown, &storage, Fill::Full, later(3_599)), Growth::NotBefore(later(3_600)));
        assert_eq!(judge(&grown, &storage, Fill::Full, later(3_600)), Growth::To("2560Mi".to_owned()));
    }

    #[test]
    fn the_size_in_the_spec_is_an_order_and_nothing_shrinks() {
        let plain = |size: &str| StorageSpec { size: size.to_owned(), ..StorageSpec::default() };
        assert_eq!(judge(&bound("1Gi", "1Gi"), &plain("2Gi"), Fill::Unknown, now()), Growth::To("2Gi".to_owned()));
        assert_eq!(judge(&bound("2Gi", "2Gi"), &plain("1Gi"), Fill::Percent(1), now()), Growth::Enough);
        assert_eq!(judge(&bound("1Gi", "1Gi"), &plain("1Gi"), Fill::Percent(95), now()), Growth::NotAllowed);
        let mut young = bound("1Gi", "1Gi");
        young.status = None;
        assert_eq!(judge(&young, &plain("2Gi"), Fill::Unknown, now()), Growth::Enough);
    }

    #[test]
    fn how_full_a_volume_is() {
        assert_eq!(Fill::of(0, 0), Fill::Unknown);
        assert_eq!(Fill::of(1_000, 125), Fill::Percent(87));
        assert_eq!(Fill::of(1_000, 2_000), Fill::Percent(0));
    }
}
