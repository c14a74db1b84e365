//! `kill -9` at random instants under load: one validator, several, all; again while they recover.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::campaign::Campaign;
use crate::layout::create_folder;
use crate::oracle::{Checked, Death, Settled, check_dead, settle};
use crate::record::Moment;
use crate::report::Recovery;
use crate::scene::Scene;
use crate::{FaultError, VALIDATORS};

/// A validator that does not vote by then has failed.
pub(crate) const VOTING: Duration = Duration::from_mins(1);

/// Of a hundred strikes, so many come while the validators still recover from the last.
const STRIKE_AGAIN_PERCENT: u64 = 20;

/// What the part found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kills {
    pub(crate) count: u64,
    pub(crate) strikes: u64,
    /// Strikes that took all validators.
    pub(crate) total: u64,
    pub(crate) recovery: Recovery,
    pub(crate) checked: Checked,
    pub(crate) settled: Settled,
    pub(crate) resubmitted: u64,
}

/// Kills validators until `count` have died.
pub(crate) fn run(count: u64, campaign: &mut Campaign) -> Result<Kills, FaultError> {
    let root = campaign.options.work.join("kills");
    create_folder(&root)?;
    campaign.leftovers.folder(&root)?;
    let data: Vec<PathBuf> = (0..VALIDATORS).map(|index| root.join(format!("v{index}"))).collect();
    for folder in &data {
        create_folder(folder)?;
    }
    let mut scene = Scene::start(&root, &data, campaign.options.rate, campaign)?;
    let mut kills = Kills::default();
    let mut checked_to = 0;
    while kills.count < count {
        let wait = campaign.random.milliseconds(100, 1_500);
        campaign.pause(wait)?;
        let victims = campaign.random.victims(VALIDATORS);
        let mut started = BTreeMap::new();
        strike(&mut scene, &victims, &mut checked_to, &mut kills, &mut started, campaign)?;
        while campaign.random.percent(STRIKE_AGAIN_PERCENT) {
            let wait = campaign.random.milliseconds(20, 900);
            campaign.pause(wait)?;
            let again: Vec<usize> = victims.iter().copied().filter(|_| campaign.random.percent(70)).collect();
            strike(&mut scene, &again, &mut checked_to, &mut kills, &mut started, campaign)?;
        }
        let mut failed = false;
        for (victim, (fence, restarted)) in started {
            match scene.wait_until_voting(victim, restarted, fence, VOTING, campaign)? {
                Ok(time) => kills.recovery.add(time),
                Err(what) => {
                    failed = true;
                    campaign.found(what);
                }
            }
        }
        if failed {
            break;
        }
        if kills.strikes % 20 == 0 || kills.count >= count {
            println!("  {} kills in {} strikes, {} receipts", kills.count, kills.strikes, scene.traffic.count());
        }
    }
    kills.settled = settle(&mut scene, campaign)?;
    kills.resubmitted = scene.traffic.resubmitted();
    Ok(kills)
}

/// Kills these validators, checks what they left, and starts them again; notes when, and what had been seen by then.
fn strike(
    scene: &mut Scene,
    victims: &[usize],
    checked_to: &mut usize,
    kills: &mut Kills,
    started: &mut BTreeMap<usize, (Moment, Instant)>,
    campaign: &mut Campaign,
) -> Result<(), FaultError> {
    let mut died = Vec::new();
    for &victim in victims {
        died.push(Instant::now());
        scene.nodes[victim].kill();
        let gap = campaign.random.below(20_000);
        std::thread::sleep(Duration::from_micros(gap));
    }
    let from = std::mem::replace(checked_to, scene.traffic.count());
    for (&victim, &died) in victims.iter().zip(&died) {
        check_dead(scene, victim, Death::Kill, died, from, &mut kills.checked, campaign)?;
    }
    for &victim in victims {
        started.insert(victim, (scene.watcher.highest(), Instant::now()));
        scene.nodes[victim].start(&mut campaign.leftovers)?;
    }
    kills.count += victims.len() as u64;
    kills.strikes += u64::from(!victims.is_empty());
    kills.total += u64::from(victims.len() == VALIDATORS);
    Ok(())
}
