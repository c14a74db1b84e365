//! Power cuts: each validator's data on a volume of its own; at random instants, under load, some of the volumes lose
//! everything that was not on them, and the validators go on from what is left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::campaign::Campaign;
use crate::control::{Arm, Judgement, Recorder};
use crate::kills::VOTING;
use crate::layout::create_folder;
use crate::oracle::{Checked, Death, Settled, check_dead, settle};
use crate::report::Recovery;
use crate::scene::Scene;
use crate::volume::{FileSystem, Ground, Volume};
use crate::{FaultError, VALIDATORS};

/// What the part found.
#[derive(Clone, Debug)]
pub(crate) struct Cuts {
    pub(crate) file_system: FileSystem,
    pub(crate) count: u64,
    /// Instants at which all validators lost power.
    pub(crate) total: u64,
    pub(crate) recovery: Recovery,
    pub(crate) checked: Checked,
    pub(crate) settled: Settled,
    pub(crate) judgements: Vec<Judgement>,
}

impl Cuts {
    /// Of the cuts of an arm: how many, how many lost something, how many left no record, and the most numbers lost.
    pub(crate) fn arm(&self, arm: Arm) -> (usize, usize, usize, u64) {
        let all: Vec<&Judgement> = self.judgements.iter().filter(|judgement| judgement.arm == arm).collect();
        let lost = all.iter().filter(|judgement| judgement.lost() > 0).count();
        let none = all.iter().filter(|judgement| judgement.acknowledged > 0 && judgement.recorded.is_none()).count();
        (all.len(), lost, none, all.iter().map(|judgement| judgement.lost()).max().unwrap_or_default())
    }
}

/// Cuts the power of volumes until `count` have lost it.
pub(crate) fn run(
    count: u64,
    file_system: FileSystem,
    ground: &Ground,
    campaign: &mut Campaign,
) -> Result<Cuts, FaultError> {
    let root = campaign.options.work.join(format!("cuts-{}", file_system.name()));
    create_folder(&root)?;
    campaign.leftovers.folder(&root)?;
    let data: Vec<PathBuf> = (0..VALIDATORS).map(|index| root.join(format!("v{index}"))).collect();
    let mut volumes = Vec::new();
    for (index, path) in data.iter().enumerate() {
        let name = format!("{}-v{index}", file_system.name());
        volumes.push(Volume::make(ground, &name, file_system, path, &mut campaign.leftovers)?);
    }
    let mut scene = Scene::start(&root, &data, campaign.options.rate, campaign)?;
    let mut recorders: Vec<Vec<Recorder>> = Vec::new();
    for volume in &volumes {
        recorders.push(start_recorders(volume, campaign)?);
    }
    let mut cuts = Cuts {
        file_system,
        count: 0,
        total: 0,
        recovery: Recovery::default(),
        checked: Checked::default(),
        settled: Settled::default(),
        judgements: Vec::new(),
    };
    let mut strikes = 0;
    let mut receipts_from = 0;
    while cuts.count < count {
        let wait = campaign.random.milliseconds(100, 1_500);
        campaign.pause(wait)?;
        let victims = campaign.random.victims(VALIDATORS);
        let mut died = Vec::new();
        for &victim in &victims {
            died.push(Instant::now());
            // Nothing may be said after the instant of the cut, which is that of the clone.
            scene.nodes[victim].freeze();
            recorders[victim].iter().for_each(Recorder::freeze);
            volumes[victim].cut()?;
            scene.nodes[victim].kill();
            recorders[victim].iter_mut().for_each(Recorder::end);
            let gap = campaign.random.below(20_000);
            std::thread::sleep(Duration::from_micros(gap));
        }
        let from = std::mem::replace(&mut receipts_from, scene.traffic.count());
        for (&victim, &died) in victims.iter().zip(&died) {
            volumes[victim].power_on(&mut campaign.leftovers)?;
            for recorder in recorders[victim].drain(..) {
                cuts.judgements.push(recorder.judge());
            }
            check_dead(&scene, victim, Death::PowerCut, died, from, &mut cuts.checked, campaign)?;
        }
        let mut started = Vec::new();
        for &victim in &victims {
            started.push((victim, scene.watcher.highest(), Instant::now()));
            scene.nodes[victim].start(&mut campaign.leftovers)?;
            recorders[victim] = start_recorders(&volumes[victim], campaign)?;
        }
        cuts.count += victims.len() as u64;
        cuts.total += u64::from(victims.len() == VALIDATORS);
        strikes += 1;
        let mut failed = false;
        for (victim, fence, restarted) in started {
            match scene.wait_until_voting(victim, restarted, fence, VOTING, campaign)? {
                Ok(time) => cuts.recovery.add(time),
                Err(what) => {
                    failed = true;
                    campaign.found(what);
                }
            }
        }
        if failed {
            break;
        }
        if strikes % 10 == 0 || cuts.count >= count {
            println!("  {} cuts on {}, {} receipts", cuts.count, file_system.name(), scene.traffic.count());
        }
    }
    drop(recorders);
    cuts.settled = settle(&mut scene, campaign)?;
    drop(scene);
    for volume in volumes {
        volume.remove()?;
    }
    judge(&cuts, campaign);
    Ok(cuts)
}

fn start_recorders(volume: &Volume, campaign: &mut Campaign) -> Result<Vec<Recorder>, FaultError> {
    Arm::ALL.into_iter().map(|arm| Recorder::start(arm, volume.path(), &mut campaign.leftovers)).collect()
}

/// The product's way must lose nothing, and the other something: otherwise the cuts do not cut.
fn judge(cuts: &Cuts, campaign: &mut Campaign) {
    let name = cuts.file_system.name();
    let (_, lost, _, most) = cuts.arm(Arm::Slots);
    if lost > 0 {
        campaign.found(format!("{name}: the synced record lost up to {most} acknowledged numbers, in {lost} cuts"));
    }
    let (trials, lost, _, _) = cuts.arm(Arm::Rename);
    if lost == 0 {
        campaign.found(format!("{name}: the record without syncs lost nothing in {trials} cuts: they prove nothing"));
    }
}
