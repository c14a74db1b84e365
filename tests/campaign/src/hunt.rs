//! Plants one bug after the other into the operator, and carries out the plans that should find it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bizra_operator::planted::{Bug, plant};
use futures::future::join_all;

use crate::{
    bed::Outcome,
    campaign::{carry_out, plans_of, references, workloads},
    plan::Plan,
};

/// How long a plan may take; a bug shows as an end that is never reached.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which plans should find a bug: what their names begin with.
fn plans_for(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::DeletionUnbound => &["pool-scale-down/calm"],
        Bug::EvictionUnbound | Bug::PermitIgnored => &["network-upgrade/calm"],
        Bug::StatusUnbound | Bug::BudgetUnowned | Bug::PodFirst => &["network-creation/calm"],
        Bug::VolumeOwned => &["node-deletion/calm"],
        Bug::FinalizerKept => &["network-deletion-of-data/seen/delete:secrets"],
        Bug::StatusFirst => &["pool-scale-up/seen/update:nodepools"],
        Bug::NoRetry => &["node-growth/refused", "network-services/refused", "pool-scale-up/refused"],
        Bug::LostReport => &["node-creation/refused/update:bizranodes/extra"],
        Bug::CertificatesOnce => &["network-creation/seen/create:configmaps"],
        Bug::AuthorityKept => &["network-rotation/refused/delete:secrets"],
        Bug::GoneKept => &["network-pod-loss/missed/DELETED"],
        Bug::OwnWritesUnread => &["node-creation/held/create:pods", "network-creation/held/create:pods"],
        Bug::FenceOverwritten => &["node-fence/calm"],
        Bug::VolumeShrinks => &["network-fill/calm"],
        Bug::ServiceOnce => &["network-services/calm"],
        Bug::HibernationTold => &["network-hibernation/refused/delete:pods"],
        Bug::LossUnnoticed => &["network-pod-loss/calm"],
    }
}

/// What found a bug.
struct Finding {
    plan: Plan,
    how: String,
}

fn is_for(plan: &Plan, bug: Bug) -> bool {
    plans_for(bug).iter().any(|begin| plan.name().starts_with(begin))
}

/// Plants these bugs (all, if none is named), so many plans at a time; true if each was found, and no plan that found one fails
/// without it.
pub async fn hunt(names: &[String], jobs: usize) -> bool {
    let bugs: Vec<Bug> = Bug::ALL
        .iter()
        .copied()
        .filter(|bug| names.is_empty() || names.iter().any(|name| name == bug.name()))
        .collect();
    let begins = bugs.iter().flat_map(|bug| plans_for(*bug));
    let needed: Vec<String> = begins.filter_map(|begin| begin.split('/').next()).map(str::to_owned).collect();
    let workloads = workloads(&needed);
    let (references, failures) = references(workloads, jobs, std::collections::HashMap::new()).await;
    assert!(failures.is_empty(), "without a bug: {failures:?}");
    let plans = plans_of(workloads, &references);
    let carried_out = async |some: &[Plan]| {
        let attempts = some.iter().map(|plan| {
            let workload = workloads.iter().find(|workload| workload.name == plan.workload).unwrap();
            carry_out(plan.clone(), workload, references[plan.workload].clone(), PATIENCE)
        });
        let failed = join_all(attempts).await.into_iter().filter_map(|(plan, outcome)| match outcome {
            Outcome::Failed(found, _) => Some(Finding { plan, how: found.into_iter().next().unwrap_or_default() }),
            _ => None,
        });
        failed.collect::<Vec<_>>()
    };

    println!("{:<20} {:>6} {:>8}  found by", "planted bug", "plans", "seconds");
    let (mut found, mut suspects) = (0, BTreeSet::new());
    for bug in &bugs {
        let started = Instant::now();
        let mine: Vec<Plan> = plans.iter().filter(|plan| is_for(plan, *bug)).cloned().collect();
        let mut tried = 0;
        let mut finding = None;
        plant(Some(*bug));
        for some in mine.chunks(jobs) {
            tried += some.len();
            finding = carried_out(some).await.into_iter().next();
            if finding.is_some() {
                break;
            }
        }
        plant(None);
        let by = match &finding {
            Some(Finding { plan, how }) => format!("{}: {}", plan.name(), how.chars().take(110).collect::<String>()),
            None => "NOT FOUND".to_owned(),
        };
        println!("{:<20} {tried:>6} {:>8.1}  {by}", bug.name(), started.elapsed().as_secs_f64());
        found += usize::from(finding.is_some());
        suspects.extend(finding.map(|finding| finding.plan.name()));
    }
    let control: Vec<Plan> = plans.into_iter().filter(|plan| suspects.contains(&plan.name())).collect();
    let mut alarms = Vec::new();
    for some in control.chunks(jobs) {
        alarms.extend(carried_out(some).await);
    }
    for Finding { plan, how } in &alarms {
        println!("FALSE ALARM {}: {how}", plan.name());
    }
    println!(
        "found {found} of {} planted bugs; without them {} of {} plans fail",
        bugs.len(),
        alarms.len(),
        control.len()
    );
    found == bugs.len() && alarms.is_empty()
}
