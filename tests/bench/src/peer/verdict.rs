//! The table, and what was aimed at next to what came out.

use serde_json::{Value, json};

use super::comet::{Application, Settings};
use super::ladder::Outcome;
use super::{Mode, P99_MAX, Side, Subject};
use crate::cores;
use crate::devnet::VALIDATORS;
use crate::load::Run;
use crate::signatures::CheckCost;

/// `signed` finalises so many times what CometBFT does at its best.
const SIGNED_MIN: f64 = 3.0;
/// `signed` finalises in time so many times what CometBFT finalises in time.
const SIGNED_IN_TIME_MIN: f64 = 5.0;
/// Or `signed` comes so near to what the processors could check at all.
const CEILING_SHARE_MIN: f64 = 0.85;
/// `opaque` finalises so many times what CometBFT does.
const OPAQUE_MIN: f64 = 10.0;

/// What came out of a comparison.
pub(super) struct Verdicts(Vec<Verdict>);

struct Verdict {
    what: String,
    /// None where others decide.
    value: Option<f64>,
    /// None where there is no aim.
    aim: Option<f64>,
    met: Option<bool>,
}

pub(super) fn print_header() {
    println!(
        "{:>32} {:>9} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6}",
        "", "offered/s", "finalised/s", "final %", "p50 ms", "p95 ms", "p99 ms", "CPU us/tx", "B/tx", "MiB"
    );
}

pub(super) fn print_run(subject: Subject, run: &Run, outcome: Outcome) {
    let remark = match outcome {
        Outcome::InTime => "",
        Outcome::Late => "  late",
        Outcome::Overloaded => "  did not keep up",
    };
    println!(
        "{:>32} {:>9} {:>11.0} {:>7.2} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>8.0} {:>6.0}{remark}",
        subject.name(),
        run.rate,
        run.number("/finalisedPerSecond"),
        run.applied_share() * 100.0,
        run.number("/latencyMilliseconds/p50"),
        run.number("/latencyMilliseconds/p95"),
        run.number("/latencyMilliseconds/p99"),
        run.cpu_per_transaction(),
        run.bytes_per_transaction(),
        run.usage.resident_bytes_max / f64::from(1 << 20),
    );
}

/// Holds ours against CometBFT tuned, which is CometBFT at its best, checking no signature.
pub(super) fn judge(sides: &[Side], check: CheckCost) -> Verdicts {
    let side = |subject: Subject| sides.iter().find(|side| side.subject == subject);
    let most = |subject| side(subject).map_or(0.0, Side::finalised_max);
    let in_time = |subject| side(subject).map_or(0.0, Side::finalised_in_time_max);
    let (signed, opaque) = (Subject::Ours(Mode::Signed), Subject::Ours(Mode::Opaque));
    let comet = |application| Subject::Comet(Settings::Tuned, application);
    let kvstore = comet(Application::Kvstore);
    let ceiling = cores() as f64 * 1e6 / (check.node * VALIDATORS as f64);

    let mut verdicts = Vec::new();
    let mut add = |what: String, value: f64, aim: Option<f64>| {
        let met = aim.map(|aim| value >= aim);
        verdicts.push(Verdict { what, value: Some(value), aim, met });
        met.unwrap_or_default()
    };
    let saturation = add(
        format!("signed, most a second, over comet tuned ({:.0} / {:.0})", most(signed), most(kvstore)),
        ratio(most(signed), most(kvstore)),
        Some(SIGNED_MIN),
    );
    let timely = add(
        format!("signed, P99 below {P99_MAX} ms, over comet tuned ({:.0} / {:.0})", in_time(signed), in_time(kvstore)),
        ratio(in_time(signed), in_time(kvstore)),
        Some(SIGNED_IN_TIME_MIN),
    );
    let near = add(
        format!("signed, most a second, of the verification ceiling ({:.0} / {ceiling:.0})", most(signed)),
        ratio(most(signed), ceiling),
        Some(CEILING_SHARE_MIN),
    );
    add(
        format!("opaque, most a second, over comet tuned ({:.0} / {:.0})", most(opaque), most(kvstore)),
        ratio(most(opaque), most(kvstore)),
        Some(OPAQUE_MIN),
    );
    add(
        format!("opaque, P99 below {P99_MAX} ms, over comet tuned ({:.0} / {:.0})", in_time(opaque), in_time(kvstore)),
        ratio(in_time(opaque), in_time(kvstore)),
        None,
    );
    for application in [Application::Signed, Application::SignedInBlocks] {
        let peer = comet(application);
        add(
            format!("signed, most a second, over {} ({:.0} / {:.0})", peer.name(), most(signed), most(peer)),
            ratio(most(signed), most(peer)),
            None,
        );
        add(
            format!(
                "signed, P99 below {P99_MAX} ms, over {} ({:.0} / {:.0})",
                peer.name(),
                in_time(signed),
                in_time(peer)
            ),
            ratio(in_time(signed), in_time(peer)),
            None,
        );
    }
    for ours in [signed, opaque] {
        for point in ["p50", "p99"] {
            // The least lead at a rate that both carried.
            if let Some(lead) = side(ours).zip(side(kvstore)).and_then(|(ours, peer)| least_lead(ours, peer, point)) {
                add(format!("{}, {point} of comet tuned over ours, least of all rates", ours.name()), lead, Some(1.0));
            }
        }
    }
    let what = "signed: both of its ratios over comet tuned, or its share of the ceiling".to_owned();
    verdicts.insert(0, Verdict { what, value: None, aim: None, met: Some((saturation && timely) || near) });
    Verdicts(verdicts)
}

/// How many times quicker ours is, at the rate where that is least.
fn least_lead(ours: &Side, peer: &Side, point: &str) -> Option<f64> {
    let latency = |run: &Run| run.number(&format!("/latencyMilliseconds/{point}"));
    let leads =
        ours.runs.iter().filter_map(|run| Some(ratio(latency(peer.at(run.rate)?), latency(ours.at(run.rate)?))));
    leads.min_by(f64::total_cmp)
}

fn ratio(ours: f64, theirs: f64) -> f64 {
    if theirs == 0.0 { 0.0 } else { ours / theirs }
}

impl Verdicts {
    pub(super) fn print(&self) {
        for Verdict { what, value, aim, met } in &self.0 {
            let word = met.map_or("       ", |met| if met { "met    " } else { "missed " });
            let value = value.map(|value| format!(": {value:.2}")).unwrap_or_default();
            let aim = aim.map(|aim| format!(", aim at least {aim}")).unwrap_or_default();
            println!("  {word}{what}{value}{aim}");
        }
    }

    pub(super) fn json(&self) -> Value {
        let verdict = |verdict: &Verdict| json!({ "what": verdict.what, "value": verdict.value, "aimAtLeast": verdict.aim, "met": verdict.met });
        self.0.iter().map(verdict).collect()
    }
}
