//! What processes spend between two moments: processor time, bytes to the disk, memory; from `/proc`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::BenchError;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(500);

/// Counts the syncs of all validators since they started; none if one does not answer.
pub(crate) type Syncs = Box<dyn Fn() -> Option<f64>>;

/// What the validators used during a run.
pub(crate) struct Usage {
    /// Seconds of CPU, all validators together.
    pub(crate) cpu_seconds: f64,
    /// Syncs of database and signing record, all validators together; none if they do not tell.
    pub(crate) syncs: Option<f64>,
    /// Bytes sent to the disk, all validators together.
    pub(crate) written_bytes: f64,
    /// Most memory one validator had resident at any look, bytes.
    pub(crate) resident_bytes_max: f64,
    /// Seconds of CPU by name of thread, all validators together, the most first. Threads that ended meanwhile are left out.
    pub(crate) threads: Vec<(String, f64)>,
}

/// Looks at the validators until [`Watch::finish`].
pub(crate) struct Watch {
    validators: Vec<u32>,
    syncs: Option<Syncs>,
    before: Totals,
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<f64>,
}

/// What all validators together have used since they started.
struct Totals {
    cpu_seconds: f64,
    syncs: Option<f64>,
    written_bytes: f64,
    threads: BTreeMap<String, f64>,
}

impl Watch {
    /// Begins to watch these processes.
    pub(crate) fn start(validators: Vec<u32>, syncs: Option<Syncs>) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, watched) = (Arc::clone(&stop), validators.clone());
        let before = Totals::read(&validators, syncs.as_ref())?;
        let sampler = std::thread::spawn(move || {
            let mut most = 0.0_f64;
            while !stopped.load(Ordering::Relaxed) {
                most = watched.iter().filter_map(|process| resident_bytes(*process)).fold(most, f64::max);
                std::thread::sleep(SAMPLE);
            }
            most
        });
        Ok(Self { validators, syncs, before, stop, sampler })
    }

    /// What they spent since.
    pub(crate) fn finish(self) -> Result<Usage, BenchError> {
        let after = Totals::read(&self.validators, self.syncs.as_ref())?;
        self.stop.store(true, Ordering::Relaxed);
        let resident_bytes_max = self.sampler.join().unwrap_or_default();
        let mut threads: Vec<(String, f64)> = after
            .threads
            .into_iter()
            .map(|(name, seconds)| {
                let spent = seconds - self.before.threads.get(&name).copied().unwrap_or_default();
                (name, spent.max(0.0))
            })
            .collect();
        threads.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Ok(Usage {
            cpu_seconds: after.cpu_seconds - self.before.cpu_seconds,
            syncs: after.syncs.zip(self.before.syncs).map(|(after, before)| after - before),
            written_bytes: after.written_bytes - self.before.written_bytes,
            resident_bytes_max,
            threads,
        })
    }
}

impl Totals {
    fn read(validators: &[u32], syncs: Option<&Syncs>) -> Result<Self, BenchError> {
        let sum = |of: fn(u32) -> Option<f64>| validators.iter().map(|process| of(*process)).sum::<Option<f64>>();
        let read = || {
            let syncs = match syncs {
                Some(count) => Some(count()?),
                None => None,
            };
            let mut threads = BTreeMap::new();
            for process in validators {
                add_threads(*process, &mut threads);
            }
            Some(Self { cpu_seconds: sum(cpu_seconds)?, syncs, written_bytes: sum(written_bytes)?, threads })
        };
        read().ok_or_else(|| BenchError::Network("a validator does not answer any more".to_owned()))
    }
}

/// The processes a process has started.
pub(crate) fn children(process: u32) -> Result<Vec<u32>, BenchError> {
    let path = format!("/proc/{process}/task");
    let failed = |error| BenchError::Io(path.clone(), error);
    let mut children = Vec::new();
    // A child belongs to the thread that started it.
    for thread in std::fs::read_dir(&path).map_err(failed)? {
        let list = std::fs::read_to_string(thread.map_err(failed)?.path().join("children")).map_err(failed)?;
        children.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Processor time a process has used, also after its end until it is waited for; in hundredths.
pub(crate) fn cpu_seconds(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    name_and_cpu_seconds(&text).map(|(_, seconds)| seconds)
}

/// Adds the processor time of each thread to those of its name; numbers in names do not tell threads apart.
fn add_threads(process: u32, threads: &mut BTreeMap<String, f64>) {
    let Ok(folder) = std::fs::read_dir(format!("/proc/{process}/task")) else { return };
    for thread in folder.flatten() {
        // It may have ended since.
        let Ok(text) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        if let Some((name, seconds)) = name_and_cpu_seconds(&text) {
            let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '_' | ':' | '#'));
            *threads.entry(name.to_owned()).or_default() += seconds;
        }
    }
}

/// From the text of a `stat` of `/proc`.
fn name_and_cpu_seconds(text: &str) -> Option<(&str, f64)> {
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut times = after.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    Some((name, (ticks()? + ticks()?) / rustix::param::clock_ticks_per_second() as f64))
}

fn written_bytes(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

fn resident_bytes(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages = text.split_whitespace().nth(1)?.parse::<f64>().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_name_holds() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(name_and_cpu_seconds(text), Some(("a) b", 300.0 / per_second)));
        assert_eq!(name_and_cpu_seconds("7 (a S 1"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_threads() {
        let process = std::process::id();
        let mut threads = BTreeMap::new();
        add_threads(process, &mut threads);
        assert!(!threads.is_empty());
        assert!(cpu_seconds(process).is_some() && resident_bytes(process).is_some_and(|bytes| bytes > 4096.0));
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}
