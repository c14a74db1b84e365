//! What a workload comes to without a fault, by two runs of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    bed::{Passage, record},
    plan::common,
    workload::Workload,
    world::{Leaves, noise},
};

/// What every plan of a workload has to come to, and where it can be hit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reference {
    pub leaves: Leaves,
    /// Paths that differ between runs without a fault.
    pub noise: BTreeSet<String>,
    /// Objects made and ended, by kind; none if that differs without a fault, too.
    pub created: BTreeMap<String, Option<usize>>,
    pub deleted: BTreeMap<String, Option<usize>>,
    pub writes: Vec<String>,
    pub events: Vec<String>,
}

impl Reference {
    /// Runs the workload twice.
    pub(crate) async fn record(workload: &Workload) -> Result<Self, String> {
        let (one, other) = (record(workload).await?, record(workload).await?);
        Ok(Self::of(one, &other))
    }

    fn of(one: Passage, other: &Passage) -> Self {
        Self {
            noise: noise(&one.leaves, &other.leaves),
            created: both(&one.created, &other.created),
            deleted: both(&one.deleted, &other.deleted),
            writes: common(&one.writes, &other.writes),
            events: common(&one.events, &other.events),
            leaves: one.leaves,
        }
    }
}

fn both(one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>) -> BTreeMap<String, Option<usize>> {
    let kinds: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let number = |kind: &String| one.get(kind).filter(|number| Some(*number) == other.get(kind)).copied();
    kinds.into_iter().map(|kind| (kind.clone(), number(kind))).collect()
}
