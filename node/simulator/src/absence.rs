//! A validator that is away for some epochs and comes back (T2): what its turns to lead cost everybody, epoch by epoch.

use bizra_driver::Halt;
use bizra_simplex::Timing;
use bizra_simplex::types::Epoch;

use crate::leaders::Leaders;
use crate::rig::Rig;
use crate::scale::{Case, Field};
use crate::schedule::Schedule;

/// What one epoch was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Share of its power with which the absent validator takes turns, in 1/1024.
    pub share: u64,
    /// Blocks finalised.
    pub blocks: u64,
    /// Views given up between them.
    pub given_up: u64,
    /// Mean time from a batch to its finality at the first validator, in virtual milliseconds.
    pub latency: u64,
}

/// Runs validators of equal power, `delay` milliseconds from each other, through epochs of `blocks` blocks. The last
/// validator starts when so many epochs have `away` ended; the run ends `back` epochs later.
///
/// # Errors
/// If a driver does not start.
pub fn run(validators: usize, delay: u64, blocks: u64, (away, back): (u64, u64)) -> Result<Vec<Span>, Halt> {
    let schedule = Schedule::repeated(blocks, &vec![1; validators]);
    let rig = Rig::of(schedule.clone(), Timing::default())?;
    let absent = validators - 1;
    let mut field = Field::new(&rig, validators, Case::Equal(delay), (0..absent).collect())?;
    let ended = |field: &Field| {
        let last = field.finals.last().map(|(block, _)| block);
        last.map_or(0, |block| block.epoch.0 + u64::from(block.boundary.is_some()))
    };
    while ended(&field) < away && field.step() {}
    field.boot(&rig, absent)?;
    while ended(&field) < away + back && field.step() {}

    let mut leaders = Leaders::new();
    let mut spans: Vec<(Span, Vec<u64>)> = Vec::new();
    for (block, at) in &field.finals {
        leaders.count(block, &schedule);
        let epoch = block.epoch.0 as usize;
        spans.resize_with(spans.len().max(epoch + 1), Default::default);
        let (span, latencies) = &mut spans[epoch];
        span.blocks += 1;
        span.given_up = block.view.0 - span.blocks;
        latencies.extend(block.batches.iter().filter_map(|batch| Some(at - field.births.get(batch)?)));
    }
    let finish = |(epoch, (span, latencies)): (u64, (Span, Vec<u64>))| Span {
        share: leaders.share(Epoch(epoch), absent),
        latency: latencies.iter().sum::<u64>() / (latencies.len() as u64).max(1),
        ..span
    };
    Ok((0..).zip(spans).take((away + back) as usize).map(finish).collect())
}
